"""The executor on paper: its own search, over attempts whose drops are drawn from what the short recoveries leave open.

A draw is one way in which everything could be: each chain's damage at every strength and number of steps, and the
noise of *select* and *report*. `search` is then asked as in a run, so that early ends, second tries and the way down
when the floor breaks are those of the product. The predictions are quantiles over the draws.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from easycompress.estimation.bench import Z_95
from easycompress.estimation.chain import Chain, Curve
from easycompress.estimation.outcome import LEVEL, Interval
from easycompress.executor.guard import COMFORT_ERRORS, COMFORT_SHARE, ERRORS
from easycompress.executor.search import Outcome, search

if TYPE_CHECKING:
    from collections.abc import Sequence

    from easycompress.estimation.law import Draws, Law
    from easycompress.estimation.purse import Purse

DRAWS = 400

CHEAPEST = 1.0
"""Epochs that must be left for another attempt where epochs are the budget."""


@dataclass(frozen=True)
class Paper:
    """An attempt on paper: what the guard says of it, its drop on *report*, and whether its training ended early.

    `used` is the share of the permitted drop that it uses up on *select*, one standard error included.
    """

    ratio: float
    accepted: bool
    drop: float
    early: bool
    used: float = math.nan


@dataclass(frozen=True)
class Road:
    """A chain with what a run would spend on it: `least` is the strength that reaches the target, None for the most."""

    chain: Chain
    purse: Purse
    least: float | None


@dataclass
class Walked:
    """What came of one draw: the best attempt, and the mildest drop of those at the target."""

    best: Paper | None = None
    at_target: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Forecast:
    """Over the draws: `drops` of the file at the target (none where none reaches it), `ratios` delivered, `met`."""

    drops: Draws
    ratios: Draws
    met: float

    @property
    def drop(self) -> Interval | None:
        """Return the drop at the target."""
        return interval(self.drops) if len(self.drops) else None


def interval(values: Draws) -> Interval:
    """Return the median of draws, and the bounds of the middle LEVEL %."""
    rest = (100 - LEVEL) / 2
    low, middle, high = np.percentile(values, (rest, 50, 100 - rest))
    return Interval(low=float(low), middle=float(middle), high=float(high))


def forecast(
    roads: Sequence[Road], needed: float, allowed: float, *, certify: bool, seed: int, draws: int = DRAWS
) -> Forecast:
    """Play the roads in order (the quick chain first), as the executor walks them, once for every draw."""
    generator = np.random.default_rng(seed)
    curves = [Curve.of(road.chain, draws, generator) for road in roads]
    drops, ratios, met = [], [], 0
    for index in range(draws):
        walked = Walked()
        for road, curve in zip(roads, curves, strict=True):
            _walk(walked, _Player(road, curve, index, needed, allowed, generator, certify=certify))
            if walked.best is not None and walked.best.ratio >= needed:
                break
        reached = walked.best is not None and walked.best.ratio >= needed * (1 - 1e-9)
        if walked.best is not None and reached:
            drops.append(walked.best.drop)
        elif walked.at_target:
            drops.append(min(walked.at_target))
        ratios.append(walked.best.ratio if walked.best is not None else 1.0)
        target = reached or (math.isinf(needed) and walked.best is not None)
        met += target and walked.best is not None and walked.best.drop <= allowed
    return Forecast(np.asarray(drops), np.asarray(ratios), met / draws)


def _walk(walked: Walked, player: _Player) -> None:
    """Search one road and keep the better of what it and earlier ones came to."""
    road = player.road
    if road.chain.dial.fixed:
        outcome: Outcome[Paper] = Outcome()
        outcome.add(0.0, player.attempt(0.0, 1.0))
    else:
        outcome = search(
            road.least,
            player.attempt,
            road.chain.between,
            player.may_go_on,
            may_insist=lambda first: first.early,
            used=lambda tried: tried.used,
            may_place=lambda: road.chain.trains,
            most=road.purse.attempts,
        )
    if road.least is not None:
        at = [paper.drop for strength, paper in outcome.tried if strength == road.least]
        walked.at_target = walked.at_target or at
        if at and min(at) < min(walked.at_target):
            walked.at_target = at
    if outcome.best is not None and (walked.best is None or outcome.best.ratio >= walked.best.ratio):
        walked.best = outcome.best


class _Player:
    """Makes attempts on paper, for one draw of one chain."""

    def __init__(
        self,
        road: Road,
        curve: Curve,
        index: int,
        needed: float,
        allowed: float,
        generator: np.random.Generator,
        *,
        certify: bool,
    ) -> None:
        self.road, self.curve, self.index = road, curve, index
        self.needed, self.allowed = needed, allowed
        self.generator, self.certify = generator, certify
        self.left = road.purse.total

    def may_go_on(self) -> bool:
        """Tell whether the budget pays for another attempt."""
        purse = self.road.purse
        spends = self.road.chain.trains and self.road.chain.bench.full.budget.kind == "epochs"
        return not spends or self.left >= CHEAPEST * purse.an_epoch

    def attempt(self, strength: float, share: float, *, insist: bool = False) -> Paper:
        """Train, judge on *select* and look at *report*, all on paper."""
        chain = self.road.chain
        point = chain.known(strength)
        place = strength if point is None else point.strength
        trains = any(action.trains for action in chain.actions(strength))
        steps = self.road.purse.allow(share, self.left) if trains and self.left else 0
        self.left -= steps if math.isfinite(self.left) else 0
        law = self.curve.law(place)
        damage = self._damage(place, steps)
        data = chain.bench.full.task.data
        error = self._error(law, damage, len(data.select))
        seen = damage + error * self._noise()
        if not steps and chain.bench.whole and point is not None:  # the very file was judged by the very samples
            seen, error = point.seen[0].drop, point.seen[0].error
        early = False
        if steps and chain.stops_early and not insist and self._comfortable(seen, error):
            early = True
            rest = float(self.generator.random()) * (COMFORT_SHARE * self.allowed - seen)
            damage, seen = damage + rest, seen + rest
        error_there = self._error(law, damage, len(data.report))
        accepted = seen + ERRORS * error <= self.allowed
        if self.certify:
            accepted = accepted and seen + Z_95 * error_there <= self.allowed
        ratio = chain.between(strength)
        if strength == self.road.least:
            ratio = max(ratio, self.needed)  # of a table, whose strengths are interpolated, a little less was written
        used = (seen + ERRORS * error) / self.allowed if self.allowed > 0 else math.nan
        return Paper(ratio, accepted, damage + error_there * self._noise(), early, used)

    def _damage(self, strength: float, steps: int) -> float:
        if not self.curve.laws:
            return 0.0
        return float(self.curve.damage(strength, steps)[self.index])

    def _comfortable(self, drop: float, error: float) -> bool:
        return drop + COMFORT_ERRORS * error <= self.allowed and drop <= COMFORT_SHARE * self.allowed

    def _noise(self) -> float:
        return float(self.generator.standard_normal())

    def _error(self, law: Law, damage: float, samples: int) -> float:
        """Return the standard error of a drop on so many samples."""
        seen, metric = law.seen, self.road.chain.bench.full.task.metric
        if not metric.binary:
            return seen.error * math.sqrt(seen.n / samples)
        changed = max(seen.churn, 1 / seen.n) + abs(damage) / metric.scale
        return metric.scale * math.sqrt(changed / samples)
