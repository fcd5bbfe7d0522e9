"""How long runs took, before and after: their distributions out of quantiles, one drawing a batch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from easycompress.report import svg, units

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from markupsafe import Markup

    from easycompress.core.outcome import Latency, Measurement

SIDE = 10
TOP, STRIP, GAP, BOTTOM = 4, 48, 30, 30

EDGE = 30
"""So near to the edge, in px, a tick's number goes inwards."""

SHOWN = 0.95
"""The axis ends a little beyond this share of the runs: one run that the system held up would hide all the others."""

FENCE = 3.0
"""On a busy machine it ends sooner: so many interquartile ranges above the upper quartile (Tukey's outer fence)."""

POINTS = 120
"""Points of an outline across the axis."""

SAMPLES = 200
"""Values read off the quantiles for the outline, evenly in probability."""

ENOUGH = 5
"""Quantiles that it takes at least to draw a distribution."""


@dataclass(frozen=True)
class Pair:
    """The latencies of both files at one batch and number of threads."""

    before: Latency
    after: Latency

    @property
    def label(self) -> str:
        """What was timed: `batch 1, 2 threads`."""
        return f"batch {self.before.batch}, {units.threads(self.before.threads)}"


def pairs(before: Measurement, after: Measurement) -> list[Pair]:
    """Return what was timed of both files and has quantiles to draw."""
    return [
        Pair(old, new)
        for old in before.latency_ms
        for new in after.latency_ms
        if (old.batch, old.threads) == (new.batch, new.threads)
        and min(len(old.quantiles), len(new.quantiles)) >= ENOUGH
    ]


def quantile(values: Sequence[float], share: float) -> float:
    """Return the quantile at `share` (0 to 1) of values at equal steps of it, straight between them."""
    place = share * (len(values) - 1)
    index = min(int(place), len(values) - 2)
    return values[index] + (place - index) * (values[index + 1] - values[index])


def draw(pair: Pair, width: int = svg.WIDE) -> Markup:
    """Return both distributions above one axis, `width` px wide."""
    low, high = _limits(pair)

    def x(value: float) -> float:
        return SIDE + (min(value, high) - low) / (high - low) * (width - 2 * SIDE)

    height = TOP + 2 * (STRIP + GAP) + BOTTOM
    bottom = height - BOTTOM
    parts: list[Markup] = []
    for value in svg.ticks(low, high, max(2, width // 110)):
        parts.append(svg.segment(x(value), TOP, x(value), bottom, "grid"))
        anchor = "start" if x(value) < EDGE else "end" if x(value) > width - EDGE else "middle"
        parts.append(svg.text(x(value), bottom + 16, f"{value:g} ms", "tick", anchor))
    parts.append(svg.segment(SIDE, bottom, width - SIDE, bottom, "axis"))
    for index, (name, entry) in enumerate((("before", pair.before), ("after", pair.after))):
        top = TOP + index * (STRIP + GAP)
        words = f"{name}: median {units.milliseconds(entry.median)}{_beyond(entry, high)}"
        parts.append(svg.text(0, top + 13, words, "limit"))
        parts += _strip(entry, (low, high), x, top + 22 + STRIP / 2, name)
    return svg.drawing((width, height), f"Time of one run, {pair.label}", _described(pair), parts, "latency")


def _limits(pair: Pair) -> tuple[float, float]:
    """Return the ends of the axis in ms, a little beyond what is worth showing."""
    entries = (pair.before, pair.after)
    low = min(min(entry.quantiles[0], entry.median) for entry in entries)
    high = max(max(_usual(entry.quantiles), entry.median) for entry in entries)
    spread = (high - low) or 0.1 * high or 1.0
    return max(0.0, low - 0.08 * spread), high + 0.1 * spread


def _usual(quantiles: Sequence[float]) -> float:
    """Return what all but unusually slow runs took at most."""
    first, third = quantile(quantiles, 0.25), quantile(quantiles, 0.75)
    return min(quantile(quantiles, SHOWN), third + FENCE * (third - first))


def _strip(
    entry: Latency, limits: tuple[float, float], x: Callable[[float], float], middle: float, kind: str
) -> list[Markup]:
    """Draw one distribution: its outline, as high as runs are frequent, quartiles as a bar, the median as a line."""
    low, high = limits
    places = [low + (high - low) * index / (POINTS - 1) for index in range(POINTS)]
    heights = density(entry.quantiles, places)
    most = max(heights) or 1.0
    seen = [(x(place), height / most * STRIP / 2) for place, height in zip(places, heights, strict=True)]
    seen = [(px, half) for px, half in seen if half > 0.1]  # noqa: PLR2004 - px; a thinner tail can't be seen
    outline = [(px, middle - half) for px, half in seen] + [(px, middle + half) for px, half in reversed(seen)]
    first, third = (quantile(entry.quantiles, share) for share in (0.25, 0.75))
    return [
        svg.line(outline, f"strip {kind}", closed=True),
        svg.box(x(first), middle - 3, max(x(third) - x(first), 1.0), 6, f"quartiles {kind}"),
        svg.segment(x(entry.median), middle - STRIP / 2, x(entry.median), middle + STRIP / 2, f"median {kind}"),
    ]


def density(quantiles: Sequence[float], places: Sequence[float]) -> list[float]:
    """Return how frequent runs of about so many ms are: a sum of normal curves, as wide as Silverman's rule says."""
    samples = [quantile(quantiles, (index + 0.5) / SAMPLES) for index in range(SAMPLES)]
    quartiles = quantile(quantiles, 0.75) - quantile(quantiles, 0.25)
    step = (places[-1] - places[0]) / len(places)
    width = max(0.9 * quartiles / 1.34 * SAMPLES**-0.2, step)
    return [sum(math.exp(-0.5 * ((place - sample) / width) ** 2) for sample in samples) for place in places]


def _beyond(entry: Latency, high: float) -> str:
    """Return how many runs the axis leaves out at most, as far as quantiles tell, and the slowest; else nothing."""
    steps = len(entry.quantiles) - 1
    over = sum(value > high for value in entry.quantiles)
    return f"; up to {over / steps:.0%} beyond, to {units.milliseconds(entry.quantiles[-1])}" if over else ""


def _described(pair: Pair) -> str:
    told = []
    for name, entry in (("before", pair.before), ("after", pair.after)):
        first, third, most = (quantile(entry.quantiles, share) for share in (0.25, 0.75, 1.0))
        shown = [units.milliseconds(value) for value in (entry.median, first, third, most)]
        told.append(
            f"{name}: median {shown[0]}, half of {units.count(entry.runs)} runs between {shown[1]} and {shown[2]}, "
            f"the slowest {shown[3]}"
        )
    return "; ".join(told)
