"""Metrics that the user wrote."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch

from easycompress.core.errors import BadInput, Crashed, one_line
from easycompress.core.task import Metric

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

Array: TypeAlias = "np.ndarray[Any, Any]"


def user_metric(function: Callable[[Tensor, Tensor], object], spec: str) -> Metric:
    """Wrap a user's `(outputs, targets) -> scores (N,)`, or with `corpus = True` -> one number of a whole split.

    What it raises is told in one line, its traceback kept (Crashed); BadInput when it gives something else.
    """
    higher = bool(getattr(function, "higher_is_better", True))
    if getattr(function, "corpus", False):
        whole = _Whole(function, spec)
        return Metric(spec, whole.scores, higher_is_better=higher, of_rows=whole.quality)

    def scores(outputs: Tensor, targets: Tensor) -> Array:
        result = _called(function, spec, outputs, targets)
        if result.shape != (len(outputs),):
            raise BadInput(
                f"--metric {spec}: it must return one score a sample, shape ({len(outputs)},), not {result.shape}; "
                "for one number of a whole split give it the attribute corpus = True"
            )
        if not np.isfinite(result).all():
            raise BadInput(
                f"--metric {spec}: it returned a score that is not a finite number; return one for every sample"
            )
        return result

    return Metric(spec, scores, higher_is_better=higher)


def _called(function: Callable[[Tensor, Tensor], object], spec: str, outputs: Tensor, targets: Tensor) -> Array:
    """Return what the user's function gives as float64."""
    try:
        return torch.as_tensor(function(outputs, targets)).detach().double().numpy()
    except Exception as error:  # the user's own code may raise anything
        raise Crashed(f"--metric {spec}: it raised {type(error).__name__}: {one_line(error)}; mend it") from error


class _Whole:
    """A metric of a whole split. A sample's row is its outputs and targets, flat; their forms are remembered."""

    def __init__(self, function: Callable[[Tensor, Tensor], object], spec: str) -> None:
        self.function, self.spec = function, spec
        self.forms: dict[int, tuple[Tensor, Tensor]] = {}

    def scores(self, outputs: Tensor, targets: Tensor) -> Array:
        """Return (N, K) float64."""
        count = len(outputs)
        rows = torch.cat([part.detach().double().reshape(count, -1) for part in (outputs, targets)], 1)
        self.forms[rows.shape[1]] = outputs[:0], targets[:0]
        return rows.numpy()

    def quality(self, rows: Array) -> float:
        """Return the user's number of rows (N, K)."""
        given, start = [], 0
        for form in self.forms[rows.shape[1]]:
            size = math.prod(form.shape[1:])
            part = torch.from_numpy(np.ascontiguousarray(rows[:, start : start + size]))
            given.append(part.to(form.dtype).reshape(len(rows), *form.shape[1:]))
            start += size
        result = _called(self.function, self.spec, given[0], given[1])
        if result.size != 1:
            raise BadInput(
                f"--metric {self.spec}: it has corpus = True, so it must return one number, not shape {result.shape}"
            )
        return float(result.reshape(()))
