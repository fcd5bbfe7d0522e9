"""The settings of quantization-aware training."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from easycompress.core.knobs import answer_knobs, around
from easycompress.core.plan import Action
from easycompress.quantization.settings import PROBE_SAMPLES, StaticInt8

if TYPE_CHECKING:
    from typing_extensions import Self

    from easycompress.core.knobs import Knob

RATE = 0.01
"""Peak rate of momentum SGD, for weights relative to their channel's largest one (see fake.Weights)."""

RATE_FACTOR = 4.0
"""How far from the usual rate a tuning goes, either way."""


class QatInt8(Action):
    """Train the weights with the integers of the file simulated, by what the original answers.

    `calibration`, `samples` and `reduce_range` as in static int8: what training starts from. `technique`,
    `temperature`, `alpha`, `mode`, `epochs` and `outputs` as in distillation, with which it runs in one.
    `rate` is the peak rate, None: RATE.
    """

    trains: ClassVar[bool] = True
    integers: ClassVar[bool] = True

    kind: Literal["qat-int8"] = "qat-int8"
    technique: Literal["soft", "hard", "combined"] = "combined"
    temperature: float = Field(default=2.0, gt=0)
    alpha: float = Field(default=0.5, ge=0, le=1)
    mode: Literal["target", "budget"] = "target"
    epochs: int | None = Field(default=None, ge=1)
    outputs: Literal["logits", "values"] = "logits"
    calibration: Literal["minmax", "percentile", "entropy"] = "minmax"
    samples: int = Field(default=512, ge=1)
    reduce_range: bool | None = None
    rate: float | None = Field(default=None, gt=0)

    def static(self) -> StaticInt8:
        """Return the action that makes the same file without training."""
        return StaticInt8(calibration=self.calibration, samples=self.samples, reduce_range=self.reduce_range)

    def instead(self) -> StaticInt8:
        """Return the same integers without training."""
        return self.static()

    def untrained(self) -> Self | None:
        """Return the quickest calibration: bytes and speed don't depend on the ranges, nor on how it is trained."""
        changes = {"samples": min(self.samples, PROBE_SAMPLES), "calibration": "minmax", "rate": None}
        return self.model_copy(update=changes)

    def insisting(self) -> Self:
        """Return the action in budget mode."""
        return self.model_copy(update={"mode": "budget"})

    def knobs(self) -> dict[str, Knob]:
        """Return the rate, and what weighs the original's answers where they are asked."""
        answers = answer_knobs(self.technique, self.temperature, self.alpha, logits=self.outputs == "logits")
        return {"rate": around(self.rate or RATE, RATE_FACTOR), **answers}
