"""One question, answered: the chains of its plan are tried on the bench, and the run is played on paper."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from easycompress.estimation.forecast import Forecast, Road, forecast, interval
from easycompress.estimation.outcome import AtTarget, WithinFloor
from easycompress.estimation.purse import Purse, purse_of
from easycompress.report import units

if TYPE_CHECKING:
    from easycompress.core.request import Request
    from easycompress.estimation.chain import Chain
    from easycompress.prepare import Prepared

HALVINGS = 4
"""Strengths that are tried on the way to what a floor can buy: the run's own search takes about as many."""

LIKELY = 0.5

ROUGH = 60
"""Draws that tell whether a strength is likelier than not to keep the floor."""


def at_target(
    chains: list[Chain], prepared: Prepared, request: Request, began: float, *, exactly: bool = True
) -> AtTarget:
    """Return what the target of `prepared` would cost."""
    goal, needed = prepared.goal, prepared.needed
    least = [chain.least(needed, exactly=exactly) for chain in chains]
    for chain, strength in zip(chains, least, strict=True):
        if strength is not None:
            chain.try_at(strength, _first(chain))
            if not chain.trains and _kept(chain, strength, prepared.allowed):
                break  # a run wouldn't go on to the next chain
    roads = _roads(chains, least, began)
    said = forecast(roads, needed, prepared.allowed, certify=request.certify, seed=request.seed)
    last = next((road for road in reversed(roads) if road.least is not None), None)
    point = None if last is None or last.least is None else last.chain.known(last.least)
    most = max((chain.most for chain in chains), default=1.0)
    epochs = last.purse.first / last.purse.an_epoch if last is not None and last.chain.trains else 0.0
    return AtTarget(
        objective=goal.objective,
        format=goal.format,
        target=goal.target.text,
        needed=needed,
        drop=said.drop,
        chance=said.met,
        ratio=None if point is None else point.ratio,
        most=most,
        untrained=None if point is None else point.seen[0].drop,
        epochs=epochs,
        measured=point is not None and not point.seen[-1].steps,
        plan=tuple(name for road in roads for name in road.chain.words),
        limit=limit_of(said, roads, prepared, most),
    )


def within_floor(chains: list[Chain], prepared: Prepared, request: Request, began: float) -> WithinFloor:
    """Return what the floor of `prepared` can buy, by strengths tried around where the floor breaks."""
    for chain in chains:
        _close_in(chain, prepared, request, began)
    roads = _roads(chains, [None] * len(chains), began)
    said = forecast(roads, math.inf, prepared.allowed, certify=request.certify, seed=request.seed)
    ratio = interval(said.ratios)
    goal = prepared.goal
    most = max(chain.most for chain in chains)
    return WithinFloor(
        objective=goal.objective,
        format=goal.format,
        floor=goal.floor.text,
        allowed=prepared.allowed,
        ratio=ratio,
        capped=ratio.middle >= most * 0.98,
        plan=tuple(name for chain in chains for name in chain.words),
    )


def _close_in(chain: Chain, prepared: Prepared, request: Request, began: float) -> None:
    """Try strengths of a chain, by halving, around the one at which it breaks the floor."""
    if chain.dial.fixed:
        chain.try_at(0.0, _first(chain))
        return
    low, high = 0.0, 1.0
    if chain.actions(0.0):
        chain.try_at(0.0, 0)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        point = chain.try_at(middle, _first(chain))
        road = Road(chain, purse_of(chain, time.monotonic() - began), middle)
        holds = forecast([road], point.ratio, prepared.allowed, certify=request.certify, seed=request.seed, draws=ROUGH)
        low, high = (middle, high) if holds.met > LIKELY else (low, middle)


def _roads(chains: list[Chain], least: list[float | None], began: float) -> list[Road]:
    """Return the chains that were tried, each with its means."""
    spent = time.monotonic() - began
    return [
        Road(chain, purse_of(chain, spent), strength)
        for chain, strength in zip(chains, least, strict=True)
        if chain.points
    ]


def _first(chain: Chain) -> int:
    purse: Purse = purse_of(chain, 0.0)
    return purse.first


def _kept(chain: Chain, strength: float, allowed: float) -> bool:
    """Tell whether the guard accepts what was measured without training."""
    seen = chain.try_at(strength, 0).seen[0]
    return chain.bench.whole and seen.drop + seen.error <= allowed


def limit_of(said: Forecast, roads: list[Road], prepared: Prepared, most: float) -> str:
    """Say in words what stands in the way of the target, and what was seen on *select*."""
    percent = prepared.task.metric.percent
    road = next((road for road in reversed(roads) if road.least is not None), None)
    point = None if road is None or road.least is None else road.chain.known(road.least)
    if said.drop is None or road is None or point is None:
        return f"no setting of the plan reaches it: the strongest gives {units.ratio(most)}"
    seen = point.seen
    steps = [f"{units.points(look.drop, percent=percent)} after {units.count(look.steps)} steps" for look in seen[1:]]
    told = ", ".join([f"{units.drop(seen[0].drop, percent=percent)} untrained", *steps])
    if steps:
        told += f"; a first attempt has {units.count(road.purse.first)}"
    if said.met >= LIKELY:
        return f"seen on select: {told}"
    untaught = prepared.budget.kind == "none" and len(prepared.task.data.train) > 0
    more = "; with a --budget it may be trained" if untaught else ""
    return f"the floor stands in the way; seen on select: {told}{more}"
