"""From stored arrays back to a code."""

from __future__ import annotations

from reprlib import repr as shown
from typing import TYPE_CHECKING, Any

import torch

from easycompress.codes.affine import Affine
from easycompress.codes.checks import array_in, only
from easycompress.codes.codebook import Codebook
from easycompress.codes.composed import Additive, Scaled
from easycompress.codes.half import Half
from easycompress.codes.hashed import Hashed
from easycompress.codes.lowrank import LowRank
from easycompress.codes.sparse import Sparse

if TYPE_CHECKING:
    from torch import Tensor

    from easycompress.codes.base import Code

FORMS = ("affine-int8", "codebook", "sparse", "low-rank", "hashed", "additive", "scaled", "half")

MOST_PARTS = 16
"""Simple codes in one composed code. A part may need no byte of its own: this bounds what a file can make it cost."""

MOST_DEPTH = 4
"""Composed codes inside each other: a scaled sum needs two."""


def read_code(form: str, meta: dict[str, Any], arrays: dict[str, Tensor]) -> Code:
    """Return the code of that form. Raises ValueError, in one line, where meta and arrays don't fit it exactly.

    Safe with what nobody vouches for: nothing is allocated before all sizes agree; a shape has at most 2^31 - 1
    elements, a composed code at most 16 parts.
    """
    if _parts_in_all(form, meta, 0) > MOST_PARTS:
        raise ValueError(f"a code of more than {MOST_PARTS} parts")
    return _read(form, meta, arrays)


_WITH_META: dict[str, type[Codebook | Sparse | LowRank | Hashed]] = {
    "codebook": Codebook,
    "sparse": Sparse,
    "low-rank": LowRank,
    "hashed": Hashed,
}
_PLAIN: dict[str, type[Affine | Half]] = {"affine-int8": Affine, "half": Half}


def _read(form: str, meta: dict[str, Any], arrays: dict[str, Tensor]) -> Code:
    if form in _PLAIN:
        return _PLAIN[form].read(arrays)
    return _WITH_META[form].read(meta, arrays) if form in _WITH_META else _read_composed(form, meta, arrays)


def _read_composed(form: str, meta: dict[str, Any], arrays: dict[str, Tensor]) -> Additive | Scaled:
    prefixes = [f"{index}." for index in range(len(meta["parts"]))]
    own = ["scale"] if form == "scaled" else []
    only({name: array for name, array in arrays.items() if not name.startswith(tuple(prefixes))}, own)
    parts = tuple(
        _read(part["form"], part["meta"], under(arrays, prefix))
        for part, prefix in zip(meta["parts"], prefixes, strict=True)
    )
    shape = parts[0].shape
    if form == "additive":
        if any(part.shape != shape for part in parts):
            raise ValueError(f"a sum of tensors of different shapes {shown([part.shape for part in parts])}")
        return Additive(parts)
    if not shape:
        raise ValueError("a lone number has no channels to scale")
    return Scaled(parts[0], array_in(arrays, "scale", torch.float32, (shape[0],)))


def _parts_in_all(form: str, meta: dict[str, Any], depth: int) -> int:
    """Return how many simple codes there are, having checked that forms and metas are what `_read` takes them for."""
    if not isinstance(form, str) or form not in FORMS:
        raise ValueError(f"unknown stored form {shown(form)}; this version reads {', '.join(FORMS)}")
    if not isinstance(meta, dict):
        raise ValueError(f"{form}: meta is {shown(meta)}, not a table")  # noqa: TRY004 - one kind of error for all
    if form not in ("additive", "scaled"):
        return 1
    parts, most = meta.get("parts"), MOST_PARTS if form == "additive" else 1
    if not isinstance(parts, list) or not 1 <= len(parts) <= most:
        raise ValueError(f"{form}: parts {shown(parts)} aren't a list of 1 to {most}")
    if depth == MOST_DEPTH:
        raise ValueError(f"codes inside codes, more than {MOST_DEPTH} deep")
    if not all(isinstance(part, dict) for part in parts):
        raise ValueError(f"{form}: parts {shown(parts)} aren't all tables")
    return sum(_parts_in_all(part.get("form"), part.get("meta"), depth + 1) for part in parts)


def under(arrays: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the arrays whose names begin with `prefix`, by the rest of their names."""
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
