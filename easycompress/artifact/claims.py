"""What a packed file says to stand for, against the memory of this machine."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING

from easycompress.artifact.stream import DENSEST
from easycompress.core.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path


def check_memory(path: Path, claims: Iterable[tuple[Sequence[int], int]]) -> None:
    """Raise BadInput where tensors of these shapes, with the bytes that each is read from, are over this memory.

    A shape that its bytes can't hold is refused when it is read.
    """
    claimed = sum(4 * min(math.prod(max(size, 1) for size in shape), DENSEST * held) for shape, held in claims)
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if claimed > there:
        raise BadInput(
            f"{path}: stands for {claimed / 1e9:.3g} GB of weights, but this machine has {there / 1e9:.3g} GB; "
            "read it on a larger one"
        )
