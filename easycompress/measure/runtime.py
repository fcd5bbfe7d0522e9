"""ONNX Runtime as a user runs it: a stock session on the CPU with a fixed number of threads."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import torch

from easycompress.core.errors import CannotCompress, one_line

if TYPE_CHECKING:
    from pathlib import Path

    from easycompress.core.task import Metric, Split

BATCH = 250
"""Batch size of quality runs: fixed, so that the same file gives the same answers bit for bit."""

QUIET = 3
"""ONNX Runtime's log level for errors only."""


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
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = QUIET
        try:
            self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the runtime's own error types share no public base class
            raise CannotCompress(f"{path.name}: ONNX Runtime can't load it: {one_line(error)}") from error
        self.input_name: str = self.session.get_inputs()[0].name

    def run(self, inputs: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Return the first output for one batch."""
        output: np.ndarray[Any, Any] = self.session.run(None, {self.input_name: inputs})[0]
        return output

    def outputs(self, split: Split) -> np.ndarray[Any, Any]:
        """Return the first output for every sample, (N, ...), in batches of BATCH."""
        parts = [self.run(inputs.numpy()) for inputs, _ in split.batches(BATCH)]
        return np.concatenate(parts)


def scores_of(path: Path, split: Split, metric: Metric, threads: int) -> np.ndarray[Any, Any]:
    """Return the per-sample scores (N,) of a written file on a split, from ONNX Runtime."""
    return scores_from(Runtime(path, threads).outputs(split), split, metric)


def scores_from(outputs: np.ndarray[Any, Any], split: Split, metric: Metric) -> np.ndarray[Any, Any]:
    """Return the per-sample scores (N,) of outputs (N, ...)."""
    targets = split.targets if split.targets is not None else torch.empty(0)
    return metric.scores(torch.from_numpy(outputs), targets)
