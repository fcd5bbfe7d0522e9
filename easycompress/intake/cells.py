"""The cells of a table: what they hold, and what they become."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from easycompress.core.errors import BadInput
from easycompress.intake.columns import IMAGE_COLUMNS
from easycompress.intake.images import from_array
from easycompress.intake.labels import plain_numbers

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")


SHOWN = 24
"""Signs of a cell that a note shows."""


def is_words(cell: object) -> bool:
    """Tell whether a cell is a list of words."""
    return isinstance(cell, list) and bool(cell) and isinstance(cell[0], str)


def is_picture(cell: object, column: str) -> bool:
    """Tell whether a cell of that column is an encoded picture, or names the file of one."""
    if isinstance(cell, str):
        return column in IMAGE_COLUMNS and cell.lower().endswith(IMAGE_SUFFIXES)
    return isinstance(cell, (bytes, dict)) or column in IMAGE_COLUMNS


def is_number(text: str) -> bool:
    """Tell whether a text is a finite number."""
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def example(cell: object) -> str:
    """Return a cell for people, in a few signs."""
    text = f"a {type(cell).__name__}" if isinstance(cell, (dict, bytes)) else " ".join(repr(cell).split())
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"


def encoded(cell: object, path: Path, row: int, where: str) -> bytes | Path:
    """Return the encoded image of one cell: its bytes, or the file that it points to."""
    if isinstance(cell, dict):
        cell = cell.get("path") if cell.get("bytes") is None else cell["bytes"]
    if isinstance(cell, str):
        return path.parent / cell
    if not isinstance(cell, bytes):
        raise BadInput(f"{where}: {path.name} row {row} holds no image; write {{bytes, path}} as Hugging Face does")
    return cell


def number_tensor(cells: list[Any], where: str) -> Tensor:
    """Return a column of numbers, or of lists of them, as a tensor (N, ...). Raises BadInput for anything else."""
    try:
        array = np.asarray(plain_numbers(cells))
    except ValueError as error:
        raise BadInput(f"{where}: its lists differ in length; pad them to one") from error
    if array.dtype.kind not in "biuf":
        raise BadInput(f"{where}: {str(cells[0])[:40]!r} is no number; name the columns to read by --columns")
    return from_array(array, where)
