"""The trained rows of the LC benchmark: what is compressed how, for how long, and what it must reach."""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.zoo import load_task
from easycompress.artifact.onnx_export import export
from easycompress.artifact.slim import slim
from easycompress.artifact.write import write_model
from easycompress.codes.codebook import Codebook
from easycompress.codes.entropy import code_length
from easycompress.core.progress import Silent
from easycompress.intake.augment import make_augment
from easycompress.lc.biases import coded_biases
from easycompress.lc.papers import ratios
from easycompress.lc.projections.entropy import EntropyConstrained
from easycompress.lc.projections.lowrank import LowRankAt
from easycompress.lc.projections.pruned import ConstraintL0
from easycompress.lc.projections.quantized import AdaptiveQuantization
from easycompress.lc.run import Means, Recipe, run
from easycompress.lc.schedule import spread
from easycompress.lc.settings import DECADES, MOST_BITS, EntropyQuantization
from easycompress.lc.tasks import each, weights_of
from easycompress.lc.untrained import EntropyQuantizer
from easycompress.measure.profile import profile
from easycompress.measure.runtime import scores_of
from easycompress.measure.statistics import paired_drop
from easycompress.technique import Context
from easycompress.training.speed import Speed, tune
from easycompress.training.terms import Distil, Labels, make_teacher

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from torch import nn

    from easycompress.core.task import Split, Task

Names = tuple[str, ...]

BATCH = {"lenet300": 256, "lenet5": 128, "resnet20": 128}


@dataclass(frozen=True)
class Row:
    """One trained result. `goal` says in words what it must reach; `tasks` are made from the weights' names."""

    name: str
    model: str
    tasks: Callable[[Names], dict[Any, Any]]
    recipe: Recipe
    goal: str
    augment: str = "none"
    technique: str = "combined"
    biases: str = "float"


def _short(steps: int = 20, tuning: int = 4, **changes: Any) -> Recipe:  # noqa: ANN401 - fields of Recipe
    return Recipe(
        spread(1e-4, 1.0, steps), lr=0.1, lr_last=0.01, tune_epochs=tuning, tune_lr=0.01, batch=256, **changes
    )


def _long(batch: int, lr: float = 0.1) -> Recipe:
    return Recipe(spread(1e-4, 1.0, 50), lr=lr, lr_last=0.05 * lr, tune_epochs=10, tune_lr=0.01, batch=batch)


def _entropy(bits: float) -> Callable[[Names], dict[Any, Any]]:
    return lambda names: {names: EntropyConstrained(bits_per_weight=bits)}


def _one_bit_and(share: float) -> Callable[[Names], dict[Any, Any]]:
    return lambda names: {**each(names, AdaptiveQuantization(2)), names: ConstraintL0(share=share)}


RESNET = Recipe(spread(1e-4, 1.0, 32), lr=0.1, lr_last=0.005, tune_epochs=8, tune_lr=0.01, batch=128, weight_decay=1e-4)


def _one_bit(names: Names) -> dict[Any, Any]:
    return dict(each(names, AdaptiveQuantization(2)))


def _toolkit(excess: float, ratio: float) -> str:
    return f"24 epochs; the toolkit's excess error at {ratio}x is {excess}: at most {excess / 2:.2f}"


def _within(ratio: str, points: float, epochs: int = 60) -> str:
    return f"{epochs} epochs: at least {ratio} at no more than {points:g} points"


@dataclass(frozen=True)
class Untrained:
    """One result without training: the method and the bits a weight that it is given."""

    name: str
    model: str
    bits: float
    method: str
    goal: str


UNTRAINED = (
    Untrained("untrained lenet5 28x", "lenet5", 1.1, "nearest", "no training: at least 28x packed within 0.1 point"),
    Untrained("untrained lenet5 50x", "lenet5", 0.6, "nearest", "no training: at least 50x packed within 0.3 points"),
    Untrained("untrained lenet300", "lenet300", 1.1, "feedback", "no training; NNCodec: 20.9x at 0.16, 27.5x at 0.45"),
    Untrained("untrained resnet20", "resnet20", 3.6, "feedback", "no training; NNCodec: 8.2x at 0.20, 10.6x at 0.90"),
)
"""Rows of seconds, beside the rival's numbers on the same models."""

ROWS = (
    Row("lenet300 k=2", "lenet300", _one_bit, _short(), _toolkit(3.82, 30.5)),
    Row("lenet300 l0 5 %", "lenet300", lambda n: {n: ConstraintL0(share=0.05)}, _short(), _toolkit(0.94, 15.3)),
    Row("lenet300 k=2 + 1 %", "lenet300", _one_bit_and(0.01), _short(), _toolkit(0.58, 21.5)),
    Row("lenet300 rank 10", "lenet300", lambda n: each(n, LowRankAt(10)), _short(), _toolkit(3.47, 16.4)),
    Row("lenet300 Q+P", "lenet300", _one_bit_and(0.02), _long(256), _within("21x", 0.1)),
    Row("lenet300 entropy", "lenet300", _entropy(0.52), _long(256), _within("60x packed", 0.1), biases="8-bit"),
    Row(
        "lenet5 entropy", "lenet5", _entropy(0.23), _long(128),
        _within("30x with one code (model.onnx), 100x packed", 0.1), biases="8-bit",
    ),
    Row("resnet20 Q+P 16.6x", "resnet20", _one_bit_and(0.0135), RESNET, _within("16.6x", 0.3, 40), "flip-crop", "hard"),
    Row("resnet20 Q+P 22x", "resnet20", _one_bit_and(0.0105), RESNET, _within("22x", 1, 40), "flip-crop", "hard"),
)  # fmt: skip
"""Every row, in the order of the table."""


def carry_out(row: Row, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Train one row and return its numbers. A killed one goes on where it was: its checkpoints are in `folder`."""
    task = load_task(row.model, options)
    model, codes, found = train(row, task, folder)
    return found | weigh(task, model, codes, stem_of(row.name, folder))


def stem_of(name: str, folder: Path) -> Path:
    """Return what the names of a row's files begin with."""
    return folder / name.replace(" ", "-").replace("/", "-")


def train(
    row: Row, task: Task, folder: Path, model: nn.Module | None = None
) -> tuple[nn.Module, dict[str, Any], dict[str, Any]]:
    """Return the compressed model of a row, its codes, and the seconds, epochs and losses of training.

    `model` is compressed in place; None: a copy of the task's own. The seconds are those of an undisturbed run: a
    resumed one counts what went before.
    """
    model = copy.deepcopy(task.model) if model is None else model
    names = weights_of(model)
    speed = Speed(threads=1, channels_last=False, bfloat16=False, step_seconds=0.0)
    if row.recipe.total_epochs:
        speed = tune(model, task.data.train, row.recipe.batch)
    begin = time.perf_counter()
    hard = Labels(task.loss)
    with speed.applied():
        term = hard if row.technique == "hard" else Distil(
            "combined", make_teacher(task.model, task.data.train, cache=row.augment == "none"), hard, 2.0, 0.3
        )  # fmt: skip
    means = Means(
        task.data.train, term, speed, lambda net: accuracy(net, task.data.select),
        make_augment(row.augment, Path()) if row.augment != "none" else None,
    )  # fmt: skip
    stem = stem_of(row.name, folder)
    made = run(model, row.tasks(names), row.recipe, means, lambda part: stem.with_name(f"{stem.name}.{part}"))
    codes = dict(made.codes)
    if row.biases == "8-bit":
        codes |= coded_biases(model)
    learned = sum(r["l_seconds"] + r["c_seconds"] for r in made.rows)
    tuned = sum(epoch["seconds"] for epoch in made.tuning.epochs)
    seconds = max(time.perf_counter() - begin, learned + tuned)
    share = row.recipe.samples / len(task.data.train) if row.recipe.samples else 1
    return model, codes, {
        "seconds": round(seconds, 1), "loss": [r["loss"] for r in made.rows],
        "epochs": len(made.rows) * row.recipe.epochs * share + len(made.tuning.epochs),
        "relative": [r["relative"] for r in made.rows],
    }  # fmt: skip


def carry_out_untrained(row: Untrained, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Quantize without training and return the row's numbers."""
    task = load_task(row.model, options)
    begin = time.perf_counter()
    strength = math.log2(MOST_BITS / row.bits) / DECADES
    action = EntropyQuantization.model_validate({"strength": strength, "method": row.method, "biases": "8-bit"})
    graph = export(task.model, task.example)
    assert isinstance(task.example, torch.Tensor)
    facts = profile(task.model, graph, tuple(task.example.shape[1:]), 10)
    applied = EntropyQuantizer().apply(copy.deepcopy(task.model), action, Context(task, facts, 0, Silent()))
    stem = folder / row.name.replace(" ", "-")
    found = weigh(task, applied.model, applied.codes, stem)
    return {"seconds": round(time.perf_counter() - begin, 1), "epochs": 0} | found


def weigh(task: Task, model: nn.Module, codes: dict[str, Any], stem: Path) -> dict[str, Any]:
    """Write both files, read them back, and return sizes, the papers' ratios and the drops on both splits."""
    plain = stem.with_name(f"{stem.name}-plain.onnx")
    graph = export(task.model, task.example)
    plain.write_bytes(slim(graph).SerializeToString())
    path = stem.with_name(f"{stem.name}.onnx")
    packed = write_model(model, task.example, path, codes=codes, packed=True)
    assert isinstance(task.example, torch.Tensor)
    facts = profile(task.model, graph, tuple(task.example.shape[1:]), 10)
    paper = ratios(model, codes, {layer.name: layer.macs for layer in facts.layers})
    found: dict[str, Any] = {}
    for name, split in (("select", task.data.select), ("report", task.data.report)):
        scores = [scores_of(file, split, task.metric, 2) for file in (plain, path)]
        drop = paired_drop(scores[0], scores[1], task.metric, 1.0)
        found[name] = {"before": task.metric.quality(scores[0]), "drop": drop.estimate, "upper_95": drop.upper_95}
    before = plain.stat().st_size
    return found | {
        "rho_storage_formula": paper.storage, "rho_additions": paper.additions,
        "rho_multiplications": paper.multiplications, "onnx_bytes": path.stat().st_size,
        "ecz_bytes": packed.stat().st_size, "plain_bytes": before,
        "formula_bytes": sum(p.numel() * 4 for p in task.model.parameters()) / paper.storage,
        "ideal_bytes": ideal_bytes(codes, task.model),
        "onnx_ratio": before / path.stat().st_size, "ecz_ratio": before / packed.stat().st_size,
    }  # fmt: skip


def ideal_bytes(codes: dict[str, Any], model: nn.Module) -> float:
    """Return the code length under each tensor's own frequencies; what isn't a codebook counts what it stores."""
    total = 0.0
    for name, parameter in model.named_parameters():
        code = codes.get(name)
        if isinstance(code, Codebook):
            total += code_length(code.indices.numpy(), len(code.entries)) / 8 + 4 * len(code.entries)
        else:
            total += 4 * parameter.numel() if code is None else code.bits() / 8
    return total


def accuracy(model: nn.Module, split: Split) -> float:
    """Return the accuracy in percent in PyTorch."""
    right = 0
    with torch.no_grad():
        for inputs, targets in split.batches(500):
            assert targets is not None
            right += int((model(inputs).argmax(1) == targets).sum())
    return 100 * right / len(split)
