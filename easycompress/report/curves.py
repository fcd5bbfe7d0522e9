"""How training went: for each step that trained, small drawings of its loss, quality, and distance and penalty."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from easycompress.report import svg, units

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from markupsafe import Markup

    from easycompress.core.outcome import CurvePoint, StepRecord
    from easycompress.report.reading import Reading

WIDTH, HEIGHT = 250, 168
"""Size in px of one small drawing; a phone shows them one below the other."""

LEFT, RIGHT, TOP, BOTTOM = 48, 12, 28, 28
LETTERS = 5
"""Letters of a number that fit left of the axis; longer ones are written with an exponent."""
MOST_MARKS = 30
"""With more points than this a line goes without marks."""

NEAR = 0.05
"""A floor this share of the quality away, or as far as the quality ranges, is drawn with it."""

Points = list[tuple[int, float]]
"""Where on the axis of epochs (from 1), and the value there."""


@dataclass(frozen=True)
class Trained:
    """One step that trained: its number in the table of steps, its name, whether it is in the result, its drawings.

    `parts` says in words which of its `epochs` belonged to what.
    """

    index: int
    action: str
    stays: bool
    epochs: int
    parts: str
    drawings: tuple[Markup, ...]


@dataclass(frozen=True)
class _Line:
    name: str
    kind: str
    points: Points


def trained(steps: Sequence[StepRecord], reading: Reading, floor: float) -> list[Trained]:
    """Return every step with a curve worth drawing. `floor` is the least quality on *select* that is good enough."""
    found = []
    for index, step in enumerate(steps, 1):
        drawings = tuple(_drawings(step.curve, f"step {index}, {step.action}", reading, floor))
        if drawings:
            found.append(
                Trained(index, step.action, step.verdict == "kept", len(step.curve), parts_words(step.curve), drawings)
            )
    return found


def parts_words(curve: Sequence[CurvePoint]) -> str:
    """Return which epochs belonged to which part: `1 to 3: distillation; 4 to 6: fine-tuning`."""
    words, begin = [], 1
    for part, points in itertools.groupby(point.part for point in curve):
        end = begin + len(list(points)) - 1
        words.append(f"{begin}: {part}" if end == begin else f"{begin} to {end}: {part}")
        begin = end + 1
    return "; ".join(words)


def _drawings(curve: Sequence[CurvePoint], where: str, reading: Reading, floor: float) -> list[Markup]:
    loss = _Line("loss", "first", _known(point.loss for point in curve))
    quality = _Line(f"{reading.metric} on select", "first", _known(point.quality for point in curve))
    distance = _Line("\u2016w \u2212 \u0394(\u0398)\u2016", "first", _positive(point.distance for point in curve))
    penalty = _Line("\u03bc", "second", _positive(point.mu for point in curve))
    edges = _edges(curve)
    panels = [
        ((loss,), math.nan, False, False),
        ((quality,), floor, reading.percent, False),
        ((distance, penalty), math.nan, False, True),
    ]
    return [
        _Panel(lines, len(curve), edges, level, percent=percent, log=log).draw(where)
        for lines, level, percent, log in panels
        if lines[0].points
    ]


def _known(values: Iterable[float | None]) -> Points:
    """Return the values that are there, each with its place."""
    return [(place, value) for place, value in enumerate(values, 1) if value is not None and math.isfinite(value)]


def _positive(values: Iterable[float | None]) -> Points:
    """Return those that a logarithm can show."""
    return [(place, value) for place, value in _known(values) if value > 0]


def _edges(curve: Sequence[CurvePoint]) -> list[float]:
    """Return where one part ends and the next begins, between two epochs."""
    parts = [point.part for point in curve]
    return [place + 0.5 for place, (one, other) in enumerate(itertools.pairwise(parts), 1) if one != other]


@dataclass(frozen=True)
class _Panel:
    """Lines over epochs 1 to `epochs`, on one axis. `edges` part them, `floor` is a level worth showing."""

    lines: tuple[_Line, ...]
    epochs: int
    edges: Sequence[float]
    floor: float = math.nan
    percent: bool = False
    log: bool = False
    limits: tuple[float, float] = field(init=False)

    def __post_init__(self) -> None:
        values = [value for line in self.lines for _, value in line.points]
        low, high = min(values), max(values)
        near = max(high - low, NEAR * abs(high))
        if math.isfinite(self.floor) and low - near <= self.floor <= high + near:
            low, high = min(low, self.floor), max(high, self.floor)
        if self.log:
            low, high = low / 1.5, high * 1.5
        else:
            margin = 0.08 * (high - low) or 0.05 * abs(high) or 1.0
            low, high = low - margin, high + margin
        object.__setattr__(self, "limits", (low, high))

    def x(self, place: float) -> float:
        """Return the place of an epoch in px."""
        share = (place - 1) / (self.epochs - 1) if self.epochs > 1 else 0.5
        return LEFT + 6 + share * (WIDTH - LEFT - RIGHT - 12)

    def y(self, value: float) -> float:
        """Return the place of a value in px."""
        low, high = self.limits
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - BOTTOM - TOP)

    def draw(self, where: str) -> Markup:
        """Return the drawing."""
        known = [line for line in self.lines if line.points]
        told = "; ".join(f"{line.name} {self._way(line)}" for line in known)
        parts = [*self._axes(), *self._names(known)]
        for line in known:
            parts += self._line(line)
        return svg.drawing(
            (WIDTH, HEIGHT), f"Training of {where}", f"{told}, over {self.epochs} epochs", parts, "curve"
        )

    def _shown(self, value: float) -> str:
        return units.quality(value, percent=True) if self.percent else units.number(value)

    def _way(self, line: _Line) -> str:
        first, last = line.points[0][1], line.points[-1][1]
        return self._shown(last) if len(line.points) == 1 else f"{self._shown(first)} \u2192 {self._shown(last)}"

    def _axes(self) -> list[Markup]:
        right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
        values = (svg.powers(*self.limits) or [*self.limits]) if self.log else svg.ticks(*self.limits, 4)
        parts = []
        for value in values:
            parts.append(svg.segment(LEFT, self.y(value), right, self.y(value), "grid"))
            parts.append(svg.text(LEFT - 6, self.y(value) + 4, _short(value), "tick", "end"))
        parts += [svg.segment(self.x(edge), TOP, self.x(edge), bottom, "edge") for edge in self.edges]
        parts.append(svg.segment(LEFT, bottom, right, bottom, "axis"))
        for place in dict.fromkeys((1, *(int(t) for t in svg.ticks(1, self.epochs, 4) if t == int(t)), self.epochs)):
            if place in (1, self.epochs) or min(place - 1, self.epochs - place) > self.epochs / 8:
                parts.append(svg.text(self.x(place), bottom + 16, str(place), "tick", "middle"))
        if self.limits[0] <= self.floor <= self.limits[1]:
            parts.append(svg.segment(LEFT, self.y(self.floor), right, self.y(self.floor), "floor"))
            parts.append(svg.text(right, self.y(self.floor) - 4, "floor", "limit", "end"))
        return parts

    def _names(self, lines: Sequence[_Line]) -> list[Markup]:
        """Name what is drawn: one line with its first and last value, several with their marks."""
        if len(lines) == 1:
            return [svg.text(0, 12, f"{lines[0].name} {self._way(lines[0])}", "name")]
        parts, x = [], 5.0
        for line in lines:
            parts += [_mark(x, 8, line.kind), svg.text(x + 10, 12, line.name, "name")]
            x += svg.length(line.name) + 34
        return parts

    def _line(self, line: _Line) -> list[Markup]:
        places = [(self.x(place), self.y(value)) for place, value in line.points]
        marked = places if len(places) <= MOST_MARKS else []
        return [svg.line(places, f"curve {line.kind}"), *(_mark(x, y, line.kind) for x, y in marked)]


def _short(value: float) -> str:
    """Return a number beside an axis in few letters: 0.02, 4.6e-4, 1e-5."""
    text = f"{value:.3g}"
    if len(text) <= LETTERS:
        return text
    digits, _, power = f"{value:.2e}".partition("e")
    return f"{digits.rstrip('0').rstrip('.')}e{int(power)}"


def _mark(x: float, y: float, kind: str) -> Markup:
    if kind == "second":
        return svg.box(x - 2.5, y - 2.5, 5, 5, f"dot {kind}")
    return svg.box(x - 3, y - 3, 6, 6, f"dot {kind}", 3)
