"""The settings of structured pruning."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from easycompress.core.plan import Action

if TYPE_CHECKING:
    from typing_extensions import Self

Strategy = Literal["global", "convolutional", "linear"]
Importance = Literal["l1", "group-norm"]


class StructuredPruning(Action):
    """Remove whole channels and neurons.

    `strength` in [0, 1] is the share of prunable channels to remove, before rounding; None: found by measuring.
    Kept widths are multiples of `round_to`. The way there takes `steps` prunings with recovery after each.
    """

    restructures: ClassVar[bool] = True

    kind: Literal["structured-pruning"] = "structured-pruning"
    strategy: Strategy = "global"
    importance: Importance = "l1"
    strength: float | None = Field(default=None, ge=0, le=1)
    round_to: int = Field(default=1, ge=1)
    steps: int = Field(default=3, ge=1)

    @property
    def pauses(self) -> int:
        """Return a recovery between each two prunings."""
        return self.steps - 1

    def amount(self, strength: float) -> str:
        """Return the share of the channels that goes."""
        return f"{strength:.1%} of the channels"

    def widened(self) -> Self:
        """Return the action that prunes every layer."""
        return self.model_copy(update={"strategy": "global"})
