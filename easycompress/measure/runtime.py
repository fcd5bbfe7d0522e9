"""ONNX Runtime as a user runs it: a stock session on the CPU with a fixed number of threads."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch

from easycompress.artifact.session import open_session
from easycompress.core.errors import CannotCompress, one_line
from easycompress.core.inputs import Bundle, parts

if TYPE_CHECKING:
    from pathlib import Path

    from easycompress.core.inputs import Inputs
    from easycompress.core.task import Metric, Split

BATCH = 250
"""Batch size of quality runs: fixed, so that the same file gives the same answers bit for bit."""

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
            raise CannotCompress(f"{path.name}: ONNX Runtime can't load it: {one_line(error)}") from error
        self.input_names = tuple(value.name for value in self.session.get_inputs())

    def feeds(self, inputs: Inputs) -> Feeds:
        """Return one batch as the session takes it: by name where inputs have names, else in order.

        A name that the graph doesn't have is left out: nothing in it reads that input.
        """
        names = inputs.names if isinstance(inputs, Bundle) and inputs.names else self.input_names
        pairs = zip(names, parts(inputs), strict=False)
        return {name: np.ascontiguousarray(tensor.numpy()) for name, tensor in pairs if name in self.input_names}

    def answer(self, feeds: Feeds) -> np.ndarray[Any, Any]:
        """Return the first output for what `feeds` made."""
        output: np.ndarray[Any, Any] = self.session.run(None, feeds)[0]
        return output

    def run(self, inputs: Inputs) -> np.ndarray[Any, Any]:
        """Return the first output for one batch."""
        return self.answer(self.feeds(inputs))

    def outputs(self, split: Split) -> np.ndarray[Any, Any]:
        """Return the first output for every sample, (N, ...), in batches of BATCH."""
        parts = [self.run(inputs) for inputs, _ in split.batches(BATCH)]
        return np.concatenate(parts)


def scores_of(path: Path, split: Split, metric: Metric, threads: int) -> np.ndarray[Any, Any]:
    """Return the per-sample scores (N,) of a written file on a split, from ONNX Runtime."""
    return scores_from(Runtime(path, threads).outputs(split), split, metric)


def scores_from(outputs: np.ndarray[Any, Any], split: Split, metric: Metric) -> np.ndarray[Any, Any]:
    """Return the per-sample scores (N,) of outputs (N, ...)."""
    targets = split.targets if split.targets is not None else torch.empty(0)
    return metric.scores(torch.from_numpy(outputs), targets)
