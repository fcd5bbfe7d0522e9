"""Time and memory against size as Markdown and as a picture."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from benchmarks.markdown import NOT_RUN, count, table
from benchmarks.scaling_rows import AXES, LAUNCHES, SERIES, WORKERS, key

if TYPE_CHECKING:
    from benchmarks.scaling_work import Net

Json = dict[str, Any]

PLOT = Path(__file__).parent / "results" / "scaling.svg"

SEEN = 5e7
"""Bytes of memory over the least row's from which a slope is more than noise."""

INTRODUCTION = (
    "One whole `compress` a row, four epochs of learning-compression at 1.15 bits a weight, in a process of its own "
    "with one thread; residual nets of linear layers, 4 000 training samples where nothing else is said. Seconds are "
    "those on the wall, of the processor, and by the report of training and C steps; the peak is the "
    "process's, and what the smallest rows take is Python's, torch's and the runtime's. The exponent is the slope in "
    "logarithms between the two largest rows, of the processor's seconds and of the memory over the column's least: 1 "
    "is proportional. *load* is the average over a minute, the row's own process included. A peak is at least that of "
    "the process that started it: the 1.59 and 5.66 GB below the widest net's row are inherited, and no row's own."
)


def lines(held: Json) -> list[str]:
    """Return the lines of the section."""
    parts = [INTRODUCTION, f"![Seconds and memory against size](results/{PLOT.name})"]
    for axis in SERIES:
        parts += [f"### Against {AXES[axis]}", series(axis, held), slopes(axis, held)]
    return "\n\n".join([*parts, "### One process and two", processes(held)]).splitlines()


def points(axis: str, held: Json) -> list[tuple[float, Json]]:
    """Return the rows of a series that are known, with what grows."""
    rows = [(net, held[key(axis, net)]) for net in SERIES[axis] if key(axis, net) in held]
    return [(_grown(axis, net, found), found) for net, found in rows]


def _grown(axis: str, net: Net, found: Json) -> float:
    return float({"parameters": found["parameters"], "samples": net.samples, "layers": net.depth}[axis])


def series(axis: str, held: Json) -> str:
    """Return the rows of one series."""
    head = [
        "row",
        AXES[axis],
        "seconds",
        "of the processor",
        "training and C steps",
        "peak, GB",
        "verdict",
        "ratio",
        "drop",
        "load",
    ]
    rows = []
    for net in SERIES[axis]:
        found = held.get(key(axis, net))
        if found is None:
            rows.append([key(axis, net), NOT_RUN])
            continue
        rows.append(
            [
                key(axis, net), count(_grown(axis, net, found)), f"{found['seconds']:.1f}",
                f"{found['cpu_seconds']:.1f}", _learning(found), f"{found['peak_bytes'] / 1e9:.2f}", found["verdict"],
                f"{found['ratio']:.1f}x", f"{found['drop']:+.2f}", f"{found['load'][0]:.1f} to {found['load'][1]:.1f}",
            ]
        )  # fmt: skip
    return table(head, rows)


def _learning(found: Json) -> str:
    spent = found.get("spent", {})
    return f"{spent.get('training', 0.0) + spent.get('projection', 0.0):.1f}" if spent else ""


def slopes(axis: str, held: Json) -> str:
    """Return the exponents of a series in one sentence."""
    known = points(axis, held)
    if len(known) < 2:
        return "Exponents: *not run*."
    sizes = [size for size, _ in known]
    seconds = [found["cpu_seconds"] for _, found in known]
    least = min(found["peak_bytes"] for _, found in known)
    memory = [found["peak_bytes"] - least for _, found in known]
    said = f"Exponent of the seconds: {exponent(sizes, seconds):.2f} between the two largest rows"
    said += f", {fitted(sizes, seconds):.2f} over all." if len(known) > 2 else "."
    if min(memory[-2:]) >= SEEN:
        return f"{said} Of the memory: {exponent(sizes, memory):.2f}."
    return f"{said} The memory grows too little to tell."


def exponent(sizes: list[float], values: list[float]) -> float:
    """Return the slope between the last two points, in logarithms."""
    return math.log(values[-1] / values[-2]) / math.log(sizes[-1] / sizes[-2])


def fitted(sizes: list[float], values: list[float]) -> float:
    """Return the slope of the least-squares line through all points, in logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def processes(held: Json) -> str:
    """Return one process beside two."""
    head = ["row", "seconds", "of the processor", "the largest process's peak, GB", "against one", "load"]
    rows = []
    for names in (WORKERS, LAUNCHES):
        single = held.get(next(iter(names)))
        for name in names:
            found = held.get(name)
            if found is None or found["exit"] not in {0, 1}:
                rows.append([name, NOT_RUN if found is None else f"failed: {' '.join(found['message'])}"])
                continue
            rows.append(
                [
                    name, f"{found['seconds']:.1f}", f"{found['cpu_seconds']:.1f}", f"{found['peak_bytes'] / 1e9:.2f}",
                    f"{single['seconds'] / found['seconds']:.2f}x as fast" if single else "",
                    f"{found['load'][0]:.1f} to {found['load'][1]:.1f}",
                ]
            )  # fmt: skip
    return table(head, rows)


def draw(held: Json) -> str:
    """Return the picture as SVG: above seconds, below peak memory, a column a series, in logarithms."""
    figure = Figure(figsize=(9, 4.6), layout="constrained")
    FigureCanvasSVG(figure)
    panels: Any = figure.subplots(2, len(SERIES))
    for column, axis in enumerate(SERIES):
        known = points(axis, held)
        sizes = [size for size, _ in known]
        measures = (
            ("seconds of the processor", [found["cpu_seconds"] for _, found in known]),
            ("peak, GB", [found["peak_bytes"] / 1e9 for _, found in known]),
        )
        for panel, (name, values) in zip(panels[:, column], measures, strict=True):
            panel.loglog(sizes, values, "o-", color="#1f5fa8", markersize=4)
            panel.minorticks_off()
            panel.set_xlabel(AXES[axis])
            panel.grid(visible=True, alpha=0.3)
            if column == 0:
                panel.set_ylabel(name)
    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "scaling"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()
