"""Whether an attempt in training can still win, told from how earlier attempts of the same run went on from there."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

EARLIEST = 0.5
"""Share of the epochs before which nothing is concluded: with the rate still high, quality tells little."""

LEAST_EPOCHS = 6
"""A shorter course, the running one's or an earlier one's, is too coarse to compare by."""

DOUBT = 0.5
"""An attempt may close its gap twice as well as any earlier one did before it counts as lost."""


@dataclass
class Outlook:
    """`baseline` is the original's quality on *select*, larger is better, `allowed` the permitted drop.

    `courses` are the qualities, epoch by epoch, of earlier attempts that were trained to the end.
    """

    baseline: float
    allowed: float
    courses: list[tuple[float, ...]] = field(default_factory=list)

    def learn(self, qualities: Sequence[float | None]) -> None:
        """Take in the course of an attempt that was trained to its end; None where quality was no number."""
        known = tuple(math.nan if quality is None else quality for quality in qualities)
        if len(known) >= LEAST_EPOCHS and not any(map(math.isnan, known)):
            self.courses.append(known)

    def hopeless(self, qualities: Sequence[float], epochs: int) -> bool:
        """Tell whether the best of `qualities`, the first of `epochs` epochs, is too far from the floor to get there.

        From the same share of their epochs on, earlier attempts closed some part of their gap to the original; twice
        what the best of them did is granted. Without an earlier attempt nothing is known.
        """
        share = len(qualities) / max(1, epochs)
        if epochs < LEAST_EPOCHS or not EARLIEST <= share < 1 or self.allowed <= 0:
            return False
        rests = [rest for course in self.courses if (rest := self._rest(course, share)) is not None]
        gap = self.baseline - max(qualities)
        return bool(rests) and math.isfinite(gap) and gap * DOUBT * min(rests) > self.allowed

    def _rest(self, course: tuple[float, ...], share: float) -> float | None:
        """Return what was left at the end of the gap that a course had after `share`; None where it had none."""
        gap = self.baseline - max(course[: max(1, math.floor(share * len(course)))])
        return max(0.0, self.baseline - max(course)) / gap if gap > 0 else None
