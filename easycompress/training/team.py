"""The processes of one run that `accelerate launch` started: one leads, the others follow it in training.

The leader, rank 0, runs the whole command. A follower reads model and data, and takes part in the pieces of training
that the leader announces. What the clock or a measurement decides is decided by the leader and told to all.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import statistics
import time
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import distributed

from easycompress.core.errors import BadInput, CannotCompress, EasyCompressError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from accelerate import Accelerator
    from torch import Tensor

Value = TypeVar("Value")

PATIENCE = dt.timedelta(days=30)
"""How long a follower waits for the leader, who may measure for hours. Where a process dies its connection breaks."""

TIMED_SUMS = 5
"""Sums over the processes that are timed, after one that warms up."""

LAUNCH = "accelerate launch --multi_gpu --num_processes N -m easycompress compress ..."


class Team:
    """The processes of this run, seen from one of them: `rank` of `size`, 0 leads.

    `accelerator` is Accelerate's: device, mixed precision and how models are distributed. Words between processes take
    a connection of their own, over gloo, so that they need no GPU.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.rank, self.size = int(accelerator.process_index), int(accelerator.num_processes)
        self.group: Any = distributed.new_group(backend="gloo", timeout=PATIENCE)
        self.together = False
        """All processes are in the same piece of training, and only then may they wait for one another."""

    @property
    def leads(self) -> bool:
        """Tell whether this is the process that decides, writes and speaks."""
        return self.rank == 0

    def tell(self, message: object = None) -> Any:  # noqa: ANN401 - whatever the leader says
        """Return the leader's message; the followers' own isn't looked at."""
        said = [message]
        distributed.broadcast_object_list(said, src=0, group=self.group)
        return said[0]

    def agreed(self, make: Callable[[], Value]) -> Value:
        """Return what `make` returns in the leader, which makes it alone. What it raises is raised everywhere."""
        if not self.leads:
            value, refusal = self.tell()
            if refusal is not None:
                raise (BadInput if refusal[0] == BadInput.exit_code else CannotCompress)(refusal[1])
            made: Value = value
            return made
        together, self.together = self.together, False
        try:
            own = make()
        except EasyCompressError as error:
            self.tell((None, (error.exit_code, str(error))))
            raise
        finally:
            self.together = together
        self.tell((own, None))
        return own

    def summed(self, tensor: Tensor) -> Tensor:
        """Add up a tensor over the processes, in place."""
        distributed.all_reduce(tensor, group=self.group)
        return tensor

    def sum_seconds(self, count: int) -> float:
        """Return the seconds that a sum of `count` float32 over the processes takes; all must call it."""
        numbers, times = torch.zeros(count, device=self.accelerator.device), []
        for _ in range(TIMED_SUMS + 1):
            begin = time.perf_counter()
            distributed.all_reduce(numbers)
            float(numbers[0])  # on a GPU the sum is over only when somebody reads it
            times.append(time.perf_counter() - begin)
        return statistics.median(times[1:])

    @contextlib.contextmanager
    def in_step(self) -> Iterator[None]:
        """Let the processes wait for one another inside the block, which all of them enter."""
        self.together = True
        try:
            yield
        finally:
            self.together = False


_team: list[Team] = []


def team() -> Team | None:
    """Return the processes of this run; None where it has one."""
    return _team[0] if _team else None


def training_team() -> Team | None:
    """Return the processes that are in the same piece of training now; None where this one trains alone."""
    found = team()
    return found if found is not None and found.together else None


def agreed(make: Callable[[], Value]) -> Value:
    """Return what `make` returns, in the leader where several processes train together."""
    found = training_team()
    return make() if found is None else found.agreed(make)


def launched() -> int:
    """Return how many processes a launcher (accelerate launch, torchrun) says there are; 1 without one."""
    count = os.environ.get("WORLD_SIZE", "1")
    return int(count) if count.isdigit() and "RANK" in os.environ else 1


def divide(accelerator: Accelerator) -> None:
    """Let FSDP divide parameters on processors too, which Accelerate leaves to GPUs; see to its second version."""
    from accelerate.utils import (  # noqa: PLC0415 - the optional extra `scale`
        DistributedType,
        FullyShardedDataParallelPlugin,
    )

    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() != "true":
        return
    if accelerator.distributed_type == DistributedType.MULTI_CPU:
        accelerator.state.distributed_type = DistributedType.FSDP
        accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin()
        if accelerator.mixed_precision != "no":  # with GPUs Accelerate does so itself
            accelerator.state.fsdp_plugin.set_mixed_precision(accelerator.mixed_precision)
    if not accelerator.is_fsdp2:
        raise BadInput("FSDP: its first version is not supported; launch with --use_fsdp --fsdp_version 2")


@contextlib.contextmanager
def joined() -> Iterator[Team | None]:
    """Join the processes of this run for the block; None where there are no others. Raises BadInput without Accelerate.

    When the leader's block ends, however it ends, the followers are told so.
    """
    if launched() == 1:
        yield None
        return
    try:
        from accelerate import Accelerator, DistributedDataParallelKwargs  # noqa: PLC0415 - the optional extra `scale`
    except ImportError as error:
        raise BadInput('several processes: Accelerate is not installed; pip install "easycompress[scale]"') from error
    try:
        ways = DistributedDataParallelKwargs(broadcast_buffers=False, find_unused_parameters=True)
        accelerator = Accelerator(cpu=not torch.accelerator.is_available(), kwargs_handlers=[ways])
    except (RuntimeError, ValueError) as error:
        raise BadInput(f"the processes can't reach one another ({error}); start them with {LAUNCH}") from error
    divide(accelerator)
    found = Team(accelerator)
    _team.append(found)
    try:
        yield found
    finally:
        if found.leads:
            with contextlib.suppress(RuntimeError):  # where one is gone already the others notice by themselves
                found.tell(None)
        _team.remove(found)
        distributed.destroy_process_group()
