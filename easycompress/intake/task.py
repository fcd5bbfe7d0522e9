"""A model and data become a task, once everything that training would trip over has been checked."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from easycompress.core import large
from easycompress.core.errors import BadInput, Crashed, one_line
from easycompress.core.inputs import call, described, first, mapped, repeated
from easycompress.core.memory import is_exhausted
from easycompress.core.task import Metric, Splits, Task
from easycompress.intake.augment import make_augment
from easycompress.intake.classes import check_classes
from easycompress.intake.computed import cached, plain_weights
from easycompress.intake.detection import as_tensors
from easycompress.intake.judging import UNLABELLED, judged
from easycompress.intake.splits import imbalance, leaks, make_splits
from easycompress.intake.userfile import load_function
from easycompress.metrics import CLASS_LOSSES, CLASS_METRICS, LOSSES, METRICS, user_metric

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from easycompress.core.inputs import Inputs
    from easycompress.core.request import Request
    from easycompress.intake.data import Raw


def make_task(
    model: nn.Module,
    raw: Raw,
    request: Request,
    base: Path,
    checkpoint_bytes: int | None = None,
    notes: tuple[str, ...] = (),
) -> Task:
    """Check model and data against each other and return the task. The caller's model is copied, not changed.

    Without `request.metric` the one that goes with data and model is chosen, see judging.judged(). `notes` are what
    reading the model had to tell; what was chosen, and samples that splits share, add to them. Raises BadInput, in one
    line, for NaN in weights or data, inputs of another shape than the model takes, labels outside the classes, a metric
    or loss that fails on the first samples, splits that prove nothing.
    """
    metric = None if request.metric is None else find_metric(request.metric, base)
    given_loss = None if request.loss is None else find_loss(request.loss, base)
    model = copied(model)
    computed = plain_weights(model)
    check_weights(model)
    labelled = not raw.unlabelled if metric is None else metric.name not in UNLABELLED
    splits = make_splits(raw, seed=request.drawn_by, labelled=labelled)
    example = repeated(splits.select.inputs[:2], 2)
    model = as_tensors(model, example)
    outputs = check_forward(model, example)
    found = judged(model, splits, outputs, metric, raw.references)
    metric, splits = found.metric, found.splits
    loss_name = request.loss or found.loss
    loss = given_loss or LOSSES[loss_name]
    if metric.name in CLASS_METRICS or (loss in CLASS_LOSSES and _are_classes(splits.select.targets, outputs)):
        check_classes(metric, outputs, splits)
    check_judges(metric, loss, loss_name, outputs, splits)
    augment = make_augment(request.augment, base)
    if augment is not None:
        check_forward(model, augment(mapped(example, Tensor.clone)))
    more = (*found.notes, leaks(splits), imbalance(splits) if metric.name == "accuracy" else None)
    if computed:
        notes = (*notes, f"weights that a norm or another function computes became plain ones: {', '.join(computed)}")
    return Task(
        model=model,
        data=splits,
        example=example,
        metric=metric,
        loss=loss,
        augment=augment,
        checkpoint_bytes=checkpoint_bytes,
        notes=(*notes, *(note for note in more if note is not None)),
    )


def _are_classes(targets: Tensor | None, outputs: Tensor) -> bool:
    """Tell whether targets may be numbers of classes that the outputs score."""
    return targets is not None and not targets.is_floating_point() and outputs[0].numel() > 1


def copied(model: nn.Module) -> nn.Module:
    """Return a copy of a module in float32, evaluation mode, on the CPU. Raises BadInput where it can't be copied.

    A large one shares its weights with the copy: nothing is ever written into them.
    """
    try:
        copying = large.around if large.weight_bytes(model) >= large.LARGE_BYTES else copy.deepcopy
        made: nn.Module = copying(model, cached(model))
        return made.float().cpu().eval()
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
            if is_exhausted(error):
                raise  # which training can do something about
            raise Crashed(f"--loss {spec}: it raised {type(error).__name__}: {one_line(error)}; mend it") from error
        return result

    return loss


def check_weights(model: nn.Module) -> None:
    """Raise BadInput naming the first parameter or buffer that is not finite."""
    for name, value in model.state_dict().items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            count = int((~torch.isfinite(value)).sum())
            raise BadInput(f"model: {name} holds {count} values that are NaN or infinite; repair the checkpoint")


def check_forward(model: nn.Module, example: Inputs) -> Tensor:
    """Run the model on a small batch and return its answer (N, ...): the first tensor of what it returns.

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
    if outputs.dim() < 1 or len(outputs) != len(example):
        raise BadInput(
            f"the model returns shape {tuple(outputs.shape)} for {len(example)} samples; it must return one answer a "
            "sample, (N, ...)"
        )
    if not outputs.is_floating_point():
        kind = str(outputs.dtype).removeprefix("torch.")
        raise BadInput(f"the model returns {kind} numbers; it must return floating point scores, before any argmax")
    if not torch.isfinite(outputs).all():
        raise BadInput(
            "the model's outputs for the first samples are NaN or infinite; check the weights and --mean, --std"
        )
    return outputs


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
    if not len(splits.train) or splits.train.targets is None:
        return
    targets = splits.train.targets[: len(outputs)]  # which teach, and may be others than what judges
    outputs = outputs[: len(targets)].requires_grad_()
    shapes = f"outputs {tuple(outputs.shape)}, targets {tuple(targets.shape)}"
    try:
        value = loss(outputs, targets)
    except (RuntimeError, IndexError, ValueError) as error:
        raise BadInput(
            f"--loss {loss_name}: doesn't fit {shapes} of the first samples: {one_line(error, 120)}; "
            "give --loss file.py:function"
        ) from error
    if not isinstance(value, Tensor) or value.numel() != 1 or not value.requires_grad:
        raise BadInput(f"--loss {loss_name}: it must return one number, a tensor with a gradient, as torch's losses do")
