"""The settings of low rank as a change of layers."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from easycompress.core.plan import Action

Gain = Literal["compute", "latency"]
Scheme = Literal["scheme-1", "scheme-2", "tucker"]


class LowRankLayers(Action):
    """Replace layers by two or three thinner ones of low rank, where that costs less and harms least.

    `strength` in [0, 1] is the share of the largest possible saving that is taken; None: found by measuring. `gain`
    says what is saved: multiply-accumulates, or the milliseconds that each layer takes in ONNX Runtime for `batch`
    samples: a replacement that isn't faster there isn't made. Ranks are multiples of `round_to`. Without training
    data the layers are compared on white noise.
    """

    restructures: ClassVar[bool] = True

    kind: Literal["low-rank-layers"] = "low-rank-layers"
    strength: float | None = Field(default=None, ge=0, le=1)
    gain: Gain = "compute"
    schemes: tuple[Scheme, ...] = Field(default=("scheme-1", "scheme-2", "tucker"), min_length=1)
    samples: int = Field(default=128, ge=1)
    round_to: int = Field(default=1, ge=1)
    batch: int = Field(default=1, ge=1)

    def amount(self, strength: float) -> str:
        """Return the share of the possible saving."""
        return f"{strength:.1%} of what low rank can save"
