"""A task: a trained model, the data that shows what it should do, and a metric."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from torch import Tensor, nn

    from easycompress.core.inputs import Inputs


@dataclass(frozen=True)
class Split:
    """Samples in memory: `inputs` (N, ...) as the model takes them, `targets` (N, ...) or None without labels."""

    inputs: Inputs
    targets: Tensor | None

    def __len__(self) -> int:
        return len(self.inputs)

    def batches(self, size: int) -> Iterator[tuple[Inputs, Tensor | None]]:
        """Yield (inputs, targets) of at most `size` samples, in order."""
        for start in range(0, len(self), size):
            stop = start + size
            yield self.inputs[start:stop], None if self.targets is None else self.targets[start:stop]

    def take(self, indices: Tensor | slice) -> Split:
        """Return the samples at `indices`."""
        return Split(self.inputs[indices], None if self.targets is None else self.targets[indices])


@dataclass(frozen=True)
class Splits:
    """Disjoint splits. `train` may be empty. `note` says in one sentence how *select* and *report* came about.

    train: what recovery learns from. calibration: a part of train. select: what settings are chosen on.
    report: looked at once, at the end.
    """

    train: Split
    calibration: Split
    select: Split
    report: Split
    note: str = ""


@dataclass(frozen=True)
class Metric:
    """How good a model is on a split.

    `scores(outputs, targets)` gives what each sample contributes: one number, (N,), or a row of them, (N, K). Of one
    number the quality is `scale` x the mean. Of rows it is `scale` x `of_means(means)`, a function of the columns'
    means ((..., K) -> (...): F1, perplexity, R2), or `scale` x `of_rows(rows)` for what the means don't determine
    ((N, K) -> number: a rank correlation, a user's metric of the whole split).
    `binary` scores are 0 or 1 (accuracy, agreement): the drop then has a closed-form bound.
    """

    name: str
    scores: Callable[[Tensor, Tensor], np.ndarray[Any, Any]]
    scale: float = 1.0
    percent: bool = False
    binary: bool = False
    higher_is_better: bool = True
    of_means: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]] | None = None
    of_rows: Callable[[np.ndarray[Any, Any]], float] | None = None

    @property
    def is_mean(self) -> bool:
        """Whether the quality is the mean of one number a sample."""
        return self.of_means is None and self.of_rows is None

    def quality(self, scores: np.ndarray[Any, Any]) -> float:
        """Return the quality of a split in the metric's unit from what its samples contribute."""
        if self.of_rows is not None:
            return self.scale * float(self.of_rows(scores))
        means = scores.mean(axis=0)
        return self.scale * float(means if self.of_means is None else self.of_means(means))


@dataclass(frozen=True)
class Task:
    """What is to be compressed. The model is in evaluation mode, float32, on the CPU, and never changed.

    `example` is a small batch (2, ...) of real inputs. `loss(outputs, targets)` -> scalar. `augment` changes a batch of
    training inputs, None for none. `checkpoint_bytes` is what the user's own file weighs, None in Python. `blind`:
    there is no data, *select* and *report* hold random inputs, and what the metric says of them proves nothing.
    """

    model: nn.Module
    data: Splits
    example: Inputs
    metric: Metric
    loss: Callable[[Tensor, Tensor], Tensor]
    augment: Callable[[Inputs], Inputs] | None = None
    checkpoint_bytes: int | None = None
    notes: tuple[str, ...] = field(default=())
    blind: bool = False
