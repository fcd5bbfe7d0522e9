"""What a training step minimises.

A term is called with the student's outputs, the batch's targets, its inputs and the samples' places in the split.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable

    from easycompress.core.task import Split

CACHE_BYTES = 2_000_000_000
"""Teacher logits larger than this are computed batch by batch instead of being kept."""

TEACHER_BATCH = 512


class Term(Protocol):
    """A differentiable loss of one batch."""

    def __call__(self, outputs: Tensor, targets: Tensor | None, inputs: Tensor, places: Tensor) -> Tensor:
        """Return the scalar loss."""
        ...


@dataclass(frozen=True)
class Labels:
    """The task's own loss on the labels."""

    loss: Callable[[Tensor, Tensor], Tensor]

    def __call__(self, outputs: Tensor, targets: Tensor | None, inputs: Tensor, places: Tensor) -> Tensor:  # noqa: ARG002 - the protocol
        """Return loss(outputs, targets)."""
        assert targets is not None  # noqa: S101 - selection never picks this term without labels
        return self.loss(outputs, targets)


@dataclass(frozen=True)
class Teacher:
    """The original model's outputs: remembered for unchanged inputs, computed anew for augmented ones."""

    model: nn.Module
    logits: Tensor | None

    def __call__(self, inputs: Tensor, places: Tensor) -> Tensor:
        """Return the teacher's outputs (B, ...) for a batch."""
        if self.logits is not None:
            return self.logits[places]
        with torch.no_grad():
            outputs: Tensor = self.model(inputs)
        return outputs.float()


def make_teacher(model: nn.Module, split: Split, *, cache: bool) -> Teacher:
    """Return the teacher of a split, with its logits computed once when `cache` is set and they fit in memory."""
    if not cache or not len(split):
        return Teacher(model, None)
    with torch.no_grad():
        first: Tensor = model(split.inputs[:2])
        if first[0].numel() * 4 * len(split) > CACHE_BYTES:
            return Teacher(model, None)
        parts = [model(inputs).float() for inputs, _ in split.batches(TEACHER_BATCH)]
    return Teacher(model, torch.cat(parts))


@dataclass(frozen=True)
class Distil:
    """Hinton, Vinyals and Dean 2015: `alpha` x hard + (1 - `alpha`) x T^2 KL(teacher/T || student/T).

    The T^2 keeps the gradients' size independent of the temperature. `kind` `soft` ignores the labels.
    """

    kind: Literal["soft", "combined"]
    teacher: Teacher
    hard: Labels
    temperature: float
    alpha: float

    def __call__(self, outputs: Tensor, targets: Tensor | None, inputs: Tensor, places: Tensor) -> Tensor:
        """Return the distillation loss of one batch."""
        answers = self.teacher(inputs, places)
        soft = soft_loss(outputs, answers, self.temperature)
        if self.kind == "soft":
            return soft
        return self.alpha * self.hard(outputs, targets, inputs, places) + (1 - self.alpha) * soft


def soft_loss(outputs: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return T^2 KL(softmax(teacher / T) || softmax(outputs / T)), mean over the batch. Both (B, C), raw logits."""
    student_log = functional.log_softmax(outputs / temperature, dim=1)
    teacher_log = functional.log_softmax(teacher / temperature, dim=1)
    divergence = functional.kl_div(student_log, teacher_log, reduction="batchmean", log_target=True)
    return divergence * temperature**2
