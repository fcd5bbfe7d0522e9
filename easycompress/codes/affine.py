"""Affine codes: integers times a scale."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from easycompress.core.errors import BadInput

INT8_LIMIT = 127
"""Symmetric int8 leaves -128 unused, so that the grid is the same on both sides of zero."""

REDUCED_LIMIT = 64
"""ONNX Runtime's reduced range: 2 x 255 x 64 fits the signed 16-bit sums of processors without VNNI."""

TINY = torch.finfo(torch.float32).tiny
"""A smaller scale has lost its precision, and runtimes read it as zero."""


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


def quantize_per_channel(weight: Tensor, *, limit: int = INT8_LIMIT, name: str = "a weight") -> Affine:
    """Return the symmetric int8 code of `weight` (C, ...): argmin over integers of |values x scale - w|.

    The scale is max|w| / limit of each slice. A slice of zeros, or so small that its scale would be below TINY, gets
    scale 1. Raises BadInput with the tensor's `name` on NaN or infinity.
    """
    if not torch.isfinite(weight).all():
        raise BadInput(f"{name} holds NaN or infinity, so it can't be quantized; repair the checkpoint")
    flat = weight.detach().float().flatten(1)
    peak = flat.abs().amax(1) if flat.shape[1] else flat.new_zeros(len(flat))
    scale = peak / limit
    scale = torch.where(scale >= TINY, scale, torch.ones_like(scale))
    values = torch.round(flat / scale[:, None]).clamp(-limit, limit).to(torch.int8)
    return Affine(values.reshape(weight.shape), scale)
