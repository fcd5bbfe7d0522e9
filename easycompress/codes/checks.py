"""What stored facts must look like before anything is built, or allocated, from them: files aren't trusted.

Every function raises ValueError with one line that says what is wrong.
"""

from __future__ import annotations

import math
from reprlib import repr as shown
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

MOST_ELEMENTS = 2**31 - 1
"""Some codes need no byte a weight (one entry, no nonzeros, rank 0), so their shape alone decides what is allocated."""

MOST_DIMENSIONS = 8


def shape_in(meta: dict[str, Any]) -> tuple[int, ...]:
    """Return meta's `shape`: at most 8 whole numbers from 0, of at most 2^31 - 1 elements in all."""
    sizes = _fact(meta, "shape")
    if not isinstance(sizes, list | tuple) or len(sizes) > MOST_DIMENSIONS:
        raise ValueError(f"shape {shown(sizes)} isn't a list of at most {MOST_DIMENSIONS} sizes")
    if any(type(size) is not int or size < 0 for size in sizes):
        raise ValueError(f"shape {shown(sizes)} holds something else than whole numbers from 0")
    # An empty tensor's other sizes count too: strides are made of them.
    if math.prod(max(size, 1) for size in sizes) > MOST_ELEMENTS:
        raise ValueError(f"shape {shown(sizes)} has more than {MOST_ELEMENTS} elements")
    return tuple(sizes)


def integer_in(meta: dict[str, Any], key: str, low: int, high: int) -> int:
    """Return meta's whole number `key`, from `low` to `high`, both included."""
    value = _fact(meta, key)
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"{key} {shown(value)} isn't a whole number from {low} to {high}")
    return value


def choice_in(meta: dict[str, Any], key: str, choices: tuple[str, ...]) -> str:
    """Return meta's `key`, one of `choices`."""
    value = _fact(meta, key)
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"unknown {key} {shown(value)}; this version reads {', '.join(choices)}")
    return value


def array_in(
    arrays: dict[str, Tensor], name: str, dtype: torch.dtype, shape: tuple[int | None, ...] | None = None
) -> Tensor:
    """Return the array `name`, of that dtype and shape; None stands for any shape or size."""
    array = arrays.get(name)
    if not isinstance(array, torch.Tensor):
        raise ValueError(f"array {name!r} is missing")  # noqa: TRY004 - one kind of error for everything a file can do
    fits = shape is None or (
        array.dim() == len(shape) and all(w is None or n == w for n, w in zip(array.shape, shape, strict=True))
    )
    if array.dtype != dtype or not fits:
        wanted = "" if shape is None else " " + _sizes(shape)
        raise ValueError(f"array {name!r} is {_kind(array.dtype)} {_sizes(array.shape)}, not {_kind(dtype)}{wanted}")
    return array


def only(arrays: dict[str, Tensor], names: Iterable[str]) -> None:
    """Check that there is no array but `names`: one that nobody reads would be paid for and prove nothing."""
    extra = arrays.keys() - set(names)
    if extra:
        raise ValueError(f"array {shown(min(extra))} belongs to nothing")


def _fact(meta: dict[str, Any], key: str) -> Any:  # noqa: ANN401 - JSON, about to be checked
    if not isinstance(meta, dict) or key not in meta:
        raise ValueError(f"{key} is missing")
    return meta[key]


def _kind(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _sizes(shape: Iterable[int | None]) -> str:
    return "(" + ", ".join("any" if size is None else str(size) for size in shape) + ")"
