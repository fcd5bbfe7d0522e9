"""A piece of training on several processes: each takes its share of every batch, and their gradients are averaged.

The result is that of one process up to rounding: batch norm sees the whole batch, augmentation is done to the whole
batch everywhere, a loss counts by its share of the samples. Only dropout draws other numbers in each process.
"""

from __future__ import annotations

import copy
import functools
import os
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, distributed, nn

from easycompress.core.errors import BadInput
from easycompress.core.inputs import answer, mapped
from easycompress.training.team import divide, training_team

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from easycompress.core.inputs import Inputs
    from easycompress.training.speed import Speed
    from easycompress.training.team import Team

COPIED = "EASYCOMPRESS_TRAIN_A_COPY"
"""Environment variable that lets processes without a GPU train as those with one do: on a copy of the model."""


class OneProcess:
    """Training in this process alone. `live` is the model that learns."""

    size = 1
    sharded = False
    """The parameters are divided among the processes, and so is what the optimizer remembers of them."""

    def __init__(self, model: nn.Module) -> None:
        self.live = model

    def prepare(self, optimizer: torch.optim.Optimizer) -> None:
        """Take the optimizer of the live model's parameters."""
        self.optimizer = optimizer

    def learning(self, parameters: Sequence[nn.Parameter]) -> list[nn.Parameter]:
        """Return the live model's counterparts of the caller's parameters."""
        return list(parameters)

    def share(self, samples: int) -> tuple[Tensor, float]:
        """Return which samples of a batch are this process's, and the weight of their loss."""
        return torch.arange(samples), 1.0

    def answers(self, inputs: Inputs, speed: Speed) -> Tensor:
        """Return the live model's answers (N, ...)."""
        with torch.autocast("cpu", torch.bfloat16, enabled=speed.bfloat16):
            return answer(self.live, inputs).float()

    def backward(self, loss: Tensor) -> None:
        """Add the loss's gradients to those of the parameters."""
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own signature

    def step(self, after: Callable[[float], None] | None, rate: float) -> None:
        """Take the optimizer's step, then what the caller does to the weights."""
        self.optimizer.step()
        if after is not None:
            after(rate)

    def total(self, loss: float) -> float:
        """Return the sum of the processes' losses."""
        return loss

    def fetch(self) -> None:
        """Bring what was learned into the caller's model."""

    def put(self) -> None:
        """Bring the caller's weights, which are others now, into what learns."""

    def end(self) -> None:
        """Leave the caller's model as it was before, its weights apart."""


@dataclass
class ManyProcesses(OneProcess):
    """Training on all processes of a team, each of which calls the same methods in the same order.

    On a processor the caller's own model learns. Where there are GPUs, or where the parameters themselves are divided
    among the processes (FSDP), a copy does: the caller's model stays on the processor and gets its weights.
    """

    model: nn.Module
    team: Team
    norms: list[nn.Module] = field(default_factory=list)
    draws: int = 0

    def __post_init__(self) -> None:
        self.accelerator, self.size = self.team.accelerator, self.team.size
        divide(self.accelerator)  # again each time: clearing up makes Accelerate forget it
        self.sharded = self.accelerator.is_fsdp2
        self.own = self.accelerator.device.type == "cpu" and not self.sharded and COPIED not in os.environ
        _align(self.model, self.team)
        self.live = self.model if self.own else copy.deepcopy(self.model)
        for norm in self.live.modules():
            if isinstance(norm, nn.modules.batchnorm._BatchNorm):  # noqa: SLF001 - the base
                norm.forward = functools.partial(whole_batch_norm, norm, self.team)  # type: ignore[method-assign]
                self.norms.append(norm)

    def prepare(self, optimizer: torch.optim.Optimizer) -> None:
        """Distribute the live model as Accelerate was told to."""
        plain = optimizer
        self.whole: Any
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch's new names are not all in Accelerate yet
            self.whole, self.optimizer = self.accelerator.prepare(self.live, plain)
        self.whole.train()

    def learning(self, parameters: Sequence[nn.Parameter]) -> list[nn.Parameter]:
        """Return the live model's counterparts; where it is a copy it learns what the caller's does."""
        wanted = {id(parameter) for parameter in parameters}
        pairs = zip(self.model.parameters(), self.live.parameters(), strict=True)
        return [live for own, live in pairs if id(own) in wanted]

    def share(self, samples: int) -> tuple[Tensor, float]:
        """Return this process's samples; a batch of fewer than there are processes is everybody's."""
        everyone = torch.arange(samples)
        if samples < self.size:
            return everyone, 1 / self.size
        return everyone.tensor_split(self.size)[self.team.rank], 1.0

    def answers(self, inputs: Inputs, speed: Speed) -> Tensor:
        """Return the answers, on the processor, where the loss is computed.

        Dropout draws other numbers in each process; what all draw alike, for augmentation, goes on as it was.
        """
        device = self.accelerator.device
        half = speed.bfloat16 and device.type == "cpu" and self.accelerator.mixed_precision == "no"
        self.draws += 1
        with torch.random.fork_rng(devices=[]), torch.autocast(device.type, torch.bfloat16, enabled=half):
            torch.manual_seed(((torch.initial_seed() + self.draws) * self.size + self.team.rank) % 2**63)
            return answer(self.whole, mapped(inputs, lambda tensor: tensor.to(device))).float().cpu()

    def backward(self, loss: Tensor) -> None:
        """Add the gradients; `loss` is a part of the batch's mean loss, and the processes' gradients are averaged."""
        self.accelerator.backward(loss * self.size)

    def step(self, after: Callable[[float], None] | None, rate: float) -> None:
        """Take the step; what the caller does to the weights it does to those of its own model."""
        self.optimizer.step()
        if after is None:
            return
        if self.sharded:
            raise BadInput(
                "FSDP: learning-compression and pruning with a penalty change every weight after each step, which "
                "divided weights don't allow; launch without --use_fsdp, or take another plan with --recipe"
            )
        self.fetch()
        after(rate)
        self.put()

    def total(self, loss: float) -> float:
        """Return the sum over the processes."""
        return float(self.team.summed(torch.tensor(loss, dtype=torch.float64)))

    def fetch(self) -> None:
        """Copy the live weights into the caller's model."""
        self.draws = 0
        if self.own:
            return
        self.model.load_state_dict({name: _undivided(value) for name, value in self.live.state_dict().items()})

    def put(self) -> None:
        """Copy the caller's weights into the live model."""
        if self.own:
            return
        with torch.no_grad():
            theirs = self.model.state_dict()
            for name, value in self.live.state_dict().items():
                value.copy_(_like(theirs[name], value))

    def end(self) -> None:
        """Undo what was done to the model's layers."""
        for norm in self.norms:
            del norm.forward
        if self.own:
            self.accelerator.unwrap_model(self.whole, keep_fp32_wrapper=False)
        self.accelerator.free_memory()


def processes(model: nn.Module) -> OneProcess:
    """Return how `model` is trained here: by the team where one trains together, else alone."""
    found = training_team()
    return OneProcess(model) if found is None else ManyProcesses(model, found)


def extremes(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Return the least `low` and the largest `high`, both scalars, of the processes that train together."""
    found = training_team()
    if found is None:
        return low, high
    both = torch.stack([-low, high]).float().cpu()
    distributed.all_reduce(both, distributed.ReduceOp.MAX, group=found.group)
    return (-both[0]).to(low), both[1].to(high)


def whole_batch_norm(norm: nn.modules.batchnorm._BatchNorm, team: Team, x: Tensor) -> Tensor:
    """Return a batch norm's answer with the mean and the variance of all processes' samples; `x` is (N, C, ...).

    The equations of torch.nn.BatchNorm2d; SyncBatchNorm does the same, on GPUs alone.
    """
    if not norm.training:
        return type(norm).forward(norm, x)
    shape = [1, -1, *[1] * (x.dim() - 2)]
    dims = [dim for dim in range(x.dim()) if dim != 1]
    values = x.float()
    count = float(team.summed(torch.tensor(float(x.numel() // x.shape[1]), dtype=torch.float64)))
    mean = _Sum.apply(values.sum(dims)) / count
    centred = values - mean.reshape(shape)
    variance = _Sum.apply(centred.square().sum(dims)) / count
    if norm.track_running_stats and norm.running_mean is not None and norm.running_var is not None:
        with torch.no_grad():
            if norm.num_batches_tracked is not None:
                norm.num_batches_tracked.add_(1)
            share = 1 / float(norm.num_batches_tracked or 1) if norm.momentum is None else norm.momentum
            norm.running_mean.lerp_(mean, share)
            norm.running_var.lerp_(variance * (count / max(count - 1, 1)), share)
    answers = centred * torch.rsqrt(variance + norm.eps).reshape(shape)
    if norm.affine:
        answers = answers * norm.weight.reshape(shape) + norm.bias.reshape(shape)
    normed: Tensor = answers.to(x.dtype)
    return normed


class _Sum(torch.autograd.Function):
    """The sum of a tensor over the processes; so is the gradient's, as each process's answers depend on all of it."""

    @staticmethod
    def forward(_ctx: Any, tensor: Tensor) -> Tensor:  # noqa: ANN401 - torch's own
        total = tensor.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(_ctx: Any, *gradients: Tensor) -> Tensor:  # noqa: ANN401 - torch's own
        total = gradients[0].clone()
        distributed.all_reduce(total)
        return total


def _align(model: nn.Module, team: Team) -> None:
    """Give every process the leader's weights and buffers: arithmetic differs between kinds of processors.

    Raises BadInput where it has led to another structure: that can't be trained together.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if team.tell(shapes) != shapes:
        raise BadInput(
            f"process {team.rank} has made another structure of the model than process 0; use machines of one kind"
        )
    for tensor in model.state_dict().values():
        whole = tensor.contiguous()
        distributed.broadcast(whole, 0, group=team.group)
        if whole is not tensor:
            tensor.copy_(whole)


def _undivided(tensor: Tensor) -> Tensor:
    """Return a tensor that may be divided among the processes as a whole; all of them must ask."""
    whole: Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return whole


def _like(tensor: Tensor, other: Tensor) -> Tensor:
    """Return `tensor` divided among the processes as `other` is."""
    from torch.distributed.tensor import DTensor, distribute_tensor  # noqa: PLC0415 - a second, for FSDP alone

    if not isinstance(other, DTensor):
        return tensor.to(other.device)
    return distribute_tensor(tensor.to(other.device), other.device_mesh, other.placements)
