"""ONNX graphs opened and run in a process of their own: on some ONNX Runtime crashes, and the process with it.

The child doesn't import from the working folder, and may allocate no more than it is told.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

OPEN = """
import sys
sys.path[:] = [folder for folder in sys.path if folder]  # "" is the working folder, which may be anybody's
import json, numpy, onnxruntime, resource
path, allowed, feeds, answers = sys.argv[1:]
with open("/proc/self/statm") as file:
    used = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + int(allowed),) * 2)
options = onnxruntime.SessionOptions()
options.log_severity_level = 4
onnxruntime.set_default_logger_severity(4)
session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
if feeds:
    with numpy.load(feeds, allow_pickle=False) as stored:
        names = json.loads(bytes(stored["names"]))
        inputs = [{name: stored[f"{p} {i}"] for i, name in enumerate(each)} for p, each in enumerate(names)]
    made = {}
    for place, feed in enumerate(inputs):
        try:
            values = session.run(None, feed)
            if not all(isinstance(value, numpy.ndarray) and value.dtype != object for value in values):
                raise TypeError("an output that is no tensor of numbers")
        except Exception as error:
            sys.stderr.write(str(error))
            sys.exit(RAN)
        made.update((f"{place} {index}", value) for index, value in enumerate(values))
    numpy.savez(answers, **made)
"""

REFUSED, RAN = 1, 4
"""Exit codes where ONNX Runtime doesn't open a graph, and where it opens but doesn't run it."""

SPARE_BYTES = 2 << 30
"""What ONNX Runtime may allocate beyond COPIES times a file: its threads' stacks, activations of a few samples."""

COPIES = 4
"""Weights as read, as a session's own, laid out for its kernels, and decoded."""

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Opened:
    """What came of it: `code` 0, REFUSED, RAN or minus a signal; `text` of the error; the answers to each feed."""

    code: int
    text: str
    answers: tuple[tuple[Array, ...], ...] = ()


def opened(
    model: Path | bytes,
    seconds: float,
    feeds: Sequence[Mapping[str, Array]] = (),
    *,
    data_bytes: int = 0,
) -> Opened:
    """Open a file, or a graph's bytes, and run it on each of `feeds`, all in a new process.

    It may allocate SPARE_BYTES and COPIES times the graph and the `data_bytes` beside it. Raises
    subprocess.TimeoutExpired after so many `seconds`.
    """
    with tempfile.TemporaryDirectory(prefix="easycompress-") as folder:
        path = Path(folder) / "graph.onnx" if isinstance(model, bytes) else model
        if isinstance(model, bytes):
            path.write_bytes(model)
        asked, made = Path(folder) / "feeds.npz", Path(folder) / "answers.npz"
        if feeds:
            names = json.dumps([list(feed) for feed in feeds]).encode()
            arrays: dict[str, Any] = {"names": np.frombuffer(names, np.uint8)}
            for place, feed in enumerate(feeds):
                arrays |= {f"{place} {index}": value for index, value in enumerate(feed.values())}
            np.savez(asked, **arrays)
        allowed = SPARE_BYTES + COPIES * (path.stat().st_size + data_bytes)
        run = subprocess.run(  # noqa: S603 - this interpreter, and paths
            [sys.executable, "-c", OPEN.replace("RAN", str(RAN)), str(path), str(allowed),
             str(asked) if feeds else "", str(made)],
            capture_output=True, text=True, errors="replace", timeout=seconds, check=False,
        )  # fmt: skip
        if run.returncode or not feeds:
            return Opened(run.returncode, run.stderr)
        with np.load(made, allow_pickle=False) as stored:
            counts = [sum(key.startswith(f"{place} ") for key in stored) for place in range(len(feeds))]
            answers = tuple(tuple(stored[f"{p} {i}"] for i in range(count)) for p, count in enumerate(counts))
        return Opened(0, "", answers)


def last_line(text: str) -> str:
    """Return the end of what a process wrote before it gave up, without ONNX Runtime's place in its source."""
    last = next((line for line in reversed(text.splitlines()) if line.strip()), "no reason given")
    return (last.rpartition("] : ")[2] or last).strip()
