"""ONNX files opened in a process of their own: on some of them ONNX Runtime crashes, and the process with it."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

OPEN = """
import sys, onnxruntime
onnxruntime.set_default_logger_severity(4)
onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
"""


def opened(path: Path, seconds: float) -> subprocess.CompletedProcess[str]:
    """Open a file. The return code is 0, positive where ONNX Runtime refused it, negative where it crashed.

    Raises subprocess.TimeoutExpired after so many `seconds`.
    """
    return subprocess.run(  # noqa: S603 - this interpreter, and a path
        [sys.executable, "-c", OPEN, str(path)], capture_output=True, text=True, timeout=seconds, check=False
    )
