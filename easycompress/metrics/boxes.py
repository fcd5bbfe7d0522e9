"""Object detection: average precision as COCO defines it (cocodataset.org, Detection Evaluation).

A detection of a class is right at an overlap (intersection over union) when it is the best scored one left for a true
box of its class in its image. Precision is interpolated at 101 recalls, and averaged over the classes that are there,
and over the overlaps .50, .55, ..., .95.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

Array: TypeAlias = "np.ndarray[Any, Any]"

Decode: TypeAlias = Callable[[Tensor], "list[dict[str, Tensor]]"]
"""Raw answers (N, ...) -> for each image `boxes` (D, 4) x1 y1 x2 y2, `scores` (D,), `labels` (D,)."""

OVERLAPS = tuple(0.5 + 0.05 * step for step in range(10))

MOST = 100
"""Detections of an image that count, the best scored."""

RECALLS = np.linspace(0.0, 1.0, 101)

NOTHING = -1
"""The label of a row of targets that holds no box."""

_WIDTH = 2 + len(OVERLAPS)


def matches(decode: Decode) -> Callable[[Tensor, Tensor], Array]:
    """Return scores (N, MOST x 12 + M) of targets (N, M, 5): boxes x1 y1 x2 y2 and a label, NOTHING without a box.

    A row holds of each detection its score, its label and whether it is right at each overlap, and the true labels.
    """

    def scores(outputs: Tensor, targets: Tensor) -> Array:
        rows = np.full((len(targets), MOST * _WIDTH + targets.shape[1]), float(NOTHING))
        for row, found, true in zip(rows, decode(outputs), targets, strict=True):
            order = found["scores"].argsort(descending=True, stable=True)[:MOST]
            there = true[true[:, 4] != NOTHING]
            right = _right(found["boxes"][order], found["labels"][order], there)
            table = np.column_stack([found["scores"][order].numpy(), found["labels"][order].numpy(), right])
            row[: table.size] = table.ravel()
            row[MOST * _WIDTH : MOST * _WIDTH + len(there)] = there[:, 4].numpy()
        return rows

    return scores


def _right(boxes: Tensor, labels: Tensor, there: Tensor) -> Array:
    """Return which detections, best first, are right at each overlap, (D, 10)."""
    right = np.zeros((len(boxes), len(OVERLAPS)))
    if not len(boxes) or not len(there):
        return right
    overlap = overlaps(boxes.double(), there[:, :4].double())
    table = overlap.where(labels[:, None] == there[None, :, 4], -1.0).numpy()
    for column, least in enumerate(OVERLAPS):
        free = np.ones(len(there), dtype=bool)
        for detection in range(len(boxes)):
            candidates = np.where(free, table[detection], -1.0)
            best = int(candidates.argmax())
            if candidates[best] >= least:
                right[detection, column], free[best] = 1.0, False
    return right


def overlaps(boxes: Tensor, others: Tensor) -> Tensor:
    """Return intersection over union of boxes (D, 4) and others (M, 4), x1 y1 x2 y2: (D, M)."""
    first, last = torch.maximum(boxes[:, None, :2], others[:, :2]), torch.minimum(boxes[:, None, 2:], others[:, 2:])
    common = (last - first).clamp_min(0).prod(-1)
    areas = [(each[:, 2:] - each[:, :2]).prod(-1) for each in (boxes, others)]
    return common / (areas[0][:, None] + areas[1] - common).clamp_min(1e-12)  # two boxes without area overlap nowhere


def mean_precision(rows: Array) -> float:
    """Return the mean average precision over the overlaps .50 to .95, 0..1; NaN without a true box."""
    return _precision(rows, range(len(OVERLAPS)))


def precision_at_half(rows: Array) -> float:
    """Return the mean average precision at overlap .50, 0..1; NaN without a true box."""
    return _precision(rows, range(1))


def _precision(rows: Array, columns: Sequence[int]) -> float:
    found = rows[:, : MOST * _WIDTH].reshape(-1, _WIDTH)
    found = found[found[:, 0] != NOTHING]
    found = found[np.argsort(-found[:, 0], kind="stable")]
    there = rows[:, MOST * _WIDTH :]
    labels, number = np.unique(there[there != NOTHING], return_counts=True)
    if not len(labels):
        return float("nan")
    each = [
        _average(found[found[:, 1] == label, 2 + column], int(count))
        for label, count in zip(labels, number, strict=True)
        for column in columns
    ]
    return float(np.mean(each))


def _average(right: Array, count: int) -> float:
    """Return the average precision of one class's detections, best first, `count` being there."""
    if not len(right):
        return 0.0
    hits = np.cumsum(right)
    precision = np.maximum.accumulate((hits / np.arange(1, len(hits) + 1))[::-1])[::-1]
    places = np.searchsorted(hits / count, RECALLS, side="left")
    return float(np.where(places < len(precision), precision[np.minimum(places, len(precision) - 1)], 0.0).mean())
