"""Inline SVG by hand: a few shapes, what a text takes, round ticks. Colours come from the page's style sheet.

So light, dark and paper share one drawing. Every drawing has a title and a sentence for those who can't see it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from markupsafe import Markup

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

WIDE, NARROW = 800, 350
"""Widths in px of a drawing for a desk and for a phone; scaling one down would make its text unreadable."""

_NARROW_LETTERS = frozenset("iljtfrI.,:;'|!()[] -")
_WIDE_LETTERS = frozenset("mwMWOQGD%@")
_SQUARE = "\u2e80"
"""From here on most scripts fill squares."""

_SHARES = (0.37, 0.62, 1.0)
"""Widths of narrow, usual and wide letters as shares of the font's size, generous: nothing here can measure text."""


def drawing(size: tuple[float, float], title: str, description: str, parts: Iterable[Markup], kind: str = "") -> Markup:
    """Return the whole drawing of `size` (width, height) in px, with its text alternative."""
    head = Markup('<svg class="{}" viewBox="0 0 {:.0f} {:.0f}" role="img" aria-label="{}">')
    kinds = f"chart {kind}".strip()
    texts = Markup("<title>{}</title>\n<desc>{}</desc>").format(title, description)
    return Markup("\n").join([head.format(kinds, *size, title), texts, *parts, Markup("</svg>")])


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> Markup:
    """Return one line of text whose base line is at `y`."""
    form = Markup('<text x="{:.1f}" y="{:.1f}" class="{}" text-anchor="{}">{}</text>')
    return form.format(x, y, kind, anchor, words)


def segment(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    """Return a straight line."""
    form = Markup('<line x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}" class="{}"/>')
    return form.format(x1, y1, x2, y2, kind)


def box(x: float, y: float, width: float, height: float, kind: str, radius: float = 0) -> Markup:
    """Return a rectangle, its corners rounded by `radius`."""
    form = Markup('<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" class="{}"{}/>')
    rounded = Markup(' rx="{:.0f}"').format(radius) if radius else ""
    return form.format(x, y, max(width, 0.0), max(height, 0.0), kind, rounded)


def line(points: Sequence[tuple[float, float]], kind: str, *, closed: bool = False) -> Markup:
    """Return a line through points, or the area inside it."""
    form = Markup('<{} points="{}" class="{}"/>')
    return form.format("polygon" if closed else "polyline", " ".join(f"{x:.1f},{y:.1f}" for x, y in points), kind)


def titled(title: str, kind: str, parts: Iterable[Markup]) -> Markup:
    """Return shapes with a text of their own, which a pointer over them shows."""
    return Markup('<g class="{}"><title>{}</title>{}</g>').format(kind, title, Markup().join(parts))


def length(words: str, size: float = 12) -> float:
    """Return about how many px a text takes, rather too many than too few."""
    return size * sum(_SHARES[_breadth(letter)] for letter in words)


def _breadth(letter: str) -> int:
    if letter in _NARROW_LETTERS:
        return 0
    return 2 if letter in _WIDE_LETTERS or letter >= _SQUARE else 1


def wrapped(words: str, width: float, size: float = 12) -> list[str]:
    """Return a text in lines of at most `width` px; a word too long for one is cut.

    Fixed spaces hold.
    """
    lines: list[str] = []
    for word in filter(None, words.replace("\n", " ").split(" ")):
        while length(word, size) > width and len(word) > 1:
            fits = next(end for end in range(len(word), 0, -1) if length(word[:end], size) <= width or end == 1)
            lines.append(word[:fits])
            word = word[fits:]  # noqa: PLW2901 - what is left of it
        if lines and length(f"{lines[-1]} {word}", size) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines or [""]


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Return round numbers between `low` and `high`, about so many; `low` itself where there is no room between."""
    if not high > low:
        return [low]
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(step * index, 12) for index in range(first, last + 1)]


def powers(low: float, high: float, most: int = 5) -> list[float]:
    """Return powers of ten between `low` and `high`, both positive, not more than `most`; none where none fits."""
    exponents = range(math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9) + 1)
    every = max(1, math.ceil(len(exponents) / most))
    return [10.0**power for power in exponents if power % every == 0]
