"""`predictions.npz`: the report split's answers, before and after, and what tells its samples from others."""

from __future__ import annotations

import io
import math
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from easycompress.core.errors import BadInput, one_line
from easycompress.core.files import write_bytes
from easycompress.core.inputs import parts

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from easycompress.core.inputs import Inputs
    from easycompress.core.task import Task

NAME = "predictions.npz"

Array: TypeAlias = "np.ndarray[Any, Any]"

CHUNK = 1 << 22
"""Numbers of the inputs that are marked at a time."""

NEAR = 0.01
"""Two marks within this share of the marks' own spread may be one sample, decoded by two versions of a library."""

_ROUNDING = 1e-5  # relative: of marks without any spread


@dataclass(frozen=True)
class Predictions:
    """What the file holds. Arrays that were too large to keep, or that there are none of, have length 0.

    after: classes (N,) of binary metrics, else the answers (N, ...). scores_after: what each sample contributes to the
    metric, (N,) or (N, K). targets: what the metric reads, (N, ...). samples: marks of the inputs, (N, 2).
    """

    after: Array
    scores_after: Array
    targets: Array
    samples: Array


def write_predictions(out: Path, task: Task, answers: Sequence[Array | None], scores: Sequence[Array]) -> None:
    """Write the report split's answers and scores, each before and after: what a later check pairs its own with.

    Answers that were too large to keep are left out: the scores are there.
    """
    kept = [np.empty(0) if a is None else a.argmax(1) if task.metric.binary else a for a in answers]
    targets = task.data.report.targets
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        before=kept[0],
        after=kept[1],
        scores_before=scores[0],
        scores_after=scores[1],
        targets=np.empty(0) if targets is None else targets.numpy(),
        samples=marks(task.data.report.inputs),
    )
    write_bytes(out / NAME, buffer.getvalue())


def read_predictions(path: Path) -> Predictions:
    """Read the file. Raises BadInput where it is missing, damaged, or not one of easycompress."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            after, scores, targets = (stored[name] for name in ("after", "scores_after", "targets"))
            samples = stored["samples"] if "samples" in stored else np.empty((0, 2))
    except FileNotFoundError as error:
        raise BadInput(f"{path}: not found; it is written beside report.json and belongs with it") from error
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError, AttributeError) as error:
        raise BadInput(f"{path}: can't be read ({one_line(error, 120)}); copy it again") from error
    if not len(scores) or scores.ndim > 2:  # noqa: PLR2004 - (N,) or (N, K)
        raise BadInput(f"{path}: holds no scores of samples; write it anew with easycompress compress")
    return Predictions(after, scores, targets, samples)


def marks(inputs: Inputs) -> Array:
    """Return two numbers a sample, (N, 2) float32: the mean of its values, and their sum against a fixed wave.

    Other samples, or the same in another order, have other marks; the last bits of a resized picture hardly move them.
    """
    found = np.zeros((len(inputs), 2))
    for index, tensor in enumerate(parts(inputs)):
        size = max(1, math.prod(tensor.shape[1:]))
        wave = np.cos(np.arange(size) + index) / math.sqrt(size)
        rows = max(1, CHUNK // size)
        for start in range(0, len(tensor), rows):
            values = tensor[start : start + rows].reshape(-1, size).double().numpy()
            found[start : start + rows, 0] += values.mean(axis=1)
            found[start : start + rows, 1] += (values * wave).sum(axis=1)  # no BLAS: the same bits on any thread count
    return found.astype(np.float32)


def others(known: Array, given: Array) -> int:
    """Return how many of the samples marked `given` (N, 2) are not those marked `known` (N, 2)."""
    slack = np.maximum(NEAR * known.std(axis=0), _ROUNDING * np.abs(known).max(axis=0, initial=0.0))
    return int((~(np.abs(known - given) <= slack)).any(axis=1).sum())
