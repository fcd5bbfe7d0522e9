"""The settings of logit distillation."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from easycompress.core.knobs import answer_knobs, around
from easycompress.core.plan import Action

if TYPE_CHECKING:
    from typing_extensions import Self

    from easycompress.core.knobs import Knob

Technique = Literal["soft", "hard", "combined"]

RATE = 0.05
"""Peak rate of momentum SGD."""

FURTHER = 0.2
"""What the peak rate is multiplied by where training goes on from weights that were trained with it.

ResNet20 at half the operations by low rank, 0.74 points lost after three epochs: two more came to 0.74 (the best was
the one it began with) at the same rate and to 0.64 at a fifth of it.
"""

RATE_FACTOR = 4.0
"""How far from the usual rate a tuning goes, either way."""


class Distillation(Action):
    """Train the compressed model to answer as the original does.

    soft: T^2 KL(teacher || student) at temperature T. hard: the task's loss on the labels. combined:
    `alpha` x hard + (1 - `alpha`) x soft. mode `target` stops as soon as the floor is comfortably met, mode `budget`
    uses all epochs; both keep the best epoch. `epochs` None: as many as the budget allows.

    `outputs`: the model answers in `logits`, of classes, or in `values`, which are imitated by their squared error.
    `features`: the weight of a further term, that blocks of the same name look where the original's do (attention
    transfer); 0 for none. `feature_layers`: how many blocks at most, spread over the depth.
    `rate` is the peak rate of momentum SGD, None: RATE; what trains by AdamW takes a rate in proportion.
    """

    trains: ClassVar[bool] = True
    recovers: ClassVar[bool] = True

    kind: Literal["distillation"] = "distillation"
    technique: Technique = "combined"
    temperature: float = Field(default=2.0, gt=0)
    alpha: float = Field(default=0.5, ge=0, le=1)
    mode: Literal["target", "budget"] = "target"
    epochs: int | None = Field(default=None, ge=1)
    outputs: Literal["logits", "values"] = "logits"
    features: float = Field(default=0.0, ge=0)
    feature_layers: int = Field(default=4, ge=1)
    rate: float | None = Field(default=None, gt=0)

    def insisting(self) -> Self:
        """Return the action in budget mode."""
        return self.model_copy(update={"mode": "budget"})

    def further(self) -> Self:
        """Return the action in budget mode at a lesser rate."""
        return self.insisting().model_copy(update={"rate": FURTHER * (self.rate or RATE)})

    def knobs(self) -> dict[str, Knob]:
        """Return the rate, and what weighs the original's answers where they are asked."""
        answers = answer_knobs(self.technique, self.temperature, self.alpha, logits=self.outputs == "logits")
        return {"rate": around(self.rate or RATE, RATE_FACTOR), **answers}
