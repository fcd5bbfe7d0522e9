"""Losses by name: what training minimises."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from easycompress.metrics.shapes import IGNORED, class_dimension, span_targets
from easycompress.metrics.values import alike

if TYPE_CHECKING:
    from collections.abc import Callable


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross-entropy of class scores over the positions that count.

    outputs (N, C) against (N,), (N, T, C) against (N, T), dense (N, C, H, W) against (N, H, W); targets IGNORED don't
    count. Of question answering, (N, T, 2) against (N, 3), the mean of the begin's and the end's. 0 where nothing
    counts.
    """
    targets = span_targets(outputs, targets)
    scores = outputs.movedim(class_dimension(outputs.shape, targets.shape), 1)
    total = functional.cross_entropy(scores, targets, ignore_index=IGNORED, reduction="sum")
    if targets.is_floating_point():  # shares of the classes, (N, C): each row counts
        return total / len(targets)
    return total / torch.count_nonzero(targets != IGNORED).clamp_min(1)


def squared(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the mean squared error of values."""
    return functional.mse_loss(outputs, targets.to(outputs.dtype).reshape(outputs.shape))


def absolute(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the mean absolute error of values."""
    return functional.l1_loss(outputs, targets.to(outputs.dtype).reshape(outputs.shape))


def likeness(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the squared error of how alike two sentences are, see alike()."""
    return squared(alike(outputs), targets)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross-entropy": cross_entropy,
    "mse": squared,
    "mae": absolute,
    "cosine": likeness,
}

CLASS_LOSSES = (cross_entropy,)
"""Losses that take the scores of classes: their outputs have a softmax."""
