"""What a question's answer is judged by: the texts that lie behind the token numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class References:
    """The contexts and accepted answers of extractive question answering, by row.

    `offsets` (R, L, 2) int32: the characters of the context, first and one past the last, that a row's token stands
    for; -1 where a token is no part of the context. `answers`: the accepted texts of each row, none where the context
    holds no answer. A split's targets (N, 3) are start token, end token and the row in here, of all splits together.
    """

    contexts: tuple[str, ...]
    offsets: Tensor
    answers: tuple[tuple[str, ...], ...]

    def text(self, row: int, start: int, end: int) -> str:
        """Return the words of a row's context from token `start` to token `end`, both within; empty where not in it."""
        first, last = int(self.offsets[row, start, 0]), int(self.offsets[row, end, 1])
        return self.contexts[row][first:last] if 0 <= first < last else ""
