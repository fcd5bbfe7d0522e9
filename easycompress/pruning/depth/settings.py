"""The settings of depth pruning."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator

from easycompress.core.plan import Action, ramp

if TYPE_CHECKING:
    from typing_extensions import Self

Harm = Literal["answers", "similarity"]


class DepthPruning(Action):
    """Remove whole residual blocks, the most harmless ones first.

    `strength` in [0, 1]; None: found by measuring. The share of the removable blocks that goes is 0 up to the strength
    `start`, grows in proportion from there and is `most` from the strength `end` on: one strength can so drive several
    actions, each in its own range. `by`: harm is how far the model's answers move on up to `samples` calibration
    samples without the block (`answers`), or how little the block changes what passes through it (`similarity`).
    """

    restructures: ClassVar[bool] = True

    kind: Literal["depth-pruning"] = "depth-pruning"
    strength: float | None = Field(default=None, ge=0, le=1)
    start: float = Field(default=0.0, ge=0, le=1)
    end: float = Field(default=1.0, ge=0, le=1)
    most: float = Field(default=1.0, gt=0, le=1)
    by: Harm = "answers"
    samples: int = Field(default=128, ge=1)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.start >= self.end:
            raise ValueError(f"start {self.start:g} must lie below end {self.end:g}")
        return self

    def share(self, strength: float) -> float:
        """Return the share of the removable blocks that goes at a strength, in [0, `most`]."""
        return self.most * ramp(strength, self.start, self.end)

    def blocks(self, strength: float, removable: int) -> int:
        """Return how many of `removable` blocks go at a strength: the share, rounded to the nearest number."""
        return math.floor(self.share(strength) * removable + 0.5)

    def at(self, strength: float) -> Self | None:
        """Return the action with an unset dial set, None where its range has not begun."""
        if self.searched and not self.share(strength):
            return None
        return super().at(strength)

    def amount(self, strength: float) -> str:
        """Return the share of the blocks that goes."""
        return f"{self.share(strength):.0%} of the removable blocks"
