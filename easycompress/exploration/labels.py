"""Where a curve's name stands in a picture: beside the curve, off all marks, lines and other names."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from matplotlib.patheffects import withStroke

from easycompress.exploration.style import PAPER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

Place = tuple[float, float]

Box = tuple[float, float, float, float]
"""Left, lower, right and upper end."""

Side = Literal["left", "center", "right"]

NEAREST: tuple[tuple[float, float, Side], ...] = (
    (9, 0, "left"), (7, 7, "left"), (7, -7, "left"), (-9, 0, "right"), (-7, 7, "right"), (-7, -7, "right"),
    (0, 12, "center"), (0, -12, "center"),
)  # fmt: skip

OFFSETS = tuple((x * reach, y * reach, side) for reach in (1.0, 1.8, 3.0) for x, y, side in NEAREST)
"""Tried places of a name from a point, in points of print, nearest first."""

MARK = 5.0
"""Half the width of a mark, in points of print."""

ON_LINE, ON_MARK, ON_NAME, OUTSIDE, FAR, EARLY = 1.0, 2.5, 8.0, 50.0, 0.02, 0.35
"""What is bad about a place; FAR counts for each point of print from the curve, EARLY for each point before its end."""


@dataclass
class Crowd:
    """What already stands in a picture, in pixels. `halo`: names keep lines off by themselves, not by a style sheet."""

    axes: Axes
    halo: bool = True
    marks: list[Place] = field(default_factory=list)
    segments: list[tuple[Place, Place]] = field(default_factory=list)
    boxes: list[Box] = field(default_factory=list)

    def add(self, places: Sequence[Place], *, joined: bool) -> None:
        """Take note of a curve's points, in data."""
        pixels: list[Place] = [(float(x), float(y)) for x, y in self.axes.transData.transform(list(places))]
        self.marks += pixels
        if joined:
            self.segments += list(itertools.pairwise(pixels))

    def name(self, text: str, places: Sequence[Place], colour: str, size: float) -> None:
        """Write a curve's name beside one of its points, late ones first."""
        scale = self.axes.figure.dpi / 72
        effects = [withStroke(linewidth=3, foreground=PAPER)] if self.halo else []
        label = self.axes.annotate(
            text, places[-1], textcoords="offset points", xytext=(0, 0), ha="left", va="center", color=colour,
            fontsize=size, fontweight="bold", path_effects=effects, annotation_clip=False, zorder=9,
        )  # fmt: skip
        label.set_in_layout(False)
        extent = label.get_window_extent()
        best: tuple[float, Place, tuple[float, float, Side], Box] | None = None
        for back, place in enumerate(reversed(places)):
            x, y = self.axes.transData.transform(place)
            for offset in OFFSETS:
                box = _box(x + offset[0] * scale, y + offset[1] * scale, extent.width, extent.height, offset[2])
                cost = self._cost(box, scale) + FAR * (abs(offset[0]) + abs(offset[1])) + EARLY * back
                if best is None or cost < best[0]:
                    best = (cost, place, offset, box)
        if best is not None:
            _, label.xy, (dx, dy, side), box = best
            label.set_position((dx, dy))
            label.set_horizontalalignment(side)
            self.boxes.append(box)

    def _cost(self, box: Box, scale: float) -> float:
        x0, y0, x1, y1 = box
        frame = self.axes.get_window_extent()
        inside = frame.x0 <= x0 and x1 <= frame.x1 + 4 * scale and frame.y0 <= y0 and y1 <= frame.y1
        half = MARK * scale
        cost = ON_MARK * sum(x0 - half < x < x1 + half and y0 - half < y < y1 + half for x, y in self.marks)
        cost += ON_NAME * sum(x0 < b[2] and b[0] < x1 and y0 < b[3] and b[1] < y1 for b in self.boxes)
        cost += ON_LINE * sum(_crosses(a, b, box) for a, b in self.segments)
        return cost if inside else cost + OUTSIDE


def _box(x: float, y: float, width: float, height: float, side: Side) -> Box:
    """Return the box of a text whose left end, middle or right end is at x, and whose middle is at y."""
    left = x - {"left": 0.0, "center": width / 2, "right": width}[side]
    return left, y - height / 2, left + width, y + height / 2


def _crosses(a: Place, b: Place, box: Box) -> bool:
    """Tell whether a segment passes through a box, by clipping it (Liang and Barsky 1984)."""
    dx, dy = b[0] - a[0], b[1] - a[1]
    low, high = 0.0, 1.0
    for step, room in ((-dx, a[0] - box[0]), (dx, box[2] - a[0]), (-dy, a[1] - box[1]), (dy, box[3] - a[1])):
        if step == 0:
            if room < 0:
                return False
        elif step < 0:
            low = max(low, room / step)
        else:
            high = min(high, room / step)
    return low <= high
