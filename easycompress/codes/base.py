"""What every stored form can do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor


class Code(Protocol):
    """A compressed tensor. Immutable; `dense` and `arrays` agree exactly."""

    @property
    def form(self) -> str:
        """The name of the stored form."""
        ...

    def dense(self) -> Tensor:
        """Return the float32 tensor that the code stands for."""
        ...

    def bits(self) -> float:
        """Return the stored size in bits: 8 x the bytes of `arrays()`, tested against the file."""
        ...

    def arrays(self) -> dict[str, Tensor]:
        """Return the tensors that are stored, by short name."""
        ...
