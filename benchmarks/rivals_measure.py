"""What is measured of every file, a rival's or ours alike: bytes, the paired drop on the test split, paired latency."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import torch

from benchmarks.rivals_tasks import BATCHES, test_split
from easycompress.artifact.slim import slim
from easycompress.core.inputs import bundled
from easycompress.measure.latency import time_files
from easycompress.measure.statistics import tango_upper

if TYPE_CHECKING:
    from pathlib import Path

THREADS = (1, 2)

ROUNDS = 3
"""Fresh pairs of sessions a latency; each has at least five alternating blocks of twenty runs a file."""


def answers(path: Path, inputs: dict[str, np.ndarray[Any, Any]], batch: int = 250) -> np.ndarray[Any, Any]:
    """Return a file's scores (N, classes), from stock ONNX Runtime."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    taken = [value.name for value in session.get_inputs()]
    names = dict(zip(taken, inputs, strict=False)) if len(taken) == len(inputs) == 1 else {n: n for n in taken}
    count = len(next(iter(inputs.values())))
    parts = [
        session.run(None, {name: inputs[ours][begin : begin + batch] for name, ours in names.items()})[0]
        for begin in range(0, count, batch)
    ]
    return np.concatenate(parts)


def paired(folder: Path, scores: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Return the paired drop of `scores` (N, classes) against the float file, in points, on the test split."""
    inputs, labels = test_split(folder)
    kept = folder / "answers.npy"
    if not kept.exists():
        np.save(kept, answers(folder / "plain.onnx", inputs))
    before, after = np.load(kept).argmax(1) == labels, scores.argmax(1) == labels
    worse, better, n = int((before & ~after).sum()), int((~before & after).sum()), len(labels)
    return {
        "quality": [round(100 * float(right.mean()), 3) for right in (before, after)],
        "drop": round(100 * (worse - better) / n, 4), "upper_95": round(100 * tango_upper(worse, better, n), 4),
        "worse": worse, "better": better, "n": n,
    }  # fmt: skip


def stripped(path: Path) -> int:
    """Return the bytes that an ONNX file would take without names and the exporter's remarks."""
    return len(slim(onnx.load(path)).SerializeToString())


def latency(model: str, folder: Path, path: Path) -> dict[str, Any]:
    """Return milliseconds [float, new] by threads and batch size, from alternating blocks, and the machine's load."""
    inputs, _ = test_split(folder)
    tensors = {name: torch.from_numpy(values[:64]) for name, values in inputs.items()}
    example = bundled(tensors) if len(tensors) > 1 else next(iter(tensors.values()))
    found: dict[str, Any] = {"load": round(os.getloadavg()[0], 2), "ms": {}}
    for threads in THREADS:
        for batch in BATCHES[model]:
            before, after = time_files([folder / "plain.onnx", path], example, batch, threads, ROUNDS)
            found["ms"][f"{threads} threads, batch {batch}"] = [round(time.median, 4) for time in (before, after)]
    return found
