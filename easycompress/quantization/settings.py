"""The settings of static int8 quantization."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from easycompress.core.plan import Action

if TYPE_CHECKING:
    from typing_extensions import Self

PROBE_SAMPLES = 64
"""Calibration samples of an untrained candidate: its bytes and speed don't depend on the ranges."""

CALIBRATIONS: tuple[Literal["minmax", "percentile", "entropy"], ...] = ("minmax", "percentile", "entropy")
"""Ways to set the ranges of activations; where one breaks the floor the next is tried on the same weights."""


class StaticInt8(Action):
    """8-bit weights (symmetric, per channel) and activations (unsigned, per tensor), calibrated on training data.

    `samples` training samples set the activation ranges: by their minimum and maximum, by a percentile of their
    distribution, or by least entropy loss. `reduce_range` uses 7 bits for weights, for processors without VNNI.
    """

    finishes: ClassVar[bool] = True

    kind: Literal["static-int8"] = "static-int8"
    calibration: Literal["minmax", "percentile", "entropy"] = "minmax"
    samples: int = Field(default=512, ge=1)
    reduce_range: bool = False

    def untrained(self) -> Self | None:
        """Return the quickest calibration."""
        return self.model_copy(update={"samples": min(self.samples, PROBE_SAMPLES), "calibration": "minmax"})

    def variants(self) -> tuple[Self, ...]:
        """Return its own calibration first, then the others."""
        others = [c for c in CALIBRATIONS if c != self.calibration]
        return (self, *(self.model_copy(update={"calibration": c}) for c in others))
