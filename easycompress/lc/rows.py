"""Entropy-constrained quantization of a table whose rows count differently: tokens that are asked for often or rarely.

All levels lie on one uniform grid through zero, so that the table stays one codebook; rows of one octave use every
2^octave-th of them, and have frequencies, and so code lengths, of their own. The coder of the packed file tells such
rows apart by itself (codes.contexts: classes of lines).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from easycompress.codes.codebook import Codebook
from easycompress.codes.contexts import MOST_CLASSES
from easycompress.lc.projections.base import flat
from easycompress.lc.projections.entropy import ENTRY_BITS, STEP

MOST = 127
"""Levels on either side of zero."""

PASSES = 3
"""The later ones choose by the frequencies that the one before came to."""

RARE = 0.02
"""A count that every level is given, so that none is impossible."""


def quantize_rows(table: Tensor, slopes: Tensor) -> tuple[Codebook, float]:
    """Return the code of `table` (rows, width), about argmin of error^2 + slope of its row x bits, and those bits.

    `slopes` (rows,) are positive. The bits are ideal: each octave's levels under their own frequencies, which octave a
    row is of, and the levels. Raises BadInput on NaN or infinity.
    """
    matrix, steps = flat([table]).reshape(table.shape), STEP * slopes.double().sqrt()
    limit, usual = max(float(steps.min()), float(matrix.abs().max()) / MOST, 1e-12), float(steps.median())
    finest = max(
        limit, usual / 2 ** math.floor(math.log2(max(usual / limit, 1)))
    )  # the usual rows' step is on the grid
    octaves = (steps / finest).log2().round().clamp(0, MOST_CLASSES - 1).long()
    integers, bits = torch.zeros_like(matrix), 0.0
    for octave in sorted(set(octaves.tolist())):
        mine, spacing = octaves == octave, finest * 2.0**octave
        prices = (slopes[mine] / spacing**2).float()[:, None]
        found, length = _on_grid(matrix[mine] / spacing, prices, MOST >> octave)
        integers[mine] = found * 2.0**octave
        bits += length
    values, places = torch.unique(integers, return_inverse=True)
    named = _entropy(torch.bincount(octaves).double())
    code = Codebook(places.to(torch.uint8).reshape(table.shape), (values * finest).float())
    return code, bits + named + ENTRY_BITS * len(values)


def _on_grid(values: Tensor, prices: Tensor, most: int) -> tuple[Tensor, float]:
    """Return the integers -most..most nearest to `values` (rows, width) but for their length, and that in bits.

    `prices` (rows, 1) are of a bit.
    """
    nearest = values.round().clamp(-most, most)
    inner = nearest - nearest.sign()
    chosen = nearest
    for _ in range(PASSES):
        counts = torch.bincount((chosen + most).long().flatten(), minlength=2 * most + 1).float() + RARE
        lengths = -torch.log2(counts / counts.sum())
        best, cost = torch.zeros_like(values), values**2 + prices * lengths[most]
        for trial in (nearest, inner):
            other = (values - trial) ** 2 + prices * lengths[(trial + most).long()]
            best, cost = torch.where(other < cost, trial, best), torch.minimum(cost, other)
        chosen = best
    return chosen, _entropy(torch.bincount((chosen + most).long().flatten()).double())


def _entropy(counts: Tensor) -> float:
    """Return the ideal code length in bits of as many symbols as `counts` says, under their own frequencies."""
    used = counts[counts > 0]
    return float(-(used * torch.log2(used / used.sum())).sum())
