"""The settings of structured pruning."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from easycompress.core.knobs import Choice, tilt_knobs
from easycompress.core.plan import Action, ramp

if TYPE_CHECKING:
    from typing_extensions import Self

    from easycompress.core.knobs import Knob

Strategy = Literal["global", "convolutional", "linear", "attention"]
Importance = Literal["random", "l1", "l2", "bn-scale", "group-norm", "lamp", "taylor"]
Ratios = Literal["global", "sensitivity"]
Saves = Literal["channels", "params", "macs"]
Protect = Literal["none", "ends", "shortcuts", "both"]


class StructuredPruning(Action):
    """Remove whole channels and neurons.

    `strength` in [0, 1] is the share of prunable channels to remove, before rounding; None: found by measuring.
    `importance` ranks the channels. `ratios` says how the removal is spread over the layers: `global` by one ranking of
    all channels, `sensitivity` by the loss that was measured when each group alone was pruned. What counts is the loss
    per channel, parameter or multiply-accumulate that goes: `saves`. `protect` spares what the graph shows to be
    sensitive: its ends, the channels along shortcuts, or both.
    `sparsity`: before the first pruning, where there is time to train, batch norm scales shrink by this much of an L1
    penalty (Liu et al., Network Slimming, ICCV 2017; 1e-4 to 1e-3).
    Kept widths are multiples of `round_to`. The way there takes `steps` prunings with recovery after each. Where one
    strength drives several actions, this one takes part from the strength `start` on. `tilt` and `bow` say by
    core.knobs.emphasis how much more it costs to remove channels of some groups than of others, in the order of the
    groups; None: nothing.
    """

    restructures: ClassVar[bool] = True

    kind: Literal["structured-pruning"] = "structured-pruning"
    strategy: Strategy = "global"
    importance: Importance = "l1"
    ratios: Ratios = "global"
    saves: Saves = "channels"
    protect: Protect = "none"
    strength: float | None = Field(default=None, ge=0, le=1)
    sparsity: float | None = Field(default=None, gt=0)
    round_to: int = Field(default=1, ge=1)
    steps: int = Field(default=3, ge=1)
    start: float = Field(default=0.0, ge=0, lt=1)
    tilt: float | None = None
    bow: float | None = None

    def at(self, strength: float) -> Self | None:
        """Return the action with its share of a common strength, None where its range has not begun."""
        return super().at(ramp(strength, self.start))

    @property
    def pauses(self) -> int:
        """Return a recovery between each two prunings, and one more before them that makes scales sparse."""
        return self.steps - 1 + (self.sparsity is not None)

    def amount(self, strength: float) -> str:
        """Return the share of the channels that goes."""
        return f"{ramp(strength, self.start):.1%} of the channels"

    def widened(self) -> Self:
        """Return the action that prunes every layer."""
        return self.model_copy(update={"strategy": "global"})

    def knobs(self) -> dict[str, Knob]:
        """Return what ranks the channels, how the removal is spread over the layers, and in how many steps it is."""
        ranked: tuple[Importance, ...] = ("l1", "l2", "group-norm", "lamp")
        importances = dict.fromkeys((self.importance, *ranked))
        found: dict[str, Knob] = {"importance": Choice(tuple(importances), self.importance)}
        if self.steps > 1:
            found["steps"] = Choice(tuple(dict.fromkeys((self.steps, 1, 3, 5))), self.steps)
        found.update(tilt_knobs(self.tilt, self.bow))
        return found
