"""What a run may still train, in optimizer steps: the executor's clock without a clock."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from easycompress.executor.clock import LEAST_STEPS, LONGEST_STEPS, MOST_EPOCHS
from easycompress.executor.limits import LEAST_ATTEMPTS, WORTHWHILE_EPOCHS
from easycompress.executor.search import FIRST_SHARE, MOST_ATTEMPTS

if TYPE_CHECKING:
    from easycompress.estimation.chain import Chain


@dataclass(frozen=True)
class Purse:
    """A budget in optimizer steps: `total` over all attempts, at most `cap` of them in one, `an_epoch` in an epoch.

    `whole`: epochs are the budget, and none is divided.
    """

    total: float
    cap: int
    an_epoch: int
    whole: bool = False

    def allow(self, share: float, left: float) -> int:
        """Return the steps of an attempt that gets `share` of the `left` ones; see executor.clock.Clock.allow."""
        if self.whole:
            epochs = math.floor(left / self.an_epoch + 1e-9)
            return min(self.cap, self.an_epoch * min(epochs, max(1, math.floor(share * epochs))))
        steps = min(share * left, self.cap)
        if steps >= self.an_epoch:
            return self.an_epoch * math.floor(steps / self.an_epoch)
        return int(steps) if steps >= LEAST_STEPS else 0

    @property
    def first(self) -> int:
        """Return the steps of the first attempt at a target."""
        return self.allow(FIRST_SHARE, self.total)

    @property
    def attempts(self) -> int:
        """Return among how many attempts a search divides it."""
        if not self.total:
            return MOST_ATTEMPTS
        return max(LEAST_ATTEMPTS, math.floor(min(self.total / self.an_epoch / WORTHWHILE_EPOCHS, MOST_ATTEMPTS)))


def purse_of(chain: Chain, spent: float) -> Purse:
    """Return what the request's budget pays for on this chain; `spent` seconds of a time budget are gone.

    A time budget takes the seconds of a step from the short recoveries; before there are any it is taken as ample.
    """
    bench = chain.bench
    budget, an_epoch = bench.full.budget, bench.steps_an_epoch
    if not chain.trains:
        return Purse(0.0, 0, an_epoch)
    patience = max(action.patience for action in chain.dial.actions if action.trains)
    cap = an_epoch * min(MOST_EPOCHS, max(1, math.ceil(patience * LONGEST_STEPS / an_epoch)))
    if budget.kind == "epochs":
        return Purse(budget.value * an_epoch, cap, an_epoch, whole=True)
    known = [point.step_seconds for point in chain.points.values() if point.step_seconds]
    if not known:
        return Purse(math.inf, cap, an_epoch)
    step = sum(known) / len(known) + bench.evaluation_seconds / an_epoch
    return Purse(max(0.0, budget.value - bench.full.reserve - spent) / step, cap, an_epoch)
