"""What every stored form can do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Code(Protocol):
    """A compressed tensor. Immutable; `dense` and `arrays` agree exactly.

    A code is what `arrays()` and `meta()` say and nothing else: `codes.reading.read_code` rebuilds it from them.
    """

    @property
    def form(self) -> str:
        """The name of the stored form."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the dense tensor."""
        ...

    def dense(self) -> Tensor:
        """Return the float32 tensor that the code stands for, contiguous, on the device of its fields."""
        ...

    def bits(self) -> float:
        """Return the stored size in bits: 8 x the bytes of `arrays()`, tested against the file."""
        ...

    def arrays(self) -> dict[str, Tensor]:
        """Return the tensors that are stored, by short name, each in its stored precision, on the CPU, contiguous."""
        ...

    def meta(self) -> dict[str, Any]:
        """Return the JSON-able facts without which the arrays can't be read."""
        ...


def stored_bits(arrays: dict[str, Tensor]) -> float:
    """Return 8 x the bytes of the arrays."""
    return 8.0 * sum(t.numel() * t.element_size() for t in arrays.values())


def stored(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the tensor as a file holds it: that dtype, on the CPU, contiguous, without gradient."""
    return tensor.detach().to("cpu", dtype).contiguous()
