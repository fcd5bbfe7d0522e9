"""What a chain of actions, or a whole plan, came to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from easycompress.core.goal import Frozen
from easycompress.core.outcome import StepRecord, Tuning  # noqa: TC001 - pydantic reads the field types at run time
from easycompress.executor.attempt import Attempt  # noqa: TC001 - pydantic reads the field types at run time

if TYPE_CHECKING:
    from typing_extensions import Self


class Executed(Frozen):
    """What a plan came to: the best accepted attempt (None: the original stays), every step, why it missed.

    `tried` counts the attempts. `tuning` is what `--search` came to.
    """

    best: Attempt | None
    steps: tuple[StepRecord, ...]
    why: str
    tried: int = 0
    tuning: Tuning | None = None

    def reaches(self, needed: float) -> bool:
        """Tell whether the ratio `needed` is reached."""
        return self.best is not None and self.best.ratio >= needed

    def then(self, later: Self) -> Self:
        """Return what this and a `later` chain came to: the better result, of equals the later one, and all steps."""
        tuning = self.tuning or later.tuning
        if self.best is None or later.reaches(self.best.ratio):
            return later.model_copy(update={"steps": (*_weakened(self.steps), *later.steps), "tuning": tuning})
        steps = (*self.steps, *_weakened(later.steps))
        found = {"steps": steps, "why": self.why or later.why, "tried": later.tried, "tuning": tuning}
        return self.model_copy(update=found)


def _weakened(steps: tuple[StepRecord, ...]) -> tuple[StepRecord, ...]:
    """Return the steps of a chain whose result another chain surpassed."""
    return tuple(s.model_copy(update={"verdict": "surpassed"}) if s.verdict == "kept" else s for s in steps)
