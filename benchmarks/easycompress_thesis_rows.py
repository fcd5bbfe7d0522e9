"""What the thesis's matrix asks of the models that are here, and what the thesis prints for its own models."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

FLOORS = (1, 3, 5)
"""Points of accuracy that may be lost at most."""

TARGETS: dict[str, tuple[str, ...]] = {
    "size": ("2x", "10x", "100x"),
    "compute": ("2x", "4x", "10x"),
    "latency": ("1.33x", "2x", "4x"),
}
"""By objective, the thesis's reductions of 50, 90, 99 %; 50, 75, 90 %; 25, 50, 75 % (its tables call the last 1.5x)."""

MODELS: dict[str, tuple[str, str]] = {
    "lenet5": ("MNIST", "8ep"),
    "resnet20": ("CIFAR-10", "6ep"),
    "lenet300": ("MNIST", "8ep"),
    "vgg16": ("CIFAR-10", "4ep"),
}
"""By model: the data it was trained on, and the epochs that one run may train: the same results on a busy machine."""

AUGMENT = {"CIFAR-10": "flip-crop", "MNIST": "none"}

PRUNE = {"kind": "structured-pruning"}
TEACH = {"kind": "distillation", "technique": "combined", "mode": "budget"}
STATIC = {"kind": "static-int8"}

TECHNIQUES: dict[str, tuple[dict[str, Any], ...]] = {
    "pruning": (PRUNE,),
    "pruning + distillation": (PRUNE, TEACH),
    "pruning + distillation + int8": (PRUNE, TEACH, STATIC),
    "static int8": (STATIC,),
    "dynamic int8": ({"kind": "dynamic-int8"},),
    "quantization-aware training": ({"kind": "qat-int8"},),
    "pruning + int8": (PRUNE, STATIC),
    "entropy-constrained quantization": ({"kind": "entropy-quantization"},),
    "entropy-constrained LC": ({"kind": "lc"},),
}
"""Each alone and combined, at half the size: the first three are the thesis's table 2, the int8 ones its table 1."""


@dataclass(frozen=True)
class Row:
    """One run: a goal for one model, or a recipe of given techniques. `family`: target, reach or techniques."""

    family: str
    model: str
    objective: str
    target: str
    floor: int
    seed: int = 0
    packed: bool = False
    technique: str = ""
    steps: tuple[dict[str, Any], ...] = field(default=(), hash=False)

    @property
    def name(self) -> str:
        """What the row is called in the JSON and on the command line."""
        what = self.technique or f"{self.objective}{' packed' if self.packed else ''}"
        seed = f" seed {self.seed}" if self.seed else ""
        return f"{self.model} {what} {self.target} -{self.floor}{seed}"


def _of(model: str, floor: int, seed: int) -> list[Row]:
    """Return the rows of one model at one floor: what is asked for by name, then the most that the floor permits."""
    rows = [Row("target", model, name, target, floor, seed) for name, asked in TARGETS.items() for target in asked]
    rows += [Row("target", model, "size", "100x", floor, seed, packed=True)]
    return rows + [Row("reach", model, name, "max", floor, seed) for name in TARGETS]


def _techniques(model: str) -> list[Row]:
    return [
        Row("techniques", model, "size", "2x", 99, technique=name, steps=steps) for name, steps in TECHNIQUES.items()
    ]


def rows() -> list[Row]:
    """Return every row, the first to be run first: small nets and the strictest floor before others, then seeds."""
    first, second = ("lenet5", "resnet20"), ("lenet300", "vgg16")
    found: list[Row] = [row for model in first for row in _of(model, FLOORS[0], 0)]
    found += [row for model in first for row in _techniques(model)]
    found += [row for floor in FLOORS[1:] for model in first for row in _of(model, floor, 0)]
    found += [row for model in second for floor in FLOORS for row in _of(model, floor, 0)]
    found += [row for model in second for row in _techniques(model)]
    return found + [row for seed in (1, 2) for model in first for row in _of(model, FLOORS[0], seed)]


QUICK = tuple(row.name for row in rows() if row.model == "lenet5" and row.floor in (FLOORS[0], 99))
"""What --quick runs: LeNet5 at the strictest floor, and its techniques."""


@dataclass(frozen=True)
class Printed:
    """One cell of the thesis: accuracies in percent before and after, the objective's number before and after."""

    table: int
    model: str
    before: float
    after: float
    baseline: float
    cell: float


def _printed(table: int, *blocks: tuple[str, float, float, tuple[tuple[float, float], ...]]) -> list[list[Printed]]:
    """Return the cells of a table, one list a target."""
    return [
        [Printed(table, model, before, cells[i][0], base, cells[i][1]) for model, before, base, cells in blocks]
        for i in range(3)
    ]


RESNET, VGG, EFFICIENT = "ResNet-50", "VGG-16", "EfficientNet-B4"

_SIZE_MNIST = _printed(
    8,
    (RESNET, 98.7, 90.0, ((98.9, 45.0), (98.9, 22.5), (98.6, 0.9))),
    (VGG, 98.9, 512.0, ((98.8, 256.0), (99.2, 128.0), (98.9, 5.1))),
    (EFFICIENT, 99.1, 67.7, ((98.9, 33.9), (98.6, 16.9), (98.4, 0.7))),
)
_SIZE_CIFAR = _printed(
    10,
    (RESNET, 94.5, 90.0, ((95.3, 45.0), (92.1, 22.5), (67.8, 0.9))),
    (VGG, 95.5, 512.0, ((95.3, 256.0), (91.9, 128.0), (75.8, 5.1))),
    (EFFICIENT, 95.2, 67.7, ((95.8, 33.9), (92.7, 16.9), (67.7, 0.7))),
)
_MACS_MNIST = _printed(
    12,
    (RESNET, 98.7, 0.4, ((98.5, 0.2), (98.3, 0.1), (97.7, 0.1))),
    (VGG, 98.9, 6.7, ((98.7, 3.4), (98.3, 1.7), (96.8, 0.6))),
    (EFFICIENT, 99.1, 1.5, ((98.7, 0.8), (98.5, 0.4), (97.4, 0.2))),
)
_MACS_CIFAR = _printed(
    13,
    (RESNET, 94.5, 1.8, ((93.6, 0.9), (93.4, 0.5), (76.4, 0.2))),
    (VGG, 95.5, 12.2, ((94.8, 6.1), (94.1, 3.1), (80.2, 1.2))),
    (EFFICIENT, 95.2, 3.3, ((94.3, 1.7), (93.6, 0.8), (77.7, 0.3))),
)
_TIME_MNIST = _printed(
    16,
    (RESNET, 98.7, 3.5, ((98.6, 2.6), (97.9, 1.8), (97.5, 0.9))),
    (VGG, 98.9, 6.3, ((98.5, 4.7), (98.5, 3.2), (97.6, 1.6))),
    (EFFICIENT, 99.1, 8.3, ((98.8, 6.2), (97.8, 4.2), (97.7, 2.1))),
)
_TIME_CIFAR = _printed(
    17,
    (RESNET, 94.5, 3.9, ((94.1, 2.9), (92.4, 2.0), (76.4, 1.0))),
    (VGG, 95.5, 6.8, ((94.8, 5.1), (94.1, 3.4), (80.2, 1.7))),
    (EFFICIENT, 95.2, 4.9, ((94.3, 3.7), (90.6, 2.5), (77.7, 1.2))),
)

PRINTED: dict[tuple[str, str], list[list[Printed]]] = {
    ("MNIST", "size"): _SIZE_MNIST, ("CIFAR-10", "size"): _SIZE_CIFAR,
    ("MNIST", "compute"): _MACS_MNIST, ("CIFAR-10", "compute"): _MACS_CIFAR,
    ("MNIST", "latency"): _TIME_MNIST, ("CIFAR-10", "latency"): _TIME_CIFAR,
}  # fmt: skip
"""By data and objective, a list a target: MB of 2^20 bytes, GFLOPS, ms. Its tables 9 (CIFAR-10) and 10 (ImageNet) are
exchanged by their baselines (tables 13 and 14), so table 10 stands for CIFAR-10."""

REACHED: dict[tuple[str, str], tuple[tuple[str, str, str], ...]] = {
    ("MNIST", "size"): (("100x", "100x", "100x"),) * 3,
    ("MNIST", "compute"): (("4x", "3x", "3x"), ("13x", "8x", "11x"), ("25x", "21x", "15x")),
    ("MNIST", "latency"): (("2.2x", "2.8x", "1.8x"), ("4.2x", "3.5x", "3.5x"), ("4.6x", "4.2x", "4.9x")),
    ("CIFAR-10", "size"): (("5x", "7x", "5x"), ("9x", "11x", "14x"), ("14x", "19x", "17x")),
    ("CIFAR-10", "compute"): (("3x", "3x", "3x"), ("5x", "5x", "4x"), ("6x", "6x", "6x")),
    ("CIFAR-10", "latency"): (("1.9x", "1.6x", "1.6x"), ("2.8x", "2.4x", "2.5x"), ("3.1x", "3.2x", "3.1x")),
}
"""The thesis's tables 4 and 5: a tuple a floor, of its three models' reductions."""

COMBINED: dict[str, tuple[float, float, float]] = {
    "pruning": (2.4, 1.2, 2.5),
    "pruning + distillation": (1.5, 0.8, 1.8),
    "pruning + distillation + int8": (0.8, 0.6, 0.7),
}
"""The thesis's table 2: points lost by its three models on CIFAR-10 at half the size."""
