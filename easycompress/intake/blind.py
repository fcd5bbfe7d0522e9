"""A task without data: the weights can be compressed, and nobody can say what that costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from easycompress.core.inputs import repeated
from easycompress.core.task import Split, Splits, Task
from easycompress.intake.judging import judged
from easycompress.intake.synthetic import SAMPLES, make_inputs
from easycompress.intake.task import check_forward, check_weights, copied
from easycompress.metrics import LOSSES, METRICS

if TYPE_CHECKING:
    from torch import nn


def make_blind_task(
    model: nn.Module, shape: str | None, checkpoint_bytes: int | None = None, notes: tuple[str, ...] = ()
) -> Task:
    """Return a task with made-up inputs in *select* and *report* and no training or calibration data.

    `shape` is the user's for one sample, see synthetic.make_inputs(). The metric is fidelity to the original's answers
    on those inputs: it chooses the gentlest of what reaches the target and proves nothing. Raises BadInput where
    nothing tells what the model takes.
    """
    model = copied(model)
    check_weights(model)
    inputs, note = make_inputs(model, shape)
    half = SAMPLES // 2
    nothing = Split(inputs[:0], None)
    splits = Splits(nothing, nothing, Split(inputs[:half], None), Split(inputs[half:], None), note)
    example = repeated(inputs[:2], 2)
    found = judged(model, splits, check_forward(model, example), METRICS["fidelity"], None)
    return Task(
        model=model,
        data=found.splits,
        example=example,
        metric=found.metric,
        loss=LOSSES[found.loss],
        checkpoint_bytes=checkpoint_bytes,
        notes=notes,
        blind=True,
    )
