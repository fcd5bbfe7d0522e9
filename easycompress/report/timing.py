"""Times for people who wait: what has gone by, and what is left."""

from __future__ import annotations

import math

_MINUTE, _HOUR = 60, 3600

FEW = 10.0
"""Seconds that aren't told apart: less is `a few seconds`."""

ROUND = 5
"""Below a minute, and above FEW, what is left is told in steps of so many seconds."""

BLEND = 0.3
"""Share of a new estimate in the one that is shown, where the two are close."""

WILD = 0.25
"""An estimate of the end that moves by more than this share of what was left has a cause, and is shown as it is."""


def clock(seconds: float) -> str:
    """Return a time as a stopwatch shows it: 0:07, 12:05, 1:02:05."""
    whole = max(0, int(seconds))
    minutes, rest = whole // _MINUTE, whole % _MINUTE
    if whole < _HOUR:
        return f"{minutes}:{rest:02d}"
    return f"{minutes // _MINUTE}:{minutes % _MINUTE:02d}:{rest:02d}"


def left_words(seconds: float | None, at_most: float | None) -> str:
    """Return what is left in words: `about 3 min left, at most 12 min`; empty if nothing is known.

    An estimate whose time is over by more than FEW seconds was wrong, and isn't told any more.
    """
    about = None if seconds is None or seconds < -FEW else _about(max(0.0, seconds))
    most = None if at_most is None or at_most <= 0 else _most(at_most)
    if about is None:
        return "" if most is None else f"at most {most} left"
    return f"{about} left" if most is None or (seconds or 0) < FEW else f"{about} left, at most {most}"


def blended(shown: float | None, new: float | None, now: float) -> float | None:
    """Return which end to show when the estimate of it was `shown` and is `new`, all in seconds on one clock.

    It follows small corrections slowly and large ones at once, so that it neither trembles nor lies.
    """
    if shown is None or new is None or abs(new - shown) > WILD * max(shown - now, ROUND):
        return new
    return shown + BLEND * (new - shown)


def _about(seconds: float) -> str:
    if seconds < FEW:
        return "a few seconds"
    nearest = ROUND * round(seconds / ROUND)
    if nearest < _MINUTE:
        return f"about {nearest} s"
    return f"about {_minutes(round(seconds / _MINUTE))}"


def _most(seconds: float) -> str:
    """Return a bound, rounded up."""
    steps = ROUND * math.ceil(seconds / ROUND)
    return f"{steps} s" if steps < _MINUTE else _minutes(math.ceil(seconds / _MINUTE))


def _minutes(minutes: int) -> str:
    minutes = max(1, minutes)
    hours, rest = divmod(minutes, _MINUTE)
    return f"{minutes} min" if not hours else f"{hours} h {rest:02d} min"
