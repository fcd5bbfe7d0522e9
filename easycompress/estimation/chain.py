"""One chain of a plan as an estimate knows it: the ratio of every strength, and the drops at a few."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from easycompress.estimation.law import INTERPOLATED, Law, draw
from easycompress.executor.dial import Dial
from easycompress.executor.run import MEASURED_MARGIN
from easycompress.executor.search import RESOLUTION, least_strength

if TYPE_CHECKING:
    from collections.abc import Sequence

    from easycompress.core.plan import Action
    from easycompress.estimation.bench import Bench, Point
    from easycompress.estimation.law import Draws

GRID = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Strengths whose files are written where the ratio of many is asked for; between them it is interpolated."""


class Chain:
    """The actions of a plan that are carried out together, and everything that was found out about them."""

    def __init__(self, actions: Sequence[Action], bench: Bench) -> None:
        self.bench, self.notes = bench, list[str]()
        self.dial = self._useful(Dial(tuple(actions)))
        self.points: dict[float, Point] = {}
        self._ratios: dict[float, float] = {}

    @property
    def trains(self) -> bool:
        """Tell whether anything is trained, given the means."""
        return self.dial.trains and self.bench.full.budget.kind != "none" and len(self.bench.full.task.data.train) > 0

    @property
    def stops_early(self) -> bool:
        """Tell whether its training ends as soon as the floor is comfortably met."""
        return any(getattr(action, "mode", "") == "target" for action in self.dial.actions)

    @property
    def words(self) -> tuple[str, ...]:
        """Return the actions' names."""
        return tuple(action.kind for action in self.dial.actions)

    def actions(self, strength: float) -> tuple[Action, ...]:
        """Return what a run would carry out at that strength."""
        return self.dial.at(0.0) if self.dial.fixed else self.dial.without_training(strength)

    def ratio(self, strength: float) -> float:
        """Return the ratio of the untrained file, which is written once."""
        if strength not in self._ratios:
            actions = self.actions(strength)
            self._ratios[strength] = self.bench.shop.probe(actions).ratio if actions else 1.0
        return self._ratios[strength]

    @property
    def most(self) -> float:
        """Return the ratio of the strongest setting."""
        return self.ratio(0.0 if self.dial.fixed else 1.0)

    def between(self, strength: float) -> float:
        """Return the ratio of a strength, interpolated between those whose files were written."""
        if self.dial.fixed:
            return self.ratio(0.0)
        for known in GRID:
            self.ratio(known)
        places = sorted(self._ratios)
        logs = [math.log(max(self._ratios[place], 1e-9)) for place in places]
        return math.exp(float(np.interp(strength, places, logs)))

    def least(self, needed: float, *, exactly: bool) -> float | None:
        """Return the least strength whose file reaches `needed`, as a run would find it; None where none does."""
        goal = self.bench.prepared.goal
        if self.dial.fixed:
            return 0.0 if self.ratio(0.0) >= needed else None
        measured = goal.objective == "latency" or (goal.objective == "energy" and self.bench.prepared.meter is not None)
        aim = needed * (MEASURED_MARGIN if measured else self.dial.slack if goal.objective == "size" else 1.0)
        return least_strength(self.ratio if exactly else self.between, aim)

    def try_at(self, strength: float, horizon: int) -> Point:
        """Return what candidates of that strength show, tried once; near ones stand for each other."""
        known = self.known(strength)
        if known is not None:
            return known
        actions = self.actions(strength)
        horizon = horizon if any(action.trains for action in actions) and self.trains else 0
        ratio = self.ratio(strength)
        self.points[strength] = self.bench.point(actions, strength, ratio, horizon)
        return self.points[strength]

    def known(self, strength: float) -> Point | None:
        """Return what was tried at that strength or so near that a run wouldn't tell them apart; None: nothing."""
        nearest = min(self.points, key=lambda place: abs(place - strength), default=None)
        return None if nearest is None or abs(nearest - strength) > RESOLUTION / 2 else self.points[nearest]

    def _useful(self, dial: Dial) -> Dial:
        """Leave int8 out where it makes the file slower here, as a run does."""
        int8 = tuple(action for action in dial.actions if action.integers)
        if self.bench.prepared.goal.objective != "latency" or not int8 or dial.fixed:
            return dial
        if self.bench.shop.probe(int8).ratio >= 1:
            return dial
        self.notes.append("int8 alone is slower than float32 in this runtime and is left out")
        return dial.floating()


@dataclass(frozen=True)
class Curve:
    """Draws of the damage over all strengths of a chain, between the points that were tried."""

    chain: Chain
    laws: list[tuple[float, Law]]
    spread: Draws = field(repr=False)
    _known: dict[tuple[float, int], Draws] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, chain: Chain, count: int, generator: np.random.Generator) -> Curve:
        """Draw `count` curves from what is known of a chain."""
        points = sorted(chain.points.values(), key=lambda point: point.strength)
        laws = draw(points, count, generator)
        pairs = [(point.strength, law) for point, law in zip(points, laws, strict=True)]
        return cls(chain, pairs, generator.standard_normal(count))

    def law(self, strength: float) -> Law:
        """Return the law of the tried point nearest to a strength."""
        return min(self.laws, key=lambda pair: abs(pair[0] - strength))[1]

    def damage(self, strength: float, steps: int) -> Draws:
        """Return draws of the damage at a strength after `steps` steps: linear in its root between tried points."""
        if (strength, steps) not in self._known:
            self._known[strength, steps] = self._damage(strength, steps)
        return self._known[strength, steps]

    def _damage(self, strength: float, steps: int) -> Draws:
        tried = [place for place, _ in self.laws]
        values = [law.damage(steps) for _, law in self.laws]
        if not self.chain.actions(0.0) and tried[0] > 0:
            tried, values = [0.0, *tried], [np.zeros_like(values[0]), *values]
        if strength in tried:
            return values[tried.index(strength)]
        high = min(int(np.searchsorted(tried, strength)), len(tried) - 1)
        if high == 0 or len(tried) == 1:
            return values[high] * (strength / tried[high] if tried[high] else 1.0)
        low = high - 1
        share = (strength - tried[low]) / (tried[high] - tried[low])
        mixed = _root(values[low]) * (1 - share) + _root(values[high]) * share
        inside = min(abs(share), abs(1 - share), 0.5) * 2
        return np.asarray(np.sign(mixed) * mixed**2 * (1 + INTERPOLATED * inside * self.spread))


def _root(values: Draws) -> Draws:
    return np.asarray(np.sign(values) * np.sqrt(np.abs(values)))
