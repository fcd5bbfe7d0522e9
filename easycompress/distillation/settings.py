"""The settings of logit distillation."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from easycompress.core.plan import Action

if TYPE_CHECKING:
    from typing_extensions import Self

Technique = Literal["soft", "hard", "combined"]


class Distillation(Action):
    """Train the compressed model to answer as the original does.

    soft: T^2 KL(teacher || student) at temperature T. hard: the task's loss on the labels. combined:
    `alpha` x hard + (1 - `alpha`) x soft. mode `target` stops as soon as the floor is comfortably met, mode `budget`
    uses all epochs; both keep the best epoch. `epochs` None: as many as the budget allows.

    `outputs`: the model answers in `logits`, of classes, or in `values`, which are imitated by their squared error.
    `features`: the weight of a further term, that blocks of the same name look where the original's do (attention
    transfer); 0 for none. `feature_layers`: how many blocks at most, spread over the depth.
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

    def insisting(self) -> Self:
        """Return the action in budget mode."""
        return self.model_copy(update={"mode": "budget"})
