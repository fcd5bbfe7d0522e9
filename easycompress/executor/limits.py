"""What the budget still permits: another attempt, another untrained candidate, and among how many it is divided."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from easycompress.executor.search import MOST_ATTEMPTS
from easycompress.executor.trainer import BATCH

if TYPE_CHECKING:
    from easycompress.executor.dial import Dial
    from easycompress.executor.workshop import Workshop

LEAST_SECONDS = 5.0
"""With less than this left for training, no further attempt is begun."""

WORTHWHILE_EPOCHS = 8
"""Epochs that an attempt should get: with fewer the rate falls before the pruned model has recovered."""

LEAST_ATTEMPTS = 4
"""Attempts that a search is given all the same; the first of them, without pruning, costs nothing."""

LEAST_PROBES = 3
"""Untrained candidates between the weakest and the strongest that are tried whatever the clock says: to begin with the
strongest because time is short would spend all of it on a ruin."""

PROBING_SHARE = 0.4
"""Share of what is left of a time budget that the search among untrained candidates may use, in each chain.

What is tried without training before a chain that trains may use as much: MiniLM's attempts take a minute each.
"""

PLACING_SHARE = 0.1
"""Share of what is left of a time budget after an attempt that finding the strength of the next one may use."""


def may_go_on(shop: Workshop, number: int, *, trains: bool = True) -> bool:
    """Tell whether there is time for more after `number` attempts; journalled, so that a resume goes the same way.

    Epochs don't limit what `trains` none.
    """
    journal, clock = shop.trainer.journal, shop.trainer.clock
    if clock.budget.kind == "none" or (clock.budget.kind == "epochs" and not trains):
        return True
    if clock.open_end and clock.budget.kind == "time":
        until = clock.start + PROBING_SHARE * clock.budget.value
        return bool(journal.once(f"attempt {number}: may another follow", lambda: journal.elapsed() < until))
    least = 1 if clock.budget.kind == "epochs" else LEAST_SECONDS
    return bool(journal.once(f"attempt {number}: may another follow", lambda: clock.left() >= least))


def may_go_further(shop: Workshop, number: int, share: float) -> bool:
    """Tell whether attempt `number` may go on with `share` of what is left, and another one be made after it."""
    journal, clock = shop.trainer.journal, shop.trainer.clock
    least = 2 if clock.budget.kind == "epochs" else LEAST_SECONDS / (1 - share)
    return bool(journal.once(f"attempt {number}: may its training go on", lambda: clock.left() >= least))


def may_probe(shop: Workshop, number: int, halving: int) -> bool:
    """Tell whether there is time for another untrained candidate; journalled like every answer of the clock."""
    journal, clock = shop.trainer.journal, shop.trainer.clock
    budget = clock.budget
    if budget.kind != "time":
        return True

    def end() -> float:
        now = max(journal.elapsed(), clock.start)
        return now + PROBING_SHARE * max(0.0, clock.start + budget.value - now)

    until = float(journal.once(f"after attempt {number}: probing until", end))
    if halving <= LEAST_PROBES:
        return True
    key = f"after attempt {number}: halving {halving}: may it begin"
    return bool(journal.once(key, lambda: journal.elapsed() < until))


def may_place(shop: Workshop, number: int, file: int, *, trains: bool) -> bool:
    """Tell whether an untrained candidate, the `file`-th after attempt `number`, may be written to place the next one.

    Where nothing `trains`, an attempt costs little more than such a file.
    """
    journal, clock = shop.trainer.journal, shop.trainer.clock
    if not trains or clock.budget.kind != "time":
        return trains
    key = f"after attempt {number}: placing until"
    until = float(journal.once(key, lambda: journal.elapsed() + PLACING_SHARE * max(0.0, clock.left())))
    return bool(journal.once(f"after attempt {number}: placing {file}: may it", lambda: journal.elapsed() < until))


def most_attempts(dial: Dial, shop: Workshop, number: int) -> int:
    """Return among how many attempts the budget is divided: few that can recover beat many that can't."""
    trainer, clock = shop.trainer, shop.trainer.clock
    if clock.budget.kind == "none" or not dial.trains:
        return MOST_ATTEMPTS

    def affordable() -> float:
        if clock.budget.kind == "epochs":
            return clock.left()
        seconds = shop.probe(dial.without_training(0.5)).step_seconds * math.ceil(len(trainer.train) / BATCH)
        return clock.left() / seconds if seconds else math.inf

    epochs = float(trainer.journal.once(f"after attempt {number}: affordable epochs", affordable))
    return max(LEAST_ATTEMPTS, math.floor(min(epochs / WORTHWHILE_EPOCHS, MOST_ATTEMPTS)))
