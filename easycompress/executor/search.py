"""The search for the least destructive plan that reaches the target, else for the most that the floor permits.

It knows nothing of models: it is handed `probe` (an untrained candidate's ratio) and `attempt` (a trained and judged
candidate), both over a strength in [0, 1] whose ratio grows with it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

RESOLUTION = 1 / 64
"""Strengths closer than this are not told apart."""

CLOSE_ENOUGH = 1.02
"""A strength whose ratio is within this factor of the target is least enough."""

BETTER = 1.01
"""A candidate whose untrained file isn't better than the best accepted one by this factor is not worth training."""

MOST_ATTEMPTS = 7
"""Trained candidates of one run."""

FIRST_SHARE = 0.6
"""Share of the budget of a first attempt that is expected to reach the target."""

SECOND_SHARE = 0.5
"""Share of the rest for a second one at the same strength, trained to the end, before the target gives."""


AIM = 0.9
"""Share of the permitted drop, one standard error included, that the next attempt is to use up."""

EXPONENT = 2
"""The drop is supposed to grow with this power of the logarithm of the ratio, between two attempts.

ResNet20, three epochs each: 0.7 points at 2.0x by low rank and 1.8 (one epoch) and 5.7 at 1.8x and 4.2x by channels;
LeNet5, two epochs each: 0.4 at 7x and 6 to 7 at 35x.
"""

NARROWEST = 0.2
"""The next attempt is at least this share of the way, in the logarithm of the ratio, from those on either side."""

PLACED = 4
"""Untrained candidates between two strengths, at most, that are written to find that of a ratio that is aimed at."""

BEGIN_SHARE = 0.7
"""Share of what is left for an attempt that is made where the permitted drop is likely to be used up.

Three epochs are left of ResNet20's six after 4x was missed: one each at 1.77x, 1.53x and 1.62x came to 1.62x.
"""

RE_AIMED = 1.01
"""Where a file came out larger than its untrained one promised, so much beyond what it lacks is aimed at."""

RE_AIMS = 2
"""How often a target that an accepted attempt just missed is aimed at anew."""


class Judged(Protocol):
    """What the search needs to know of an attempt."""

    @property
    def ratio(self) -> float:
        """Baseline / result."""
        ...

    @property
    def accepted(self) -> bool:
        """Whether the floor holds on *select*."""
        ...


AttemptT = TypeVar("AttemptT", bound=Judged)
MadeT_co = TypeVar("MadeT_co", bound=Judged, covariant=True)


class Attempter(Protocol[MadeT_co]):
    """Makes and judges a candidate."""

    def __call__(self, strength: float, share: float, *, insist: bool = False) -> MadeT_co:
        """Spend `share` of what is left on a candidate of that strength; `insist`: don't stop training early."""
        ...


@dataclass
class Outcome(Generic[AttemptT]):
    """`best` is the accepted attempt with the largest ratio above 1, or None; `tried` all, in order, by strength."""

    best: AttemptT | None = None
    tried: list[tuple[float, AttemptT]] = field(default_factory=list)

    def add(self, strength: float, attempt: AttemptT) -> bool:
        """Take in an attempt; return whether it was accepted."""
        self.tried.append((strength, attempt))
        better = attempt.ratio > (1.0 if self.best is None else self.best.ratio)
        if attempt.accepted and better:
            self.best = attempt
        return attempt.accepted


def least_strength(
    probe: Callable[[float], float], needed: float, may_go_on: Callable[[], bool] = lambda: True
) -> float | None:
    """Return the least strength in [0, 1] whose untrained file reaches the ratio `needed`; None when 1 does not.

    Over real files, RESOLUTION fine: by interpolation, as if the ratio grew geometrically, and by halving where that is
    slow. It ends early at a ratio within CLOSE_ENOUGH of what is needed, or when `may_go_on()` says that probing has
    cost enough: the least strength found so far is returned.
    """
    low, high = 0.0, 1.0
    ratio_low = probe(low)
    if ratio_low >= needed:
        return 0.0
    ratio_high = probe(high)
    if ratio_high < needed:
        return None
    halve = False
    while high - low > RESOLUTION and ratio_high > CLOSE_ENOUGH * needed and may_go_on():
        width = high - low
        middle = (low + high) / 2 if halve else _interpolated(low, ratio_low, high, ratio_high, needed)
        ratio = probe(middle)
        if ratio >= needed:
            high, ratio_high = middle, ratio
        else:
            low, ratio_low = middle, ratio
        halve = high - low > width / 2
    return high


def _interpolated(low: float, ratio_low: float, high: float, ratio_high: float, needed: float) -> float:
    """Return about where the ratio is a little above `needed`, at least a tenth of the way from either end."""
    aim = needed * math.sqrt(CLOSE_ENOUGH)
    share = 0.5
    if 0 < ratio_low < ratio_high:
        share = min(max(math.log(aim / ratio_low) / math.log(ratio_high / ratio_low), 0.1), 0.9)
    return round(low + share * (high - low), 4)


def search(
    least: float | None,
    attempt: Attempter[AttemptT],
    probe: Callable[[float], float],
    may_go_on: Callable[[], bool],
    *,
    may_insist: Callable[[AttemptT], bool] = lambda _: True,
    may_further: Callable[[AttemptT], bool] = lambda _: False,
    used: Callable[[AttemptT], float] = lambda _: math.nan,
    may_place: Callable[[], bool] = lambda: True,
    most: int = MOST_ATTEMPTS,
    needed: float = math.inf,
    alone: bool = True,
    begin: tuple[float, float] | None = None,
) -> Outcome[AttemptT]:
    """Return the best attempt.

    `least` is the strength at which the target is reached, None when it is out of reach or the most is wanted.
    The least strength goes first, and a greater one after it where its file is accepted but falls short of the finite
    ratio `needed`: what is made with more care can come out larger than the probe. Where it isn't accepted it goes
    twice if need be, the second time insisting if `may_insist(first)`: without training a second try is the first one
    again, and far below the floor it is a waste. Where it fails, or where there is none, strength 0 and then those
    between the strongest accepted and the weakest rejected are tried, but for those whose `probe` gains nothing; what
    isn't accepted there insists if `may_further(attempt)`. `used(attempt)` is the share of the permitted drop that an
    attempt uses up, NaN where that isn't known: it says how far from either side the next one is, and `may_place()`
    whether a file may be written to find the strength of that. `may_go_on()` says whether another attempt is worth its
    time; a first one always is. There are at most `most`.

    Unless it is `alone`, the search ends where the least strength fails. `begin` is a strength to begin with and
    another one that is known to be too much.
    """
    outcome: Outcome[AttemptT] = Outcome()
    high = 1.0 + RESOLUTION if begin is None else begin[1]
    if least is not None:
        first = attempt(least, FIRST_SHARE)
        met = outcome.add(least, first)
        if not met and least > 0 and may_insist(first) and may_go_on():
            met = outcome.add(least, attempt(least, SECOND_SHARE, insist=True))
        if met:
            return _re_aimed(outcome, attempt, probe, may_go_on, needed)
        if least == 0 or not alone:
            return outcome
        high = least
    if probe(0.0) > BETTER and not outcome.add(0.0, attempt(0.0, _share(outcome, most))):
        return outcome
    low, gains = 0.0, True
    while high - low >= 2 * RESOLUTION and len(outcome.tried) < most and (not outcome.tried or may_go_on()):
        share = _share(outcome, most)
        if begin is not None:
            middle, share, begin = min(begin[0], 1.0), max(share, BEGIN_SHARE), None
        else:
            middle = _next(outcome, low, high, used, probe, may_place) if gains else min((low + high) / 2, 1.0)
        if probe(middle) <= BETTER * (outcome.best.ratio if outcome.best is not None else 1.0):
            low, gains = middle, False
            continue
        gains = True
        tried = attempt(middle, share)
        met = outcome.add(middle, tried)
        if not met and may_further(tried) and len(outcome.tried) < most and may_go_on():
            met = outcome.add(middle, attempt(middle, SECOND_SHARE, insist=True))
        low, high = (middle, high) if met else (low, middle)
    return outcome


def _next(
    outcome: Outcome[AttemptT],
    low: float,
    high: float,
    used: Callable[[AttemptT], float],
    probe: Callable[[float], float],
    may_place: Callable[[], bool],
) -> float:
    """Return the strength to try next, between one that is accepted and one that is too much."""
    middle = _between(probe, low, min(high, 1.0), _share_between(outcome, low, high, used), may_place)
    if outcome.best is None and high > 1.0:
        return min(middle, (low + high) / 2)  # nothing is known yet, and a ruin would tell little
    return middle


def gentler(ratio: float, share: float) -> float:
    """Return a lesser ratio that is likely to use up the permitted drop; at `ratio` that `share` of it was used up."""
    part = math.pow(AIM / share, 1 / EXPONENT) if share > AIM else 0.5
    return math.exp(min(max(part, NARROWEST), 1 - NARROWEST) * math.log(max(ratio, 1.0)))


def _share_between(outcome: Outcome[AttemptT], low: float, high: float, used: Callable[[AttemptT], float]) -> float:
    """Return how far from `low` to `high`, in the logarithm of the ratio, the permitted drop is likely to be used up.

    Half of the way where nothing is known of what lies there.
    """
    shares = {strength: used(attempt) for strength, attempt in outcome.tried}
    above = shares.get(high, math.nan)
    below = shares.get(low, math.nan if low else 0.0)
    if not (math.isfinite(above) and math.isfinite(below) and above > max(below, AIM)):
        return 0.5
    lost, permitted, begun = (math.pow(max(share, 0.0), 1 / EXPONENT) for share in (above, AIM, below))
    return min(max((permitted - begun) / (lost - begun), NARROWEST), 1 - NARROWEST)


def _between(
    probe: Callable[[float], float],
    low: float,
    high: float,
    share: float,
    may_place: Callable[[], bool] = lambda: True,
) -> float:
    """Return about the strength whose untrained ratio is that `share` of the way, by logarithms, from `low` to `high`.

    Over at most PLACED real files and those at the ends, each only if it `may_place()`; without them it is that share
    of the way in strength. It stays away from both ends, so that the search ends.
    """
    middle = low + share * (high - low)
    if not may_place():
        return middle
    least, largest = (low + part * (high - low) for part in (NARROWEST / 2, 1 - NARROWEST / 2))
    ratio_low, ratio_high = probe(low), probe(high)
    if not 0 < ratio_low < ratio_high:
        return middle
    whole = math.log(ratio_high / ratio_low)
    wanted = ratio_low * math.exp(share * whole)
    for _ in range(PLACED - 1):
        if not may_place():
            break
        ratio = probe(middle)
        if abs(math.log(ratio / wanted)) <= NARROWEST / 2 * whole:
            break
        if ratio < wanted:
            low, ratio_low = middle, ratio
        else:
            high, ratio_high = middle, ratio
        middle = min(max(_interpolated(low, ratio_low, high, ratio_high, wanted), least), largest)
    return middle


def _re_aimed(
    outcome: Outcome[AttemptT],
    attempt: Attempter[AttemptT],
    probe: Callable[[float], float],
    may_go_on: Callable[[], bool],
    needed: float,
) -> Outcome[AttemptT]:
    """Go on from an accepted attempt whose file falls short of `needed`, until one doesn't or isn't accepted."""
    for _ in range(RE_AIMS):
        strength, last = outcome.tried[-1]
        if math.isinf(needed) or last.ratio >= needed or not may_go_on():
            break
        stronger = least_strength(probe, probe(strength) * needed / last.ratio * RE_AIMED)
        if stronger is None or stronger <= strength or not outcome.add(stronger, attempt(stronger, SECOND_SHARE)):
            break
    return outcome


def _share(outcome: Outcome[AttemptT], most: int) -> float:
    """Return an equal share of what is left for each attempt that may still come."""
    return 1 / max(1, most - len(outcome.tried))
