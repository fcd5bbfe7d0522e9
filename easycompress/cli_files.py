"""The commands on written files. They import late what they need, as help must be quick."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from easycompress.cli_flags import Json  # noqa: TC001 - typer reads annotations at run time
from easycompress.core.errors import BadInput
from easycompress.core.files import write_bytes

if TYPE_CHECKING:
    from easycompress.artifact.rows import TensorRow

PACKED = ".ecz"

NO_TENSORS = 2
"""How many of a packed file's rows, at the end, tell of its graph and its header."""


def inspect(
    file: Annotated[str, typer.Argument(metavar="FILE", help="a model.onnx or a model.ecz")],
    json_: Json = False,  # noqa: FBT002 - flags are booleans
) -> int:
    """Show what a file stores: per tensor its stored form, bits per weight and bytes."""
    from easycompress.report.terminal import Terminal  # noqa: PLC0415 - imports rich

    path = Path(file)
    rows = _rows(path)
    size = path.stat().st_size
    if json_:
        keys = ("name", "form", "shape", "bits_per_weight", "bytes")
        content = {
            "tensors": [{key: getattr(row, key) for key in keys} for row in rows],
            "file_bytes": size,
            "overhead_bytes": size - sum(row.bytes for row in rows),
        }
        sys.stdout.write(json.dumps(content, indent=2) + "\n")
    else:
        Terminal().inspect_view(rows, size)
    return 0


def unpack(
    file: Annotated[str, typer.Argument(metavar="FILE", help="a model.ecz")],
    out: Annotated[str, typer.Option("-o", "--out", help="the ONNX file to write; overwritten", show_default=False)],
) -> int:
    """Turn a packed file into an ONNX file that any ONNX Runtime runs."""
    from easycompress.artifact.unpack import read_unpacked  # noqa: PLC0415 - imports torch
    from easycompress.report import units  # noqa: PLC0415 - only here

    source, target = Path(file), Path(out)
    if source.resolve() == target.resolve():
        raise BadInput(f"-o {out}: is the packed file itself; give the ONNX file another name")
    written = read_unpacked(source).SerializeToString(deterministic=True)
    before = source.stat().st_size
    write_bytes(target, written)
    sys.stdout.write(f"{file}: {units.count(before)} bytes -> {out}: {units.count(len(written))} bytes\n")
    return 0


def _rows(path: Path) -> list[TensorRow]:
    """Return the tensors of a file of either kind."""
    if path.suffix == PACKED:
        from easycompress.artifact.container import ecz_rows  # noqa: PLC0415 - imports torch

        return ecz_rows(path)[:-NO_TENSORS]
    from easycompress.artifact.inspection import inspect_onnx  # noqa: PLC0415 - imports onnx
    from easycompress.artifact.session import constants_apart  # noqa: PLC0415 - imports onnx

    return inspect_onnx(path, constants_apart)
