"""What models are judged by that answer in values: errors, explained variance, rank correlation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

Array: TypeAlias = "np.ndarray[Any, Any]"

MOST_OUTPUTS = 4096
"""Values a sample up to which each has a variance of its own in R2."""

_PAIRS = 3  # dimensions of pairs of embeddings, (N, 2, D)


def _flat(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    return (
        outputs.double().reshape(len(outputs), -1),
        targets.double().reshape(outputs.shape).reshape(len(outputs), -1),
    )


def squared_error(outputs: Tensor, targets: Tensor) -> Array:
    """Return each sample's mean squared error, (N,)."""
    values, wanted = _flat(outputs, targets)
    return (values - wanted).square().mean(1).numpy()


def absolute_error(outputs: Tensor, targets: Tensor) -> Array:
    """Return each sample's mean absolute error, (N,)."""
    values, wanted = _flat(outputs, targets)
    return (values - wanted).abs().mean(1).numpy()


def squared_row(outputs: Tensor, targets: Tensor) -> Array:
    """Return each sample's mean squared error as a row, (N, 1)."""
    return squared_error(outputs, targets)[:, None]


def root(means: Array) -> Array:
    """Return the root of the only column, (...,) of (..., 1)."""
    found: Array = np.sqrt(np.maximum(means[..., 0], 0.0))
    return found


def moments(outputs: Tensor, targets: Tensor) -> Array:
    """Return (N, 3D): squared errors, targets and their squares of each of the D values. Raises ValueError above 4096.

    Targets are taken as they are: a mean far larger than their spread costs digits, 1e-16 x (mean / spread)^2.
    """
    values, wanted = _flat(outputs, targets)
    if values.shape[1] > MOST_OUTPUTS:
        raise ValueError(f"R2 of {values.shape[1]} values a sample, at most {MOST_OUTPUTS}; use mse")
    return torch.cat([(values - wanted).square(), wanted, wanted.square()], 1).numpy()


def r2(means: Array) -> Array:
    """Return the coefficient of determination, the mean of the values': 1 - error / variance.

    As scikit-learn has it, a value that never varies counts 1 without and 0 with an error.
    """
    error, mean, square = np.split(means, 3, axis=-1)
    variance = square - mean**2
    varies = variance > 1e-14 * square  # below that it is rounding
    found = np.where(error > 0, 0.0, 1.0)
    np.divide(variance - error, variance, out=found, where=varies)
    average: Array = found.mean(-1)
    return average


def explained(spread: float) -> Callable[[Tensor, Tensor], Array]:
    """Return scores (N,) whose mean is the share of the targets' variance `spread` that the outputs explain."""

    def scores(outputs: Tensor, targets: Tensor) -> Array:
        return 1.0 - squared_error(outputs, targets) / spread

    return scores


def spread(values: Tensor) -> float:
    """Return the variance of values (N, ...) over the samples, mean over the rest; 1 where all samples are alike."""
    return float(values.double().var(0, correction=0).mean()) or 1.0


def alike(outputs: Tensor) -> Tensor:
    """Return how alike the two sentences of each sample are, (N,).

    It is the output itself where that is one number, (N,) or (N, 1), and the cosine of a pair of embeddings, (N, 2, D).
    Raises ValueError for other shapes.
    """
    if outputs.dim() == _PAIRS and outputs.shape[1] == 2:  # noqa: PLR2004 - a pair
        return functional.cosine_similarity(outputs[:, 0], outputs[:, 1], dim=1)
    if outputs[0].numel() != 1:
        raise ValueError("spearman takes one number a sample, (N,), or a pair of embeddings, (N, 2, D)")
    return outputs.reshape(-1)


def likeness_row(outputs: Tensor, targets: Tensor) -> Array:
    """Return (N, 2): how alike the model finds the two sentences, and how alike they are."""
    return torch.stack([alike(outputs).double(), targets.double().reshape(-1)], 1).numpy()


def spearman(rows: Array) -> float:
    """Return Spearman's rank correlation of two columns, ties by their mean rank; NaN where one is constant."""
    ranks = np.stack([_ranks(column) for column in rows.T])
    centred = ranks - ranks.mean(1, keepdims=True)
    norms = np.sqrt((centred**2).sum(1))
    return float(centred[0] @ centred[1] / norms.prod()) if norms.all() else float("nan")


def _ranks(values: Array) -> Array:
    _, places, times = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Array = (np.cumsum(times) - (times - 1) / 2)[places.reshape(-1)]
    return ranks
