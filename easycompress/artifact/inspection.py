"""What a written file stores: tensor by tensor, its stored form, bits per weight and bytes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto

from easycompress.artifact.rows import TensorRow
from easycompress.core.errors import BadInput

if TYPE_CHECKING:
    from pathlib import Path

FORMS = {
    TensorProto.FLOAT: "float32",
    TensorProto.FLOAT16: "float16",
    TensorProto.INT64: "int64",
    TensorProto.INT32: "int32",
    TensorProto.INT8: "int8",
    TensorProto.UINT8: "uint8",
}


def read_onnx(path: Path) -> onnx.ModelProto:
    """Read an ONNX file. Raises BadInput when it is missing or no ONNX file."""
    try:
        proto = onnx.load(str(path))
    except OSError as error:
        raise BadInput(f"{path}: can't be read ({error.strerror or error})") from error
    except (DecodeError, ValueError) as error:
        raise BadInput(f"{path}: not a readable ONNX file") from error
    if not proto.graph.node:
        raise BadInput(f"{path}: not a readable ONNX file (it holds no graph)")
    return proto


def inspect_onnx(path: Path) -> list[TensorRow]:
    """Return one row a stored tensor, largest first. Scales and zero points count to the weights that they decode."""
    proto = read_onnx(path)
    tensors = {tensor.name: tensor for tensor in proto.graph.initializer}
    helpers: dict[str, list[str]] = {}
    for node in proto.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in tensors:
            helpers[node.input[0]] = [name for name in node.input[1:] if name in tensors]
    shared = {name for names in helpers.values() for name in names}
    rows = []
    counted: set[str] = set()
    for name, tensor in tensors.items():
        if name in shared:
            continue
        size = _bytes(tensor)
        form = FORMS.get(tensor.data_type, TensorProto.DataType.Name(tensor.data_type).lower())
        if name in helpers:
            form = f"affine {form}" + (", per channel" if _per_channel(tensors, helpers[name]) else "")
            fresh = [h for h in helpers[name] if h not in counted]  # a zero point may serve many weights
            counted.update(fresh)
            size += sum(_bytes(tensors[h]) for h in fresh)
        count = math.prod(tensor.dims)
        rows.append(TensorRow(name, form, tuple(tensor.dims), 8 * size / max(count, 1), size))
    rest = [tensors[name] for name in shared - counted]
    rows.extend(TensorRow(t.name, "scale or zero point", tuple(t.dims), 8.0 * _bytes(t), _bytes(t)) for t in rest)
    return sorted(rows, key=lambda row: -row.bytes)


def _bytes(tensor: TensorProto) -> int:
    return len(tensor.raw_data) or int(onnx.numpy_helper.to_array(tensor).nbytes)


def _per_channel(tensors: dict[str, TensorProto], names: list[str]) -> bool:
    return bool(names) and math.prod(tensors[names[0]].dims) > 1
