"""Which models can be compressed: a row a model, a column a stage.

Each model of `benchmarks.coverage_rows`, with random weights, in a process of its own: half of its parameters pruned,
run in PyTorch, exported to ONNX, compared with ONNX Runtime, quantized to int8, run again. `ok`, or in one line why
not: `explained` is what the command line would end with exit code 3 for, anything else a failure. Resumable.

Seconds are of the processor, one thread, imports included: the limit means the same on a busy machine.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import dataclasses
import json
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch

from benchmarks.coverage_page import STAGES, line, page, summary
from benchmarks.coverage_rows import inputs_of, make, names, parameters
from easycompress.artifact.exports import Exports
from easycompress.artifact.fold import fold_checked
from easycompress.artifact.write import write_model
from easycompress.core.errors import CannotCompress, one_line
from easycompress.core.inputs import answer
from easycompress.core.progress import Silent
from easycompress.core.task import Split, Splits, Task
from easycompress.measure.profile import profile
from easycompress.measure.runtime import Runtime
from easycompress.metrics import LOSSES, METRICS
from easycompress.pruning.graph import PruningGraph
from easycompress.pruning.settings import StructuredPruning
from easycompress.pruning.technique import StructuredPruner
from easycompress.pruning.transformers.settings import TransformerPruning
from easycompress.pruning.transformers.technique import TransformerPruner
from easycompress.quantization.settings import StaticInt8
from easycompress.quantization.technique import StaticQuantizer
from easycompress.technique import Context

if TYPE_CHECKING:
    from torch import nn

HALF, CLOSE = 0.5, 0.03
LARGEST = 300_000_000
SECONDS, SECONDS_A_MILLION = 60.0, 1.0
IDLE = 300
"""Seconds without any work after which a row waits for something that won't come, also on a busy machine."""
TOLERANCE = 1e-3
"""Largest difference between PyTorch and ONNX Runtime, relative to the largest output."""
STEPS, SAMPLES = 8, 4
RESULTS = Path("benchmarks/results/coverage.json")


def context_of(name: str, model: nn.Module, size: int) -> Context:
    """Return a context without training on a handful of random samples."""
    inputs = inputs_of(name, SAMPLES, size)
    with torch.no_grad():
        targets = answer(model, inputs).argmax(-1)
    split = Split(inputs, targets)
    loss = LOSSES["cross-entropy"] if targets.dim() == 1 else LOSSES["mse"]
    task = Task(model, Splits(split, split, split, split), inputs[:2], METRICS["accuracy"], loss)
    # What is asked of the profile here is read from the modules; a graph would only add operations.
    facts = profile(
        model, onnx.ModelProto(), tuple(inputs[:1].shape[1:]) if isinstance(inputs, torch.Tensor) else (), 1
    )
    return Context(task, facts, 0, Silent())


def halved(model: nn.Module, context: Context) -> tuple[nn.Module, str, float]:
    """Return the model at half of its parameters or fewer, how it was traced, and the share that is left.

    A transformer's blocks are narrowed by their layout; where that isn't enough, and in any other model, channels go.
    Raises CannotCompress, naming what channels can't be followed through, where even the largest strength leaves more.
    """
    if context.profile.architecture == "transformer":
        blocks = TransformerPruning(importance="norm", uniform=False, strength=0.75)
        with contextlib.suppress(CannotCompress):  # as any other model then
            narrowed, left = _bisected((TransformerPruner(), blocks), model, context)
            return narrowed, "layout", left
    graph = PruningGraph(copy.deepcopy(model), context.task.example)
    try:
        narrowed, left = _bisected((StructuredPruner(), StructuredPruning(strength=0.5)), model, context)
    except CannotCompress as error:
        through = ", ".join(graph.obstacles) or "layers that share weights or reach the output"
        raise CannotCompress(f"{error}; channels can't be followed through {through}") from error
    return narrowed, graph.tracer, left


def _bisected(technique: tuple[Any, Any], model: nn.Module, context: Context) -> tuple[nn.Module, float]:
    """Return the model at the strength that leaves half of the parameters or a little less, and that share.

    `technique` is a pruner and its settings, with the strength to begin at.
    """
    pruner, action = technique
    total = sum(p.numel() for p in model.parameters())
    more, less, best = (0.0, 1.0), (1.0, 0.0), None  # strength and share: too much is left, little enough
    strength = action.strength
    for _ in range(STEPS):
        tried = pruner.apply(copy.deepcopy(model), action.model_copy(update={"strength": strength}), context).model
        share = sum(p.numel() for p in tried.parameters()) / total
        if share <= HALF:
            best, less = tried, (strength, share)
            if share > HALF - CLOSE:
                break
        elif strength == 1.0:
            break
        else:
            more = (strength, share)
        if best is None:
            strength = 1.0  # where everything isn't enough nothing is
        else:  # as if the share fell in a straight line
            strength = more[0] + (less[0] - more[0]) * (more[1] - HALF + CLOSE / 2) / (more[1] - less[1])
    if best is None:
        raise CannotCompress(f"{pruner.name}: everything that may go leaves {share:.0%} of the parameters")
    return best, less[1]


def row(name: str) -> dict[str, Any]:
    """Run every stage of one model; stop at the first that isn't ok."""
    torch.set_num_threads(1)
    model, size = make(name)
    result: dict[str, Any] = {"name": name, "size": size, "params": sum(p.numel() for p in model.parameters())}
    result |= {"traced": "", "left": 1.0, "stages": {}}
    stage = STAGES[0]
    try:
        context = context_of(name, model, size)
        model, result["traced"], result["left"] = halved(model, context)
        result["stages"][stage] = "ok"
        stage = "runs"
        inputs = inputs_of(name, 4, size, seed=1)
        with torch.no_grad():
            expected = answer(model, inputs).numpy()
        if not np.isfinite(expected).all():
            raise ValueError("outputs aren't finite")  # noqa: TRY301 - told as any other failure
        result["stages"][stage] = "ok"
        with tempfile.TemporaryDirectory() as folder:
            fold_checked(model, context.task.example)  # as the file is written; int8 then has the same graph
            files = Files(Path(folder) / "float.onnx", Path(folder) / "int8.onnx", Exports())
            for stage in STAGES[2:]:
                result["stages"][stage] = _stage(stage, model, context, (inputs, expected), files)
    except CannotCompress as error:
        result["stages"][stage] = f"explained: {error}"
    except Exception as error:  # noqa: BLE001 - the table is there to show it
        result["stages"][stage] = f"failed: {type(error).__name__}: {one_line(error, 200)}"
    result["seconds"] = time.process_time()
    return result


@dataclasses.dataclass(frozen=True)
class Files:
    """The files of a row, and the graphs that were exported for them."""

    plain: Path
    whole: Path
    exports: Exports


def _stage(stage: str, model: nn.Module, context: Context, known: tuple[Any, Any], files: Files) -> str:
    """Return how a stage went; `known` are inputs and the module's answers to them."""
    inputs, expected = known
    if stage == "exported":
        write_model(model, context.task.example, files.plain, exports=files.exports)
    elif stage == "agrees":
        found = Runtime(files.plain, 1).run(inputs)
        scale = float(np.abs(expected).max()) or 1.0
        difference = float(np.abs(found - expected).max()) / scale
        if found.shape != expected.shape or not difference <= TOLERANCE:
            return f"failed: off by {difference:.2g} of the largest output"
    elif stage == "int8":
        pruned = dataclasses.replace(context.task, model=model)
        applied = StaticQuantizer().apply(model, StaticInt8(samples=SAMPLES), dataclasses.replace(context, task=pruned))
        assert applied.file_pass is not None
        write_model(
            applied.model, context.task.example, files.whole, [applied.file_pass], applied.codes, exports=files.exports
        )
    else:
        found = Runtime(files.whole, 1).run(inputs)
        if found.shape != expected.shape or not np.isfinite(found).all():
            return "failed: the int8 file's outputs aren't finite numbers of the same shape"
    return "ok"


def run_row(name: str) -> dict[str, Any]:
    """Run one row in a process of its own, within its time."""
    known = parameters(name)
    result: dict[str, Any] = {"name": name, "params": known, "traced": "", "left": 1.0, "seconds": 0.0}
    if known > LARGEST:
        return result | {"stages": {STAGES[0]: f"skipped: over {LARGEST // 1_000_000} million parameters"}}
    limit = SECONDS + SECONDS_A_MILLION * known / 1e6

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (int(limit), int(limit)))

    command = [sys.executable, "-m", "benchmarks.coverage", "--row", name]
    process = subprocess.Popen(  # noqa: S603 - itself
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=limited,  # noqa: PLW1509 - one thread
    )
    before = -1
    while True:
        try:
            printed, complaints = process.communicate(timeout=IDLE)
            break
        except subprocess.TimeoutExpired:
            spent = _ticks(process.pid)
            if spent == before:
                process.kill()
                process.communicate()
                return result | {"stages": {STAGES[0]: f"failed: hangs, idle for {IDLE} s"}}
            before = spent
    if process.returncode in (-signal.SIGKILL, -signal.SIGXCPU):
        return result | {"stages": {STAGES[0]: f"failed: not done after {limit:.0f} s"}, "seconds": limit}
    if process.returncode:
        reason = (complaints.strip().splitlines() or ["no output"])[-1]
        return result | {"stages": {STAGES[0]: f"failed: exit code {process.returncode}: {reason[:200]}"}}
    made: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return made


def _ticks(process: int) -> int:
    """Return the processor time of a process so far."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", help="these models")
    parser.add_argument("--again", action="store_true", help="run rows that are there already")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, default=RESULTS)
    parser.add_argument("--page", type=Path, help="write the table as Markdown too")
    options = parser.parse_args()
    if options.row:
        print(json.dumps(row(options.row)))
        return
    results: dict[str, Any] = json.loads(options.json.read_text()) if options.json.exists() else {}
    wanted = options.only or sorted(names(), key=parameters)
    print(f"{'model':20} {'parameters':9} {'left':>5} {'traced':13} {'time':>8}  {'  '.join(STAGES)}")
    for name in wanted:
        if options.again or name not in results:
            results[name] = run_row(name)
            options.json.parent.mkdir(parents=True, exist_ok=True)
            options.json.write_text(json.dumps(results, indent=2) + "\n")
        print(line(results[name]), flush=True)
    shown = [results[name] for name in wanted]
    print(summary(shown))
    if options.page:
        options.page.write_text(page(shown), encoding="utf-8")


if __name__ == "__main__":
    main()
