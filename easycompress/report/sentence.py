"""The verdict in one sentence: what `report.json` calls `summary`, and what the terminal and the page say."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from easycompress.report import units

if TYPE_CHECKING:
    from easycompress.core.goal import Objective, Target
    from easycompress.core.outcome import Drop, Verdict

WORDS: dict[Objective, tuple[str, str]] = {
    "size": ("smaller", "larger"),
    "latency": ("faster", "slower"),
    "compute": ("fewer MACs", "more MACs"),
    "energy": ("less energy", "more energy"),
}
"""What a ratio above 1 and one below 1 mean."""

LABELS: dict[Verdict, str] = {
    "met": "MET",
    "target-missed": "TARGET MISSED",
    "floor-missed": "FLOOR MISSED",
    "undecided": "UNDECIDED",
}
"""The verdict as the sentence begins with it."""


def sentence(
    *,
    objective: Objective,
    target: Target,
    before: float,
    after: float,
    ratio: float,
    drop: Drop,
    allowed: float,
    verdict: Verdict,
    percent: bool,
    estimated: bool = False,
    why: str | None = None,
) -> str:
    """Return the verdict, what was reached and how sure that is, in one line without a full stop.

    `before` and `after` are the objective in its own unit (bytes, ms, MACs, mJ) on the report split's two files,
    `ratio` = before / after. `allowed` is the floor as the largest permitted drop in the metric's unit, infinite where
    there was no data to judge quality by; `percent` says whether that unit is percentage points, `estimated` that the
    objective was worked out and not measured. `why` adds a reason at the end, such as what arithmetic rules out.
    """
    label = LABELS[verdict]
    change = f"{units.change(before, after, objective)}{', estimated' if estimated else ''}"
    reached = f"{factor(ratio, objective)} ({change})"
    quality = _quality(drop, allowed, percent=percent)
    sure = f"{bound(drop, allowed, percent=percent)} on {units.count(drop.n)} samples"
    missed = _short_of(target, before, after, ratio, objective)
    if math.isinf(allowed):
        return _close(f"{label}: {reached}{f', {missed}' if missed else ''}, {_unjudged(drop, percent=percent)}", why)
    original = f"the original's {units.amount(before, objective)}"
    if before == after and (target.kind == "max" or verdict == "met"):
        nothing = f"nothing was compressed, {original} already meet the target {target.text}"
        best = f"nothing within the floor improves on {original}"
        return _close(f"{label}: {best if target.kind == 'max' else nothing}", why)
    if verdict == "met":
        note = {"max": ", the most within the floor", "absolute": f" for {target.text}", "ratio": ""}[target.kind]
        return _close(f"{label}: {reached}{note}, {quality}, {sure}", why)
    if verdict == "target-missed":
        text = f"the most within the floor is {missed or units.ratio(ratio)}; {change}"
        return _close(f"{label}: {text}, {quality}, {sure}", why)
    short = f", {missed}" if missed else ""
    if verdict == "floor-missed":
        return _close(f"{label}: {quality}, {sure}; {reached}{short}", why)
    return _close(f"{label}: {reached}{short}, {quality}, but {sure}; {_remedy(drop)}", why)


def _unjudged(drop: Drop, *, percent: bool) -> str:
    """Return what can be said of quality without data."""
    lost = units.points(drop.estimate, percent=percent)
    return f"quality not judged: no data was given (on random inputs, which prove nothing, fidelity falls by {lost})"


def factor(ratio: float, objective: Objective) -> str:
    """Return what a ratio means: `10.3x smaller`, and `1.25x larger` for 0.8."""
    better, worse = WORDS[objective]
    return f"{units.ratio(ratio)} {better}" if ratio >= 1 else f"{units.ratio(1 / ratio)} {worse}"


def _quality(drop: Drop, allowed: float, *, percent: bool) -> str:
    """Return `drop 0.42 points (floor 1.00)`, or `better by 0.10 points (floor 1.00)`."""
    if drop.estimate < 0:
        better = units.drop(drop.estimate, percent=percent)
        return f"{better} (floor {units.points(allowed, percent=percent)})"
    estimate, floor = units.apart(drop.estimate, allowed, percent=percent)
    return f"drop {estimate}{' points' if percent else ''} (floor {floor})"


def bound(drop: Drop, allowed: float, *, percent: bool) -> str:
    """Return how far the drop may reach: `at most 0.35 with 95 % confidence`."""
    if drop.upper_95 is None:
        changed = drop.worse + drop.better
        return f"without a bound ({f'only {units.count(changed)}' if changed else 'none'} changed)"
    if drop.upper_95 < 0:
        return f"better by at least {units.points(-drop.upper_95, percent=percent)} with 95 % confidence"
    return f"at most {units.apart(drop.upper_95, allowed, percent=percent)[0]} with 95 % confidence"


def _remedy(drop: Drop) -> str:
    """Return what would decide an undecided run."""
    if drop.needed is not None:
        return f"about {units.count(drop.needed)} samples would decide"
    if drop.upper_95 is None:
        return "more samples would give one"
    return "no number of samples would decide: allow a larger drop or ask for less"


def _short_of(target: Target, before: float, after: float, ratio: float, objective: Objective) -> str:
    """Return how far the result stays behind the target: `24.1x of 1000x`; empty when it does not."""
    if target.kind == "max" or ratio >= target.ratio(before):
        return ""
    if target.kind == "absolute":
        return f"{units.ratio(ratio)}: {units.amount(after, objective)} instead of {target.text}"
    asked = target.text if not target.text.endswith("%") else f"{units.ratio(target.value)} ({target.text})"
    return f"{units.ratio(ratio)} of {asked}"


def _close(text: str, why: str | None) -> str:
    """Add the reason, and make it one line."""
    return " ".join((f"{text}; {why}" if why else text).split())
