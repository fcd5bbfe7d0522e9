"""One line of `inspect`: what one tensor of a written file is stored as, and what it weighs."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class TensorRow:
    """One stored tensor. `form` names its stored form; `bits_per_weight` and `bytes` are what it takes in the file.

    `shape` is the shape of the dense tensor that the file decodes to, so `bits_per_weight` = 8 x bytes / weights.
    """

    name: str
    form: str
    shape: tuple[int, ...]
    bits_per_weight: float
    bytes: int

    @property
    def weights(self) -> int:
        """Return how many numbers the dense tensor holds; 1 for a scalar."""
        return math.prod(self.shape)
