"""How much worse a model may have become."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from easycompress.core.errors import BadInput
from easycompress.core.goal import NO_FLOOR, parse_floor

if TYPE_CHECKING:
    from easycompress.core.goal import Floor

POINTS, RELATIVE = "0.5%", "0.5%rel"
"""Default --max-drop of metrics that are percentages, and of others."""

SIZE, MACS, LATENCY = "1.02x", "1.02x", "1.15x"
"""Defaults of --max-size, --max-macs and --max-latency-ratio."""

NONE = "none"
"""Leaves a check out."""


@dataclass(frozen=True)
class Limits:
    """`drop` in the metric's unit. Ratios are new / baseline; None: not judged."""

    drop: Floor
    size: float | None
    macs: float | None
    latency: float | None


def parse_limits(
    max_drop: str | None,
    max_size: str | None,
    max_macs: str | None,
    max_latency_ratio: str | None,
    *,
    percent_metric: bool,
    metric: str,
) -> Limits:
    """Parse what was said, None for the defaults. Raises BadInput for what is no drop or no ratio."""
    drop = max_drop or (POINTS if percent_metric else RELATIVE)
    return Limits(
        drop=NO_FLOOR
        if drop.strip() == NONE
        else parse_floor(drop, None, percent_metric=percent_metric, metric=metric),
        size=_ratio("--max-size", max_size or SIZE),
        macs=_ratio("--max-macs", max_macs or MACS),
        latency=_ratio("--max-latency-ratio", max_latency_ratio or LATENCY),
    )


def _ratio(flag: str, text: str) -> float | None:
    """Return the ratio that `1.02x` or `1.02` spells, None for `none`."""
    if text.strip() == NONE:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*[xX]?", text.strip())
    if match is None:
        raise BadInput(f"{flag} {text}: not a ratio to the baseline; write 1.02x (2 % more), or none to leave it out")
    ratio = float(match[1])
    if not 0 < ratio < math.inf:
        raise BadInput(f"{flag} {text}: a ratio must be positive; write 1.02x (2 % more), or none to leave it out")
    return ratio
