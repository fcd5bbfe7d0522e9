"""ONNX Runtime as a user runs it: a stock session on the CPU with a fixed number of threads."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch

from easycompress.artifact.session import open_session
from easycompress.core.errors import CannotCompress, one_line
from easycompress.core.inputs import TWINS, Bundle, parts
from easycompress.core.ledger import spending
from easycompress.core.memory import is_exhausted

if TYPE_CHECKING:
    from pathlib import Path

    from easycompress.core.inputs import Inputs
    from easycompress.core.task import Metric, Split

BATCH = 250
"""Batch size of quality runs: fixed, so that the same file gives the same answers bit for bit."""

BATCH_BYTES = 256_000_000
"""Outputs of one batch: a language model's scores of every word take more than the model."""

KEPT_BYTES = 500_000_000
"""Outputs of a split that are kept; of larger ones the scores alone are."""

Feeds: TypeAlias = "dict[str, np.ndarray[Any, Any]]"


def physical_cores() -> int:
    """Return the number of physical cores that this process may use, at least 1."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    cores = set()
    for cpu in allowed:
        try:
            with open(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list") as file:  # noqa: PTH123 - sysfs
                cores.add(file.read().strip())
        except OSError:
            return max(1, len(allowed))
    return max(1, len(cores))


class Runtime:
    """One loaded file. `threads` are intra-operator threads."""

    def __init__(self, path: Path, threads: int) -> None:
        try:
            self.session = open_session(path, threads)
        except Exception as error:  # the runtime's own error types share no public base class
            if is_exhausted(error):
                raise MemoryError(f"{path.name}: {one_line(error)}") from error
            raise CannotCompress(f"{path.name}: ONNX Runtime can't load it: {one_line(error)}") from error
        self.input_names = tuple(value.name for value in self.session.get_inputs())
        outputs = self.session.get_outputs()
        names = [value.name for value in outputs]
        twins = next((twins for twins in TWINS if set(twins) <= set(names)), ())
        self.asked = tuple(twins or names[:1])
        sizes = [size for size in outputs[names.index(self.asked[0])].shape[1:] if isinstance(size, int)]
        self.batch = min(BATCH, max(1, BATCH_BYTES // (4 * len(self.asked) * int(np.prod(sizes, dtype=np.int64)))))

    def feeds(self, inputs: Inputs) -> Feeds:
        """Return one batch as the session takes it: by name where inputs have names, else in order.

        A name that the graph doesn't have is left out: nothing in it reads that input.
        """
        names = inputs.names if isinstance(inputs, Bundle) and inputs.names else self.input_names
        pairs = zip(names, parts(inputs), strict=False)
        return {name: np.ascontiguousarray(tensor.numpy()) for name, tensor in pairs if name in self.input_names}

    def answer(self, feeds: Feeds) -> np.ndarray[Any, Any]:
        """Return the answer to what `feeds` made: the first output, or its TWINS stacked, as core.inputs.first()."""
        outputs = self.session.run(self.asked, feeds)
        answer: np.ndarray[Any, Any] = outputs[0] if len(outputs) == 1 else np.stack(outputs, -1)
        return answer

    def run(self, inputs: Inputs) -> np.ndarray[Any, Any]:
        """Return the answer to one batch."""
        return self.answer(self.feeds(inputs))

    def outputs(self, split: Split) -> np.ndarray[Any, Any]:
        """Return the answer to every sample, (N, ...)."""
        return np.concatenate([self.run(inputs) for inputs, _ in split.batches(self.batch)])

    @spending("evaluation")
    def judged(self, split: Split, metric: Metric) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any] | None]:
        """Return what every sample contributes to `metric`, (N,) or (N, K), and the answers (N, ...).

        Where those would take more than KEPT_BYTES they are None. The batch size depends on the file alone, so that the
        same file gives the same answers bit for bit.
        """
        scores, answers, held = [], [], 0
        for inputs, targets in split.batches(self.batch):
            answer = self.run(inputs)
            given = targets if targets is not None else torch.empty(0)
            scores.append(metric.scores(torch.from_numpy(answer), given))
            held += answer.nbytes
            answers.append(answer)
            if held > KEPT_BYTES:
                answers.clear()
        return np.concatenate(scores), None if held > KEPT_BYTES else np.concatenate(answers)


def scores_of(path: Path, split: Split, metric: Metric, threads: int) -> np.ndarray[Any, Any]:
    """Return what each sample contributes, (N,) or (N, K), of a written file on a split, from ONNX Runtime."""
    return Runtime(path, threads).judged(split, metric)[0]
