"""easycompress: compress a PyTorch model to a stated goal, and prove that it did."""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from easycompress.core.errors import BadInput, CannotCompress, EasyCompressError

if TYPE_CHECKING:
    from easycompress.api import Result, compress, load, plan
    from easycompress.estimation.run import estimate
    from easycompress.exploration.run import explore
    from easycompress.regression.run import check

__all__ = [
    "BadInput", "CannotCompress", "EasyCompressError", "Result", "check", "compress", "estimate", "explore", "load",
    "plan",
]  # fmt: skip

__version__ = "0.6.0"

# ONNX Runtime 1.29 and later send a model's file name, its hashes and more to their maker, on Linux too. They read this
# when they are imported, which nothing of easycompress does before this line.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_LAZY = dict.fromkeys(("Result", "compress", "load", "plan"), "easycompress.api") | {
    "check": "easycompress.regression.run",
    "estimate": "easycompress.estimation.run",
    "explore": "easycompress.exploration.run",
}
"""Where each name is that needs torch."""


def __getattr__(name: str) -> Any:  # noqa: ANN401 - module attributes by name
    """Import torch only when something that needs it is asked for."""
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)  # torch takes seconds to import
    raise AttributeError(f"module 'easycompress' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
