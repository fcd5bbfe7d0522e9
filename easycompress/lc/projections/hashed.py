"""Hashed weight sharing: a hash fixes which weights share a value, the C step finds the values.

Source: Chen et al., "Compressing neural networks with the hashing trick", ICML 2015; compared as HashedNet in Baktash,
Natale and Viennot, "A comparative study of neural network compression", 2019.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from easycompress.codes.hashed import PRIME, Hashed, hash_places
from easycompress.core.errors import BadInput
from easycompress.lc.projections.base import View, flat

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from easycompress.codes.base import Code

SEED_STEP = 1_000_003
"""Between the seeds of neighbouring tensors: a prime, so that small `seed` fields don't meet each other's tensors."""


@dataclass(frozen=True)
class HashedSharing:
    """argmin over values v (buckets,) of the sum over i of (w[i] - v[h(i)])^2, the hash h fixed: each bucket's mean.

    A bucket without weights is 0. Each tensor has its own values and its own hash, seeded by `seed` and its place among
    the tensors. Set `buckets`, a number for each tensor, or `share`, a part of each tensor's weights in (0, 1]:
    max(1, round(share x N)) buckets. Raises BadInput unless exactly one of them is given, in its range, and seed >= 0.
    """

    buckets: int | None = None
    share: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.buckets is None) == (self.share is None):
            raise BadInput(
                f"HashedSharing takes either buckets, a number of values, or share, a part of the weights; "
                f"got buckets={self.buckets}, share={self.share}"
            )
        if self.buckets is not None and not 1 <= self.buckets < PRIME:
            raise BadInput(f"HashedSharing needs 1 <= buckets < {PRIME}; got {self.buckets}")
        if self.share is not None and not 0 < self.share <= 1:
            raise BadInput(f"HashedSharing needs 0 < share <= 1, buckets as a part of the weights; got {self.share}")
        if self.seed < 0:
            raise BadInput(f"HashedSharing needs seed >= 0; got {self.seed}")

    @property
    def view(self) -> View:
        """Any tensor, as a vector."""
        return "vector"

    def project(
        self,
        tensors: Sequence[Tensor],
        mu: float,  # noqa: ARG002 - sharing has no price
        warm: Sequence[Code] | None = None,  # noqa: ARG002 - solved exactly from nothing
    ) -> list[Code]:
        """Return one hashed code a tensor. Raises BadInput on NaN or infinity."""
        return [self._one(tensor, place) for place, tensor in enumerate(tensors)]

    def _one(self, tensor: Tensor, place: int) -> Hashed:
        vector = flat([tensor])
        buckets = max(1, round((self.share or 0.0) * len(vector))) if self.buckets is None else self.buckets
        seed = (self.seed + place * SEED_STEP) % PRIME
        places = hash_places(len(vector), buckets, seed, vector.device)
        sums = torch.bincount(places, weights=vector.double(), minlength=buckets)
        counts = torch.bincount(places, minlength=buckets)
        return Hashed((sums / counts.clamp(min=1)).float(), tuple(tensor.shape), seed)
