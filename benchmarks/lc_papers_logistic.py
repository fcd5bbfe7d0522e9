"""Table 2 of 002: one codebook of two entries for weights and biases together, and which of them are corrected.

A logistic regression on CIFAR-10, trained here; pixel-wise standardised, 3072 x 10 weights and 10 biases.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional

from benchmarks.lc_rows import accuracy
from benchmarks.zoo import load_task
from easycompress.artifact.write import write_model
from easycompress.codes.composed import Additive
from easycompress.codes.sparse import Sparse
from easycompress.core.task import Split
from easycompress.lc.papers import storage_bits
from easycompress.lc.projections.pruned import ConstraintL0
from easycompress.lc.projections.quantized import AdaptiveQuantization
from easycompress.lc.run import Means, Recipe, run
from easycompress.lc.schedule import spread
from easycompress.training.fit import Hooks, Schedule, fit
from easycompress.training.speed import Speed
from easycompress.training.terms import Labels

if TYPE_CHECKING:
    import argparse

    from easycompress.codes.base import Code

ROWS = {f"logistic {kappa} corrections": kappa for kappa in (100, 200)}

PAPER = {"reference": (1.5253, 38.79, None), 100: (1.6830, 36.06, 9), 200: (1.6716, 37.29, 9)}
"""Training loss, test accuracy in percent, corrected biases out of 10."""

PAPER_EPOCHS = (300, 1000)
"""Of the reference, and of LC: 50 L steps of 20 epochs."""

REFERENCE_EPOCHS = 30

RECIPE = Recipe(spread(1e-4, 1.0, 50), lr=0.05, lr_last=0.002, batch=1024)
"""Penalties that rise further than the paper's, which leave the weights off the code after so few epochs."""

NAMES = ("linear.weight", "linear.bias")


class Logistic(nn.Module):
    """10 linear functions of the pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3072, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits (N, 10) of images (N, 3, 32, 32)."""
        logits: torch.Tensor = self.linear(x.flatten(1))
        return logits


def standardised(options: argparse.Namespace) -> tuple[Split, Split]:
    """Return training and test images, each pixel of mean 0 and variance 1 over the training images."""
    data = load_task("resnet20", options).data
    images = [part.inputs for part in (data.train, data.report)]
    assert isinstance(images[0], torch.Tensor)
    assert isinstance(images[1], torch.Tensor)
    mean, std = images[0].mean(0), images[0].std(0)
    return Split((images[0] - mean) / std, data.train.targets), Split((images[1] - mean) / std, data.report.targets)


def carry_out(corrections: int, options: argparse.Namespace) -> dict[str, Any]:
    """Train the reference, compress it, and return losses, accuracies and the corrected biases."""
    begin = time.perf_counter()
    train, report = standardised(options)
    torch.manual_seed(0)
    model = Logistic()
    speed, term = (
        Speed(threads=1, channels_last=False, bfloat16=False, step_seconds=0.0),
        Labels(functional.cross_entropy),
    )
    fit(model, train, term, Schedule(REFERENCE_EPOCHS, 0.05, batch=1024, weight_decay=0.0), speed, Hooks(None), None)
    before = {"loss": loss_of(model, train), "accuracy": accuracy(model, report)}
    tasks = {NAMES: [AdaptiveQuantization(2), ConstraintL0(kappa=corrections)]}
    with speed.applied():
        made = run(model, tasks, RECIPE, Means(train, term, speed))
    codes = made.codes
    path = options.work / f"logistic-{corrections}.onnx"
    packed = write_model(model, report.inputs[:2], path, codes=codes, packed=True)
    stored = sum(storage_bits(code) for code in codes.values())
    bits = 32 * sum(parameter.numel() for parameter in model.parameters())
    return {
        "seconds": round(time.perf_counter() - begin, 1), "epochs": made.epochs, "reference_epochs": REFERENCE_EPOCHS,
        "reference": before, "loss": loss_of(model, train), "accuracy": accuracy(model, report),
        "corrected": {name: corrected(codes[name]) for name in NAMES}, "formula_ratio": bits / stored,
        "relative": made.rows[-1]["relative"], "onnx_bytes": path.stat().st_size, "ecz_bytes": packed.stat().st_size,
    }  # fmt: skip


def corrected(code: Code) -> int:
    """Return how many values of a sum of codes have a correction."""
    assert isinstance(code, Additive)
    return sum(len(part.positions) for part in code.parts if isinstance(part, Sparse))


def loss_of(model: nn.Module, split: Split) -> float:
    """Return the mean cross entropy."""
    total = 0.0
    with torch.no_grad():
        for inputs, targets in split.batches(5000):
            total += float(functional.cross_entropy(model(inputs), targets, reduction="sum"))  # type: ignore[arg-type] # labels
    return total / len(split)
