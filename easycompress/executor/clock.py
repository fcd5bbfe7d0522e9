"""What may still be spent on training."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from easycompress.core.goal import Frozen

if TYPE_CHECKING:
    from easycompress.core.goal import Budget
    from easycompress.executor.journal import Journal

LONGEST_STEPS = 8000
"""Optimizer steps of one attempt beyond which recovery brings little; small data may take MOST_EPOCHS."""

MOST_EPOCHS = 100

LEAST_STEPS = 20
"""Fewer steps than this teach nothing: better to spend the time elsewhere."""

LATE = 1.15
"""An attempt may overrun its allotted seconds by this factor before its next epoch is cut off."""


class Allowance(Frozen):
    """What one attempt may train: `epochs` of `samples` samples (0: all), until `deadline` (run seconds, 0: none)."""

    epochs: int
    samples: int = 0
    deadline: float = 0.0


@dataclass
class Clock:
    """The budget of one run against what it has used.

    `reserve` seconds are kept for measuring the result, `finishing` for what an attempt does after its training: the
    longest that has been seen so far. `start` is the run's second from which on a time budget counts. `following` is
    how many attempts are expected after the running one if that is accepted; None while nobody knows, as under
    `open_end`: another chain of actions may follow.
    """

    budget: Budget
    journal: Journal
    reserve: float
    epochs_used: int = 0
    finishing: float = 0.0
    start: float = 0.0
    following: int | None = None
    open_end: bool = False

    def left(self) -> float:
        """Return what is left for training: seconds or epochs, 0 without training."""
        if self.budget.kind == "time":
            return max(0.0, self.start + self.budget.value - self.journal.elapsed() - self.reserve - self.finishing)
        if self.budget.kind == "epochs":
            return max(0.0, self.budget.value - self.epochs_used)
        return 0.0

    def expect(self, following: int) -> None:
        """Take note of how many attempts are expected after the one that begins, if that is accepted."""
        self.following = None if self.open_end else following

    def finished_in(self, seconds: float) -> None:
        """Take note of how long an attempt took after its training, or a candidate that had none."""
        self.finishing = max(self.finishing, seconds)

    def allow(
        self,
        share: float,
        step_seconds: float,
        evaluation_seconds: float,
        samples: int,
        batch: int,
        patience: float = 1.0,
    ) -> Allowance:
        """Return what an attempt may train that gets `share` of what is left.

        `step_seconds` is one optimizer step's time, `samples` the size of the training split. `patience` multiplies
        LONGEST_STEPS.
        """
        steps = max(1, math.ceil(samples / batch))
        most = min(MOST_EPOCHS, max(1, math.ceil(patience * LONGEST_STEPS / steps)))
        if not samples or self.budget.kind == "none":
            return Allowance(epochs=0)
        if self.budget.kind == "epochs":
            left = math.floor(self.left())
            return Allowance(epochs=min(most, left, max(1, math.floor(share * left))))
        seconds = share * self.left()
        deadline = self.journal.elapsed() + LATE * seconds
        epoch_seconds = steps * step_seconds + evaluation_seconds
        epochs = min(most, math.floor(seconds / epoch_seconds))
        if epochs >= 1:
            return Allowance(epochs=epochs, deadline=deadline)
        affordable = math.floor((seconds - evaluation_seconds) / step_seconds)
        if affordable < LEAST_STEPS:
            return Allowance(epochs=0)
        return Allowance(epochs=1, samples=affordable * batch, deadline=deadline)

    def late(self, allowance: Allowance, epoch_seconds: float) -> bool:
        """Tell whether another epoch of that many seconds would pass the deadline."""
        return allowance.deadline > 0 and self.journal.elapsed() + epoch_seconds > allowance.deadline
