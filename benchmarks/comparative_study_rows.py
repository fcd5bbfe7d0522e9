"""Every cell that the comparative study's benchmark can fill."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.comparative_study_methods import BITS, PRUNING, SHAPES
from benchmarks.comparative_study_paper import LEVELS, VARIANTS

HASHED_LEVELS = (90, 95, 98, 99, 99.5)
"""Percent of the weights that a HashedNet saves; the study draws its accuracies and prints none."""


@dataclass(frozen=True)
class Cell:
    """One method at one level: percent removed, of LC bits a weight, of a convolutional net its shape."""

    variant: str
    width: int
    method: str
    level: str

    @property
    def name(self) -> str:
        """What the cell is called in the JSON."""
        return f"{self.variant} / {self.width} / {self.method} / {self.level}"


def cells() -> list[Cell]:
    """Return every cell, in the order in which they are run."""
    found = []
    for variant in VARIANTS:
        for width in LEVELS:
            levels = (0, *(level for level in LEVELS[width] if level))
            found += [Cell(variant, width, method, f"{level:g}") for method in PRUNING for level in levels]
            found += [Cell(variant, width, "LC", f"{bits:g}") for bits in BITS]
            if width == max(LEVELS):
                found += [Cell(variant, width, "HashedNet", f"{level:g}") for level in HASHED_LEVELS]
                found += [Cell(variant, width, "convolutional", str(shape)) for shape in SHAPES]
    return found
