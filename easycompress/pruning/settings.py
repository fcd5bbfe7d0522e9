"""The settings of structured pruning."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from easycompress.core.plan import Action

Strategy = Literal["global", "convolutional", "linear"]
Importance = Literal["l1", "group-norm"]


class StructuredPruning(Action):
    """Remove whole channels and neurons.

    `strength` in [0, 1] is the share of prunable channels to remove, before rounding; None: found by measuring.
    Kept widths are multiples of `round_to`. The way there takes `steps` prunings with recovery after each.
    """

    kind: Literal["structured-pruning"] = "structured-pruning"
    strategy: Strategy = "global"
    importance: Importance = "l1"
    strength: float | None = Field(default=None, ge=0, le=1)
    round_to: int = Field(default=1, ge=1)
    steps: int = Field(default=3, ge=1)
