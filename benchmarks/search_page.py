"""The table of benchmarks/search.py: the plan's own settings against a search for better ones, at equal epochs."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.markdown import NOT_RUN, count, table
from benchmarks.search import ROWS, SEEDS, WAYS, Row, key
from easycompress.core.goal import parse_target

if TYPE_CHECKING:
    from collections.abc import Sequence

Json = dict[str, Any]

AS_GOOD = 1.01
"""Ratios within this factor count as equal, and the drops decide."""

AS_MUCH = 0.05
"""Points of drop within which two results count as equal: about five of 10 000 test images."""

MORE_WORK = 1.1
"""Processor time up to this many times that of the defaults counts as equal."""


@dataclass(frozen=True)
class Pair:
    """One goal and seed, both ways."""

    defaults: Json
    search: Json

    @property
    def outcome(self) -> int:
        """1 where the search came further, -1 where the defaults did, 0 where neither.

        Further is a larger ratio, what lies beyond the target not counted, and a smaller drop where that is equal. A
        result that misses the floor on the report split is behind one that keeps it.
        """
        kept = [run["verdict"] != "floor-missed" for run in (self.defaults, self.search)]
        if kept[0] != kept[1]:
            return 1 if kept[1] else -1
        target = parse_target(self.search["settings"]["target"], self.search["settings"]["objective"])
        reached = [min(run["ratio"], target.value) for run in (self.defaults, self.search)]
        if not 1 / AS_GOOD <= reached[1] / reached[0] <= AS_GOOD:
            return 1 if reached[1] > reached[0] else -1
        less = self.defaults["drop"] - self.search["drop"]
        return 0 if abs(less) <= AS_MUCH else 1 if less > 0 else -1


def pairs(held: Json, row: Row) -> list[Pair]:
    """Return the seeds of a row that were run both ways."""
    found = []
    for seed in SEEDS:
        both = [held.get(key(row, way, seed)) for way in WAYS]
        if both[0] is not None and both[1] is not None:
            found.append(Pair(both[0], both[1]))
    return found


def lines(held: Json) -> list[str]:
    """Return the table, and what follows from it."""
    head = ["goal", "epochs that may be", "seeds"]
    head += [
        f"{way}: {what}"
        for way in ("own settings", "search")
        for what in ("ratio", "drop", "met", "epochs", "processor s")
    ]
    head += ["trials", "used", "search ahead / equal / behind"]
    rows, every = [], []
    for row in ROWS:
        goal = f"{row.model}, {row.objective} {row.target}, at most {row.max_drop}"
        goal += f", {count(row.samples)} training images" if row.samples else ""
        found = pairs(held, row)
        every += found
        if not found:
            rows.append([goal, row.budget.removesuffix("ep"), NOT_RUN])
            continue
        cells = _way([p.defaults for p in found]) + _way([p.search for p in found])
        tunings = [p.search["tuning"] for p in found if p.search["tuning"] is not None]
        trials = ", ".join(str(len(each["trials"])) for each in tunings) or "none: nothing was trained"
        used = f"{sum(each['used'] for each in tunings)} of {len(found)}"
        rows.append([goal, row.budget.removesuffix("ep"), str(len(found)), *cells, trials, used, _tally(found)])
    return [table(head, rows), "", conclusion(every)]


def _way(runs: Sequence[Json]) -> list[str]:
    """Return means over the seeds."""
    mean = {name: statistics.fmean(run[name] for run in runs) for name in ("ratio", "drop", "processor_seconds")}
    met = sum(run["verdict"] == "met" for run in runs)
    epochs = statistics.fmean(run["epochs"] + (run["tuning"] or {"spent": 0})["spent"] for run in runs)
    cells = [f"{mean['ratio']:.2f}x", f"{mean['drop']:.2f}", str(met), f"{epochs:.0f}"]
    return [*cells, f"{mean['processor_seconds']:.0f}"]


def _tally(found: Sequence[Pair]) -> str:
    outcomes = [pair.outcome for pair in found]
    return " / ".join(str(outcomes.count(each)) for each in (1, 0, -1))


def conclusion(found: Sequence[Pair]) -> str:
    """Return in one paragraph whether a search pays, from all pairs."""
    if not found:
        return "Nothing was run both ways yet; `--search` is off by default."
    outcomes = [pair.outcome for pair in found]
    ahead, behind = outcomes.count(1), outcomes.count(-1)
    work = statistics.fmean(p.search["processor_seconds"] / p.defaults["processor_seconds"] for p in found)
    pays = ahead > behind and work <= MORE_WORK
    told = (
        f"Of {len(found)} pairs the search came further in {ahead}, as far in {outcomes.count(0)}, less far in "
        f"{behind}, with {work:.2f} times the processor time. "
    )
    rule = (
        "It would be on by default if it came further more often than less far, with at most "
        f"{MORE_WORK:g} times the time: "
    )
    return told + rule + ("it did, on these." if pays else "it did not, and it stays off by default.")
