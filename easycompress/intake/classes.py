"""Whether targets are numbers of the classes that a model scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

from easycompress.core.errors import BadInput
from easycompress.intake.splits import check_labels
from easycompress.metrics.shapes import IGNORED, class_dimension, is_span, span_targets

if TYPE_CHECKING:
    from torch import Tensor

    from easycompress.core.task import Metric, Splits

_PLAIN = 2  # dimensions of (N, C)


def check_classes(metric: Metric, outputs: Tensor, splits: Splits) -> None:
    """Raise BadInput where classes are wanted and the outputs aren't their scores, or the targets not their numbers.

    outputs (N, C) go with targets (N,), (N, T, C) with (N, T), dense (N, C, H, W) with (N, H, W), question answering's
    (N, T, 2) with (N, 3). Of several positions a sample, IGNORED ones may be any.
    """
    targets = splits.select.targets
    if targets is None:
        return
    shape = tuple(outputs.shape)
    if outputs.dim() < _PLAIN or outputs[0].numel() == 1:
        _refuse_outputs(metric, shape)
    if outputs.dim() == _PLAIN:
        if targets.ndim == 1 or metric.binary:
            check_labels(splits, shape[1])
        if metric.binary and targets.ndim != 1:
            raise BadInput(
                f"--metric {metric.name}: takes one label a sample, (N,), but the targets are {tuple(targets.shape)}; "
                "use --metric file.py:function"
            )
        return
    wanted = span_targets(outputs, targets[: len(outputs)])
    dim = class_dimension(shape, wanted.shape)
    if (*shape[1:dim], *shape[dim + 1 :]) != tuple(wanted.shape[1:]):
        if targets.ndim == 1:
            _refuse_outputs(metric, shape)
        positions = ", ".join(map(str, (*shape[1:dim], *shape[dim + 1 :])))
        raise BadInput(
            f"--metric {metric.name}: the targets are {_dimensions(targets.shape)}, but the model returns "
            f"{_dimensions(shape)}: it takes targets (N, {positions}); use --metric file.py:function"
        )
    _check_positions(splits, shape[dim], spans=is_span(shape, targets[: len(outputs)].shape))


def _dimensions(shape: tuple[int, ...]) -> str:
    return f"(N, {', '.join(map(str, shape[1:]))})" if len(shape) > 1 else "(N,)"


def _refuse_outputs(metric: Metric, shape: tuple[int, ...]) -> None:
    remedy = "use --metric mse for values, or file.py:function"
    if len(shape) > _PLAIN:
        remedy = "use --metric file.py:function"
    raise BadInput(
        f"--metric {metric.name}: takes class scores, (N, C), but the model returns {_dimensions(shape)}; {remedy}"
    )


def _check_positions(splits: Splits, classes: int, *, spans: bool) -> None:
    """Raise BadInput for a target that is no class, of a token, of a pixel, or of a span no place in the text."""
    for name, split in (("train", splits.train), ("select", splits.select), ("report", splits.report)):
        targets = split.targets
        if targets is None or not len(split):
            continue
        if targets.is_floating_point():
            raise BadInput(f"{name}: labels are {str(targets.dtype).removeprefix('torch.')}; class labels are integers")
        targets = targets[:, :-1] if spans else targets
        wrong = targets[((targets < 0) | (targets >= classes)) & (targets != IGNORED)]
        if len(wrong):
            raise BadInput(
                f"{name}: label {int(wrong[0])}, but the model has {classes} outputs, so labels are 0..{classes - 1}, "
                f"or {IGNORED} where none counts; the label map doesn't fit: give the data that it was trained for"
            )
