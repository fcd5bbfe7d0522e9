"""Metrics and losses by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from easycompress.core.errors import BadInput, one_line
from easycompress.core.task import Metric

if TYPE_CHECKING:
    from collections.abc import Callable

TOP = 5
"""How many guesses `top5` permits."""


def correct(outputs: Tensor, targets: Tensor) -> np.ndarray[Any, Any]:
    """Return 1.0 where the largest output is the target class, (N,). outputs (N, C), targets (N,)."""
    return (outputs.argmax(1) == targets).double().numpy()


def correct_top5(outputs: Tensor, targets: Tensor) -> np.ndarray[Any, Any]:
    """Return 1.0 where the target is among the five largest outputs, (N,). outputs (N, C), targets (N,)."""
    best = outputs.topk(min(TOP, outputs.shape[1]), 1).indices
    return (best == targets[:, None]).any(1).double().numpy()


def squared_error(outputs: Tensor, targets: Tensor) -> np.ndarray[Any, Any]:
    """Return each sample's mean squared error, (N,)."""
    difference = outputs.double() - targets.double().reshape(outputs.shape)
    return difference.square().flatten(1).mean(1).numpy()


METRICS: dict[str, Metric] = {
    "accuracy": Metric("accuracy", correct, scale=100.0, percent=True, binary=True),
    "agreement": Metric("agreement", correct, scale=100.0, percent=True, binary=True),
    "top5": Metric("top5", correct_top5, scale=100.0, percent=True, binary=True),
    "mse": Metric("mse", squared_error, higher_is_better=False),
}
"""`agreement` is accuracy against the original model's own answers: what there is without labels."""

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross-entropy": functional.cross_entropy,
    "mse": lambda outputs, targets: functional.mse_loss(outputs, targets.to(outputs.dtype).reshape(outputs.shape)),
}


def user_metric(function: Callable[[Tensor, Tensor], object], spec: str) -> Metric:
    """Wrap a user's `(outputs, targets) -> scores (N,)`. Raises BadInput when it gives something else."""
    if getattr(function, "corpus", False):
        raise BadInput(
            f"--metric {spec}: metrics of a whole split (corpus = True) aren't supported yet; score each sample"
        )

    def scores(outputs: Tensor, targets: Tensor) -> np.ndarray[Any, Any]:
        try:
            result = torch.as_tensor(function(outputs, targets)).detach().double().numpy()
        except Exception as error:  # the user's own code may raise anything
            raise BadInput(f"--metric {spec}: it raised {type(error).__name__}: {one_line(error)}") from error
        if result.shape != (len(outputs),):
            raise BadInput(
                f"--metric {spec}: it must return one score a sample, shape ({len(outputs)},), not {result.shape}"
            )
        if not np.isfinite(result).all():
            raise BadInput(f"--metric {spec}: it returned a score that is not a finite number")
        return result

    higher = bool(getattr(function, "higher_is_better", True))
    return Metric(spec, scores, higher_is_better=higher)


def default_loss(metric: Metric) -> str:
    """Return the loss that goes with a metric when none is named."""
    return "mse" if metric.name == "mse" else "cross-entropy"
