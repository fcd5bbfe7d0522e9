"""A module, its file passes and its codes become files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch

from easycompress.artifact.onnx_export import export
from easycompress.artifact.slim import slim
from easycompress.core.errors import CannotCompress
from easycompress.core.files import write_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from torch import Tensor, nn

TOLERANCE = 1e-3
"""Largest difference between the float file and PyTorch, relative to the largest output, that is only rounding."""


def write_model(
    model: nn.Module,
    example: Tensor,
    path: Path,
    passes: Sequence[Callable[[onnx.ModelProto], onnx.ModelProto]] = (),
) -> onnx.ModelProto:
    """Export a module, apply the passes, slim the graph and write it to `path` atomically. Returns what was written."""
    proto = export(model, example)
    for file_pass in passes:
        proto = file_pass(proto)
    result = slim(proto)
    onnx.checker.check_model(result)
    write_bytes(path, result.SerializeToString())
    return result


def check_float_file(model: nn.Module, example: Tensor, answers: np.ndarray[Any, Any]) -> None:
    """Raise CannotCompress when a float file's `answers` for `example` are not the module's own."""
    with torch.no_grad():
        expected = model(example).numpy()
    if expected.shape != answers.shape:
        raise CannotCompress(
            f"the exported file answers in shape {answers.shape}, the model in {expected.shape}: "
            "its forward probably depends on values that export freezes"
        )
    scale = float(np.abs(expected).max()) or 1.0
    difference = float(np.abs(answers - expected).max())
    if not difference <= TOLERANCE * scale:
        raise CannotCompress(
            f"the exported file doesn't answer as the model does (off by {difference:.3g}, outputs reach {scale:.3g}): "
            "its forward probably depends on values that export freezes"
        )
