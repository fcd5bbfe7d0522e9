"""Sparse codes: a few weights with their positions; all others are zero."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from easycompress.codes.base import stored, stored_bits
from easycompress.codes.checks import array_in, only, shape_in
from easycompress.codes.packing import gap_bits, pack_gaps, plane_bytes, positions_of, unpack_gaps

VALUE_BITS = 16


@dataclass(frozen=True)
class Sparse:
    """w[positions] = values in a tensor of zeros of `shape`: sorted int64 `positions` (m,), float16 `values` (m,).

    Stored as pairs of a gap in few bits and a float16 (Carreira-Perpinan and Idelbayev's B.1.2, after Han et al. 2016).
    Values of another precision stand for their float16 ones.
    """

    positions: Tensor
    values: Tensor
    size: tuple[int, ...]
    form: str = "sparse"

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the dense tensor."""
        return self.size

    def dense(self) -> Tensor:
        """Return the float32 tensor."""
        flat = torch.zeros(math.prod(self.size), dtype=torch.float32, device=self.values.device)
        flat[self.positions] = self.values.half().float()
        return flat.reshape(self.size)

    def bits(self) -> float:
        """Return the stored size in bits."""
        return stored_bits(self.arrays())

    def arrays(self) -> dict[str, Tensor]:
        """Return `gaps` (bit planes) and `values` (float16, 0 for fillers)."""
        gaps = pack_gaps(self.positions, VALUE_BITS)
        values = torch.zeros(gaps.count, dtype=torch.float16)
        values[~gaps.filler] = stored(self.values, torch.float16)
        return {"gaps": gaps.planes, "values": values}

    def meta(self) -> dict[str, Any]:
        """Return the shape."""
        return {"shape": list(self.size)}

    @property
    def pairs(self) -> tuple[int, int]:
        """Return (bits a gap, stored pairs, fillers included)."""
        return gap_bits(self.positions, VALUE_BITS)

    @classmethod
    def read(cls, meta: dict[str, Any], arrays: dict[str, Tensor]) -> Sparse:
        """Rebuild the code; fillers come back as zeros and are dropped. Raises ValueError where it doesn't fit."""
        only(arrays, ["gaps", "values"])
        shape, values = shape_in(meta), array_in(arrays, "values", torch.float16, (None,))
        gaps = array_in(arrays, "gaps", torch.uint8, (None, plane_bytes(len(values))))
        positions = unpack_gaps(gaps, len(values), math.prod(shape))
        real = values.contiguous().view(torch.int16) != 0  # by bits: a stored -0 is no filler
        return cls(positions[real], values[real], shape)


def sparse_from(dense: Tensor, keep: Tensor) -> Sparse:
    """Return the code of `dense` at the true places of `keep` (same shape), values rounded to float16.

    A kept value that float16 rounds to zero is stored as nothing. Raises OverflowError where float16 can't hold one.
    """
    positions = positions_of(keep.flatten()).to(dense.device)
    values = dense.detach().flatten()[positions].half()
    if not torch.isfinite(values).all():
        raise OverflowError("a weight beyond 65504 has no float16 value")
    real = values != 0
    return Sparse(positions[real], values[real], tuple(dense.shape))
