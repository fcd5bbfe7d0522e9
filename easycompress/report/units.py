"""Numbers for people, in one place. 1 KB is 1000 bytes. Thousands are parted by a space: 1 725 832."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from easycompress.core.goal import Objective

UNKNOWN = "n/a"
"""What stands for a number that is missing, infinite or not a number."""

SMALLEST_PLAIN = 1e-4
"""Below this a number is written with an exponent."""

MOST_DECIMALS = 6
"""How far `apart` goes to tell two numbers from each other."""

_STEP = 1000.0
_MINUTE, _HOUR = 60, 3600


def number(value: float | None, digits: int = 3) -> str:
    """Return `value` with `digits` significant digits, and more only before the point: 0.0580, 12.3, 1 234."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    rounded = float(f"{value:.{digits - 1}e}")
    if rounded == 0:
        return "0"
    if abs(rounded) < SMALLEST_PLAIN:
        return f"{rounded:.{digits - 1}e}"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(rounded))))
    return f"{value:,.{decimals}f}".replace(",", " ")


def count(value: float | None) -> str:
    """Return a whole number: 1 725 832."""
    return UNKNOWN if value is None or not math.isfinite(value) else f"{value:,.0f}".replace(",", " ")


def scaled(value: float | None, units: Sequence[str]) -> str:
    """Return `value` in the largest of `units` (each 1000 of the one before) in which it is at least 1."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    power = 0
    # 999.6 would be written as 1 000: it belongs to the next unit.
    while abs(float(f"{value:.2e}")) >= _STEP and power < len(units) - 1:
        value /= _STEP
        power += 1
    text = count(value) if power == 0 and value == int(value) else number(value)
    return f"{text} {units[power]}"


def size(value: float | None) -> str:
    """Return bytes: 812 B, 168 KB, 1.73 MB."""
    return scaled(value, ("B", "KB", "MB", "GB", "TB"))


def macs(value: float | None) -> str:
    """Return multiply-accumulates: 40.1 MMACs."""
    return scaled(value, ("MACs", "KMACs", "MMACs", "GMACs", "TMACs"))


def milliseconds(value: float | None) -> str:
    """Return a latency given in ms: 0.0580 ms, 12.3 ms, 1.20 s."""
    return scaled(value, ("ms", "s"))


def energy(value: float | None) -> str:
    """Return an energy given in mJ: 0.790 mJ, 4.10 J."""
    return scaled(value, ("mJ", "J", "kJ"))


def amount(value: float | None, objective: Objective) -> str:
    """Return a value of an objective in a unit that people read: 168 KB, 0.0580 ms, 40.1 MMACs, 1.93 mJ."""
    return {"size": size, "latency": milliseconds, "compute": macs, "energy": energy}[objective](value)


def change(before: float, after: float, objective: Objective) -> str:
    """Return what an objective came from and went to. Bytes are exact: 1 725 832 -> 167 552 bytes."""
    if objective == "size":
        return f"{count(before)} -> {count(after)} bytes"
    return f"{amount(before, objective)} -> {amount(after, objective)}"


def quality(value: float | None, *, percent: bool) -> str:
    """Return a quality: 99.18 % when the metric is a percentage, else four significant digits."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    return f"{value:.2f} %" if percent else number(value, 4)


def points(value: float | None, *, percent: bool) -> str:
    """Return a distance between two qualities without its unit: 0.42 (percentage points), or three digits."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    return f"{value:.2f}" if percent else number(value)


def drop(value: float | None, *, percent: bool) -> str:
    """Return a drop, positive = worse: `0.42 points`, `better by 0.10 points`; without `points` if not a percentage."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    text = points(abs(value), percent=percent) + (" points" if percent else "")
    return f"better by {text}" if value < 0 else text


def apart(value: float, limit: float, *, percent: bool) -> tuple[str, str]:
    """Return `value` and `limit` as points, with as many decimals as it takes to see that they differ.

    A drop of 1.004 against a floor of 1.00 must not read as 1.00 against 1.00.
    """
    texts = points(value, percent=percent), points(limit, percent=percent)
    decimals = 3
    while texts[0] == texts[1] and value != limit and decimals <= MOST_DECIMALS:
        texts = f"{value:.{decimals}f}", f"{limit:.{decimals}f}"
        decimals += 1
    return texts


def ratio(value: float | None) -> str:
    """Return a ratio with three digits, rounded down, as 9.996x does not reach 10x: 1.03x, 10.3x, 1 030x."""
    if value is None or not math.isfinite(value) or value <= 0:
        return UNKNOWN
    decimals = max(0, 2 - math.floor(math.log10(value)))
    # The small term undoes binary fractions: 10.3 is stored as 10.2999..., and is still 10.3.
    floored = math.floor(value * 10**decimals * (1 + 1e-12)) / 10**decimals
    return f"{floored:,.{decimals}f}x".replace(",", " ")


def seconds(value: float | None) -> str:
    """Return a time given in seconds: 0.42 s, 12.0 s, 3 min 05 s, 1 h 12 min."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    if round(value, 1) < _MINUTE:
        return f"{number(value)} s" if value < 1 else f"{value:.1f} s"
    whole = round(value)
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE:02d} s"
    minutes = round(value / _MINUTE)
    return f"{minutes // _MINUTE} h {minutes % _MINUTE:02d} min"


def share(value: float) -> str:
    """Return a share between 0 and 1 as a percentage: 12.3 %."""
    return f"{100 * value:.1f} %"


def threads(number: int) -> str:
    """Return a number of threads: 1 thread, 2 threads."""
    return f"{number} thread{'' if number == 1 else 's'}"


def settings(values: dict[str, object]) -> str:
    """Return an action's settings as one line, without its kind and what is not set: strength 0.31, steps 3."""
    return ", ".join(
        f"{key} {f'{value:.4g}' if isinstance(value, float) else value}"
        for key, value in values.items()
        if key != "kind" and value is not None
    )
