"""What `--also` asks for: files beside the compressed model's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from easycompress.artifact.pretrained import is_pretrained
from easycompress.artifact.pt2 import PROGRAM, write_pt2
from easycompress.core.errors import BadInput, CannotCompress

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from easycompress.core.inputs import Inputs

FORMS = ("pt2", "hf")

SOURCELESS = (".pt2", ".onnx")
"""Models that came without their source: only a program of its own builds the result again."""


def parse_also(also: str | None, model: nn.Module) -> frozenset[str]:
    """Return which of FORMS `pt2,hf` names. Raises BadInput: another name, `hf` of a model that has none."""
    asked = frozenset(part.strip() for part in (also or "").split(",") if part.strip())
    unknown = sorted(asked - set(FORMS))
    if unknown:
        raise BadInput(f"--also {unknown[0]}: not a form; write pt2 (an exported program), hf (a folder), or both")
    if "hf" in asked and not any(is_pretrained(module) for module in model.modules()):
        raise BadInput(f"--also hf: {type(model).__name__} has no save_pretrained; leave hf out, or write pt2")
    return asked


def write_also(
    also: str | None, source: str, rebuilt: Callable[[], nn.Module], model: nn.Module, example: Inputs, out: Path
) -> str:
    """Write OUT/model.pt2 where it was asked for, or where `source`, the model's path, has no source code.

    Returns a note where torch can't export the result: hours of work aren't given up for it. The folder of `hf` is
    written for every pretrained model anyway.
    """
    (out / PROGRAM).unlink(missing_ok=True)
    if "pt2" not in parse_also(also, model) and Path(source).suffix not in SOURCELESS:
        return ""
    try:
        write_pt2(rebuilt(), example, out / PROGRAM)
    except CannotCompress as error:
        return f"no {PROGRAM}: {error}"
    return ""
