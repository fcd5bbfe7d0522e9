"""What easycompress costs beyond the training itself.

For the demo's model or those of a zoo: the samples a second of the product's training loop and of a bare PyTorch loop
in turn, with the same step compiled; and one whole `easycompress compress` as a user runs it, its seconds by kind of
work (from its report), those of starting Python and importing, and beside them what the epochs that it trained would
take in the bare loop on the original model. One row a model, kept as soon as it is done.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch._inductor import config as inductor
from torch.nn import functional

from benchmarks.zoo import add_folders, chosen, load_task, locate
from easycompress.core.inputs import answer, channels_last
from easycompress.core.ledger import NEEDED
from easycompress.executor.trainer import BATCH
from easycompress.measure.environment import environment
from easycompress.training.fit import Hooks, Schedule, fit
from easycompress.training.speed import Speed, tune
from easycompress.training.terms import Labels

if TYPE_CHECKING:
    from torch import nn

    from easycompress.core.task import Split, Task

GOALS = {
    "resnet20": {"target": "6x", "max-drop": "2%", "budget": "5min", "augment": "flip-crop"},
    "minilm": {"target": "4x", "max-drop": "1%", "budget": "5min"},
}
"""What each model is asked for; others 10x at 1 % in 3 minutes."""

COMPILED_STEPS = 12
"""Steps of the compiled loop that are timed, the first of them with its compilation."""


def bare(task: Task, split: Split, speed: Speed, model: nn.Module | None = None) -> list[float]:
    """Return the seconds of every step of one epoch of the loop that anyone would write, in the same precision."""
    model = copy.deepcopy(task.model).train() if model is None else model
    if speed.channels_last:
        model = model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9, nesterov=True, weight_decay=5e-4)
    assert split.targets is not None
    order = torch.randperm(len(split))
    seconds = []
    for start in range(0, len(split), BATCH):
        begin = time.perf_counter()
        places = order[start : start + BATCH]
        inputs, targets = split.inputs[places], split.targets[places]
        if speed.channels_last:
            inputs = channels_last(inputs)
        with torch.autocast("cpu", torch.bfloat16, enabled=speed.bfloat16):
            outputs = answer(model, inputs)
        loss = functional.cross_entropy(outputs.float(), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seconds.append(time.perf_counter() - begin)
    return seconds


def ours(task: Task, split: Split, speed: Speed) -> float:
    """Return the seconds of one epoch of the product's loop, evaluation apart."""
    model = copy.deepcopy(task.model)
    begin = time.perf_counter()
    fit(model, split, Labels(task.loss), Schedule(epochs=1, lr=1e-4), speed, Hooks(lambda _: 0.0), None)
    return time.perf_counter() - begin


def throughput(task: Task, rounds: int, samples: int) -> dict[str, Any]:
    """Time both loops in turn and return the medians."""
    split = task.data.train.take(slice(0, min(samples, len(task.data.train))))
    speed = tune(task.model, split, BATCH)
    rows: list[tuple[float, float]] = []
    with speed.applied():
        bare(task, split, speed)
        rows.extend((sum(bare(task, split, speed)), ours(task, split, speed)) for _ in range(rounds))
    return {
        "bare": len(split) / statistics.median(b for b, _ in rows),
        "easycompress": len(split) / statistics.median(o for _, o in rows),
        "ratio": statistics.median(b / o for b, o in rows),
        "speed": speed.model_dump(),
    }


def compiled(task: Task, speed: dict[str, Any]) -> dict[str, float]:
    """Return the median seconds of a step of the bare loop, of the same loop compiled, and of its first step."""
    setting = Speed.model_validate(speed)
    split = task.data.train.take(slice(0, BATCH * COMPILED_STEPS))
    with setting.applied():
        eager = bare(task, split, setting)
        torch._dynamo.reset()  # noqa: SLF001 - no public name
        inductor.force_disable_caches = True  # what an earlier run compiled must not make the first step short
        model: Any = torch.compile(copy.deepcopy(task.model).train())
        steps = bare(task, split, setting, model)
    return {"eager": statistics.median(eager[2:]), "compiled": statistics.median(steps[2:]), "first": steps[0]}


def whole(name: str, options: argparse.Namespace, rate: float) -> dict[str, Any]:
    """Run one whole compression in a process of its own and split its seconds; `rate` is the bare loop's samples/s."""
    path, flags = locate(name, options)
    goal = GOALS.get(name, {"target": "10x", "max-drop": "1%", "budget": options.budget})
    given = [part for key, value in goal.items() for part in (f"--{key}", value)]
    for key, value in flags.items():
        given += [f"--{key}", ",".join(map(str, value)) if isinstance(value, tuple) else str(value)]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "easycompress", "compress", str(path), "--objective", "size", *given]
        begin = time.perf_counter()
        ran = subprocess.run(  # noqa: S603 - our own command
            [*command, "-o", f"{folder}/out", "--quiet"], check=False, capture_output=True, text=True
        )
        total = time.perf_counter() - begin
        if ran.returncode not in (0, 1):
            raise SystemExit(ran.stderr)
        report = json.loads((Path(folder) / "out" / "report.json").read_text())
    spent = report["environment"]["spent"]
    epochs = sum(step["epochs"] for step in report["steps"])
    samples = load_samples(name, options)
    return {
        "goal": goal,
        "summary": report["summary"],
        "total": total,
        "starting": total - report["environment"]["seconds"],
        "spent": spent,
        "training": spent.get("training", 0.0),
        "needed": sum(spent.get(kind, 0.0) for kind in NEEDED),
        "epochs": epochs,
        "plain_epochs": epochs * samples / rate,
    }


def load_samples(name: str, options: argparse.Namespace) -> int:
    """Return the size of a model's training split."""
    return len(load_task(name, options).data.train)


def measured(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return one model's row."""
    task = load_task(name, options)
    row: dict[str, Any] = {"load": os.getloadavg()[0], "environment": environment(torch.get_num_threads())}
    row["throughput"] = throughput(task, options.rounds, options.samples)
    row["compiled"] = compiled(task, row["throughput"]["speed"])
    del task
    row["compress"] = whole(name, options, row["throughput"]["bare"])
    return row


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_folders(parser)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=5_000)
    parser.add_argument("--budget", default="3min")
    parser.add_argument("--again", action="store_true", help="measure rows anew that are there already")
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/overhead.json"))
    options = parser.parse_args()
    results = json.loads(options.json.read_text()) if options.json.exists() else {}
    for name in chosen(options, ("lenet5", "resnet20", "minilm")):
        if name not in results or options.again:
            results[name] = measured(name, options)
            options.json.parent.mkdir(parents=True, exist_ok=True)
            options.json.write_text(json.dumps(results, indent=2) + "\n")
        print(name, json.dumps(results[name], indent=2))


if __name__ == "__main__":
    main()
