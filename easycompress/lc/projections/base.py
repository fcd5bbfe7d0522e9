"""What a C step is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

import torch

from easycompress.core.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from easycompress.codes.base import Code

View = Literal["vector", "matrix"]
"""What a compression takes: any tensor as a vector, or only those that have a matrix view (2 dimensions or more)."""


class Projection(Protocol):
    """One C step: argmin over Theta of ||w - Delta(Theta)||^2 + (2 / mu) lambda C(Theta), or under a constraint.

    Settings are frozen dataclass fields. `project` takes the tensors of one task, any shapes, float32 or lower, and
    returns a code for each, in order; several tensors are compressed jointly where the problem couples them (one
    codebook, one number of nonzeros), else one by one. `mu` matters to penalties alone. `warm` is what the previous C
    step returned for the same tensors. Equal inputs give equal codes. Raises BadInput on NaN or infinity, and for
    settings that don't fit the tensors.
    """

    @property
    def view(self) -> View:
        """What it takes."""
        ...

    def project(self, tensors: Sequence[Tensor], mu: float, warm: Sequence[Code] | None = None) -> list[Code]:
        """Return the best codes of the tensors."""
        ...


def flat(tensors: Sequence[Tensor]) -> Tensor:
    """Return all values as one float32 vector (N,). Raises BadInput on NaN or infinity."""
    vector = torch.cat([t.detach().reshape(-1).float() for t in tensors]) if tensors else torch.zeros(0)
    if vector.numel() and not torch.isfinite(torch.stack(vector.aminmax())).all():  # one pass, and NaN comes through
        raise BadInput("a weight to compress holds NaN or infinity; repair the checkpoint")
    return vector


def parted(vector: Tensor, tensors: Sequence[Tensor]) -> list[Tensor]:
    """Cut a vector (N,) back into the tensors' shapes."""
    parts = torch.split(vector, [t.numel() for t in tensors])
    return [part.reshape(t.shape) for part, t in zip(parts, tensors, strict=True)]
