"""Quantization-aware training against static int8: accuracy, agreement of file and training model, and speed.

`python -m benchmarks.qat --zoo ZOO --data DATA [--models resnet20] [--epochs 3] [--samples 0]`. Accuracy is the written
file's, in ONNX Runtime on the report split; agreement is the share of its samples on which the file predicts what the
training model does; speed is the time of a plain training step over that of one with simulated integers.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.zoo import add_folders, chosen, load_task
from easycompress.artifact.fold import fold
from easycompress.artifact.onnx_export import export
from easycompress.artifact.write import write_model
from easycompress.core.inputs import answer
from easycompress.core.progress import Silent
from easycompress.intake.augment import make_augment
from easycompress.measure.profile import profile
from easycompress.measure.runtime import Runtime, scores_of
from easycompress.measure.statistics import paired_drop
from easycompress.quantization.qat import QatQuantizer
from easycompress.quantization.qat_settings import QatInt8
from easycompress.quantization.simulate import simulate
from easycompress.quantization.technique import StaticQuantizer
from easycompress.technique import Context
from easycompress.training.fit import Hooks, Schedule, fit
from easycompress.training.speed import tune
from easycompress.training.terms import Labels, make_teacher

if TYPE_CHECKING:
    from torch import nn

    from easycompress.core.task import Task
    from easycompress.technique import Applied
    from easycompress.training.speed import Speed

RESULTS = Path(__file__).parent / "results" / "qat.json"

BATCH = 128

SPEED_SAMPLES = 40 * BATCH
"""Samples of each timed piece of training."""

ROUNDS = 3


def carry_out(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Quantize one model both ways and return the numbers."""
    task = load_task(name, options)
    graph = export(task.model, task.example)
    facts = profile(task.model, graph, tuple(task.example.shape[1:]), 10)  # type: ignore[union-attr]  # a tensor here
    plain = Context(task, facts, 0, Silent())
    static = StaticQuantizer().apply(copy.deepcopy(task.model), QatInt8().static(), plain)
    speed = tune(task.model, task.data.train, BATCH)
    augment = make_augment("flip-crop", Path()) if name == "resnet20" else None
    learning = Context(
        augmented(task, augment), facts, 0, Silent(), epochs=options.epochs, samples=options.samples, speed=speed,
        teacher=lambda: make_teacher(task.model, task.data.train, cache=augment is None),
        evaluate=lambda model: accuracy(model, task),
    )  # fmt: skip
    begin = time.perf_counter()
    trained = QatQuantizer().apply(copy.deepcopy(task.model), QatInt8(mode="budget"), learning)
    seconds = time.perf_counter() - begin
    with tempfile.TemporaryDirectory() as folder:
        files = {key: Path(folder) / f"{key}.onnx" for key in ("float", "static", "qat")}
        write_model(task.model, task.example, files["float"])
        for key, applied in (("static", static), ("qat", trained)):
            write_model(applied.model, task.example, files[key], passes_of(applied), applied.codes)
        report = task.data.report
        scores = {key: scores_of(path, report, task.metric, 1) for key, path in files.items()}
        drops = {key: paired_drop(scores["float"], scores[key], task.metric, 1.0) for key in ("static", "qat")}
        outputs = Runtime(files["qat"], 1).outputs(report)
        simulated = predictions(simulation_of(task, trained, plain), task)
        return {
            "epochs": trained.epochs, "seconds": round(seconds, 1),
            "float": task.metric.quality(scores["float"]), "static": task.metric.quality(scores["static"]),
            "qat": task.metric.quality(scores["qat"]),
            "drops": {key: [drop.estimate, drop.upper_95] for key, drop in drops.items()},
            "agreement": 100 * float((torch.from_numpy(outputs).argmax(1) == simulated).float().mean()),
            "bytes": {key: path.stat().st_size for key, path in files.items()},
            "speed": speed_ratio(task, plain, speed),
        }  # fmt: skip


def augmented(task: Task, augment: Any) -> Task:  # noqa: ANN401 - a function of a batch, or None
    """Return the task with its training data augmented."""
    return dataclasses.replace(task, augment=augment)


def passes_of(applied: Applied) -> list[Any]:
    """Return what is still to be done to the graph."""
    return [] if applied.file_pass is None else [applied.file_pass]


def simulation_of(task: Task, trained: Applied, plain: Context) -> nn.Module:
    """Return the module that computes as the file does."""
    folded = fold(copy.deepcopy(task.model).eval(), [(a, b) for a, b in trained.record["folded"]])
    folded.load_state_dict(trained.model.state_dict())
    simulation = simulate(folded, QatInt8().static(), plain)
    simulation.set_ranges(trained.record.get("ranges", simulation.ranges()))
    return simulation.module


def predictions(model: nn.Module, task: Task) -> torch.Tensor:
    """Return the model's classes on the report split."""
    with torch.no_grad():
        return torch.cat([answer(model, inputs).argmax(1) for inputs, _ in task.data.report.batches(250)])


def accuracy(model: nn.Module, task: Task) -> float:
    """Return the percentage of *select* that the module gets right."""
    right = 0.0
    with torch.no_grad():
        for inputs, targets in task.data.select.batches(500):
            right += float((answer(model, inputs).argmax(1) == targets).sum())
    return 100 * right / len(task.data.select)


def speed_ratio(task: Task, plain: Context, speed: Speed) -> float:
    """Return the time of plain training over that with simulated integers, the median of some rounds in turn."""
    ratios = []
    for _ in range(ROUNDS):
        model = copy.deepcopy(task.model)
        ordinary = _seconds(model, task, speed)
        simulation = simulate(copy.deepcopy(task.model).eval(), QatInt8().static(), plain)
        ratios.append(ordinary / _seconds(simulation.module, task, speed))
    return statistics.median(ratios)


def _seconds(model: nn.Module, task: Task, speed: Speed) -> float:
    begin = time.perf_counter()
    schedule = Schedule(epochs=1, lr=1e-5, samples=SPEED_SAMPLES)
    fit(model, task.data.train, Labels(task.loss), schedule, speed, Hooks(evaluate=None), None)
    return time.perf_counter() - begin


def main() -> None:
    """Run every model and print its line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_folders(parser)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--samples", type=int, default=0, help="of each epoch, 0: all")
    options = parser.parse_args()
    held: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in chosen(options):
        held[name] = row = carry_out(name, options)
        RESULTS.write_text(json.dumps(held, indent=1) + "\n")
        print(
            f"{name}: float {row['float']:.2f}, static int8 {row['static']:.2f}, trained int8 {row['qat']:.2f} "
            f"({row['epochs']} epochs, {row['seconds']:.0f} s); file and training model agree on "
            f"{row['agreement']:.2f} %; training speed {row['speed']:.2f} of plain"
        )


if __name__ == "__main__":
    main()
