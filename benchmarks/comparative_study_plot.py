"""The comparative study's figures: accuracy against the weights that are left, and against the bytes of the file."""

from __future__ import annotations

import io
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from matplotlib import rc_context
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from benchmarks.comparative_study_methods import BITS, PRUNING, SHAPES
from benchmarks.comparative_study_paper import LEVELS, STUDY, VARIANTS
from benchmarks.comparative_study_rows import HASHED_LEVELS, Cell

PLOT = Path(__file__).parent / "results" / "comparative_study.svg"

COLOURS = {
    "MagL1": "#1f5fa8", "MagL2": "#2a9d8f", "OBD": "#b5651d", "HashedNet": "#8e5ea2", "convolutional": "#777777",
    "LC": "#c0392b",
}  # fmt: skip

WIDTH = 100

LEVELS_OF: dict[str, list[str]] = {
    **{method: [f"{level:g}" for level in LEVELS[WIDTH]] for method in PRUNING},
    "HashedNet": [f"{level:g}" for level in HASHED_LEVELS],
    "convolutional": [str(shape) for shape in SHAPES],
    "LC": [f"{bits:g}" for bits in BITS],
}


def variants(held: dict[str, Any]) -> list[str]:
    """Return the variants that have more than one level of a method."""
    return [v for v in VARIANTS if max(len(points(held, v, method)) for method in LEVELS_OF) > 1]


def points(held: dict[str, Any], variant: str, method: str) -> list[dict[str, Any]]:
    """Return what is known of a method at the larger width, the largest nets first."""
    names = [Cell(variant, WIDTH, method, level).name for level in LEVELS_OF[method]]
    return sorted((held[name] for name in names if name in held), key=lambda found: -fmean(found["ecz_bytes"]))


def draw(held: dict[str, Any]) -> str:
    """Return the picture as SVG: a row a variant; solid ours with deviations, dotted the study's."""
    shown = variants(held)
    figure = Figure(figsize=(10, 3.6 * len(shown)), layout="constrained")
    FigureCanvasSVG(figure)
    panels: Any = figure.subplots(len(shown), 2, squeeze=False)
    whole = 784 * WIDTH + 10 * WIDTH
    for (left, right), variant in zip(panels, shown, strict=True):
        for method, colour in COLOURS.items():
            known = points(held, variant, method)
            means = [fmean(found["test"]) for found in known]
            bars = [stdev(found["test"]) for found in known]
            look = {"color": colour, "markersize": 3, "marker": "o", "linewidth": 1.2, "label": method}
            if method != "LC":
                left.errorbar([fmean(found["weights"]) for found in known], means, yerr=bars, **look)
            right.errorbar([fmean(found["ecz_bytes"]) for found in known], means, yerr=bars, **look)
            if method in PRUNING:
                theirs = [STUDY[WIDTH, method, variant, level][0] for level in LEVELS[WIDTH]]
                at = [whole * (1 - level / 100) for level in LEVELS[WIDTH]]
                left.plot(at, theirs, ":", color=colour, linewidth=1, label=f"{method}, the study")
        for panel, name in ((left, "weights left"), (right, "bytes of model.ecz")):
            panel.set(xscale="log", xlabel=name, title=variant, ylabel="test accuracy, %")
            panel.grid(visible=True, alpha=0.3)
            panel.legend(fontsize=7, loc="lower right")
    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "comparative study"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()
