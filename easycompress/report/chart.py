"""The chart of attempts, drawn by hand as inline SVG: ratio reached across, quality on *select* upwards.

Colours come from the page's style sheet, so that light, dark and paper share one drawing. What an attempt came to is
told by its shape as well as its colour.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup

from easycompress.report import svg, units
from easycompress.report.svg import NARROW, WIDE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from easycompress.core.outcome import StepRecord
    from easycompress.report.reading import Reading

HEIGHTS = {WIDE: 400, NARROW: 310}

FLOORS_SHOWN = 2.0
"""How many times the allowed drop is shown below the floor. Worse attempts stand on the lower edge, marked so:
one collapsed model at 10 % accuracy would squeeze all the others into one line."""

LEFT, RIGHT, TOP, BOTTOM = 56, 16, 34, 86

TICKS = ((1, 1.2, 1.5, 2, 3, 4, 5, 7), (1, 1.5, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,))
TICK_ROOM = 44
"""Room in px that the number below a tick wants."""

LINE = 14
"""Height in px of a line of text."""

LABEL = 36
"""Height in px below the floor in which a mark touches its label."""

MARK = 5.5
"""Half the width of a mark in px."""

_SHAPES = {
    "original": '<rect x="{l:.1f}" y="{t:.1f}" width="{d:.1f}" height="{d:.1f}"/>',
    "kept": '<circle cx="{x:.1f}" cy="{y:.1f}" r="{h:.1f}"/>',
    "surpassed": '<circle cx="{x:.1f}" cy="{y:.1f}" r="{h:.1f}"/>',
    "weakened": '<path d="M{x:.1f} {t:.1f}L{r:.1f} {y:.1f}L{x:.1f} {b:.1f}L{l:.1f} {y:.1f}Z"/>',
    "reverted": '<path d="M{l:.1f} {t:.1f}L{r:.1f} {b:.1f}M{l:.1f} {b:.1f}L{r:.1f} {t:.1f}"/>',
}
_WORDS = {
    "original": "original",
    "kept": "accepted",
    "surpassed": "accepted, then surpassed",
    "weakened": "too much, tried weaker",
    "reverted": "rejected",
}


@dataclass(frozen=True)
class Attempt:
    """One mark: its number in the table of steps (0: the original), where it stands, and what it came to.

    `error` is one standard error of its quality against the original's, None where nobody worked it out.
    """

    index: int
    ratio: float
    quality: float
    kind: str
    text: str
    error: float | None = None


def attempts(steps: Sequence[StepRecord], reading: Reading, baseline: float) -> list[Attempt]:
    """Return the original, at ratio 1 and its quality on *select* (`baseline` when no step tells), and what was tried.

    Steps without a finite ratio and quality, as those that were skipped, have no place in the chart.
    """
    first = steps[0].before.get("quality") if steps else None
    origin = baseline if first is None or not math.isfinite(first) else first
    marks = [Attempt(0, 1.0, origin, "original", f"original: {units.quality(origin, percent=reading.percent)}")]
    for index, step in enumerate(steps, 1):
        ratio, quality = step.after.get("ratio"), step.after.get("quality")
        if ratio is None or quality is None or not (math.isfinite(ratio) and math.isfinite(quality) and ratio > 0):
            continue
        if step.verdict in _SHAPES:
            numbers = f"{units.ratio(ratio)}, {units.quality(quality, percent=reading.percent)}"
            text = f"{index}. {step.action}: {numbers}, {step.verdict}. {step.reason}"
            error = step.after.get("error")
            sure = error if error is not None and math.isfinite(error) and error > 0 else None
            marks.append(Attempt(index, ratio, quality, step.verdict, text, sure))
    return marks


def floor_on_select(marks: Sequence[Attempt], reading: Reading) -> float:
    """Return the least quality on *select* that meets the floor; the original's where there is none to meet."""
    allowed = reading.allowed if math.isfinite(reading.allowed) else 0.0
    return marks[0].quality - (allowed if reading.higher_is_better else -allowed)


class Plane:
    """Where numbers stand: x = log ratio, y = quality with better upwards, clamped to what is worth showing."""

    def __init__(self, marks: Sequence[Attempt], reading: Reading, width: int) -> None:
        self.width, self.height = width, HEIGHTS[width]
        self.sign = 1.0 if reading.higher_is_better else -1.0
        self.floor = floor_on_select(marks, reading)
        self.target = reading.target.ratio(reading.before)
        ratios = [mark.ratio for mark in marks] + ([self.target] if math.isfinite(self.target) else [])
        self._low, self._high = math.log(min(1.0, *ratios)), math.log(max(1.5, *ratios))
        margin = 0.07 * (self._high - self._low)
        self._low, self._high = self._low - margin, self._high + margin
        goods = [self.sign * mark.quality for mark in marks]
        floor, origin = self.sign * self.floor, goods[0]
        span = max(origin - floor, 0.002 * abs(origin), 1e-9)
        top, bottom = max(*goods, floor), min(*goods, floor)
        self._top, self._bottom = top + 0.35 * span, max(bottom - 0.35 * span, floor - FLOORS_SHOWN * span)

    def x(self, ratio: float) -> float:
        """Return the place of a ratio in px."""
        part = (math.log(ratio) - self._low) / (self._high - self._low)
        return LEFT + part * (self.width - LEFT - RIGHT)

    def y(self, quality: float) -> float:
        """Return the place of a quality in px; what is off the chart stands on its lower edge."""
        part = (max(self.sign * quality, self._bottom) - self._bottom) / (self._top - self._bottom)
        return self.height - BOTTOM - part * (self.height - BOTTOM - TOP)

    def off(self, quality: float) -> bool:
        """Return whether a quality lies below what is shown."""
        return self.sign * quality < self._bottom

    def ratio_ticks(self) -> list[float]:
        """Return 1, 2, 5, 10, 20, ... as far as they fit: more where the axis is short, fewer where it is long."""
        low, high = math.exp(self._low), math.exp(self._high)
        exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        ticks: list[float] = []
        for factors in TICKS:
            ticks = [tick for power in exponents for each in factors if low <= (tick := each * 10.0**power) <= high]
            places = [self.x(tick) for tick in ticks]
            if all(right - left >= TICK_ROOM for left, right in itertools.pairwise(places)):
                break
        return ticks

    def quality_ticks(self) -> list[float]:
        """Return round numbers, about five of them."""
        rough = (self._top - self._bottom) / 6
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
        first = math.ceil(self._bottom / step)
        return [self.sign * step * index for index in range(first, math.floor(self._top / step) + 1)]


def chart(marks: Sequence[Attempt], reading: Reading, width: int = WIDE) -> Markup:
    """Return the drawing, `width` px wide, with its own text alternative."""
    plane = Plane(marks, reading, width)
    accepted = [mark for mark in marks if mark.kind in ("kept", "surpassed")]
    title = f"{len(marks) - 1} attempts, {len(accepted)} accepted: ratio reached against {reading.metric}"
    legend, end = _legend(plane, marks)
    parts = [
        *_axes(plane, reading),
        *_limits(plane, marks, reading),
        *_errors(plane, marks),
        *_marks(plane, marks, reading),
        *legend,
    ]
    return svg.drawing((plane.width, max(plane.height, end + 6)), title, _described(plane, accepted, reading), parts)


def _described(plane: Plane, accepted: Sequence[Attempt], reading: Reading) -> str:
    """Return what the chart shows, in a sentence."""
    asked = [f"the target is {reading.target.text}"] if math.isfinite(plane.target) else []
    if math.isfinite(reading.allowed):
        asked.append(f"the floor {units.quality(plane.floor, percent=reading.percent)}")
    if not accepted:
        return f"Nothing was accepted; {', '.join(asked)}" if asked else "Nothing was accepted"
    best = max(accepted, key=lambda mark: mark.ratio)
    reached = f"{units.ratio(best.ratio)} at {units.quality(best.quality, percent=reading.percent)}"
    return "; ".join([f"The furthest accepted one reaches {reached}", *([", ".join(asked)] if asked else [])])


def _errors(plane: Plane, marks: Sequence[Attempt]) -> Iterator[Markup]:
    """Draw one standard error to either side, as far as the frame goes; below all marks."""
    for mark in marks:
        if mark.error is None or plane.off(mark.quality):
            continue
        x, ends = plane.x(mark.ratio), sorted(plane.y(mark.quality + side * mark.error) for side in (-1, 1))
        top, bottom = max(ends[0], TOP), min(ends[1], plane.height - BOTTOM)
        yield svg.segment(x, top, x, bottom, f"error {mark.kind}")
        for end in ends:
            if TOP <= end < plane.height - BOTTOM and abs(end - plane.y(mark.quality)) > 2 * MARK:
                yield svg.segment(x - 4, end, x + 4, end, f"error {mark.kind}")


def _axes(plane: Plane, reading: Reading) -> Iterator[Markup]:
    right, low = plane.width - RIGHT, plane.height - BOTTOM
    unit = " %" if reading.percent else ""
    for quality in plane.quality_ticks():
        yield svg.segment(LEFT, plane.y(quality), right, plane.y(quality), "grid")
        yield svg.text(LEFT - 8, plane.y(quality) + 4, f"{quality:g}", "tick", "end")
    for ratio in plane.ratio_ticks():
        yield svg.segment(plane.x(ratio), low, plane.x(ratio), low + 4, "axis")
        yield svg.text(plane.x(ratio), low + 18, f"{ratio:g}x", "tick", "middle")
    yield svg.segment(LEFT, low, right, low, "axis")
    yield svg.text(0, 12, f"{reading.metric}{unit}", "name")
    yield svg.text(right, low + 35, f"ratio reached ({reading.objective}), log scale", "name", "end")


def _limits(plane: Plane, marks: Sequence[Attempt], reading: Reading) -> Iterator[Markup]:
    """Draw the floor, with what lies below it shaded, and the target."""
    right, low = plane.width - RIGHT, plane.height - BOTTOM
    floor = plane.y(plane.floor)
    if math.isfinite(reading.allowed):
        area = Markup('<rect x="{}" y="{:.1f}" width="{}" height="{:.1f}" class="below"/>')
        yield area.format(LEFT, floor, right - LEFT, low - floor)
        yield svg.segment(LEFT, floor, right, floor, "floor")
        text = f"floor {units.quality(plane.floor, percent=reading.percent)}"
        covered = any(plane.x(m.ratio) < LEFT + 110 and 0 < plane.y(m.quality) + 8 - floor < LABEL for m in marks)
        place, anchor = (right - 6, "end") if covered else (LEFT + 6, "start")
        yield svg.text(place, floor + 15, text, "limit inside", anchor)
    if math.isfinite(plane.target):
        x = plane.x(plane.target)
        yield svg.segment(x, TOP - 6, x, low, "target")
        yield svg.text(x, TOP - 12, f"target {reading.target.text}", "limit", "end" if x > plane.width / 2 else "start")


def _shape(kind: str, x: float, y: float) -> Markup:
    half = MARK * {"weakened": 1.25, "reverted": 0.85, "surpassed": 0.85}.get(kind, 1.0)
    places = {"x": x, "y": y, "h": half, "d": 2 * half, "l": x - half, "r": x + half, "t": y - half, "b": y + half}
    return Markup(_SHAPES[kind].format(**places))  # noqa: S704 - numbers into one of the literals above


def _marks(plane: Plane, marks: Sequence[Attempt], reading: Reading) -> Iterator[Markup]:
    """Draw the way that was kept, then every attempt with its number, the better ones last and on top."""
    path = " ".join(f"{plane.x(m.ratio):.1f},{plane.y(m.quality):.1f}" for m in marks if m.kind in ("original", "kept"))
    yield Markup('<polyline points="{}" class="way"/>').format(path)
    order = ("reverted", "weakened", "original", "surpassed", "kept")
    taken: list[tuple[float, float]] = [(plane.x(mark.ratio), plane.y(mark.quality)) for mark in marks]
    labels: list[tuple[float, float, float]] = []
    for mark in sorted(marks, key=lambda each: order.index(each.kind)):
        x, y = plane.x(mark.ratio), plane.y(mark.quality)
        shape = _shape(mark.kind, x, y)
        yield Markup('<g class="mark {}"><title>{}</title>{}</g>').format(mark.kind, mark.text, shape)
        if plane.off(mark.quality):
            # Numbers of its own, as its place tells only the ratio.
            text = f"{mark.index}: {units.quality(mark.quality, percent=reading.percent)}, off the chart"
            yield _aside(text, x, y - 4, plane.width, labels)
        elif mark.index and (spot := _free(x, y, taken, beside=mark.error is not None)):
            taken.append(spot)
            yield svg.text(spot[0], spot[1] + 4, str(mark.index), "number", "middle")


def _aside(text: str, x: float, y: float, width: int, labels: list[tuple[float, float, float]]) -> Markup:
    """Return a text beside a mark, raised above those of `labels` (left, right, y) that it would cover."""
    long, end = svg.length(text), x > width / 2
    left = x - 12 - long if end else x + 12
    while any(left < right and begin < left + long and abs(y - other) < LINE for begin, right, other in labels):
        y -= LINE
    labels.append((left, left + long, y))
    return svg.text(x - 12 if end else x + 12, y, text, "number", "end" if end else "start")


def _free(x: float, y: float, taken: Sequence[tuple[float, float]], *, beside: bool) -> tuple[float, float] | None:
    """Return the centre of a label near a mark that covers no mark or label; None where it is too crowded.

    `beside`: an upright line goes through the mark.
    """
    for dx, dy in ((13, 0), (-13, 0), (0, -15), (0, 15)) if beside else ((0, -15), (13, 0), (0, 15), (-13, 0)):
        if all(abs(x + dx - a) > 9 or abs(y + dy - b) > 10 for a, b in taken):  # noqa: PLR2004 - half a digit and a mark
            return x + dx, y + dy
    return None


def _legend(plane: Plane, marks: Sequence[Attempt]) -> tuple[list[Markup], float]:
    """Name the shapes that occur, below the axis, in as many lines as it takes; return where they end, too."""
    x, y = float(LEFT), plane.height - BOTTOM + 60.0
    parts: list[Markup] = []
    for kind in (kind for kind in _SHAPES if any(mark.kind == kind for mark in marks)):
        length = 18 + svg.length(_WORDS[kind])
        if x + length > plane.width:
            x, y = float(LEFT), y + 20
        parts.append(Markup('<g class="mark {}">{}</g>').format(kind, _shape(kind, x + MARK, y - 4)))
        parts.append(svg.text(x + 18, y, _WORDS[kind], "name"))
        x += length + 14
    return parts, y
