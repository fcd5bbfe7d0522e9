"""A column of targets -> numbers, by the model's own names of its classes where it has any."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from easycompress.core.errors import BadInput
from easycompress.intake.objects import as_targets

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

MOST_CLASSES = 1000
"""More distinct texts than this are no class names."""

SHOWN = 8
"""Class names that a text lists."""

LONGEST = 24
"""Signs of a label that a text shows."""

REMEDY = "name the label by --columns text,label (of a file without header: all columns in their order)"
"""What helps where a column holds no labels."""


class Labels:
    """Turns cells into class numbers, the same way in every split.

    `classes` are the distinct texts of all splits, sorted; `known` what the model calls its classes, by name; `names`
    what the data calls its numbers. `note` says how texts became numbers, empty where they were numbers.
    """

    def __init__(
        self,
        cells: Sequence[object],
        known: Mapping[str, int],
        names: Sequence[str],
        count: int | None,
        where: str,
        column: str,
    ) -> None:
        """Settle the numbers of a column's classes.

        Raises BadInput where texts are neither the model's class names nor as many, or names and numbers both.
        """
        self.note = ""
        self._map: dict[Any, int] = {}
        if cells and isinstance(cells[0], str):
            self._texts({str(cell) for cell in cells}, known, count, f"{where}: column {column}")
        elif names and _speaks(known) and set(names) == set(known):
            self._map = {i: known[name] for i, name in enumerate(names)}
            if any(number != i for i, number in self._map.items()):
                self.note = "the data numbers its classes otherwise than the model: they were matched by name"

    def _texts(self, found: set[str], known: Mapping[str, int], count: int | None, where: str) -> None:
        if found <= known.keys():
            self._map = dict(known)
            return
        lower = {name.lower(): number for name, number in known.items()}
        if len(lower) == len(known) and {name.lower() for name in found} <= lower.keys():
            self._map = {name: lower[name.lower()] for name in found}
            return
        numbers = _numbers(found)
        if numbers is not None:
            self._map = numbers
            return
        classes = sorted(found)
        if number := next((name for name in classes if _numbers({name}) is not None), None):
            name = next(name for name in classes if _numbers({name}) is None)
            raise BadInput(f"{where}: labels are {_short(number)} and {_short(name)}, numbers and names; {REMEDY}")
        if len(classes) > (MOST_CLASSES if count is None or count == 1 or _speaks(known) else count):
            model = "no classes" if len(classes) > MOST_CLASSES else f"not those of a model with {count}"
            raise BadInput(
                f"{where}: {len(classes)} different labels ({_short(classes[0])}, ...) are {model}; {REMEDY}"
            )
        if _speaks(known) and count is not None and len(classes) != count:
            raise BadInput(
                f"{where}: the label map doesn't fit: labels are {_cut(classes)}, the model's classes {_cut(known)}; "
                "give the data that it was trained for, or mend label2id in its config.json"
            )
        self._map = {name: i for i, name in enumerate(classes)}
        self.note = f"labels were numbered in the order of their names: {_cut(classes)}"

    def __call__(self, cell: Any) -> Any:  # noqa: ANN401 - a text or a number
        """Return the number of a cell."""
        return self._map.get(cell, cell) if self._map else cell


def plain_numbers(cells: Sequence[object]) -> list[object]:
    """Return texts that are all numbers as numbers, as csv files hold them; others as they are."""
    if not cells or not all(isinstance(cell, str) for cell in cells):
        return list(cells)
    for kind in (int, float):
        try:
            return [kind(str(cell)) for cell in cells]
        except ValueError:
            continue
    return list(cells)


def classes_in(cells: Sequence[Any], where: str, *, classifies: bool) -> list[Any]:
    """Return labels as they are, whole numbers with a point as integers for a model that `classifies`.

    Raises BadInput, beginning with `where`, for fractions there, and for a label that is the same in all rows.
    """
    cells = list(cells)
    if classifies and cells and all(isinstance(cell, float) for cell in cells):
        fraction = next((cell for cell in cells if not cell.is_integer()), None)
        if fraction is not None:
            raise BadInput(f"{where}: holds {fraction}, but the model scores classes; {REMEDY}")
        cells = [int(cell) for cell in cells]
    plain = all(isinstance(cell, (str, int, float)) for cell in cells)
    if plain and len(cells) > 1 and len(set(cells)) == 1:
        raise BadInput(f"{where}: is {_short(str(cells[0]))} in all {len(cells)} rows, which judges nothing; {REMEDY}")
    return cells


def class_targets(cells: Sequence[object], labels: Labels, name: str) -> Tensor:
    """Return a split's targets (N,): int64 for classes, float32 for numbers with a fraction."""
    return as_targets([labels(cell) for cell in cells], name)


def _numbers(found: set[str]) -> dict[str, int] | None:
    """Return texts that are whole numbers as these, None where one isn't."""
    try:
        return {text: int(text) for text in found}
    except ValueError:
        return None


def _speaks(known: Mapping[str, int]) -> bool:
    """Tell whether a model's class names mean something: LABEL_0, LABEL_1, ... are what nobody named."""
    return bool(known) and not all(re.fullmatch(r"LABEL_\d+", name) for name in known)


def _short(name: str) -> str:
    """Return a label as an error text shows it."""
    return repr(name) if len(name) <= LONGEST else f"{name[: LONGEST - 1]!r}…"


def _cut(names: Sequence[str] | Mapping[str, int]) -> str:
    shown = ", ".join(list(names)[:SHOWN])
    return shown if len(names) <= SHOWN else f"{shown} and {len(names) - SHOWN} more"
