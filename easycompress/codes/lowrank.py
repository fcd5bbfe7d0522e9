"""Low-rank codes: a matrix as the product of two thin ones."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor

from easycompress.codes.base import stored, stored_bits
from easycompress.codes.checks import array_in, choice_in, only, shape_in

Layout = Literal["scheme-1", "scheme-2"]
"""How a convolution's weight (n, c, h, w) becomes a matrix: 1: n x (c h w); 2: (n h) x (c w). A matrix stays itself."""

LAYOUTS = ("scheme-1", "scheme-2")


def matrix_size(shape: tuple[int, ...], layout: Layout) -> tuple[int, int]:
    """Return (rows, columns) of the matrix view of a shape of at least 2 dimensions. Raises ValueError for fewer."""
    if len(shape) < 2:  # noqa: PLR2004 - a matrix
        raise ValueError(f"a tensor of shape {shape} has no matrix view")
    if len(shape) == 4 and layout == "scheme-2":  # noqa: PLR2004 - a 2-d convolution
        n, c, h, w = shape
        return n * h, c * w
    return shape[0], math.prod(shape[1:])


def to_matrix(weight: Tensor, layout: Layout) -> Tensor:
    """Return the matrix view of a weight of at least 2 dimensions. Raises ValueError for fewer."""
    size = matrix_size(tuple(weight.shape), layout)
    if weight.dim() == 4 and layout == "scheme-2":  # noqa: PLR2004 - a 2-d convolution
        weight = weight.permute(0, 2, 1, 3)
    return weight.reshape(size)


def from_matrix(matrix: Tensor, shape: tuple[int, ...], layout: Layout) -> Tensor:
    """Undo to_matrix."""
    if len(shape) == 4 and layout == "scheme-2":  # noqa: PLR2004 - a 2-d convolution
        n, c, h, w = shape
        return matrix.reshape(n, h, c, w).permute(0, 2, 1, 3).contiguous()
    return matrix.reshape(shape).contiguous()


@dataclass(frozen=True)
class LowRank:
    """w = from_matrix(left @ right): float16 `left` (m, r) and `right` (r, n); r may be 0.

    Factors of another precision stand for their float16 values.
    """

    left: Tensor
    right: Tensor
    size: tuple[int, ...]
    layout: Layout = "scheme-1"
    form: str = "low-rank"

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the dense tensor."""
        return self.size

    @property
    def rank(self) -> int:
        """The number of columns of `left`."""
        return int(self.left.shape[1])

    def dense(self) -> Tensor:
        """Return the float32 tensor."""
        # Contiguous: products of the same numbers in another memory order may differ in the last bit.
        left, right = (factor.half().float().contiguous() for factor in (self.left, self.right))
        return from_matrix(left @ right, self.size, self.layout)

    def bits(self) -> float:
        """Return the stored size in bits."""
        return stored_bits(self.arrays())

    def arrays(self) -> dict[str, Tensor]:
        """Return `left` and `right` in float16."""
        return {"left": stored(self.left, torch.float16), "right": stored(self.right, torch.float16)}

    def meta(self) -> dict[str, Any]:
        """Return shape and layout."""
        return {"shape": list(self.size), "layout": self.layout}

    @classmethod
    def read(cls, meta: dict[str, Any], arrays: dict[str, Tensor]) -> LowRank:
        """Rebuild the code. Raises ValueError where meta and arrays don't fit."""
        only(arrays, ["left", "right"])
        shape, layout = shape_in(meta), cast("Layout", choice_in(meta, "layout", LAYOUTS))
        rows, columns = matrix_size(shape, layout)
        left = array_in(arrays, "left", torch.float16, (rows, None))
        right = array_in(arrays, "right", torch.float16, (left.shape[1], columns))
        return cls(left, right, shape, layout)
