"""The thesis's figures 11 to 13: how pruning degrades a model, how it recovers, and what teaching adds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from easycompress.exploration.labels import Crowd
from easycompress.exploration.style import OTHERS, PAPER, SOFT, drawing, save, tidy_axes

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.figure import Figure

    from easycompress.exploration.points import Row
    from easycompress.exploration.story import Story

SIZE = (9.6, 5.2)

TITLES = {
    "degradation": "Pruning without recovery, by technique",
    "recovery": "Recovery of half the parameters, by pruning technique",
    "distillation": "Distillation against fine-tuning, half the parameters pruned at random",
}
"""By part; figures 11, 12 and 13 of the thesis."""

Line = list[tuple[float, float]]


def draw_figures(story: Story, folder: Path) -> None:
    """Write those of the three pictures that have points."""
    for part in TITLES:
        lines = lines_of(story, part)
        if lines:
            with drawing(*SIZE) as figure:
                plot(figure, story, part, lines)
                save(figure, folder, part)


def lines_of(story: Story, part: str) -> dict[str, Line]:
    """Return the lines of one figure, each a list of (x, quality).

    x is the percentage of the parameters that is gone, or the epochs of training; epoch 0 is what pruning left.
    """
    found: dict[str, Line] = {}
    rows = [row for row in story.rows if row.part == part and row.measured]
    for row in sorted(rows, key=lambda row: row.level):
        found.setdefault(row.curve, []).extend(_degraded(story, row) if part == "degradation" else _course(row))
    if part == "degradation":
        return {name: [(0.0, story.original.quality), *line] for name, line in found.items()}
    return {name: line for name, line in found.items() if len(line) > 1}


def _degraded(story: Story, row: Row) -> Line:
    if row.quality is None or row.params is None:
        return []
    return [(100 * (1 - row.params / story.original.params), row.quality)]


def _course(row: Row) -> Line:
    """Return what was seen of one training, epoch by epoch over all its parts."""
    line: Line = []
    for place in row.course:
        if place.quality is not None:
            line.append((float(len(line)), place.quality))
    return line


def plot(figure: Figure, story: Story, part: str, lines: dict[str, Line], *, halo: bool = True) -> None:
    """Draw one figure."""
    axes = figure.add_subplot()
    tidy_axes(axes)
    unit = ", %" if story.metric.percent else ""
    axes.set_title(TITLES[part], loc="left", fontsize=11)
    axes.set_xlabel("parameters removed, %" if part == "degradation" else "epochs of training")
    axes.set_ylabel(f"{story.metric.name} on select{unit}")
    axes.axhline(story.original.quality, color=SOFT, linewidth=1.1, linestyle="-.", zorder=2)
    for index, line in enumerate(lines.values()):
        look = OTHERS[index % len(OTHERS)]
        xs, ys = [x for x, _ in line], [y for _, y in line]
        axes.plot(xs, ys, look.marker, linestyle=look.line or "-", color=look.light, markersize=6, linewidth=1.5,
                  markeredgecolor=PAPER, markeredgewidth=0.6)  # fmt: skip
    low, high = axes.get_xlim()
    axes.set_xlim(low, high + 0.16 * (high - low))
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    crowd = Crowd(axes, halo=halo)
    for line in lines.values():
        crowd.add(line, joined=True)
    for index, (name, line) in enumerate(lines.items()):
        crowd.name(name, line, OTHERS[index % len(OTHERS)].light, 8.5)
