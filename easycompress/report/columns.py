"""Plain columns of text that fit a screen: numbers are never cut, names are, and nothing wraps into its neighbour."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.cells import cell_len, set_cell_size
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Sequence

GAP = "  "
NARROWEST = 8
"""Cells that a column of text keeps even where the screen is too narrow."""

_DOTS = "..."


@dataclass(frozen=True)
class Column:
    """A heading and how its cells behave.

    `cut` says which side of a text gives way when the screen is narrow: `start` for dotted names, whose end tells them
    apart, `end` for prose, None for what is never cut. `right` is for numbers.
    """

    head: str
    cut: str | None = None
    right: bool = False


def table(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int | None) -> Text:
    """Return a table at most `width` cells wide where cutting its cuttable columns permits that; None: uncut."""
    cells = [[column.head for column in columns], *[list(row) for row in rows]]
    widths = [max(cell_len(row[index]) for row in cells) for index in range(len(columns))]
    if width is not None:
        widths = _narrowed(columns, widths, width)
    lines = [_line(columns, row, widths) for row in cells]
    rule = "-" * (sum(widths) + len(GAP) * (len(columns) - 1))
    text = Text(no_wrap=True)
    text.append(lines[0].rstrip() + "\n", style="bold")
    text.append(rule + "\n", style="dim")
    text.append("\n".join(line.rstrip() for line in lines[1:]))
    return text


def wrapped(text: str, width: int | None, indent: int = 0) -> str:
    """Return `text` in lines of at most `width`, later ones indented; a number's thousands stay together."""
    if width is None:
        return text
    # textwrap breaks at plain spaces only, so these hold through it.
    held = re.sub(r"(?<=\d) (?=\d{3}(?!\d))", "\u00a0", text)
    lines = textwrap.wrap(held, max(width, indent + NARROWEST), subsequent_indent=" " * indent, break_on_hyphens=False)
    return "\n".join(lines).replace("\u00a0", " ")


def _narrowed(columns: Sequence[Column], widths: list[int], width: int) -> list[int]:
    """Take what is too much from the widest column that can be cut, cell by cell."""
    widths = list(widths)
    over = sum(widths) + len(GAP) * (len(columns) - 1) - width
    able = [index for index, column in enumerate(columns) if column.cut]
    for _ in range(max(over, 0)):
        widest = max(able, key=lambda index: widths[index], default=None)
        if widest is None or widths[widest] <= NARROWEST:
            break
        widths[widest] -= 1
    return widths


def _line(columns: Sequence[Column], row: Sequence[str], widths: Sequence[int]) -> str:
    return GAP.join(_cell(column, text, width) for column, text, width in zip(columns, row, widths, strict=True))


def _cell(column: Column, text: str, width: int) -> str:
    if cell_len(text) > width:
        room = width - len(_DOTS)
        text = _DOTS + text[-room:] if column.cut == "start" else text[:room].rstrip() + _DOTS
    return text.rjust(width) if column.right else set_cell_size(text, width)
