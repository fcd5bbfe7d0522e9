"""A row of numbers as a row of little bars."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

BARS = "▁▂▃▄▅▆▇█"
PLAIN = "_.:-=+*#"
"""The same eight heights for screens that know ASCII only."""

GAP = " "
"""What stands for a number that isn't there."""


def sparkline(values: Sequence[float | None], width: int, *, plain: bool = False) -> str:
    """Return at most `width` characters, one a value; of more values neighbours share one, which shows their mean.

    The least value has the lowest bar and the largest the highest, wherever they lie; equal ones stand in the middle.
    None and what isn't finite leave a gap. `plain`: in ASCII.
    """
    shown = _merged([value if value is not None and math.isfinite(value) else None for value in values], width)
    known = [value for value in shown if value is not None]
    if not known:
        return ""
    low, span = min(known), max(known) - min(known)
    bars = PLAIN if plain else BARS
    middle = len(bars) // 2 - 1

    def bar(value: float) -> str:
        return bars[min(len(bars) - 1, int((value - low) / span * len(bars)))] if span > 0 else bars[middle]

    return "".join(GAP if value is None else bar(value) for value in shown)


def _merged(values: Sequence[float | None], width: int) -> list[float | None]:
    """Return at most `width` values: the means of equal stretches, the last of which ends with the last value."""
    if width < 1:
        return []
    if len(values) <= width:
        return list(values)
    stretches = [values[len(values) * i // width : len(values) * (i + 1) // width] for i in range(width)]
    return [_mean([value for value in stretch if value is not None]) for stretch in stretches]


def _mean(values: list[float]) -> float | None:
    return math.fsum(value / len(values) for value in values) if values else None
