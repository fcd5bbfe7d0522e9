"""How reliably `easycompress check` tells a regression from none, on the demo's model.

A file that computes the same, other bytes, is checked fifty times: none may fail. Then what must be caught: a model one
point worse, a file 5 % bigger, a model 20 % slower, another order of the classes, a damaged weight, in the file and in
its packed form. Kept rows are not run again; the table goes into docs/ci.md with --page docs/ci.md.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

import easycompress as ec
from benchmarks.regression_page import inserted, table
from easycompress.core.inputs import repeated
from easycompress.core.progress import Silent
from easycompress.demo import make_demo
from easycompress.intake.data import load_data
from easycompress.measure.runtime import Runtime, physical_cores
from easycompress.metrics import METRICS
from easycompress.regression import latency

if TYPE_CHECKING:
    from collections.abc import Callable

RESULTS = Path("benchmarks/results/regression.json")

UNCHANGED, SLOWER = 50, 20
"""Checks of a file that is as good as the baseline, and of one that is 20 % slower."""

SLOWDOWN = 1.2


def changed(source: Path, target: Path, change: Callable[[onnx.GraphProto, str], None]) -> Path:
    """Write a copy of a model; `change` adds nodes between "answer" and the output, whose name it is given."""
    proto = onnx.load(str(source))
    output = proto.graph.output[0].name
    for node in proto.graph.node:
        for place, name in enumerate(node.output):
            if name == output:
                node.output[place] = "answer"
    change(proto.graph, output)
    onnx.checker.check_model(proto)
    onnx.save(proto, str(target))
    return target


def add(graph: onnx.GraphProto, kind: str, inputs: list[str], output: str, **settings: int) -> None:
    """Append an operator."""
    graph.node.append(helper.make_node(kind, inputs, [output], **settings))


def constant(graph: onnx.GraphProto, name: str, values: Any) -> str:  # noqa: ANN401 - whatever an array is made of
    """Append a stored tensor and return its name."""
    graph.initializer.append(numpy_helper.from_array(np.asarray(values), name))
    return name


def renamed(source: Path, target: Path) -> Path:
    """Write the same model under another producer's name: other bytes, the same work."""
    proto = onnx.load(str(source))
    proto.producer_name = "another exporter"
    onnx.save(proto, str(target))
    return target


def reordered(source: Path, target: Path) -> Path:
    """Write the model with its classes moved on by one."""

    def change(graph: onnx.GraphProto, output: str) -> None:
        order = constant(graph, "order", np.roll(np.arange(10), 1))
        add(graph, "Gather", ["answer", order], output, axis=1)

    return changed(source, target, change)


def grown(source: Path, target: Path) -> Path:
    """Write the model with 5 % more bytes, in a tensor that adds nothing."""

    def change(graph: onnx.GraphProto, output: str) -> None:
        ballast = constant(graph, "ballast", np.zeros(round(0.05 * source.stat().st_size / 4), np.float32))
        add(graph, "ReduceSum", [ballast], "nothing", keepdims=0)
        add(graph, "Add", ["answer", "nothing"], output)

    return changed(source, target, change)


def leaning(source: Path, target: Path, lean: float, digit: int) -> Path:
    """Write the model with `lean` added to the score of one class."""

    def change(graph: onnx.GraphProto, output: str) -> None:
        lot = constant(graph, "lean", lean * (np.arange(10) == digit).astype(np.float32))
        add(graph, "Add", ["answer", lot], output)

    return changed(source, target, change)


def slowed(source: Path, target: Path, steps: int) -> Path:
    """Write the model with `steps` more operators that change nothing."""

    def change(graph: onnx.GraphProto, output: str) -> None:
        name = "answer"
        for step in range(steps):
            add(graph, "Sigmoid", [name], f"step{step}")
            name = f"step{step}"
        add(graph, "Mul", [name, constant(graph, "zero", np.float32(0))], "nothing")
        add(graph, "Add", ["answer", "nothing"], output)

    return changed(source, target, change)


def worse_by_a_point(source: Path, target: Path) -> float:
    """Write the least leaning model that is at least a point worse on the report split; return by how much it is."""
    split = load_data("digits", mean=None, std=None, base=None, seed=0).test
    assert split is not None
    metric = METRICS["accuracy"]

    def quality(path: Path) -> float:
        return metric.quality(Runtime(path, 1).judged(split, metric)[0])

    before = quality(source)
    found = []
    for digit in range(10):
        low, high = 0.0, 64.0
        for _ in range(12):
            middle = (low + high) / 2
            enough = before - quality(leaning(source, target, middle, digit)) >= 1.0
            low, high = (low, middle) if enough else (middle, high)
        found.append((before - quality(leaning(source, target, high, digit)), high, digit))
    drop, lean, digit = min(found)
    leaning(source, target, lean, digit)
    return drop


def measured(source: Path, target: Path) -> float:
    """Return how much slower `target` is, from the most rounds that a check takes."""
    split = load_data("digits", mean=None, std=None, base=None, seed=0).test
    assert split is not None
    example = repeated(split.inputs[:2], 2)
    rounds = [
        latency.one_round(source, target, example[:1], physical_cores(), swapped=bool(index % 2))
        for index in range(latency.MOST_ROUNDS)
    ]
    return latency.bounds(rounds).value


def slower_by(source: Path, target: Path, wanted: float) -> None:
    """Write the model with as many operators that change nothing as make it about `wanted` times slower."""
    counts = (4, 16)
    ratios = [measured(source, slowed(source, target, count)) for count in counts]
    each = (ratios[1] - ratios[0]) / (counts[1] - counts[0])
    slowed(source, target, max(1, round(counts[0] + (wanted - ratios[0]) / each)))


def damaged(source: Path, target: Path, name: str) -> Path:
    """Copy a result with one bit of one of its files flipped, in the middle."""
    shutil.copytree(source, target, dirs_exist_ok=True)
    content = bytearray((target / name).read_bytes())
    content[len(content) // 2] ^= 0x40
    (target / name).write_bytes(bytes(content))
    return target


def prepare(folder: Path) -> tuple[Path, Path]:
    """Make the demo's model and two results of it, one of them packed; return their folders."""
    outs = folder / "baseline", folder / "packed"
    if not (outs[1] / "report.json").exists():
        shutil.rmtree(folder, ignore_errors=True)
        make_demo(folder / "demo", Silent())
        shared = {"objective": "size", "max_drop": "1%", "budget": "none"}
        ec.compress(folder / "demo" / "model.pt", out=outs[0], target="3.5x", **shared)
        ec.compress(folder / "demo" / "model.pt", out=outs[1], target="10x", format="packed", **shared)
    return outs


def row(candidate: Path, baseline: Path) -> dict[str, Any]:
    """Check once."""
    begin = time.perf_counter()
    outcome = ec.check(candidate, baseline=baseline / "report.json", data="digits")
    return {
        "failed": [check.name for check in outcome.failures],
        "reasons": [check.reason for check in outcome.failures],
        "latency": next(check.measured for check in outcome.checks if check.name == "latency"),
        "seconds": round(time.perf_counter() - begin, 1),
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("build/regression"), help="models are written there")
    parser.add_argument("--json", type=Path, default=RESULTS)
    parser.add_argument("--page", type=Path, help="docs/ci.md, whose table is renewed")
    parser.add_argument("--only-print", action="store_true")
    options = parser.parse_args()
    results: dict[str, Any] = json.loads(options.json.read_text()) if options.json.exists() else {"rows": {}}
    if not options.only_print:
        run(options.folder, options.json, results)
    print(table(results))
    if options.page is not None:
        options.page.write_text(inserted(options.page.read_text(), table(results)))


def run(folder: Path, path: Path, results: dict[str, Any]) -> None:
    """Make what is lacking of the results, writing them after each row."""
    baseline, packed = prepare(folder)
    model = baseline / "model.onnx"
    results["threads"] = physical_cores()
    rows: dict[str, list[dict[str, Any]]] = results["rows"]

    def repeat(name: str, count: int, candidate: Path, held_to: Path) -> None:
        kept = rows.setdefault(name, [])
        while len(kept) < count:
            kept.append(row(candidate, held_to))
            print(name, len(kept), kept[-1], flush=True)
            path.write_text(json.dumps(results, indent=1) + "\n")

    repeat("unchanged", UNCHANGED, renamed(model, folder / "same.onnx"), baseline)
    results["worse by"] = worse_by_a_point(model, folder / "worse.onnx")
    repeat("one point worse", 1, folder / "worse.onnx", baseline)
    repeat("5 % bigger", 1, grown(model, folder / "bigger.onnx"), baseline)
    if len(rows.get("20 % slower", [])) < SLOWER:
        slower_by(model, folder / "slower.onnx", SLOWDOWN)
    repeat("20 % slower", SLOWER, folder / "slower.onnx", baseline)
    repeat("another order of the classes", 1, reordered(model, folder / "order.onnx"), baseline)
    repeat("a damaged weight", 1, damaged(baseline, folder / "damaged", "model.onnx"), baseline)
    repeat("a damaged packed file", 1, damaged(packed, folder / "damaged-packed", "model.ecz"), packed)
    path.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
