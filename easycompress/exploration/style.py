"""How pictures look: one colour, marker and line a curve, the same in print, in the dark, and to the colour-blind."""

from __future__ import annotations

import contextlib
import io
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from easycompress.core.files import write_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from matplotlib.axes import Axes

INK, SOFT, LINE, PAPER, BAND = "#1d1c1a", "#6a665f", "#e3dfd6", "#fcfbf8", "#dcd6c8"
"""Colours of report.html's style sheet in the light; in the page they follow its variables."""

VARIABLES = {INK: "--ink", SOFT: "--soft", LINE: "--line", PAPER: "--paper", BAND: "--band"}

DPI = 160

SVG_STYLE = f"<style>text {{ paint-order: stroke; stroke: {PAPER}; stroke-width: 3px; stroke-linejoin: round }}</style>"

FONTS: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "svg.fonttype": "none",
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "savefig.facecolor": PAPER,
}


@dataclass(frozen=True)
class Look:
    """Colour in the light and in the dark, marker and line style of one curve."""

    light: str
    dark: str
    marker: str
    line: str = "-"


LOOKS = {
    "quantize": Look("#0072b2", "#5cb3ea", "o"),
    "prune": Look("#c44e00", "#f08a4b", "s"),
    "low-rank": Look("#00805c", "#35c79c", "^"),
    "quantize+prune": Look("#a8437f", "#e79bc6", "D", "--"),
    "quantize+low-rank": Look("#2f8fc4", "#8fd0f5", "h", "--"),
    "low-rank+prune": Look("#a66f00", "#e8b64a", "v", "--"),
    "quantize+low-rank+prune": Look("#6a4c9c", "#b79be6", "p", "--"),
    "entropy": Look("#1b1b1a", "#f0ede6", "*"),
    "int8": Look("#5f5f5e", "#b5b5b3", "P", ""),
    "structured": Look("#7d4a3c", "#d0a090", "X", ":"),
    "structured+int8": Look("#6f6c10", "#c3bf4a", ">", ":"),
    "ranks": Look("#3b7a80", "#84c5cb", "<", ":"),
}
"""From Okabe and Ito's palette, darkened so that text in them can be read on paper."""

OTHERS = tuple(LOOKS.values())


def look_of(name: str, index: int = 0) -> Look:
    """Return the look of a curve; others take one by their place."""
    return LOOKS.get(name, OTHERS[index % len(OTHERS)])


@contextlib.contextmanager
def drawing(width: float, height: float) -> Iterator[Figure]:
    """Provide a figure of that many inches; no global state of matplotlib is touched."""
    with mpl.rc_context(FONTS):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure


def tidy_axes(axes: Axes) -> None:
    """Leave a light grid and two axes."""
    axes.grid(visible=True, which="major", color=LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(which="both", length=3)


def log_axis(axis: Any, form: str, *, fine: bool = False) -> None:  # noqa: ANN401 - matplotlib's own type
    """Label 1, 2, 5, 10, ... of a log axis in plain numbers; `fine`: some between them too."""
    axis.set_major_locator(LogLocator(base=10, subs=(1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0) if fine else (1.0, 2.0, 5.0)))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(FuncFormatter(lambda value, _: form.format(f"{value:g}")))


def save(figure: Figure, folder: Path, name: str) -> None:
    """Write a picture as PNG and as SVG, whose texts stay texts: what keeps lines off them is a style there."""
    write_bytes(folder / f"{name}.png", _rendered(figure, "png"))
    for text in figure.findobj(Text):
        text.set_path_effects([])
    drawn = _rendered(figure, "svg").decode().replace("</defs>", f"{SVG_STYLE}</defs>", 1)
    write_bytes(folder / f"{name}.svg", drawn.encode())


def _rendered(figure: Figure, kind: str, salt: str = "easycompress") -> bytes:
    """Return the bytes of a picture; `salt` makes the names in an SVG its own."""
    stream = io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    with mpl.rc_context(FONTS | {"svg.hashsalt": salt}):
        figure.savefig(stream, format=kind, dpi=DPI, metadata=metadata)
    return stream.getvalue()


def inline(figure: Figure, label: str, salt: str) -> str:
    """Return a picture for the page: its colours are the page's variables, its letters the page's, with a text."""
    text = _rendered(figure, "svg", salt).decode()
    text = text[text.index("<svg") :]
    head = rf'<svg class="plot" viewBox="\1" role="img" aria-label="{label}">'
    text = re.sub(r'<svg [^>]*viewBox="([^"]*)"[^>]*>', head, text, count=1)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    for name, look in LOOKS.items():
        text = text.replace(look.light, f"var(--{variable_of(name)})")
    return re.sub(r"font: ([^;\"]*?)'DejaVu Sans'[^;\"]*", r"font: \1var(--sans)", text)


def variable_of(name: str) -> str:
    """Return the style sheet's name of a curve's colour."""
    return "c-" + name.replace("+", "-")
