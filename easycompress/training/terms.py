"""What a training step minimises.

A term is called with the student's outputs, the batch's targets, its inputs and the samples' places in the split.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from easycompress.core.errors import BadInput
from easycompress.core.inputs import answer, channels_last, chunk_size
from easycompress.core.ledger import spending
from easycompress.core.memory import shrinking
from easycompress.metrics.shapes import IGNORED, class_dimension
from easycompress.training.lengths import lengths_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from easycompress.core.inputs import Inputs
    from easycompress.core.task import Split

CACHE_BYTES = 2_000_000_000
"""Teacher logits larger than this are computed batch by batch instead of being kept."""


class Term(Protocol):
    """A differentiable loss of one batch."""

    def __call__(self, outputs: Tensor, targets: Tensor | None, inputs: Inputs, places: Tensor) -> Tensor:
        """Return the scalar loss."""
        ...


@dataclass(frozen=True)
class Labels:
    """The task's own loss on the labels."""

    loss: Callable[[Tensor, Tensor], Tensor]

    def __call__(self, outputs: Tensor, targets: Tensor | None, inputs: Inputs, places: Tensor) -> Tensor:  # noqa: ARG002 - the protocol
        """Return loss(outputs, targets). Raises BadInput without targets."""
        if targets is None:
            raise BadInput(
                "training: the training data has no labels to learn from; use distillation with technique soft"
            )
        return self.loss(outputs, targets)


@dataclass(frozen=True)
class Teacher:
    """The original model's outputs: remembered for unchanged inputs, computed anew for augmented ones."""

    model: nn.Module
    logits: Tensor | None

    @cached_property
    def spread(self) -> float | None:
        """The variance of all its answers, see spread_of(); None where they aren't remembered."""
        return None if self.logits is None else spread_of(self.logits)

    def __call__(self, inputs: Inputs, places: Tensor) -> Tensor:
        """Return the teacher's outputs (B, ...) for a batch."""
        if self.logits is not None:
            return self.logits[places]
        with torch.no_grad():
            return answer(self.model, inputs).float()


@spending("teacher")
def make_teacher(model: nn.Module, split: Split, *, cache: bool, fast_images: bool = False) -> Teacher:
    """Return the teacher of a split, with its logits computed once when `cache` is set and they fit in memory.

    `fast_images`: it answers with its channels innermost in memory, which is faster for convolutions.
    """
    if fast_images:
        model = copy.deepcopy(model).to(memory_format=torch.channels_last)
    if not cache or not len(split):
        return Teacher(model, None)
    with torch.no_grad():
        first = answer(model, split.inputs[:2])
        if first[0].numel() * 4 * len(split) > CACHE_BYTES:
            return Teacher(model, None)
        ordered: Callable[[Inputs], Inputs] = channels_last if fast_images else lambda inputs: inputs
        size = chunk_size(model, split.inputs)
        return Teacher(model, shrinking(size, lambda size: _answers(model, split, size, ordered)))


def _answers(model: nn.Module, split: Split, size: int, ordered: Callable[[Inputs], Inputs]) -> Tensor:
    """Return a model's answers to a split, `size` samples at a time, `ordered` in memory."""
    lengths = lengths_of(model, split)
    if lengths is None:
        return torch.cat([answer(model, ordered(inputs)).float() for inputs, _ in split.batches(size)])
    order = lengths.tokens.argsort(stable=True)
    found = [answer(model, lengths.cut(split.inputs[places], places)).float() for places in torch.split(order, size)]
    return torch.cat(found)[order.argsort()]


@dataclass(frozen=True)
class Distil:
    """Hinton, Vinyals and Dean 2015: `alpha` x hard + (1 - `alpha`) x T^2 KL(teacher/T || student/T).

    The T^2 keeps the gradients' size independent of the temperature. `kind` `soft` ignores the labels, apart from
    positions that they say don't count. `outputs` `values` are no scores of classes: what takes the divergence's place
    is the squared error in units of the teacher's variance, and the labels' loss is divided by that variance too, so
    that `alpha` weighs a squared error against a squared error, whatever unit the values are in.
    """

    kind: Literal["soft", "combined"]
    teacher: Teacher
    hard: Labels
    temperature: float
    alpha: float
    outputs: Literal["logits", "values"] = "logits"

    def __call__(self, outputs: Tensor, targets: Tensor | None, inputs: Inputs, places: Tensor) -> Tensor:
        """Return the distillation loss of one batch."""
        answers = self.teacher(inputs, places)
        unit = 1.0
        if self.outputs == "values":
            unit = self.teacher.spread or spread_of(answers)
            soft = value_loss(outputs, answers, unit)
        else:
            soft = soft_loss(outputs, answers, self.temperature, targets)
        if self.kind == "soft":
            return soft
        return self.alpha * self.hard(outputs, targets, inputs, places) / unit + (1 - self.alpha) * soft


def soft_loss(outputs: Tensor, teacher: Tensor, temperature: float, targets: Tensor | None = None) -> Tensor:
    """Return T^2 KL(softmax(teacher / T) || softmax(outputs / T)), mean over the positions that count.

    Both are raw logits of one shape, (N, C), (N, T, C), (N, C, H, W), ...; `targets`, if known, tell which dimension is
    the classes', see class_dimension(), and which positions don't count: those whose target is IGNORED.
    """
    dim = class_dimension(outputs.shape, None if targets is None else targets.shape)
    student_log = functional.log_softmax(outputs / temperature, dim)
    teacher_log = functional.log_softmax(teacher / temperature, dim)
    divergence = functional.kl_div(student_log, teacher_log, reduction="none", log_target=True).sum(dim)
    if targets is None or targets.shape != divergence.shape or targets.is_floating_point():
        return divergence.mean() * temperature**2
    counts = targets != IGNORED
    return divergence.mul(counts).sum() / counts.sum().clamp_min(1) * temperature**2


def value_loss(outputs: Tensor, teacher: Tensor, spread: float) -> Tensor:
    """Return the mean squared error of values (N, ...) in units of `spread`: the share of it that isn't explained."""
    return functional.mse_loss(outputs, teacher) / spread


def spread_of(values: Tensor) -> float:
    """Return the variance of values (N, ...) over the samples, mean over the rest; 1 where all samples are alike."""
    return float(values.float().var(0, correction=0).mean()) or 1.0


def taught(
    kind: Literal["soft", "hard", "combined"],
    loss: Callable[[Tensor, Tensor], Tensor],
    teacher: Callable[[], Teacher] | None,
    temperature: float = 2.0,
    alpha: float = 0.5,
    outputs: Literal["logits", "values"] = "logits",
) -> Term:
    """Return what a student minimises: the task's own `loss` where it learns `hard` or there is no teacher."""
    hard = Labels(loss)
    if kind == "hard" or teacher is None:
        return hard
    return Distil(kind, teacher(), hard, temperature, alpha, outputs)
