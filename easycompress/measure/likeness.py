"""Which parameter a tensor of a written file holds, told by its values alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from easycompress.artifact.chains import Array

ALIKE = 0.9
"""Least mean cosine of the rows of one weight and its stored form: 2-bit blocks keep more, strange weights have 0."""

CLEAR = 4.0
"""How many times farther off than the nearest parameter every other one must be."""

ROUNDING = 1e-4
"""Distance (1 - cosine) that is always forgiven to the nearest one, but never separates two."""

CLOSE = 2e-3
"""Largest difference, relative to the largest value, of vectors, which are stored in 16 bits or more."""

ROWS, COLUMNS = 128, 4096
"""Of a matrix at most so much is compared, evenly spread."""


class Likeness:
    """The parameters of a module, by name, among which those that tensors hold are sought."""

    def __init__(self, parameters: Mapping[str, Array]) -> None:
        self._by_shape: dict[tuple[int, ...], dict[str, Array]] = {}
        self._matrices: dict[int, dict[str, Array]] = {}
        for name, values in parameters.items():
            if values.dtype.kind == "f" and values.size > 1:
                self._by_shape.setdefault(values.shape, {})[name] = values
                if values.ndim == 2:  # noqa: PLR2004 - a matrix
                    self._matrices.setdefault(values.shape[1], {})[name] = values

    def find(self, values: Array) -> str | None:
        """Return the one parameter that `values` are, up to rounding and, from two dimensions on, a factor a row.

        A matrix may be transposed, or be some rows of its parameter: those of one of several parts, or the first. None
        where there is no such parameter, or more than one.
        """
        if values.size <= 1 or values.dtype.kind not in "fiu":
            return None
        if values.ndim == 1:
            return _one(name for name, other in self._by_shape.get(values.shape, {}).items() if _close(values, other))
        distances: dict[str, float] = {}
        for name, given, other in self._candidates(values):
            distances[name] = min(distances.get(name, np.inf), _distance(given, other))
        nearest = sorted(distances, key=lambda name: distances[name])[:2]
        if not nearest or distances[nearest[0]] > 1 - ALIKE:
            return None
        apart = CLEAR * distances[nearest[0]] + ROUNDING
        return nearest[0] if len(nearest) == 1 or distances[nearest[1]] > apart else None

    def _candidates(self, values: Array) -> Iterator[tuple[str, Array, Array]]:
        """Yield parameters with what of `values` and of them is to be compared."""
        whole = self._by_shape.get(values.shape, {})
        for name, other in whole.items():
            yield name, values, other
            if values.ndim > 2:  # noqa: PLR2004 - a transposed convolution has its outputs second
                yield name, np.swapaxes(values, 0, 1), np.swapaxes(other, 0, 1)
        if values.ndim != 2:  # noqa: PLR2004 - a matrix
            flat = values.reshape(-1, values.shape[-1])
            if not whole and len(flat) > 1 and len(flat) * values.shape[-1] == values.size:
                yield from self._rows(flat)
            return
        for name, other in self._by_shape.get(values.shape[::-1], {}).items():
            yield name, values.T, other
        if not whole:
            yield from self._rows(values)
            yield from self._rows(values.T)

    def _rows(self, values: Array) -> Iterator[tuple[str, Array, Array]]:
        """Yield the parts of taller matrices that are as tall as `values`."""
        count = len(values)
        for name, other in self._matrices.get(values.shape[1], {}).items():
            if len(other) > count:
                starts = range(0, len(other), count) if len(other) % count == 0 else (0,)
                for start in starts:
                    yield name, values, other[start : start + count]


def _one(names: Iterator[str]) -> str | None:
    found = list(names)
    return found[0] if len(found) == 1 else None


def _close(values: Array, other: Array) -> bool:
    if values.dtype.kind != "f":
        return False
    return bool(np.abs(values - other).max() <= CLOSE * np.abs(other).max())


def _distance(values: Array, other: Array) -> float:
    """Return 1 - the mean cosine of the rows; rows that are zero in both are alike, in one only not at all."""
    first, second = (_sample(each) for each in (values, other))
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    products = (first * second).sum(1)
    nothing = ~first.any(1) & ~second.any(1)
    cosines = np.where(nothing, 1.0, products / np.where(lengths > 0, lengths, np.inf))
    return float(1 - cosines.mean())


def _sample(values: Array) -> Array:
    """Return some rows (N, K) of a tensor in double precision; one of single numbers is one row."""
    rows = values.reshape(len(values), -1)
    if rows.shape[1] == 1:
        rows = rows.T
    chosen = np.linspace(0, len(rows) - 1, min(len(rows), ROWS)).astype(int)
    return rows[chosen, : rows.shape[1] : max(1, rows.shape[1] // COLUMNS)].astype(np.float64)
