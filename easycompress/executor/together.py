"""An attempt's training on several processes: the leader announces it, the followers take the same steps.

A follower knows what the leader tells: actions, allowance, speed, and the training states of an interrupted run. It
writes them into a folder of its own, so that both go on after the same epoch.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from easycompress.core.errors import EasyCompressError
from easycompress.core.files import write_bytes
from easycompress.core.goal import Budget
from easycompress.core.profile import ModelProfile
from easycompress.core.progress import Silent
from easycompress.executor.build import Built, original_of
from easycompress.executor.clock import Allowance, Clock
from easycompress.executor.journal import PARTS, Journal
from easycompress.executor.onward import rebuilt
from easycompress.executor.trainer import Trainer
from easycompress.techniques import parse_action
from easycompress.training.speed import Speed
from easycompress.training.team import Team, team

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from easycompress.core.plan import Action
    from easycompress.core.task import Task


@contextlib.contextmanager
def leading(
    trainer: Trainer, tag: str, actions: Sequence[Action], allowance: Allowance, start: Built | None = None
) -> Iterator[None]:
    """Let the followers, where there are any, take part in what the block trains of the attempt `tag`.

    It begins with `start`, or with the original.
    """
    found = team()
    if found is None or not allowance.epochs or not any(action.trains for action in actions):
        yield
        return
    journal = trainer.journal
    found.tell(
        {
            "profile": trainer.profile.model_dump(),
            "seed": trainer.seed,
            "label": journal.label,
            "tag": tag,
            "actions": [action.model_dump() for action in actions],
            "allowance": allowance.model_dump(),
            "start": {"records": start.records, "weights": start.model.state_dict()}
            if start is not None and start.records
            else None,
            "speed": trainer.speed.model_dump(),
            "parts": journal.get(PARTS, 1),
            "states": {path.name: path.read_bytes() for path in journal.checkpoints(tag)},
            "random": torch.get_rng_state(),
        }
    )
    with found.in_step():
        yield


def follow(task: Task, journal: Journal, found: Team) -> None:
    """Take part in all training that the leader announces, until there is no more."""
    trainers: dict[tuple[str, int], Trainer] = {}
    while (said := found.tell()) is not None:
        if "sum" in said:
            found.sum_seconds(said["sum"])
            continue
        key = (said["label"], said["seed"])
        if key not in trainers:
            trainers[key] = _trainer(task, journal.part(said["label"]), said)
        _take_part(trainers[key], said, found)


def _trainer(task: Task, journal: Journal, said: dict[str, Any]) -> Trainer:
    """Return a follower's trainer: it judges nothing, and its clock isn't asked."""
    clock = Clock(Budget(kind="none", value=0.0, text="the leader's"), journal, 0.0)
    profile = ModelProfile.model_validate(said["profile"])
    return Trainer(task, profile, journal, clock, Silent(), baseline=np.empty(0), allowed=0.0, seed=said["seed"])


def _take_part(trainer: Trainer, said: dict[str, Any], found: Team) -> None:
    journal, tag = trainer.journal, said["tag"]
    for name, state in said["states"].items():
        write_bytes(journal.folder / name, state)
    journal.put(PARTS, said["parts"])
    trainer.speed = Speed.model_validate(said["speed"])
    actions = [parse_action(action) for action in said["actions"]]
    context = trainer.context(tag, actions, Allowance.model_validate(said["allowance"]))
    start = _start(trainer.task, said["start"])
    torch.set_rng_state(said["random"])
    with found.in_step(), contextlib.suppress(EasyCompressError):  # the leader raises it too, and tells of it
        start.then([action for action in actions if not action.finishes], context)
    for path in journal.checkpoints(tag):
        path.unlink()


def _start(task: Task, said: dict[str, Any] | None) -> Built:
    """Return what the leader begins with."""
    return original_of(task) if said is None else rebuilt(task, said["records"], said["weights"], "the leader's model")
