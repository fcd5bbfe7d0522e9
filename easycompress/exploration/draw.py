"""The pictures: error or training loss against a ratio, as the LC papers draw them (IJCNN 2021, figures 4 and 5)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING

from easycompress.exploration.labels import Crowd
from easycompress.exploration.pareto import MEASURES, WORDS
from easycompress.exploration.plan import curve_named
from easycompress.exploration.style import BAND, INK, PAPER, SOFT, drawing, log_axis, look_of, save, tidy_axes
from easycompress.report import units

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation

    from easycompress.exploration.pareto import Measure, Standing
    from easycompress.exploration.story import Story

WIDE, NARROW = (9.6, 5.8), (4.2, 5.2)
"""Sizes in inches for a desk and for a phone."""

FLOORS_SHOWN = 5.0
"""How many times the allowed drop is shown; a model that is ruined would press all others into one line."""

FINE = 30.0
"""A log axis over less than this factor is divided more finely."""

LEAST_SPAN = 1.1
"""A log axis spans at least this factor: points may all be of one height."""

LEAST_RANGE = 1.3
"""A measure that no curve moves by this factor has no picture."""


@dataclass(frozen=True)
class Scale:
    """What stands on the y axis: the error of a metric in percent, else its drop; up to `top`."""

    story: Story
    kind: str

    @property
    def percent(self) -> bool:
        """Tell whether the axis is an error in percent."""
        return self.story.metric.percent and self.story.metric.higher_is_better

    def of(self, each: Standing) -> float | None:
        """Return a point's height, None where it isn't known."""
        if self.kind == "loss":
            return each.row.loss
        return None if each.row.quality is None else self.height(each.row.quality)

    def height(self, quality: float) -> float:
        """Return the height of a quality."""
        return 100 - quality if self.percent else self.story.sign * (self.story.original.quality - quality)

    @property
    def original(self) -> float | None:
        """Return the height of the original."""
        return self.story.original.loss if self.kind == "loss" else self.height(self.story.original.quality)

    @property
    def log(self) -> bool:
        """Tell whether the axis is logarithmic."""
        return self.kind == "loss" or self.percent

    @property
    def label(self) -> str:
        """Return what the axis is called."""
        metric = self.story.metric
        if self.kind == "loss":
            return "training loss"
        return f"error on select, % (100 - {metric.name})" if self.percent else f"drop of {metric.name} on select"

    def limits(self, heights: list[float]) -> tuple[float, float]:
        """Return the ends of the axis for points at these heights."""
        original = self.original
        known = [*heights, *([] if original is None else [original])]
        low, high = min(known), max(known)
        allowed = self.story.allowed
        if self.kind != "loss" and math.isfinite(allowed) and allowed > 0 and original is not None:
            high = min(high, original + FLOORS_SHOWN * allowed)
        if self.log:
            low = max(low, 1e-4 * high, 1e-9)
            high = max(min(high, low * 1e3) if self.kind == "loss" else high, LEAST_SPAN * low)
            return low / (high / low) ** 0.08, high * (high / low) ** 0.06
        span = high - low or 1.0
        return low - 0.08 * span, high + 0.06 * span


def measures_of(story: Story) -> list[Measure]:
    """Return the measures that some curve moves."""
    found: list[Measure] = []
    for measure in MEASURES:
        ratios = [each.ratios[measure] for points in story.along(measure).values() for each in points]
        if ratios and max(ratios) >= LEAST_RANGE:
            found.append(measure)
    return found


def draw_all(story: Story, folder: Path) -> None:
    """Write a picture of the error and one of the training loss for every measure that moves."""
    for measure in measures_of(story):
        with tradeoff(story, measure, "error", WIDE) as figure:
            save(figure, folder, f"error-{measure}")
        if story.original.loss is not None:
            with tradeoff(story, measure, "loss", WIDE) as figure:
                save(figure, folder, f"loss-{measure}")


def title_of(story: Story) -> str:
    """Return the line above a picture."""
    name = PurePath(story.request.model).stem
    return f"{name}: every point trained for {story.epochs} epochs; bars: one standard error; band: Pareto front"


class _Held:
    """A figure as a context, so that its fonts hold until it is written."""

    def __init__(self, story: Story, measure: Measure, kind: str, size: tuple[float, float], *, halo: bool) -> None:
        self.arguments, self.halo = (story, measure, kind, size), halo

    def __enter__(self) -> Figure:
        story, measure, kind, size = self.arguments
        self.block = drawing(*size)
        figure = self.block.__enter__()
        _tradeoff(figure, story, measure, Scale(story, kind), narrow=size == NARROW, halo=self.halo)
        return figure

    def __exit__(self, *error: object) -> None:
        self.block.__exit__(None, None, None)


def tradeoff(story: Story, measure: Measure, kind: str, size: tuple[float, float], *, halo: bool = True) -> _Held:
    """Provide the picture of `kind` ("error" or "loss") against the ratio of one measure."""
    return _Held(story, measure, kind, size, halo=halo)


def _tradeoff(figure: Figure, story: Story, measure: Measure, scale: Scale, *, narrow: bool, halo: bool) -> None:
    axes = figure.add_subplot()
    tidy_axes(axes)
    curves = {name: points for name, points in story.along(measure).items() if _moves(points, measure)}
    places = {
        name: [(each, each.ratios[measure], height) for each in points if (height := scale.of(each)) is not None]
        for name, points in curves.items()
    }
    low, high = scale.limits([height for points in places.values() for _, _, height in points])
    ratios = [1.0, *(ratio for points in places.values() for _, ratio, _ in points)]
    axes.set_xscale("log")
    span = max(ratios) / min(ratios)
    axes.set_xlim(min(ratios) / span**0.04, max(ratios) * span ** (0.16 if narrow else 0.1))
    axes.set_yscale("log" if scale.log else "linear")
    axes.set_ylim(low, high)
    log_axis(axes.xaxis, "{}x")
    if scale.log:
        log_axis(axes.yaxis, "{}", fine=high / low < FINE)
    axes.set_xlabel(f"compression ratio: original / {WORDS[measure]}" if measure in ("size", "packed")
                    else f"ratio of {WORDS[measure]}: original / compressed")  # fmt: skip
    axes.set_ylabel(scale.label)
    if not narrow:
        axes.set_title(title_of(story), loc="left", fontsize=9.5, color=SOFT, pad=10)
    limits = _limits(axes, story, scale)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    crowd = Crowd(axes, halo=halo)
    crowd.boxes += [(b.x0, b.y0, b.x1, b.y1) for b in (name.get_window_extent() for name in limits)]
    if scale.kind != "loss":
        _front(axes, places, measure)
    for index, (name, points) in enumerate(places.items()):
        _curve(axes, name, index, points, scale, crowd)
    for index, (name, points) in enumerate(places.items()):
        seen = [(ratio, height) for _, ratio, height in points if low <= height <= high]
        seen = seen or [(points[0][1], high)] if points else []
        if seen:
            crowd.name(story.title(name), seen, look_of(name, index).light, 7.5 if narrow else 8.5)


def _moves(points: list[Standing], measure: Measure) -> bool:
    """Tell whether a curve says something of a measure: codes leave operations and time as they are."""
    return measure in ("size", "packed") or any(abs(math.log(each.ratios[measure])) > math.log(1.03) for each in points)


def _curve(
    axes: Axes, name: str, index: int, points: list[tuple[Standing, float, float]], scale: Scale, crowd: Crowd
) -> None:
    """Draw one curve with its error bars; what is off the picture stands open on its upper edge."""
    look, known = look_of(name, index), curve_named(name)
    joined = (known is None or known.joined) and len(points) > 1
    ratios, heights = [ratio for _, ratio, _ in points], [height for _, _, height in points]
    bars = [0.0 if scale.kind == "loss" else (each.row.error or 0.0) for each, _, _ in points]
    top = axes.get_ylim()[1]
    if joined:
        axes.plot(ratios, heights, look.line, color=look.light, linewidth=1.6, zorder=3)
    below = [max(height - bar, axes.get_ylim()[0]) for height, bar in zip(heights, bars, strict=True)]
    above = [height + bar for height, bar in zip(heights, bars, strict=True)]
    axes.vlines(ratios, below, above, color=look.light, linewidth=1.1, alpha=0.75, zorder=4)
    size = 11 if look.marker == "*" else 6.5
    axes.plot(
        ratios, heights, look.marker, color=look.light, markersize=size, markeredgecolor=PAPER, markeredgewidth=0.7,
        linestyle="none", zorder=6,
    )  # fmt: skip
    for ratio, height in zip(ratios, heights, strict=True):
        if height > top:
            axes.plot([ratio], [top], look.marker, color=PAPER, markeredgecolor=look.light, markersize=size - 1,
                      clip_on=False, zorder=7)  # fmt: skip
    crowd.add([(ratio, min(height, top)) for ratio, height in zip(ratios, heights, strict=True)], joined=joined)


def _front(axes: Axes, places: dict[str, list[tuple[Standing, float, float]]], measure: Measure) -> None:
    """Lay a broad band under the front, and rings around its points."""
    best = sorted(
        (ratio, height) for points in places.values() for each, ratio, height in points if measure in each.fronts
    )
    if not best:
        return
    ratios, heights = [ratio for ratio, _ in best], [height for _, height in best]
    axes.plot(ratios, heights, color=BAND, linewidth=11, solid_capstyle="round", solid_joinstyle="round", zorder=1.5)
    axes.plot(ratios, heights, "o", color="none", markeredgecolor=INK, markersize=13, markeredgewidth=0.9, zorder=5)


def _limits(axes: Axes, story: Story, scale: Scale) -> list[Annotation]:
    """Draw the original and the floor; return their names."""
    names = []
    for height, text, style in _lines(story, scale):
        if axes.get_ylim()[0] < height < axes.get_ylim()[1]:
            axes.axhline(height, color=SOFT, linewidth=1.1, linestyle=style, zorder=2)
            name = axes.annotate(
                text, (1, height), xycoords=("axes fraction", "data"), xytext=(-2, 4), textcoords="offset points",
                ha="right", va="bottom", color=SOFT, fontsize=8,
            )  # fmt: skip
            names.append(name)
    return names


def _lines(story: Story, scale: Scale) -> Iterator[tuple[float, str, str]]:
    original = scale.original
    if original is None:
        return
    if scale.kind == "loss":
        yield original, "original", "-."
        return
    unit = " %" if scale.percent else ""
    yield original, f"original: {units.number(original)}{unit}", "-."
    if math.isfinite(story.allowed) and story.allowed > 0:
        floor = scale.height(story.floor_quality)
        yield floor, f"floor: {units.number(floor)}{unit}", "--"
