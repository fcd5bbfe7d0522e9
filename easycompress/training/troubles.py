"""What goes wrong in the training of one attempt, and what was done about it: for the report, and for a resume."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass
class Troubles:
    """`parts`: into how many parts a batch is divided, whose gradients add up; more than one once memory was short.

    `diverged`: how often the loss was no number, or beyond its bound, and training went back to its best epoch;
    `ended`: how many trainings ended over that, `hopeless`: how many because the floor was out of reach.
    `keep(parts)` is told when `parts` grows, so that a resume knows.
    """

    parts: int = 1
    diverged: int = 0
    ended: int = 0
    hopeless: int = 0
    keep: Callable[[int], None] = lambda _: None

    def halve(self) -> None:
        """Train with half as many samples at a time from now on."""
        self.parts *= 2
        self.keep(self.parts)

    def told(self) -> str:
        """Return it in words that follow on another sentence; nothing where nothing went wrong."""
        said = ""
        if self.diverged:
            times = "once" if self.diverged == 1 else f"{self.diverged} times"
            end = ", and training was given up" if self.ended else ""
            said += f"; the loss diverged {times}: back to the best epoch at a tenth of the rate{end}"
        if self.parts > 1:
            said += f"; memory was short: batches in {self.parts} parts"
        if self.hopeless:
            said += "; training was stopped early: from there on, earlier attempts gained too little to reach the floor"
        return said
