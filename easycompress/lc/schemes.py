"""From a scheme and the bits a weight to tasks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import torch

from easycompress.codes.lowrank import matrix_size, to_matrix
from easycompress.core.knobs import emphasis
from easycompress.lc.projections.entropy import EntropyConstrained
from easycompress.lc.projections.lowrank import LowRankAt
from easycompress.lc.projections.pruned import ConstraintL0
from easycompress.lc.projections.quantized import AdaptiveQuantization
from easycompress.lc.tasks import each, weights_of

if TYPE_CHECKING:
    from torch import nn

    from easycompress.codes.lowrank import Layout
    from easycompress.lc.settings import Scheme

HALF = 16.0
"""Bits of a nonzero value and of a number in a low-rank factor."""

LAYOUT: Layout = "scheme-2"
"""Of convolutions: the papers' choice."""

LEAST_REST = 0.01
"""Bits a weight that a correction gets at least, beside one bit of quantization."""


def tasks_for(
    scheme: Scheme,
    model: nn.Module,
    bits: float,
    ranks: Literal["even", "priced"] = "even",
    slant: tuple[float | None, float | None] = (None, None),
) -> dict[Any, Any]:
    """Return the tasks that store the weights of `model` in about `bits` bits each.

    Codebooks and biases aren't counted. Schemes of several parts give 1 bit to quantization, if it is one, and equal
    shares of the rest to the others. `ranks` and `slant`, its tilt and bow, as in LearningCompression.
    """
    names = weights_of(model)
    if scheme == "entropy":
        weights = None if slant == (None, None) else emphasis(len(names), *slant)
        return {names: EntropyConstrained(bits_per_weight=bits, weights=weights)}
    parts = scheme.split("+")
    tasks: dict[Any, Any] = {}
    if "quantize" in parts:
        alone = len(parts) == 1
        k = 2 ** max(1, min(8, math.floor(bits))) if alone else 2
        tasks = dict(each(names, AdaptiveQuantization(k)))
        parts.remove("quantize")
        bits = max(bits - 1, LEAST_REST)
    if "low-rank" in parts:
        make = _ranks if ranks == "even" else _priced
        tasks = _added(tasks, make(model, names, bits / len(parts)))
    if "prune" in parts:
        tasks = _added(tasks, {names: ConstraintL0(share=share_for(bits / len(parts)))})
    return tasks


def share_for(bits: float) -> float:
    """Return the share s of nonzeros that costs `bits` bits a weight: s x (16 + the bits of a gap between them)."""
    share = bits / (HALF + 4)
    for _ in range(20):
        share = bits / (HALF + max(0.0, math.log2(1 / min(share, 1.0))) + 1)
    return min(share, 1.0)


def _ranks(model: nn.Module, names: tuple[str, ...], bits: float) -> dict[Any, Any]:
    """Return the same share of its parameters for every layer, at least rank 1."""
    tasks: dict[Any, Any] = {}
    for name in names:
        shape = tuple(model.get_parameter(name).shape)
        rows, columns = matrix_size(shape, LAYOUT)
        rank = round(bits / HALF * rows * columns / (rows + columns))
        tasks[(name,)] = LowRankAt(max(1, min(rank, rows, columns)), LAYOUT)
    return tasks


def _priced(model: nn.Module, names: tuple[str, ...], bits: float) -> dict[Any, Any]:
    """Return the ranks that lose the least together, sum of ||W - T||^2, at one price a number, at least rank 1 each.

    That is the C step of rank selection (projections.lowrank.RankSelection) on the weights as they are, at the price
    for which all factors have `bits` a weight.
    """
    worth: list[tuple[float, str, int]] = []
    left, ranks = 0.0, dict.fromkeys(names, 1)
    for name in names:
        weight = model.get_parameter(name).detach()
        cost = sum(matrix_size(tuple(weight.shape), LAYOUT))
        energies = torch.linalg.svdvals(to_matrix(weight.double(), LAYOUT)) ** 2
        worth += [(float(energy) / cost, name, cost) for energy in energies[1:]]
        left += bits * weight.numel() - HALF * cost
    for _, name, cost in sorted(worth, reverse=True):
        left -= HALF * cost
        if left < 0:
            break
        ranks[name] += 1
    return {(name,): LowRankAt(rank, LAYOUT) for name, rank in ranks.items()}


def _added(first: dict[Any, Any], second: dict[Any, Any]) -> dict[Any, Any]:
    """Return all tasks of both: those of one key are added up in a list."""
    joined = {key: value if isinstance(value, list) else [value] for key, value in first.items()}
    for key, value in second.items():
        joined.setdefault(key, []).extend(value if isinstance(value, list) else [value])
    return dict(joined)
