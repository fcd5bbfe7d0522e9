"""Affine codes: integers times a scale."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from easycompress.core.errors import BadInput

INT8_LIMIT = 127
"""Symmetric int8 leaves -128 unused, so that the grid is the same on both sides of zero."""

REDUCED_LIMIT = 63
"""The 7-bit grid: products of two such numbers can't overflow the 16-bit sums of processors without VNNI."""


@dataclass(frozen=True)
class Affine:
    """w[i, ...] = values[i, ...] x scale[i]: int8 `values` (C, ...), float32 `scale` (C,), one a first-axis slice."""

    values: Tensor
    scale: Tensor
    form: str = "affine-int8"

    def dense(self) -> Tensor:
        """Return the float32 tensor, the shape of `values`."""
        shape = [-1] + [1] * (self.values.dim() - 1)
        return self.values.float() * self.scale.reshape(shape)

    def bits(self) -> float:
        """Return the stored size in bits."""
        return 8.0 * sum(t.numel() * t.element_size() for t in self.arrays().values())

    def arrays(self) -> dict[str, Tensor]:
        """Return `values` and `scale`."""
        return {"values": self.values, "scale": self.scale}


def quantize_per_channel(weight: Tensor, *, limit: int = INT8_LIMIT) -> Affine:
    """Return the symmetric int8 code of `weight` (C, ...): argmin over integers of |values x scale - w|.

    The scale is max|w| / limit of each slice. A slice of zeros gets scale 1. Raises BadInput on NaN or infinity.
    """
    if not torch.isfinite(weight).all():
        raise BadInput("a weight is not a finite number, so it can't be quantized; repair the checkpoint")
    flat = weight.detach().float().flatten(1)
    peak = flat.abs().amax(1) if flat.shape[1] else flat.new_zeros(len(flat))
    scale = torch.where(peak > 0, peak / limit, torch.ones_like(peak))
    values = torch.round(flat / scale[:, None]).clamp(-limit, limit).to(torch.int8)
    return Affine(values.reshape(weight.shape), scale)
