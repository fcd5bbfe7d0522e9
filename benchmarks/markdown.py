"""Tables and numbers as Markdown, for the pages that benchmarks generate."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

NOT_RUN = "*not run*"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; short rows are filled with empty cells."""
    filled = [[*row, *[""] * (len(head) - len(row))] for row in (head, ["---"] * len(head), *rows)]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in filled)


def count(number: float) -> str:
    """Return a whole number with thin groups of three: 1 724 934."""
    return f"{number:,.0f}".replace(",", " ")
