"""A packed file -> the graph that any ONNX Runtime runs. Anybody may have made the file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnx import checker

from easycompress.artifact.container import dense_graph, read_ecz
from easycompress.artifact.write import unpacked
from easycompress.core.errors import BadInput, one_line

if TYPE_CHECKING:
    from pathlib import Path

    import onnx


def read_unpacked(path: Path) -> onnx.ModelProto:
    """Return the self-decoding graph of an .ecz file. Raises BadInput as `read_ecz`, and for a graph that is none.

    A file can be whole and hold whatever its maker liked; its operators aren't run.
    """
    skeleton, codes = read_ecz(path)
    try:
        checker.check_model(dense_graph(skeleton, codes))
        return unpacked(skeleton, codes)
    except Exception as error:  # the checker's, the runtime's and a schema's errors share no base
        raise BadInput(f"{path}: holds no valid ONNX graph ({one_line(error)}); compress the model anew") from error
