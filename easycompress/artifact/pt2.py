"""A module as an exported program (.pt2): its graph and its weights, without its source and without a pickle."""

from __future__ import annotations

import copy
import inspect
import io
from typing import TYPE_CHECKING

import torch

from easycompress.core.errors import CannotCompress, one_line
from easycompress.core.files import write_bytes
from easycompress.core.inputs import answer, arguments, in_order, parts, repeated
from easycompress.core.quiet import quiet

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from torch import nn

    from easycompress.core.inputs import Inputs

PROGRAM = "model.pt2"
"""What the file is called in OUT."""

TOLERANCE = 1e-4
"""Largest difference relative to the largest answer: other kernels may run for a program."""

LOGGERS = ("torch.export", "torch._export", "torch")

CHECKED = 3
"""Samples that the written program is compared on: others in number than it was exported with."""


def write_pt2(model: nn.Module, example: Inputs, path: Path) -> Path:
    """Write `model`, in evaluation mode, with a dynamic batch, as torch.export.load reads it; return `path`.

    `example` is (2, ...). The parts of the file are plain tensors. What was written is loaded again and must give the
    module's answers. `model` isn't changed. Raises CannotCompress where torch can't export it.
    """
    plain = copy.deepcopy(model).eval()
    inputs = in_order(plain, example)
    positional, keywords = arguments(inputs)
    batch = torch.export.Dim.DYNAMIC
    shapes: Any = [{0: batch} for _ in parts(inputs)]
    by_name = dict(zip(keywords, shapes, strict=True)) if keywords else tuple(shapes)
    buffer = io.BytesIO()
    try:
        with quiet(*LOGGERS):
            program = torch.export.export(plain, positional, keywords, dynamic_shapes=_by_position(plain, by_name))
            torch.export.save(program, buffer)
            buffer.seek(0)
            again = torch.export.load(buffer).module()
            several = repeated(inputs, CHECKED)
            with torch.no_grad():
                before, after = answer(plain, several), answer(again, several)
    except Exception as error:  # an exporter fails in many ways
        raise CannotCompress(
            f"--also pt2: torch can't export this module ({one_line(error, 160)}); leave pt2 out"
        ) from error
    if before.shape != after.shape or (before - after).abs().max() > TOLERANCE * max(1.0, float(before.abs().max())):
        raise CannotCompress("--also pt2: the exported program answers otherwise than the module; leave pt2 out")
    return write_bytes(path, buffer.getvalue())


def _by_position(model: nn.Module, shapes: Any) -> Any:  # noqa: ANN401 - as torch.export takes it
    """Return dynamic shapes as a module takes them whose forward gathers its inputs by *args."""
    if not isinstance(shapes, tuple):
        return shapes
    kinds = {p.kind for p in inspect.signature(model.forward).parameters.values()}
    return (shapes,) if inspect.Parameter.VAR_POSITIONAL in kinds else shapes
