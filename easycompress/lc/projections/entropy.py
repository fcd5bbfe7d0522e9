"""The entropy-constrained quantizer: the C step whose cost is the code length.

Chou, Lookabaugh and Gray, Entropy-constrained vector quantization, 1989, in one dimension, on a histogram, with zero
among the levels. Pruning and quantization come out of one trade-off between rate and distortion, and fractions of a bit
a weight are real.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from easycompress.codes.codebook import Codebook
from easycompress.core.errors import BadInput
from easycompress.lc.projections.base import View, flat

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from easycompress.codes.base import Code

Array = Any  # a float64 vector

BINS = 16384
"""Of the histogram between a tensor's least and largest value."""

MOST_LEVELS = 255

STEP = 2.9
"""First spacing of the levels in units of sqrt(slope): at high rate the best uniform one has slope = 0.116 step^2."""

ROUNDS = 40

SETTLED = 1e-4
"""The iteration ends when a round lowers the cost by less than this share."""

HALVINGS = 24

ON_BUDGET = 0.002
"""A code length between the budget and this share below it is on budget."""

EXCESS = 1e-3
"""Share by which the slope first rises where the exact length is above the budget."""

ENTRY_BITS = 32.0
"""What a level costs beside the weights that have it: its value in the file."""


@dataclass(frozen=True)
class _Histogram:
    """Counts, sums and sums of squares of one tensor below each bin's upper edge; `low`, `width` place the bins."""

    low: float
    width: float
    count: Array
    total: Array
    square: float

    @property
    def n(self) -> float:
        """The number of values."""
        return float(self.count[-1])


def histogram(values: Tensor) -> _Histogram:
    """Return the histogram of a float32 vector (N,), N >= 1."""
    low, high = float(values.min()), float(values.max())
    width = max((high - low) / BINS, 1e-30)
    places = ((values - low) / width).to(torch.int32).clamp_(0, BINS - 1)
    count = torch.bincount(places, minlength=BINS).double().numpy()
    total = torch.bincount(places, values.double(), minlength=BINS).numpy()
    square = float((values.double() ** 2).sum())
    zero = np.zeros(1)
    return _Histogram(
        low, width, np.concatenate([zero, count.cumsum()]), np.concatenate([zero, total.cumsum()]), square
    )


@dataclass(frozen=True)
class Levels:
    """Levels (k,) ascending, zero among them, and their shares of the weights (k,), all positive."""

    values: Array
    shares: Array

    @property
    def lengths(self) -> Array:
        """The ideal code length of each level in bits."""
        return -np.log2(self.shares)

    def thresholds(self, slope: float) -> Array:
        """Return where the next level becomes cheaper: argmin over levels of (w - c)^2 + slope x bits(c).

        A zero that nothing would choose has both of its thresholds where its neighbours meet.
        """
        c, bits = self.values, self.lengths
        found = _meet(c[:-1], c[1:], bits[:-1], bits[1:], slope)
        zero = int(np.argmin(np.abs(c)))
        if 0 < zero < len(c) - 1 and found[zero - 1] > found[zero]:
            below, above = zero - 1, zero + 1
            found[below:above] = _meet(c[below], c[above], bits[below], bits[above], slope)
        return found


def _meet(low: Array, high: Array, low_bits: Array, high_bits: Array, slope: float) -> Array:
    """Return where a level and a higher one cost the same."""
    return (low + high) / 2 + slope * (high_bits - low_bits) / (2 * (high - low))


def design(hist: _Histogram, slope: float, start: Levels | None = None) -> tuple[Levels, float, float]:
    """Return (levels, code length in bits, squared distance) that minimise distance + slope x length for one tensor."""
    levels = start or _grid(hist, slope)
    before = math.inf
    bits = distance = 0.0
    for _ in range(ROUNDS):
        levels = _alive(levels, slope)
        edges = np.clip((levels.thresholds(slope) - hist.low) / hist.width, 0, len(hist.count) - 1)
        count = np.diff(_at(hist.count, edges))
        total = np.diff(_at(hist.total, edges))
        used = count > 0.5  # noqa: PLR2004 - half a weight: the rest is interpolation inside a bin
        used |= levels.values == 0
        count, total, values = np.maximum(count[used], 1e-9), total[used], levels.values[used]
        centres = np.where(values == 0, 0.0, total / count)
        # Levels that came to the same value are one: interpolation can split a bin of equal weights between two.
        centres, same = np.unique(centres, return_inverse=True)
        count, total = np.bincount(same, count), np.bincount(same, total)
        levels = Levels(centres, count / count.sum())
        bits = float((count * levels.lengths).sum()) + ENTRY_BITS * len(count)
        distance = max(hist.square - float((2 * levels.values * total - levels.values**2 * count).sum()), 0.0)
        cost = distance + slope * bits
        if before - cost <= SETTLED * abs(cost):
            break
        before = cost
    return levels, bits, distance


def _at(cumulated: Array, edges: Array) -> Array:
    """Return a cumulated histogram at fractional bin edges, with both ends."""
    inside = np.interp(edges, np.arange(len(cumulated)), cumulated)
    return np.concatenate([[0.0], inside, cumulated[-1:]])


def _grid(hist: _Histogram, slope: float) -> Levels:
    """Return a uniform grid through zero, as fine as the slope asks, with the shares that nearest levels get."""
    low, high = hist.low, hist.low + hist.width * BINS
    spare = 2 if low <= 0 <= high else 3  # zero is one more level where the range leaves it out
    step = max(STEP * math.sqrt(slope), (high - low) / (MOST_LEVELS - spare), 1e-30)
    integers = np.arange(math.floor(low / step), math.ceil(high / step) + 1, dtype=np.float64)
    values = step * np.union1d(integers, [0.0])
    edges = np.clip(((values[1:] + values[:-1]) / 2 - hist.low) / hist.width, 0, len(hist.count) - 1)
    count = np.diff(_at(hist.count, edges)) + 0.5
    return Levels(values, count / count.sum())


def _alive(levels: Levels, slope: float) -> Levels:
    """Drop levels that no weight would choose: those whose thresholds cross. Zero stays."""
    while len(levels.values) > 1:
        thresholds = levels.thresholds(slope)
        crossed = np.nonzero(np.diff(thresholds) <= 0)[0] + 1  # level i lies between thresholds i - 1 and i
        crossed = crossed[levels.values[crossed] != 0]
        if not len(crossed):
            return levels
        rarest = crossed[np.argmin(levels.shares[crossed])]
        keep = np.arange(len(levels.values)) != rarest
        levels = Levels(levels.values[keep], levels.shares[keep] / levels.shares[keep].sum())
    return levels


@dataclass(frozen=True)
class EntropyConstrained:
    """argmin over levels c and assignments z of sum_i (w_i - c_{z_i})^2 + (2 lam / mu) bits(z), 0 among the levels.

    bits(z) is the ideal code length of each tensor's assignments under their own frequencies. Each tensor has levels of
    its own; all share the slope. With `bits_per_weight` instead of `lam` the slope is found for which the length of all
    tensors together, levels included, is at most that many bits for every weight: sum_i (w_i - c_{z_i})^2 is minimised
    subject to it. Tensors that are such codes already come back as they are; where even zeros are over the budget, they
    become zeros. `weights`, one a tensor, multiply the tensors' distances, 1 for each unless given.
    A local optimum from a uniform start; at most 255 levels a tensor.
    """

    bits_per_weight: float | None = None
    lam: float | None = None
    weights: tuple[float, ...] | None = None
    view: View = "vector"

    def __post_init__(self) -> None:
        """Check the settings."""
        if (self.bits_per_weight is None) == (self.lam is None):
            raise BadInput("entropy-constrained quantization: give either bits_per_weight or lam")
        value = self.lam if self.bits_per_weight is None else self.bits_per_weight
        if not (value is not None and value > 0 and math.isfinite(value)):
            raise BadInput(f"entropy-constrained quantization: {value} bits a weight or lam: must be above 0")
        if self.weights is not None and not all(0 < weight < math.inf for weight in self.weights):
            raise BadInput(f"entropy-constrained quantization: weights {self.weights}: must be above 0 and finite")

    def project(self, tensors: Sequence[Tensor], mu: float, warm: Sequence[Code] | None = None) -> list[Code]:  # noqa: ARG002 - a grid start each time keeps the result a function of w
        """Return a Codebook a tensor, zero among its entries. Raises BadInput on NaN or infinity."""
        flats = [flat([t]) for t in tensors]
        shapes = [tuple(t.shape) for t in tensors]
        weights = (1.0,) * len(flats) if self.weights is None else self.weights
        if len(weights) != len(flats):
            raise BadInput(f"entropy-constrained quantization: {len(weights)} weights for {len(flats)} tensors")
        hists = [histogram(f) if len(f) else None for f in flats]
        if self.lam is not None:
            if not mu > 0:
                raise BadInput("entropy-constrained quantization: mu 0 makes the cost infinite; give a positive mu")
            return list(_codes(flats, hists, shapes, [2 * self.lam / mu / w for w in weights]))
        budget = (self.bits_per_weight or 0.0) * sum(len(f) for f in flats)
        exact = [as_it_is(f, hist, shape) for f, hist, shape in zip(flats, hists, shapes, strict=True)]
        whole = [code for code in exact if code is not None]
        if len(whole) == len(exact) and sum(map(code_length, whole)) <= budget:
            return list(whole)
        slope, excess = self._slope(hists, weights, budget), EXCESS
        made = _codes(flats, hists, shapes, [slope / w for w in weights])
        while sum(map(code_length, made)) > budget and any(len(code.entries) > 1 for code in made):
            slope, excess = slope * (1 + excess), 2 * excess  # the histogram promised a little too much
            made = _codes(flats, hists, shapes, [slope / w for w in weights])
        return list(made)

    def _slope(self, hists: list[_Histogram | None], weights: Sequence[float], budget: float) -> float:
        """Return the slope at which all tensors together take the bits of the budget, from below."""
        known = [(h, w) for h, w in zip(hists, weights, strict=True) if h is not None]
        budget -= ENTRY_BITS * (len(hists) - len(known))
        power = sum(h.square * w for h, w in known) / max(sum(h.n for h, _ in known), 1)
        low, high = math.log(max(power, 1e-30) * 1e-8), math.log(max(power, 1e-30) * 1e2)

        def length(log_slope: float) -> float:
            slope = math.exp(log_slope)
            return sum(design(h, slope / w)[1] for h, w in known)

        if length(low) <= budget:
            return math.exp(low)
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            bits = length(middle)
            if bits > budget:
                low = middle
            else:
                high = middle
                if bits >= (1 - ON_BUDGET) * budget:
                    break
        return math.exp(high)


def _codes(
    flats: Sequence[Tensor],
    hists: Sequence[_Histogram | None],
    shapes: Sequence[tuple[int, ...]],
    slopes: Sequence[float],
) -> list[Codebook]:
    """Return the code of every vector at its slope."""
    return [
        _zeros(shape) if hist is None else assign(vector, design(hist, slope)[0], slope, shape)
        for vector, hist, shape, slope in zip(flats, hists, shapes, slopes, strict=True)
    ]


def _zeros(shape: tuple[int, ...]) -> Codebook:
    return Codebook(torch.zeros(shape, dtype=torch.uint8), torch.zeros(1))


def as_it_is(vector: Tensor, hist: _Histogram | None, shape: tuple[int, ...]) -> Codebook | None:
    """Return the code that loses nothing of a vector (N,), zero among its entries; None if it needs over 255 levels."""
    if hist is None:
        return _zeros(shape)
    if np.count_nonzero(np.diff(hist.count)) > MOST_LEVELS:  # far cheaper than to sort what has too many values
        return None
    values = torch.unique(torch.cat([vector, vector.new_zeros(1)]) + 0.0)  # + 0 turns -0 into 0
    if len(values) > MOST_LEVELS:
        return None
    return Codebook(torch.bucketize(vector, values).to(torch.uint8).reshape(shape), values)


def code_length(code: Codebook) -> float:
    """Return the ideal length of a code in bits: its indices under their own frequencies, and its entries."""
    count = torch.bincount(code.indices.flatten()).double()
    count = count[count > 0]
    return float(-(count * torch.log2(count / count.sum())).sum()) + ENTRY_BITS * len(code.entries)


def assign(vector: Tensor, levels: Levels, slope: float, shape: tuple[int, ...]) -> Codebook:
    """Return the code of a vector (N,): each weight to its cheapest level; entries are the exact means, zero stays."""
    alive = _alive(levels, slope)
    thresholds = torch.from_numpy(alive.thresholds(slope)).float()
    places = torch.bucketize(vector, thresholds)
    count = torch.bincount(places, minlength=len(alive.values)).double()
    total = torch.bincount(places, vector.double(), minlength=len(alive.values))
    zero = torch.from_numpy(alive.values == 0)
    used = (count > 0) | zero
    centres = torch.where(zero, 0.0, total / count.clamp_min(1))
    renumbered = torch.cumsum(used.long(), 0) - 1
    return Codebook(renumbered[places].to(torch.uint8).reshape(shape), centres[used].float())
