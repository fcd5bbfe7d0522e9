"""A model and data become a task, once everything that training would trip over has been checked."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from easycompress.core.errors import BadInput, one_line
from easycompress.core.inputs import answer, call, described, first, mapped, repeated
from easycompress.core.task import Metric, Split, Splits, Task
from easycompress.intake.augment import make_augment
from easycompress.intake.splits import check_labels, leaks, make_splits
from easycompress.intake.userfile import load_function
from easycompress.metrics import LOSSES, METRICS, default_loss, user_metric

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from easycompress.core.inputs import Inputs
    from easycompress.core.request import Request
    from easycompress.intake.data import Raw

ANSWER_BATCH = 500


def make_task(
    model: nn.Module,
    raw: Raw,
    request: Request,
    base: Path,
    checkpoint_bytes: int | None = None,
    notes: tuple[str, ...] = (),
) -> Task:
    """Check model and data against each other and return the task. The caller's model is copied, not changed.

    `notes` are what reading the model had to tell; samples that splits share add one. Raises BadInput, in one line, for
    NaN in weights or data, inputs of another shape than the model takes, labels outside the classes, a metric or loss
    that fails on the first samples, splits that prove nothing.
    """
    metric = find_metric(request.metric, base)
    loss_name = request.loss or default_loss(metric)
    loss = find_loss(loss_name, base)
    model = _copied(model)
    check_weights(model)
    labelled = metric.name != "agreement"
    splits = make_splits(raw, seed=request.seed, labelled=labelled)
    example = repeated(splits.select.inputs[:2], 2)
    outputs = check_forward(model, example)
    check_classes(metric, outputs, splits, uses_classes=metric.binary or loss_name == "cross-entropy")
    if not labelled:
        splits = _answered(model, splits)
    check_judges(metric, loss, loss_name, outputs, splits)
    augment = make_augment(request.augment, base)
    if augment is not None:
        check_forward(model, augment(mapped(example, Tensor.clone)))
    leak = leaks(splits)
    return Task(
        model=model,
        data=splits,
        example=example,
        metric=metric,
        loss=loss,
        augment=augment,
        checkpoint_bytes=checkpoint_bytes,
        notes=notes if leak is None else (*notes, leak),
    )


def _copied(model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(model).float().cpu().eval()
    except Exception as error:  # a module may hold what can't be copied: files, locks, tensors inside a graph
        raise BadInput(
            f"the model can't be copied ({one_line(error, 160)}); build it anew and load its state dict before this"
        ) from error


def find_metric(spec: str, base: Path) -> Metric:
    """Return the metric of that name, or the user's own."""
    if spec in METRICS:
        return METRICS[spec]
    if ":" not in spec:
        raise BadInput(f"--metric {spec}: unknown; use one of {', '.join(METRICS)}, or file.py:function")
    return user_metric(load_function(spec, "--metric", base), spec)


def find_loss(spec: str, base: Path) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the loss of that name, or the user's own."""
    if spec in LOSSES:
        return LOSSES[spec]
    if ":" not in spec:
        raise BadInput(f"--loss {spec}: unknown; use one of {', '.join(LOSSES)}, or file.py:function")
    function = load_function(spec, "--loss", base)

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        try:
            result: Tensor = function(outputs, targets)
        except Exception as error:  # the user's own code may raise anything
            raise BadInput(f"--loss {spec}: it raised {type(error).__name__}: {one_line(error)}") from error
        return result

    return loss


def check_weights(model: nn.Module) -> None:
    """Raise BadInput naming the first parameter or buffer that is not finite."""
    for name, value in model.state_dict().items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            count = int((~torch.isfinite(value)).sum())
            raise BadInput(f"model: {name} holds {count} values that are NaN or infinite; repair the checkpoint")


def check_forward(model: nn.Module, example: Inputs) -> Tensor:
    """Run the model on a small batch and return its answer: the first tensor of what it returns.

    Raises BadInput with both shapes where that fails.
    """
    shape = described(example)
    try:
        with torch.no_grad():
            made = call(model, example)
    except Exception as error:  # the user's own forward may raise anything, assertions too
        raise BadInput(
            f"the model doesn't take samples of shape {shape}: {one_line(error, 160)}; check --data against the model"
        ) from error
    try:
        outputs = first(made)
    except TypeError:
        raise BadInput(
            f"the model returns a {type(made).__name__}; it must return a tensor (N, C), or a tuple or dict of them "
            "whose first is its answer"
        ) from None
    if outputs.dim() < 2 or len(outputs) != len(example):  # noqa: PLR2004 - (N, C)
        raise BadInput(
            f"the model returns shape {tuple(outputs.shape)} for {len(example)} samples; it must return (N, C)"
        )
    if not outputs.is_floating_point():
        kind = str(outputs.dtype).removeprefix("torch.")
        raise BadInput(f"the model returns {kind} numbers; it must return floating point scores, before any argmax")
    if not torch.isfinite(outputs).all():
        raise BadInput(
            "the model's outputs for the first samples are NaN or infinite; check the weights and --mean, --std"
        )
    return outputs


def check_classes(metric: Metric, outputs: Tensor, splits: Splits, *, uses_classes: bool) -> None:
    """Raise BadInput where classes are wanted and the outputs aren't (N, C), or the labels not within 0..C-1."""
    if metric.binary and outputs.dim() != 2:  # noqa: PLR2004 - (N, C)
        raise BadInput(
            f"--metric {metric.name}: takes class scores, (N, C), but the model returns (N, "
            f"{', '.join(map(str, outputs.shape[1:]))}); use --metric file.py:function"
        )
    targets = splits.select.targets
    if metric.name == "agreement" or targets is None or not uses_classes:
        return
    if metric.binary or (targets.ndim == 1 and not targets.is_floating_point()):
        check_labels(splits, outputs.shape[1])
    if metric.binary and targets.ndim != 1:
        raise BadInput(
            f"--metric {metric.name}: takes one label a sample, (N,), but the targets are {tuple(targets.shape)}; "
            "use --metric file.py:function"
        )


def check_judges(
    metric: Metric, loss: Callable[[Tensor, Tensor], Tensor], loss_name: str, outputs: Tensor, splits: Splits
) -> None:
    """Run the metric, and where there is training data the loss, on the first samples. Raises BadInput if one fails."""
    targets = splits.select.targets
    if targets is None:
        return
    targets = targets[: len(outputs)]
    outputs = outputs[: len(targets)].detach().clone()
    shapes = f"outputs {tuple(outputs.shape)}, targets {tuple(targets.shape)}"
    try:
        metric.scores(outputs, targets)
    except (RuntimeError, IndexError, ValueError) as error:
        raise BadInput(
            f"--metric {metric.name}: doesn't fit {shapes} of the first samples: {one_line(error, 120)}; "
            "give another --metric, or targets that go with it"
        ) from error
    if not len(splits.train):
        return
    try:
        value = loss(outputs.requires_grad_(), targets)
    except (RuntimeError, IndexError, ValueError) as error:
        raise BadInput(
            f"--loss {loss_name}: doesn't fit {shapes} of the first samples: {one_line(error, 120)}; "
            "give --loss file.py:function"
        ) from error
    if not isinstance(value, Tensor) or value.numel() != 1 or not value.requires_grad:
        raise BadInput(f"--loss {loss_name}: it must return one number, a tensor with a gradient, as torch's losses do")


def _answered(model: nn.Module, splits: Splits) -> Splits:
    """Give every split the model's own answers as targets: what `agreement` compares with."""

    def label(split: Split) -> Split:
        with torch.no_grad():
            parts = [answer(model, inputs).argmax(1) for inputs, _ in split.batches(ANSWER_BATCH)]
        return replace(split, targets=torch.cat(parts) if parts else torch.empty(0, dtype=torch.long))

    train, calibration, select, report = map(label, (splits.train, splits.calibration, splits.select, splits.report))
    return Splits(train, calibration, select, report, splits.note)
