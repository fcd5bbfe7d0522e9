"""Memory that runs out: how it shows, and work that is done again with less at a time."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

Result = TypeVar("Result")

WORDS = (
    "can't allocate memory", "cannot allocate memory", "not enough memory", "out of memory", "bad_alloc",
    "failed to allocate memory", "resource temporarily unavailable", "could not create a primitive",
)  # fmt: skip
"""What the texts of such errors hold: PyTorch's, the system's, C++'s, ONNX Runtime's. The last two
are PyTorch's where there is no room for a thread's stack, and oneDNN's where there is none for its own data."""


def is_exhausted(error: BaseException) -> bool:
    """Tell whether an error says that there is no memory left."""
    if isinstance(error, MemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    text = str(error).lower()
    return isinstance(error, Exception) and any(word in text for word in WORDS)


def shrinking(size: int, compute: Callable[[int], Result]) -> Result:
    """Return `compute(size)`, done anew with half the size for as long as memory runs out, down to 1."""
    while True:
        try:
            return compute(size)
        except (MemoryError, RuntimeError) as error:
            if size <= 1 or not is_exhausted(error):
                raise
        size //= 2
