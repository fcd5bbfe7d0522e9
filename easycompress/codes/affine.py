"""Affine codes: integers times a scale."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from easycompress.codes.base import stored, stored_bits
from easycompress.codes.checks import array_in, only
from easycompress.core.errors import BadInput

INT8_LIMIT = 127
"""Symmetric int8 leaves -128 unused, so that the grid is the same on both sides of zero."""

REDUCED_LIMIT = 64
"""ONNX Runtime's reduced range: 2 x 255 x 64 fits the signed 16-bit sums of processors without VNNI."""

TINY = torch.finfo(torch.float32).tiny
"""A smaller scale has lost its precision, and runtimes read it as zero."""


@dataclass(frozen=True)
class Affine:
    """w[i, ...] = values[i, ...] x scale[i]: int8 `values` (C, ...), float32 `scale` (C,), one a first-axis slice.

    `scale` (1,) is one for all of them.
    """

    values: Tensor
    scale: Tensor
    form: str = "affine-int8"

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the dense tensor."""
        return tuple(self.values.shape)

    def dense(self) -> Tensor:
        """Return the float32 tensor, the shape of `values`."""
        shape = [-1] + [1] * (self.values.dim() - 1)
        return self.values.float() * self.scale.reshape(shape)

    def bits(self) -> float:
        """Return the stored size in bits."""
        return stored_bits(self.arrays())

    def arrays(self) -> dict[str, Tensor]:
        """Return `values` and `scale`."""
        return {"values": stored(self.values, torch.int8), "scale": stored(self.scale, torch.float32)}

    def meta(self) -> dict[str, Any]:
        """Return nothing: the arrays say it all."""
        return {}

    @classmethod
    def read(cls, arrays: dict[str, Tensor]) -> Affine:
        """Rebuild the code. Raises ValueError where the arrays don't fit."""
        only(arrays, ["values", "scale"])
        values = array_in(arrays, "values", torch.int8)
        if not values.dim():
            raise ValueError("affine values need an axis for their scales")
        scale = array_in(arrays, "scale", torch.float32)
        if tuple(scale.shape) not in ((1,), (len(values),)):
            raise ValueError(f"{scale.numel()} affine scales for {len(values)} slices")
        return cls(values, scale)


def quantize_per_channel(weight: Tensor, *, limit: int = INT8_LIMIT, name: str = "a weight") -> Affine:
    """Return the symmetric int8 code of `weight` (C, ...): argmin over integers of |values x scale - w|.

    The scale is max|w| / limit of each slice. A slice of zeros, or so small that its scale would be below TINY, gets
    scale 1. Raises BadInput with the tensor's `name` on NaN, infinity (in float32), or a lone number without an axis.
    """
    if not weight.dim():
        raise BadInput(f"{name} is one number without an axis to scale along; leave it as it is")
    flat = weight.detach().float().reshape(len(weight), math.prod(weight.shape[1:]))
    if not torch.isfinite(flat).all():
        raise BadInput(f"{name} holds NaN or infinity, so it can't be quantized; repair the checkpoint")
    peak = flat.abs().amax(1) if flat.shape[1] else flat.new_zeros(len(flat))
    scale = peak / limit
    scale = torch.where(scale >= TINY, scale, torch.ones_like(scale))
    values = torch.round(flat / scale[:, None]).clamp(-limit, limit).to(torch.int8)
    return Affine(values.reshape(weight.shape), scale)
