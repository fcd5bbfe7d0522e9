"""The guard: whether a drop seen on *select* is small enough to go on with. Pure functions of numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from easycompress.measure.statistics import within

if TYPE_CHECKING:
    from easycompress.core.outcome import Drop

ERRORS = 1.0
"""Standard errors added to the estimate on *select*.

With none, half of the settings that lie exactly on the floor there would miss it on *report* by noise alone.
"""

COMFORT_ERRORS = 2.0
"""Standard errors that must fit below the floor before training stops early."""

COMFORT_SHARE = 0.25
"""Share of the permitted drop that may be used up when training stops early; more training is cheap before that."""

_MOST_DECIMALS = 12


@dataclass(frozen=True)
class Judgement:
    """Whether a result is accepted, and why in one sentence with the numbers."""

    accepted: bool
    reason: str


def judge(drop: Drop, allowed: float, *, error: float, certify: bool, report_size: int) -> Judgement:
    """Judge a drop measured on *select* against the floor `allowed`.

    `drop`, its standard error `error` and `allowed` are in the metric's unit, positive = worse. Accepted when the
    estimate plus ERRORS standard errors is at most `allowed`, equality included. With `certify` moreover when the 95 %
    bound will meet `allowed` on the `report_size` samples of *report* if they flip as often as those of *select* did:
    `drop.needed`, computed for the same `allowed`, says from which number of samples it does.
    """
    if not math.isfinite(drop.estimate):
        return Judgement(accepted=False, reason="the compressed model gives scores that are not finite numbers")
    if math.isinf(allowed):
        return Judgement(accepted=True, reason="there is no data to judge quality by")
    total = drop.estimate + ERRORS * error
    accepted = within(total, allowed)
    digits = _decimals(total, allowed)
    words = "is within" if accepted else "exceeds"
    reason = (
        f"drop {drop.estimate:.{digits}f} + {ERRORS * error:.{digits}f} (one standard error) {words} "
        f"{allowed:.{digits}f}"
    )
    if not accepted or not certify:
        return Judgement(accepted=accepted, reason=reason)
    if drop.needed is None:
        return Judgement(accepted=False, reason=f"{reason}, but no number of samples would certify it")
    if drop.needed > report_size:
        return Judgement(
            accepted=False,
            reason=f"{reason}, but to certify it takes {drop.needed} samples at these flip rates and report has "
            f"{report_size}",
        )
    return Judgement(accepted=True, reason=f"{reason}; {drop.needed} samples certify it and report has {report_size}")


def comfortable(drop: Drop, error: float, allowed: float) -> bool:
    """Return whether training may stop early: far enough below the floor that more of it would not matter."""
    return within(drop.estimate + COMFORT_ERRORS * error, allowed) and within(drop.estimate, COMFORT_SHARE * allowed)


def _decimals(total: float, allowed: float) -> int:
    """Return how many decimals show two digits of `allowed` and on which side of it the total lies; at least two."""
    least = max(2, 1 - math.floor(math.log10(abs(allowed)))) if allowed else 2
    for digits in range(least, _MOST_DECIMALS):
        if round(total, digits) != round(allowed, digits):
            return digits
    return least
