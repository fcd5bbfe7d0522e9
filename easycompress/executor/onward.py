"""How near an attempt came to the floor, and training that goes on from the weights that it ended with."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from safetensors.torch import load_file, save

from easycompress.artifact.large import copied
from easycompress.core.files import write_bytes
from easycompress.executor.build import Built, original_of
from easycompress.executor.replay import rebuild, record_json

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor

    from easycompress.core.outcome import StepRecord
    from easycompress.core.plan import Action
    from easycompress.core.task import Task
    from easycompress.executor.attempt import Attempt
    from easycompress.executor.dial import Dial
    from easycompress.executor.journal import Journal
    from easycompress.executor.workshop import Workshop

NEAR = 3.0
"""A rejected attempt that stopped early is trained once more, to the end, when its drop is at most this many times the
permitted one."""

LEFT = 0.5
"""One that was trained to its end goes on from there when this share of its drop, and one standard error, are within
the floor: more training regains about so much, and makes no error smaller.

ResNet20 at half the operations by low rank, three epochs: 0.74 + 0.28 of 1.00 points.
"""

FURTHER_SHARE = 0.7
"""Share of what is left that this further training gets."""

TRAINED = ".trained"
"""What the weights of a trained model are kept under where its file is made of others."""


def used(attempt: Attempt, allowed: float) -> float:
    """Return the share of the permitted drop that an attempt uses up, one standard error included; NaN if unknown."""
    error = _error(attempt)
    return (attempt.drop.estimate + error) / allowed if allowed > 0 else math.nan


def near(dial: Dial, shop: Workshop, attempt: Attempt) -> bool:
    """Tell whether a rejected attempt that stopped early could come within the floor if it were trained to its end."""
    if not dial.trains:
        return False
    stopped = attempt.epochs < attempt.planned_epochs
    return stopped and attempt.drop.estimate <= NEAR * max(shop.trainer.allowed, 0.0)


def within_reach(attempt: Attempt, allowed: float) -> bool:
    """Tell whether an attempt was trained to its end, comes near the floor, and can go on from there."""
    drop, error = attempt.drop.estimate, _error(attempt)
    return can_go_on(attempt) and drop > 0 and LEFT * drop + error <= allowed < drop + error


def can_go_on(attempt: Attempt) -> bool:
    """Tell whether an attempt was trained to its end and its training can go on: only structure and weights changed."""
    return 0 < attempt.epochs == attempt.planned_epochs and attempt.heads > 0


def further(actions: Sequence[Action]) -> tuple[Action, ...]:
    """Return of an attempt's actions those that are done again when its training goes on."""
    return tuple(action.further() for action in actions if action.recovers or action.finishes)


def heads_of(trained: Built) -> int:
    """Return how many actions made a trained model whose training can go on, 0 where it can't.

    The last of them recovers, and none of them stores weights in another form.
    """
    last = trained.stages[-1].action if trained.stages else None
    plain = not trained.codes and not trained.passes
    return len(trained.records) if last is not None and last.trains and last.recovers and plain else 0


def keep(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write tensors, which may share memory as tied weights do: safetensors refuses that."""
    write_bytes(path, save({name: tensor.contiguous().clone() for name, tensor in tensors.items()}))


def rebuilt(task: Task, records: Sequence[dict[str, Any]], weights: dict[str, Tensor], where: str) -> Built:
    """Return a trained model from the records of the actions that made it and its weights. `where` they are from."""
    record = record_json(tuple(records), {}, task.example)
    return Built(rebuild(copied(task.model).eval(), record, weights, where), list(records))


def start_of(task: Task, before: Attempt | None, journal: Journal) -> Built:
    """Return what an attempt begins with: the original, or the model that `before` had trained."""
    if before is None:
        return original_of(task)
    path = journal.path(f"{before.tag}{TRAINED}")
    return rebuilt(task, before.records[: before.heads], load_file(str(path)), str(path))


def earlier_rows(before: Attempt, tag: str) -> tuple[StepRecord, ...]:
    """Return the steps of the attempt that the one named `tag` goes on from; what came after training isn't among them.

    Its time is the last one's, so that no second is lost or told twice.
    """
    *rows, last = before.stages[: before.heads]
    rest = sum(row.seconds for row in before.stages[before.heads :])
    reason = f"{before.stages[-1].reason}; its training went on in {tag}"
    return (*rows, last.model_copy(update={"reason": reason, "seconds": last.seconds + rest}))


def _error(attempt: Attempt) -> float:
    """Return the standard error of an attempt's drop, 0 where it isn't known."""
    return (attempt.stages[-1].after.get("error") if attempt.stages else None) or 0.0
