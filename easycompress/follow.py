"""Several processes under one command: the leader runs it, the followers read the same task and help in training."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from easycompress.assemble import make_the_task
from easycompress.calling import as_flags, held, own_randomness, scratch_folder
from easycompress.core.errors import BadInput
from easycompress.executor.journal import open_journal
from easycompress.executor.together import follow
from easycompress.fingerprint import hash_of
from easycompress.intake.config import make_request
from easycompress.technique import checksum
from easycompress.training.team import team

if TYPE_CHECKING:
    from easycompress.core.task import Task
    from easycompress.training.team import Team


def introduce(task: Task) -> None:
    """Tell the followers, where there are any, which task it is."""
    found = team()
    if found is not None:
        found.tell(_marks(task))


def follow_the_leader(found: Team, model: str, **flags: Any) -> None:  # noqa: ANN401 - as compress()
    """Take part in the training of the `compress` that the leader runs with the same flags, until that ends.

    Raises BadInput where this process reads another model or other data than the leader.
    """
    request, base = make_request(model, as_flags(flags))
    with scratch_folder() as scratch, own_randomness(request.seed):
        task = make_the_task(model, request, base, (None, None, None))
        theirs = found.tell()
        if theirs is None:
            return  # the leader has refused, and has said why
        differing = sorted(name for name, mark in _marks(task).items() if theirs[name] != mark)
        if differing:
            raise BadInput(
                f"process {found.rank} reads another {' and '.join(differing)} than process 0; give all machines the "
                "same files, and functions that return the same each time"
            )
        with held(scratch / "out") as lock:
            follow(task, open_journal(scratch / "out", {}, resume=False, began=time.monotonic(), lock=lock), found)


def _marks(task: Task) -> dict[str, object]:
    """Return what tells two tasks apart: checksums of the weights and of the training data."""
    return {"model": checksum(task.model), "training data": hash_of(task.data.train)}
