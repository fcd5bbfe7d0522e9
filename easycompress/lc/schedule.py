"""Penalty schedules: mu_t = mu_0 a^t."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from easycompress.core.errors import BadInput

Method = Literal["augmented-lagrangian", "quadratic-penalty"]


LARGEST = 1e30
"""The largest mu: its product with a rate and a weight still fits a float32."""


@dataclass(frozen=True)
class Penalty:
    """The penalty parameter of step t = 0, 1, ..., `steps` - 1 is `mu` x `growth`^t (LC papers, section II)."""

    mu: float
    growth: float
    steps: int
    method: Method = "augmented-lagrangian"

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 0 < self.mu < math.inf:
            raise BadInput(f"lc: mu {self.mu:g}: must be above 0 and finite")
        if not 1 <= self.growth < math.inf:
            raise BadInput(f"lc: growth {self.growth:g}: mu must not fall; give at least 1")
        if self.steps < 0:
            raise BadInput(f"lc: {self.steps} steps: must be 0 (direct compression) or more")
        if self.method not in get_args(Method):
            raise BadInput(f"lc: no method {self.method!r}; there are {', '.join(get_args(Method))}")
        if math.log(self.mu) + max(self.steps - 1, 0) * math.log(self.growth) > math.log(LARGEST):
            raise BadInput(
                f"lc: mu {self.mu:g} x {self.growth:g}^{self.steps - 1} is above {LARGEST:g}; lower the growth"
            )

    def __call__(self, step: int) -> float:
        """Return mu of a step."""
        return self.mu * self.growth**step


def spread(first: float, last: float, steps: int, method: Method = "augmented-lagrangian") -> Penalty:
    """Return the schedule of `steps` values from `first` to `last`. Raises BadInput unless 0 < first <= last."""
    if not 0 < first <= last < math.inf:
        raise BadInput(f"lc: mu from {first:g} to {last:g}: must be above 0 and not fall")
    growth = (last / first) ** (1 / (steps - 1)) if steps > 1 else 1.0
    return Penalty(first, growth, steps, method)
