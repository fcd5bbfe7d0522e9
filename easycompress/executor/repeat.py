"""Several seeds: the same plan carried out once with each, and how far the results lie apart.

Which of them is delivered is decided on *select*; *report* is then looked at once, for that one alone.
"""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING

from easycompress.core.outcome import Repeat, Repeats, Spread

if TYPE_CHECKING:
    from collections.abc import Sequence

    from easycompress.core.goal import Budget
    from easycompress.executor.executed import Executed


def part_of(budget: Budget, index: int, count: int, spent: float) -> Budget:
    """Return what the repeat `index` of `count` may use, after those before it have used `spent` seconds or epochs.

    Each gets an equal part; what one leaves goes to those after it.
    """
    until = budget.value * (index + 1) / count
    value = until - spent if budget.kind == "time" else math.floor(until) - spent
    return budget.model_copy(update={"value": max(0.0, value)}) if budget.kind != "none" else budget


def chosen_of(executed: Sequence[Executed], needed: float) -> int:
    """Return the index of the one to deliver: of those that reach `needed` the least drop, else the largest ratio."""

    def rank(index: int) -> tuple[float, float, int]:
        best = executed[index].best
        if best is None:
            return (-1.0, 0.0, -index)
        return (min(best.ratio, needed), -best.drop.estimate, -index)

    return max(range(len(executed)), key=rank)


def repeats_of(seeds: Sequence[int], executed: Sequence[Executed], chosen: int, needed: float) -> Repeats:
    """Return what came of each seed, and the spread over those that gave a result."""
    rows = tuple(_row(seed, each, needed) for seed, each in zip(seeds, executed, strict=True))
    found = [row for row in rows if row.ratio is not None]
    return Repeats(
        rows=rows,
        delivered=seeds[chosen],
        ratio=_spread([row.ratio for row in found if row.ratio is not None]),
        drop=_spread([row.drop for row in found if row.drop is not None and math.isfinite(row.drop)]),
    )


def joined(seeds: Sequence[int], executed: Sequence[Executed], chosen: int) -> Executed:
    """Return the chosen one with the steps of all, each naming its seed; those not chosen are `surpassed`."""
    steps = tuple(
        step.model_copy(
            update={
                "reason": f"seed {seed}: {step.reason}",
                "verdict": "surpassed" if step.verdict == "kept" and index != chosen else step.verdict,
            }
        )
        for index, (seed, each) in enumerate(zip(seeds, executed, strict=True))
        for step in each.steps
    )
    return executed[chosen].model_copy(update={"steps": steps, "tried": sum(each.tried for each in executed)})


def _row(seed: int, executed: Executed, needed: float) -> Repeat:
    best = executed.best
    if best is None:
        return Repeat(seed=seed, ratio=None, quality=None, drop=None, target_met=False)
    met = best.ratio > 1 if math.isinf(needed) else best.ratio >= needed
    return Repeat(seed=seed, ratio=best.ratio, quality=best.quality, drop=best.drop.estimate, target_met=met)


def _spread(values: list[float]) -> Spread | None:
    if not values:
        return None
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return Spread(mean=statistics.fmean(values), deviation=deviation, least=min(values), most=max(values))
