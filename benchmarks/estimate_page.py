"""Predicted against reached, as a page of the documentation and as the sentence that every estimate ends with."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any, TypeAlias

from benchmarks.estimate_rows import FIT, ROWS
from easycompress.estimation.outcome import LEVEL

Held: TypeAlias = "dict[str, Any]"

HEAD = f"""# How well estimates hold

`easycompress estimate` predicts what `compress` with the same flags would come to: the drop of the file at the target,
the chance that the run ends with `met`, or, for `--target max`, the ratio that the floor buys. It makes the plan that
`compress` would make, writes the untrained files until it has the setting that reaches the target, judges them on
*select*, trains a few hundred steps where the plan trains, and plays the run's own search on paper, over what these
recoveries leave open and over the noise of both splits. Every number is the median of 400 such runs, with the bounds of
the middle {LEVEL} %.

- Where nothing is trained nothing is extrapolated: the very file is measured, and the interval is the noise of
  *select* and of *report*.
- Where something is trained the damage is taken to fall as a power of the optimizer steps. The power and its spread
  were fitted on models that are not judged here ({{fit}}). That the noise of a measurement is added to the damage, not
  multiplied, was decided after a first look at two rows of this table (`lenet5 compute 6x`, `resnet20 compute 1.5x`).
- Where the budget is so small that a short recovery is as long as the run's first attempt, that is what is measured
  (`lenet5 size 100x, 3ep`, `lenet5 compute 6x, 4ep`): such a row says nothing about the power.
- A file at the target that the guard rejects is not delivered. Its drop is then the one seen on *select*.
- Not in the intervals: that two measurements of one latency differ, and that a run goes on without int8 where nothing
  with int8 keeps the floor.

Made by `python -m benchmarks.estimate --zoo ZOO --data DATA --page docs/estimates.md`, with version 0.5.0: 0.6.0 loses
less without training, so that its own rows would be others.

"""


@dataclass(frozen=True)
class Judged:
    """One row: what was predicted and reached, in words, whether it was within, and how wide the interval is.

    `width` is in points for a drop, and the quotient of the bounds for a ratio.
    """

    predicted: str
    reached: str
    within: bool
    width: float
    ratio: bool


def judge(name: str, held: Held) -> Judged | None:
    """Hold a prediction to what was reached; None where one of them is missing."""
    said, found = held["predicted"].get(name), held["reached"].get(name)
    if said is None or found is None:
        return None
    if name in {row.name for row in ROWS if row.target == "max"}:
        low, middle, high = (said["ratio"][bound] for bound in ("low", "middle", "high"))
        within = low <= found["ratio"] <= high
        text = f"{middle:.3g}x ({low:.3g}x to {high:.3g}x)"
        return Judged(text, f"{found['ratio']:.3g}x", within, high / low, ratio=True)
    at = found["at_target"]
    if said["drop"] is None or at is None:
        told = "out of reach" if said["drop"] is None else "reachable"
        came = "out of reach" if at is None else "reached"
        return Judged(told, came, (said["drop"] is None) == (at is None), 0.0, ratio=False)
    low, middle, high = (said["drop"][bound] for bound in ("low", "middle", "high"))
    drop, split = at["drop"], "" if at["split"] == "report" else " on *select*"
    text = f"{middle:.2f} ({low:.2f} to {high:.2f})"
    return Judged(text, f"{drop:.2f}{split}", low <= drop <= high, high - low, ratio=False)


def all_judged(held: Held) -> dict[str, Judged]:
    """Return every row that was both predicted and reached."""
    found = {row.name: judge(row.name, held) for row in ROWS}
    return {name: judged for name, judged in found.items() if judged is not None}


def stated(held: Held) -> str:
    """Return in one sentence how well predictions held."""
    rows = list(all_judged(held).values())
    if not rows:
        return "calibration: nothing was predicted and reached yet"
    inside = sum(row.within for row in rows)
    widths = [row.width for row in rows if not row.ratio and row.width]
    factors = [row.width for row in rows if row.ratio]
    models = len({row.model for row in ROWS if judge(row.name, held) is not None})
    text = f"calibration: {inside} of {len(rows)} results of {models} models lay within their {LEVEL} % intervals"
    if widths:
        text += f", of drops {statistics.median(widths):.2f} points wide (median)"
    if factors:
        text += f", of ratios a factor of {statistics.median(factors):.2f}"
    return text


def page(held: Held) -> str:
    """Return the page."""
    fit = ", ".join(sorted({row.model for row in FIT}))
    lines = [HEAD.replace("{fit}", fit), f"{stated(held).capitalize()}.\n"]
    lines += ["| Asked | Predicted | Reached | Within | Chance | Verdict |", "|---|---|---|---|---|---|"]
    for name, judged in all_judged(held).items():
        said, found = held["predicted"][name], held["reached"][name]
        chance = f"{100 * said['chance']:.0f} %" if "chance" in said else ""
        inside = "yes" if judged.within else "**no**"
        lines.append(f"| {name} | {judged.predicted} | {judged.reached} | {inside} | {chance} | {found['verdict']} |")
    return "\n".join(lines) + "\n"
