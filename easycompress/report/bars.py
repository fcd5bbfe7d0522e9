"""What each kept step brought, in bytes and in time: a bar a step, with what it took off the one before outlined."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from easycompress.report import svg, units

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from markupsafe import Markup

    from easycompress.core.outcome import Course

MINUS = "\u2212"

_ROW, _BAR, _GAP = 50, 16, 8


@dataclass(frozen=True)
class Bar:
    """One step and the value after it, in bytes or ms."""

    label: str
    value: float


@dataclass(frozen=True)
class Panel:
    """Bars of one quantity: its name, and how a value of it is written."""

    name: str
    bars: tuple[Bar, ...]
    shown: Callable[[float], str]


def panels(course: Sequence[Course]) -> list[Panel]:
    """Return what can be drawn of a course: bytes, and time where it was measured more than once."""
    sizes = tuple(Bar(entry.action, float(entry.size_bytes)) for entry in course)
    times = tuple(Bar(entry.action, entry.latency) for entry in course if entry.latency is not None)
    found = [Panel("Size of the file", sizes, units.size), Panel("Time of one run, batch 1", times, units.milliseconds)]
    return [panel for panel in found if len(panel.bars) > 1 and max(bar.value for bar in panel.bars) > 0]


def draw(panel: Panel, width: int = svg.WIDE) -> Markup:
    """Return one panel as a drawing, `width` px wide."""
    most = max(bar.value for bar in panel.bars)
    scale = (width - 2) / most
    parts: list[Markup] = []
    y, before = 0.0, panel.bars[0].value
    for index, bar in enumerate(panel.bars):
        words = panel.shown(bar.value) + (_change(before, bar.value, panel.shown, width) if index else "")
        parts.append(svg.text(0, y + 13, _fitting(bar.label, width - svg.length(words, 13) - 16), "row"))
        parts.append(svg.text(width, y + 13, words, "value", "end"))
        parts += _bar(
            min(bar.value, before) * scale, abs(bar.value - before) * scale, y + 13 + _GAP, bar.value > before
        )
        before = bar.value
        y += _ROW
    return svg.drawing((width, y - _ROW + 13 + _GAP + _BAR + 2), panel.name, _described(panel), parts, "bars")


def _bar(common: float, changed: float, y: float, grew: bool) -> list[Markup]:  # noqa: FBT001 - a fact, not a switch
    """Return what is left of the step before, and beside it what was taken off or has come."""
    parts = [svg.box(1, y, max(common, 1.0), _BAR, "stays")]
    if changed >= 1:
        parts.append(svg.box(1 + common, y + 0.5, changed, _BAR - 1, "grew" if grew else "taken-off"))
    return parts


def _change(before: float, after: float, shown: Callable[[float], str], width: int) -> str:
    """Return what a step changed, in brackets; a phone has room for the ratio alone."""
    if before == after:
        return " (no change)"
    less = after < before
    ratio = units.ratio(before / after if less else after / before) if min(before, after) > 0 else ""
    amount = f"{MINUS if less else '+'}{shown(abs(before - after))}, " if width >= svg.WIDE else ""
    return f" ({amount}{ratio} {'less' if less else 'more'})"


def _fitting(name: str, room: float) -> str:
    lines = svg.wrapped(name, room, 13)
    return name if len(lines) == 1 else f"{lines[0]} ..."


def _described(panel: Panel) -> str:
    return "; ".join(
        f"{'after ' if index else ''}{bar.label} {panel.shown(bar.value)}" for index, bar in enumerate(panel.bars)
    )
