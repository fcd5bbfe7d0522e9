"""The settings of transformer pruning."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from easycompress.core.plan import Action, ramp

if TYPE_CHECKING:
    from typing_extensions import Self

Part = Literal["feed-forward", "attention", "both", "head-dims"]
Importance = Literal["taylor", "norm"]
Grouped = Literal["key-value", "query"]


class TransformerPruning(Action):
    """Remove attention heads and feed-forward neurons, or dimensions of heads.

    `strength` in [0, 1] is the share of the heads and neurons of `part` to remove, before rounding; None: found by
    measuring. Part `head-dims` makes all heads smaller instead, in rotary pairs where there are any; so does attention
    that has a single head to begin with. Kept feed-forward widths and head sizes are multiples of `round_to`.
    `uniform` takes the same share from every block, so that a configuration can say what is left; where it can't say
    fewer heads alone, they go together with hidden width (for `both` once half of the neurons has gone), or stay; where
    it can't say smaller heads, the record alone does. Rotary pairs that a configuration can say are evenly spaced.
    Otherwise the least important go first, wherever they are.
    `grouped` says what goes where query heads share keys and values: whole groups, or as many
    query heads from each group. The way there takes `steps` prunings with recovery after each.
    Where one strength drives several actions, this one takes part from the strength `start` on.
    """

    restructures: ClassVar[bool] = True

    kind: Literal["transformer-pruning"] = "transformer-pruning"
    part: Part = "both"
    importance: Importance = "taylor"
    uniform: bool = True
    grouped: Grouped = "key-value"
    strength: float | None = Field(default=None, ge=0, le=1)
    round_to: int = Field(default=1, ge=1)
    steps: int = Field(default=3, ge=1)
    start: float = Field(default=0.0, ge=0, lt=1)

    def at(self, strength: float) -> Self | None:
        """Return the action with its share of a common strength, None where its range has not begun."""
        return super().at(ramp(strength, self.start))

    @property
    def pauses(self) -> int:
        """Return a recovery between each two prunings."""
        return self.steps - 1

    def amount(self, strength: float) -> str:
        """Return the share that goes."""
        words = {
            "feed-forward": "feed-forward neurons",
            "attention": "heads",
            "both": "heads and feed-forward neurons",
            "head-dims": "dimensions of heads",
        }
        return f"{ramp(strength, self.start):.1%} of the {words[self.part]}"

    def widened(self) -> Self:
        """Return the action that prunes heads and feed-forward layers; smaller heads are no part of that."""
        return self if self.part == "head-dims" else self.model_copy(update={"part": "both"})

    def untrained(self) -> Self:
        """Return the action without gradients where they don't decide the widths: bytes and speed are the same."""
        return self.model_copy(update={"importance": "norm"}) if self.uniform else self
