"""Entropy-constrained quantization with feedback: each column's error is made up for by the columns after it.

Frantar et al., GPTQ, 2023 (after LeCun et al.'s and Hassibi and Stork's surgeons), with the code length in the choice
of each level: a weight goes to the level of least sensitivity x error^2 + slope x bits.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from easycompress.codes.codebook import Codebook
from easycompress.lc.projections.base import flat

if TYPE_CHECKING:
    from torch import Tensor

    from easycompress.lc.statistics import LayerStatistics

DAMPING = 0.01
"""Share of the mean input variance added to every input's: inputs that never vary still have a meaning."""

NOISE = 1e-12
"""A mean variance below this share of the mean power is rounding: nothing varies, and all inputs count alike."""

STEP = 3.0
"""Spacing of the levels in units of sqrt(slope / sensitivity), as for the nearest levels."""

MOST = 127
"""Levels on either side of zero."""

PASSES = 2
"""The second one codes with the frequencies that the first came to."""

RARE = 0.02
"""A count that every level is given, so that none is impossible."""


class Feedback:
    """One layer: its weight (out, ...) as a matrix (out, in), and what its inputs tell.

    Inputs count by their variance, not their power: a lost mean goes into the bias. The variances are scaled to 1 on
    average, so that one slope means the same in every layer as it does for squared errors of weights. (Weighting layers
    by measured changes of the outputs was worse at the same bytes: it starves those whose errors cancel.)
    Raises BadInput on a weight with NaN or infinity.
    """

    def __init__(self, weight: Tensor, statistics: LayerStatistics) -> None:
        self.matrix, self.shape = flat([weight]).reshape(weight.shape).flatten(1), tuple(weight.shape)
        self.mean = statistics.mean.float()
        mean, power = statistics.mean.double(), statistics.moments.double()
        moments = power - torch.outer(mean, mean)
        scale = float(moments.diagonal().mean())
        if not scale > NOISE * float(power.diagonal().mean()):
            moments, scale = torch.eye(len(moments), dtype=torch.float64), 1.0
        damped = moments / scale + DAMPING * torch.eye(len(moments), dtype=torch.float64)
        self.order = damped.diagonal().argsort(descending=True)
        damped = damped[self.order][:, self.order]
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
        self.factor = torch.linalg.cholesky(inverse, upper=True).float()
        self.sensitivity = 1 / self.factor.diagonal() ** 2

    def quantize(self, slope: float) -> Codebook:
        """Return the code on a uniform grid through zero, about argmin of the outputs' change + slope x bits."""
        spacing = STEP * math.sqrt(slope / float(self.sensitivity.mean()))
        spacing = max(spacing, float(self.matrix.abs().max()) / MOST, 1e-12)
        bits = _bits((self.matrix / spacing).round().clamp(-MOST, MOST))
        integers = torch.zeros_like(self.matrix)
        for _ in range(PASSES):
            integers[:, self.order] = self._pass(slope, spacing, bits)
            bits = _bits(integers)
        values, places = torch.unique(integers, return_inverse=True)
        return Codebook(places.to(torch.uint8).reshape(self.shape), (values * spacing).float())

    def lost(self, code: Codebook) -> Tensor:
        """Return what the mean of each output lost, (out,): the bias can give it back."""
        return (self.matrix - code.dense().flatten(1)) @ self.mean

    def _pass(self, slope: float, spacing: float, bits: Tensor) -> Tensor:
        """Quantize column by column, in their order. Return the integers (out, in)."""
        columns = self.matrix[:, self.order].T.contiguous() / spacing  # a row each, in units of the spacing
        chosen = torch.empty_like(columns)
        prices = slope / (self.sensitivity * spacing**2)
        lengths = bits - bits[MOST]
        for j, price in enumerate(prices.tolist()):
            column = columns[j]
            nearest = column.round().clamp_(-MOST, MOST)
            inner = nearest - nearest.sign()
            # Costs beside those of zero, whose error^2 is column^2: (w - q)^2 - w^2 = q (q - 2 w).
            far = nearest * (nearest - 2 * column) + price * lengths[(nearest + MOST).long()]
            near = inner * (inner - 2 * column) + price * lengths[(inner + MOST).long()]
            best = torch.where(far < near, nearest, inner)
            best = torch.where(torch.minimum(far, near) < 0, best, torch.zeros_like(best))
            chosen[j] = best
            if j + 1 < len(columns):
                columns[j + 1 :].addr_(self.factor[j, j + 1 :], (column - best) / self.factor[j, j], alpha=-1)
        return chosen.T


def _bits(integers: Tensor) -> Tensor:
    """Return the code length of each integer -MOST..MOST in bits, from how often they occur."""
    counts = torch.bincount((integers.flatten() + MOST).long(), minlength=2 * MOST + 1).float() + RARE
    return -torch.log2(counts / counts.sum())
