"""Codes made of codes: sums, and a scale a channel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from easycompress.codes.base import stored, stored_bits

if TYPE_CHECKING:
    from easycompress.codes.base import Code


@dataclass(frozen=True)
class Additive:
    """w = the sum of `parts`, at least one, all of one shape, added in order."""

    parts: tuple[Code, ...]
    form: str = "additive"

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the dense tensor."""
        return self.parts[0].shape

    def dense(self) -> Tensor:
        """Return the float32 tensor."""
        total = self.parts[0].dense()
        for part in self.parts[1:]:
            total = total + part.dense()
        return total

    def bits(self) -> float:
        """Return the stored size in bits."""
        return stored_bits(self.arrays())

    def arrays(self) -> dict[str, Tensor]:
        """Return every part's arrays under `index.name`."""
        return {f"{i}.{name}": array for i, part in enumerate(self.parts) for name, array in part.arrays().items()}

    def meta(self) -> dict[str, Any]:
        """Return every part's form and meta."""
        return {"parts": [{"form": part.form, "meta": part.meta()} for part in self.parts]}


@dataclass(frozen=True)
class Scaled:
    """w[c, ...] = scale[c] x code[c, ...]: float32 `scale` (C,). What folding batch norm makes of a coded convolution.

    Only files have it: in PyTorch the norm stays a module.
    """

    code: Code
    scale: Tensor
    form: str = "scaled"

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the dense tensor."""
        return self.code.shape

    def dense(self) -> Tensor:
        """Return the float32 tensor."""
        inner = self.code.dense()
        return inner * self.scale.float().reshape([-1] + [1] * (inner.dim() - 1))

    def bits(self) -> float:
        """Return the stored size in bits."""
        return stored_bits(self.arrays())

    def arrays(self) -> dict[str, Tensor]:
        """Return `scale` and the inner code's arrays under `0.name`."""
        inner = {f"0.{name}": array for name, array in self.code.arrays().items()}
        return inner | {"scale": stored(self.scale, torch.float32)}

    def meta(self) -> dict[str, Any]:
        """Return the inner code's form and meta."""
        return {"parts": [{"form": self.code.form, "meta": self.code.meta()}]}
