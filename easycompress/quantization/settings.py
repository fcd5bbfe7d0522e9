"""The settings of static int8 quantization."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from easycompress.core.plan import Action


class StaticInt8(Action):
    """8-bit weights (symmetric, per channel) and activations (unsigned, per tensor), calibrated on training data.

    `samples` training samples set the activation ranges: by their minimum and maximum, by a percentile of their
    distribution, or by least entropy loss. `reduce_range` uses 7 bits for weights, for processors without VNNI.
    """

    kind: Literal["static-int8"] = "static-int8"
    calibration: Literal["minmax", "percentile", "entropy"] = "minmax"
    samples: int = Field(default=512, ge=1)
    reduce_range: bool = False
