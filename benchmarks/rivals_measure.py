"""What is measured of every file, a rival's or ours alike: bytes, the paired drop on the test split, paired latency."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch

from benchmarks.rivals_tasks import BATCHES, test_split
from easycompress.artifact.slim import slim
from easycompress.core.inputs import bundled
from easycompress.measure.latency import time_files
from easycompress.measure.statistics import tango_upper

THREADS = (1, 2)

ROUNDS = {"lenet5": 3, "resnet20": 3, "minilm": 2}
"""Fresh sessions a latency; each has at least five alternating blocks of twenty runs a file."""


def answers(path: Path, inputs: dict[str, np.ndarray[Any, Any]], batch: int = 250) -> np.ndarray[Any, Any]:
    """Return a file's scores (N, classes), from stock ONNX Runtime."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    taken = [value.name for value in session.get_inputs()]
    known = set(taken) <= set(inputs)  # an exporter may have named them otherwise, in their order
    names = {name: name for name in taken} if known else dict(zip(taken, inputs, strict=True))
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


def latency(model: str, folder: Path, paths: list[Path]) -> list[dict[str, Any]]:
    """Return of each file its milliseconds [float, file] by threads and batch size, all in the same alternating blocks.

    `others` is how many cores the machine's other processes kept busy meanwhile.
    """
    inputs, _ = test_split(folder)
    tensors = {name: torch.from_numpy(values[:64]) for name, values in inputs.items()}
    example = bundled(tensors) if len(tensors) > 1 else next(iter(tensors.values()))
    ms: list[dict[str, list[float]]] = [{} for _ in paths]
    paths = [with_our_names(path, list(inputs)) for path in paths]
    begin, foreign = time.monotonic(), _foreign_seconds()
    for threads in THREADS:
        for batch in BATCHES[model]:
            plain, *times = time_files([folder / "plain.onnx", *paths], example, batch, threads, ROUNDS[model])
            for found, measured in zip(ms, times, strict=True):
                found[f"{threads} threads, batch {batch}"] = [round(t.median, 4) for t in (plain, measured)]
    others = round((_foreign_seconds() - foreign) / (time.monotonic() - begin), 2)
    return [{"others": others, "seconds": round(time.monotonic() - begin, 1), "ms": found} for found in ms]


def with_our_names(path: Path, ours: list[str]) -> Path:
    """Return a file whose inputs are called `ours`: itself, or a copy beside it where an exporter renamed them."""
    model = onnx.load(path)
    taken = [value.name for value in model.graph.input]
    if set(taken) <= set(ours):
        return path
    names = dict(zip(taken, ours, strict=True))
    for value in model.graph.input:
        value.name = names[value.name]
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
    renamed = path.with_name(f"{path.stem}-renamed.onnx")
    onnx.save(model, renamed)
    return renamed


def _foreign_seconds() -> float:
    """Return the processor seconds of all processes but this one since the machine began, by Linux's count."""
    user, nice, system = map(int, Path("/proc/stat").read_text(encoding="utf-8").split()[1:4])
    own = os.times()
    return (user + nice + system) / os.sysconf("SC_CLK_TCK") - own.user - own.system
