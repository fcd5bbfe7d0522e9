"""Which replacements to make: the most saved for the least harm."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from easycompress.lc.ranks.candidates import Candidate


def chosen(layers: Iterable[list[Candidate]], strength: float) -> list[Candidate]:
    """Return at most one candidate a layer, which together save `strength` of the largest possible saving, or more.

    Each layer climbs the lower convex hull of its (saving, harm) points from doing nothing; of all steps the one with
    the least harm for each unit saved goes first (the greedy solution of the convex allocation problem, Shoham and
    Gersho 1988). So a larger strength never saves less in any layer.
    """
    steps = [step for rows in layers for step in _steps(rows)]
    steps.sort(key=lambda step: step[0])
    wanted = strength * sum(saved for _, saved, _ in steps)
    taken: dict[str, Candidate] = {}
    total = 0.0
    for _, saved, candidate in steps:
        if total >= wanted * (1 - 1e-9):
            break
        taken[candidate.name] = candidate
        total += saved
    return list(taken.values())


def _steps(rows: list[Candidate]) -> list[tuple[float, float, Candidate]]:
    """Return a layer's steps up its hull: (harm a unit, further saving, candidate), harm a unit growing."""
    hull: list[Candidate] = []
    for row in sorted(rows, key=lambda c: (c.saved, -c.harm)):
        while hull and _slope(hull, len(hull) - 1) >= _rise(hull[-2] if len(hull) > 1 else None, row):
            hull.pop()
        hull.append(row)
    found = []
    for index, row in enumerate(hull):
        before = hull[index - 1].saved if index else 0.0
        found.append((_slope(hull, index), row.saved - before, row))
    return found


def _slope(hull: list[Candidate], index: int) -> float:
    return _rise(hull[index - 1] if index else None, hull[index])


def _rise(low: Candidate | None, high: Candidate) -> float:
    saved, harm = (low.saved, low.harm) if low is not None else (0.0, 0.0)
    return (high.harm - harm) / max(high.saved - saved, 1e-12)
