"""What an ONNX file says about its tensors, checked before anything is allocated or opened for it."""

from __future__ import annotations

import math
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import onnx
from onnx import TensorProto

from easycompress.core.errors import BadInput, one_line

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_ELEMENTS = 1 << 40
"""Elements of a tensor, and the largest of its dimensions: no file is as large."""

BITS = {
    TensorProto.INT4: 4,
    TensorProto.UINT4: 4,
    TensorProto.FLOAT4E2M1: 4,
    **{getattr(TensorProto, name): 2 for name in ("INT2", "UINT2") if hasattr(TensorProto, name)},
}
"""Bits a number of the types of which several share a byte."""

TYPED = {
    "float_data": (TensorProto.FLOAT,),
    "double_data": (TensorProto.DOUBLE,),
    "int64_data": (TensorProto.INT64,),
    "uint64_data": (TensorProto.UINT32, TensorProto.UINT64),
    "string_data": (TensorProto.STRING,),
}
"""The fields that hold a tensor's numbers one by one, with their types; `int32_data` holds the others'."""


def read_checked(path: Path) -> tuple[onnx.ModelProto, int]:
    """Return a file's graph without the data beside it, and the bytes of those; nothing of it is opened or run.

    Raises BadInput: no ONNX file, or one that says untruths about its tensors (see `check_tensors`).
    """
    try:
        proto = onnx.load(str(path), load_external_data=False)
    except OSError as error:
        raise BadInput(f"{path}: can't be read ({error.strerror or error})") from error
    except Exception as error:  # protobuf's errors share no base
        raise BadInput(f"{path}: not a readable ONNX file ({one_line(error, 120)}); export it again") from error
    if not proto.graph.node:
        raise BadInput(f"{path}: not a readable ONNX file (it holds no graph); export it again")
    if not all(isinstance(name, str) for name in _names(proto.graph)):  # bytes where they aren't UTF-8
        raise BadInput(f"{path}: not a readable ONNX file (a name that is no text); export it again")
    return proto, check_tensors(proto, path)


def _names(graph: onnx.GraphProto) -> Iterator[object]:
    yield from (value.name for value in [*graph.initializer, *graph.input, *graph.output])
    for node in graph.node:
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
        yield from (attribute.name for attribute in node.attribute)


def read_outside(proto: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    """Take into a checked graph the data that lie beside its file."""
    try:
        onnx.load_external_data_for_model(proto, str(path.parent))
    except Exception as error:  # the checker's and the disk's errors share no base
        raise BadInput(f"{path}: its data can't be read ({one_line(error, 120)}); export it again") from error
    return proto


def check_tensors(proto: onnx.ModelProto, path: Path) -> int:
    """Return the bytes of all tensors that lie in other files, having checked every tensor.

    Raises BadInput where one has other data than its shape and type need, or lies outside the folder of `path`, behind
    a symbolic link, or beyond its file's end.
    """
    total = 0
    for tensor in _tensors(proto.graph, proto.functions):
        try:
            outside = tensor.data_location == TensorProto.EXTERNAL
            total += _outside(tensor, path.parent) if outside else _inside(tensor)
        except ValueError as error:
            name = one_line(ValueError(tensor.name), 60) or "without a name"
            raise BadInput(f"{path}: tensor {name} {error}; export the model again") from error
    return total


def _tensors(graph: onnx.GraphProto, functions: Any) -> Iterator[TensorProto]:  # noqa: ANN401 - protobuf's list
    """Yield every tensor of a graph, of the bodies in it and of its functions."""
    waiting: list[Any] = [graph, *functions]
    while waiting:
        part = waiting.pop()
        for tensor in getattr(part, "initializer", ()):
            yield tensor
        for tensor in getattr(part, "sparse_initializer", ()):
            yield tensor.values
            yield tensor.indices
        for node in part.node:
            for attribute in node.attribute:
                waiting += [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]
                yield from attribute.tensors
                if attribute.HasField("t"):
                    yield attribute.t
                sparse = [*attribute.sparse_tensors]
                sparse += [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []
                for tensor in sparse:
                    yield tensor.values
                    yield tensor.indices


def declared_bytes(tensor: TensorProto) -> int:
    """Return the bytes that a tensor's shape and type say. Raises ValueError for an impossible one."""
    if any(size < 0 for size in tensor.dims) or math.prod(max(size, 1) for size in tensor.dims) > MOST_ELEMENTS:
        raise ValueError(f"has the impossible shape {tuple(tensor.dims)}"[:80])
    count = int(math.prod(tensor.dims))
    if tensor.data_type in BITS:
        return -(-count * BITS[tensor.data_type] // 8)
    try:
        return count * int(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"is of the unknown type {tensor.data_type}") from error


def _inside(tensor: TensorProto) -> int:
    needed, count = declared_bytes(tensor), int(math.prod(tensor.dims))
    if tensor.HasField("raw_data"):
        if len(tensor.raw_data) != needed:
            raise ValueError(f"holds {len(tensor.raw_data)} bytes, its shape and type need {needed}")
        return 0
    field = next((name for name, kinds in TYPED.items() if tensor.data_type in kinds), "int32_data")
    held = len(getattr(tensor, field))
    if tensor.data_type in (TensorProto.COMPLEX64, TensorProto.COMPLEX128):
        held = len(tensor.float_data) // 2 + len(tensor.double_data) // 2
    if held != (needed if tensor.data_type in BITS else count):
        raise ValueError(f"holds {held} numbers, its shape needs {count}")
    return 0


def _outside(tensor: TensorProto, folder: Path) -> int:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    if not all(isinstance(text, str) for pair in entries.items() for text in pair):  # bytes where they aren't UTF-8
        raise ValueError("lies in a place that is no text")
    location = entries.get("location", "")
    parts = PurePosixPath(location.replace("\\", "/"))
    if "\0" in location or not parts.parts or parts.is_absolute() or ".." in parts.parts or ":" in parts.parts[0]:
        raise ValueError(f"lies in {location[:80]!r}, outside the model's folder")
    file = folder
    for part in parts.parts:
        file /= part
        if file.is_symlink():
            raise ValueError(f"lies behind the symbolic link {location[:80]!r}; copy the file itself there")
    if not file.is_file():
        raise ValueError(f"lies in {location[:80]!r}, which isn't there")
    needed, size = declared_bytes(tensor), file.stat().st_size
    offset, length = (_whole(entries.get(key, default)) for key, default in (("offset", "0"), ("length", str(needed))))
    if length != needed:
        raise ValueError(f"says to have {length} bytes, its shape and type need {needed}")
    if offset + length > size:
        raise ValueError(f"ends at byte {offset + length} of {location[:80]!r}, which has {size}")
    return length


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 18:  # noqa: PLR2004 - below 2^63
        raise ValueError(f"has the offset or length {text[:40]!r}, no whole number")
    return int(text)
