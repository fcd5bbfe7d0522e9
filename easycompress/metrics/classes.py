"""What classifiers are judged by: of samples, of tokens, of pixels.

Where a sample has several positions, (N, T, C) or (N, C, H, W), it contributes a row of counts and not a number: the
metric of a split is that of all its positions together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch

from easycompress.metrics.shapes import IGNORED, class_dimension, span_targets

if TYPE_CHECKING:
    from torch import Tensor

Array: TypeAlias = "np.ndarray[Any, Any]"

TOP = 5
"""How many guesses `top5` permits."""


def correct(outputs: Tensor, targets: Tensor) -> Array:
    """Return 1.0 where the largest output is the target class, (N,). outputs (N, C), targets (N,)."""
    return (outputs.argmax(1) == targets).double().numpy()


def correct_top5(outputs: Tensor, targets: Tensor) -> Array:
    """Return 1.0 where the target is among the five largest outputs, (N,). outputs (N, C), targets (N,)."""
    best = outputs.topk(min(TOP, outputs.shape[1]), 1).indices
    return (best == targets[:, None]).any(1).double().numpy()


def positions(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return the predicted and the target class of every position, (N, P) each; targets IGNORED don't count."""
    targets = span_targets(outputs, targets)
    predicted = outputs.argmax(class_dimension(outputs.shape, targets.shape))
    if predicted.shape != targets.shape:
        raise ValueError(f"outputs {tuple(outputs.shape)} against targets {tuple(targets.shape)}")
    return predicted.reshape(len(targets), -1), targets.reshape(len(targets), -1)


def correct_positions(outputs: Tensor, targets: Tensor) -> Array:
    """Return (N, 2): how many positions are right, and how many count."""
    predicted, wanted = positions(outputs, targets)
    counted = wanted != IGNORED
    return torch.stack([((predicted == wanted) & counted).sum(1), counted.sum(1)], 1).double().numpy()


def share(means: Array) -> Array:
    """Return the first column's share of the second, (...,) of (..., 2)."""
    found: Array = means[..., 0] / means[..., 1]
    return found


def counts(outputs: Tensor, targets: Tensor) -> Array:
    """Return (N, 3C): a sample's positions of each class that are rightly found, that are found, that are there."""
    predicted, wanted = positions(outputs, targets)
    classes = outputs.shape[class_dimension(outputs.shape, span_targets(outputs, targets).shape)]
    counted = wanted != IGNORED
    right = counted & (predicted == wanted)
    rows = [_histogram(predicted, right, classes), _histogram(predicted, counted, classes)]
    return torch.cat([*rows, _histogram(wanted, counted, classes)], 1).double().numpy()


def _histogram(labels: Tensor, counted: Tensor, classes: int) -> Tensor:
    """Return how often each class is among a sample's counted labels, (N, classes)."""
    empty = torch.zeros(len(labels), classes, dtype=torch.int64)
    return empty.scatter_add(1, labels.where(counted, 0), counted.long())


def _by_class(means: Array) -> tuple[Array, Array, Array]:
    right, found, there = np.split(means, 3, axis=-1)
    return right, found, there


def f1(means: Array) -> Array:
    """Return F1 of class 1 of two, else the mean of the classes' F1 (macro). Classes that are nowhere don't count.

    F1 = 2 x right / (found + there): the harmonic mean of precision and recall, 0 without a right one.
    """
    right, found, there = _by_class(means)
    if right.shape[-1] == 2:  # noqa: PLR2004 - binary
        right, found, there = (part[..., 1:] for part in (right, found, there))
    return _mean_of_ratios(2 * right, found + there)


def f1_without_first(means: Array) -> Array:
    """Return the macro F1 over all classes but the first, which stands for "nothing" where tokens are labelled."""
    right, found, there = (part[..., 1:] for part in _by_class(means))
    return _mean_of_ratios(2 * right, found + there)


def miou(means: Array) -> Array:
    """Return the mean over the classes of intersection / union of the pixels. Classes that are nowhere don't count."""
    right, found, there = _by_class(means)
    return _mean_of_ratios(right, found + there - right)


def _mean_of_ratios(upper: Array, lower: Array) -> Array:
    """Return the mean over the last axis of upper / lower where lower isn't 0; 0 where it is everywhere."""
    present = lower > 0
    ratios = np.divide(upper, lower, out=np.zeros_like(upper, dtype=np.float64), where=present)
    mean: Array = ratios.sum(-1) / np.maximum(present.sum(-1), 1)
    return mean
