"""Estimates in words: one sentence an answer, and the rows of the table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from easycompress.estimation.outcome import LEVEL, AtTarget
from easycompress.report import units
from easycompress.report.sentence import factor

if TYPE_CHECKING:
    from easycompress.estimation.outcome import Estimates, Interval, WithinFloor

SURE = 0.99
"""Chances beyond this, and below what is left, are not told apart: they rest on some hundred draws."""

VERDICTS = ((0.9, "very likely"), (0.6, "likely"), (0.4, "open"), (0.1, "unlikely"), (0.0, "very unlikely"))


def chance(value: float) -> str:
    """Return a probability for people: 87 %, > 99 %."""
    if value > SURE:
        return "> 99 %"
    return "< 1 %" if value < 1 - SURE else f"{100 * value:.0f} %"


def drops(value: Interval, *, percent: bool) -> str:
    """Return an interval of drops: 0.14 points (90 %: -0.03 to 0.36)."""
    low, middle, high = (units.points(v, percent=percent) for v in (value.low, value.middle, value.high))
    return f"{middle}{' points' if percent else ''} ({LEVEL} %: {low} to {high})"


def ratios(value: Interval) -> str:
    """Return an interval of ratios: 11.2x (90 %: 9.80x to 12.4x)."""
    return f"{units.ratio(value.middle)} ({LEVEL} %: {units.ratio(value.low)} to {units.ratio(value.high)})"


def sentence(answer: AtTarget | WithinFloor, estimates: Estimates) -> str:
    """Return one answer in one line without a full stop."""
    return _target(answer, estimates) if isinstance(answer, AtTarget) else _floor(answer)


def summary(estimates: Estimates) -> str:
    """Return every answer in one line, for questions with few of them."""
    said = [sentence(answer, estimates) for answer in estimates.targets]
    return "; ".join([*said, *(sentence(answer, estimates) for answer in estimates.floors)])


def _target(answer: AtTarget, estimates: Estimates) -> str:
    what = f"{name(answer)} {answer.target} within {estimates.floor}"
    if answer.drop is None or answer.ratio is None:
        return f"OUT OF REACH: {what}; {answer.limit}"
    word = next(text for least, text in VERDICTS if answer.chance >= least).upper()
    how = "measured without training" if answer.measured else "extrapolated from short recoveries"
    cost = drops(answer.drop, percent=estimates.percent)
    file = f"the file, {factor(answer.ratio, answer.objective)}, would have a drop of {cost}, {how}"
    return f"{word} ({chance(answer.chance)}): {what}; {file}; {answer.limit}"


def _floor(answer: WithinFloor) -> str:
    end = "; that is as far as the plan goes" if answer.capped else ""
    return f"within {answer.floor} {name(answer)} gets to {ratios(answer.ratio)}{end}"


def name(answer: AtTarget | WithinFloor) -> str:
    """Return what is counted."""
    return "packed size" if answer.format == "packed" else answer.objective


def target_rows(estimates: Estimates) -> list[tuple[str, ...]]:
    """Return the table of targets: objective, target, drop, its interval, chance, and how."""
    rows = []
    for answer in estimates.targets:
        if answer.drop is None:
            cells: tuple[str, ...] = (units.UNKNOWN, f"at most {units.ratio(answer.most)}", "< 1 %")
        else:
            low, middle, high = (
                units.points(v, percent=estimates.percent)
                for v in (answer.drop.low, answer.drop.middle, answer.drop.high)
            )
            cells = (middle, f"{low} to {high}", chance(answer.chance))
        rows.append((name(answer), answer.target, *cells, " + ".join(answer.plan)))
    return rows


def floor_rows(estimates: Estimates) -> list[tuple[str, ...]]:
    """Return the table of floors: objective, floor, ratio, its interval, and how."""
    return [
        (
            name(answer),
            answer.floor,
            units.ratio(answer.ratio.middle),
            f"{units.ratio(answer.ratio.low)} to {units.ratio(answer.ratio.high)}{' (all)' if answer.capped else ''}",
            " + ".join(answer.plan),
        )
        for answer in estimates.floors
    ]
