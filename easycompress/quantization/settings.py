"""The settings of the quantizers that come after training."""

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


SPARED = (1, 2, 4)
"""How many of the most sensitive layers stay float where every calibration breaks the floor."""

WIDENED = (0.25, 0.5)
"""Shares of the layers that get 8 bits instead of 4 where 4 break the floor."""


class StaticInt8(Action):
    """8-bit weights (symmetric, per channel) and activations (unsigned, per tensor), calibrated on training data.

    `samples` training samples set the activation ranges: by their minimum and maximum, by a percentile of their
    distribution, or by least entropy loss. `reduce_range` uses 7 bits for weights, for processors without VNNI whose
    8-bit products saturate; None asks this computer's processor, so set it when the file will run on another.
    `float_layers` stay float, and so do the `keep_float` layers among the others that measure as the most sensitive.
    """

    finishes: ClassVar[bool] = True
    integers: ClassVar[bool] = True

    kind: Literal["static-int8"] = "static-int8"
    calibration: Literal["minmax", "percentile", "entropy"] = "minmax"
    samples: int = Field(default=512, ge=1)
    reduce_range: bool | None = None
    float_layers: tuple[str, ...] = ()
    keep_float: int = Field(default=0, ge=0)

    def untrained(self) -> Self | None:
        """Return the quickest calibration."""
        return self.model_copy(update={"samples": min(self.samples, PROBE_SAMPLES), "calibration": "minmax"})

    def variants(self) -> tuple[Self, ...]:
        """Return its own calibration first, then the others, then more and more layers left float."""
        others = [c for c in CALIBRATIONS if c != self.calibration]
        spared = [count for count in SPARED if count > self.keep_float]
        return (
            self,
            *(self.model_copy(update={"calibration": c}) for c in others),
            *(self.model_copy(update={"keep_float": count}) for count in spared),
        )


class DynamicInt8(Action):
    """8-bit weights of linear layers and embeddings, symmetric, per row; activations quantized at each run.

    `reduce_range` as in StaticInt8. The `keep_float` linear layers that measure as the most sensitive stay float.
    """

    finishes: ClassVar[bool] = True
    integers: ClassVar[bool] = True

    kind: Literal["dynamic-int8"] = "dynamic-int8"
    reduce_range: bool | None = None
    keep_float: int = Field(default=0, ge=0)

    def variants(self) -> tuple[Self, ...]:
        """Return itself, then the action with more and more layers left float."""
        spared = [count for count in SPARED if count > self.keep_float]
        return (self, *(self.model_copy(update={"keep_float": count}) for count in spared))


class WeightOnly(Action):
    """Weights of linear layers in blocks of `block` inputs, each with its own scale, in `bits`; activations stay float.

    Not `symmetric`: each block has a zero point as well. The share `wide` of the layers, those that measure as the most
    sensitive, has 8 bits in any case. Embeddings have 8 bits and one scale a row. `strength` in (0, 1] sets `wide` to
    the rest of it: the share of the layers with 4 bits; None: found by measuring.
    """

    finishes: ClassVar[bool] = True
    integers: ClassVar[bool] = True

    kind: Literal["weight-only"] = "weight-only"
    bits: Literal[4, 8] = 8
    block: Literal[32, 64, 128] = 32
    symmetric: bool = True
    wide: float = Field(default=0.0, ge=0, le=1)
    strength: float | None = Field(default=1.0, gt=0, le=1)

    def at(self, strength: float) -> Self | None:
        """Return the action with an unset dial set, None at 0."""
        made = super().at(strength)
        return made.model_copy(update={"wide": 1 - strength}) if self.searched and made is not None else made

    def amount(self, strength: float) -> str:
        """Return the share of the layers with few bits."""
        return f"{strength:.0%} of the layers in {self.bits} bits"

    def variants(self) -> tuple[Self, ...]:
        """Return itself, and for 4 bits, with zero points, then with more and more layers of 8 bits."""
        if self.bits == 8:  # noqa: PLR2004 - the setting
            return (self,)
        pointed = self.model_copy(update={"symmetric": False})
        wider = [self.model_copy(update={"wide": share}) for share in WIDENED if share > self.wide]
        return (self, *([pointed] if self.symmetric else []), *wider)


class Float16(Action):
    """Weights and operators in float16, inputs and outputs in float32: for GPUs, which have units for it.

    On a CPU the file is half as large and not faster: ONNX Runtime computes in float32 there.
    """

    finishes: ClassVar[bool] = True
    integers: ClassVar[bool] = True

    kind: Literal["float16"] = "float16"
