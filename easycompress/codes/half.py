"""Half codes: every weight as a float16."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from easycompress.codes.base import stored, stored_bits
from easycompress.codes.checks import array_in, only

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Half:
    """w = values: float16 `values` of the tensor's shape. What a low-rank factor that became a layer is stored as."""

    values: Tensor
    form: str = "half"

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the dense tensor."""
        return tuple(self.values.shape)

    def dense(self) -> Tensor:
        """Return the float32 tensor."""
        return stored(self.values, torch.float16).float()

    def bits(self) -> float:
        """Return the stored size in bits."""
        return stored_bits(self.arrays())

    def arrays(self) -> dict[str, Tensor]:
        """Return `values`."""
        return {"values": stored(self.values, torch.float16)}

    def meta(self) -> dict[str, Any]:
        """Return nothing: the array says it all."""
        return {}

    @classmethod
    def read(cls, arrays: dict[str, Tensor]) -> Half:
        """Rebuild the code. Raises ValueError where the array doesn't fit."""
        only(arrays, ["values"])
        return cls(array_in(arrays, "values", torch.float16))
