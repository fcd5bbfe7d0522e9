"""Graphs whose weights lie outside: named by their parameters in memory, in one data file beside the graph on disk."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto

from easycompress.core import large
from easycompress.core.files import new_file, write_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from typing import TypeAlias

INLINE_BYTES = 1024
"""Smaller tensors stay in the graph, where shape inference reads them."""

ALIGNMENT = 64
"""Where tensors begin in the data file: the width of a cache line."""

HALF_BYTES = (TensorProto.INT4, TensorProto.UINT4)

DATA = ".data"
"""What the data file's name adds to the graph's."""

LOCATION, OFFSET, LENGTH, TRANSPOSED = "location", "offset", "length", "transposed"
"""Keys of a tensor that lies outside. The last is our own, and never written: until a tensor has its place in a file,
its location is the name of the parameter that it holds."""

Values: TypeAlias = "Callable[[str], np.ndarray[Any, Any]]"
"""Returns the values of a parameter by its name."""


def is_outside(tensor: TensorProto) -> bool:
    """Tell whether a tensor's values aren't in the graph."""
    return bool(tensor.data_location == TensorProto.EXTERNAL)


def parameter_of(tensor: TensorProto) -> str | None:
    """Return the parameter that a tensor without a place holds; None for tensors whose values are in the graph."""
    return _entries(tensor).get(LOCATION) if is_outside(tensor) else None


def is_transposed(tensor: TensorProto) -> bool:
    """Tell whether a tensor without a place holds its parameter transposed."""
    return TRANSPOSED in _entries(tensor)


def bytes_in(tensor: TensorProto) -> int:
    """Return the bytes of a tensor's values, wherever they are."""
    if not is_outside(tensor):
        return len(tensor.raw_data)
    count = int(math.prod(tensor.dims))
    if tensor.data_type in HALF_BYTES:
        return -(-count // 2)
    return count * int(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)


def refer(tensor: TensorProto, parameter: str, *, transposed: bool) -> None:
    """Let a tensor name its parameter instead of holding it."""
    tensor.ClearField("raw_data")
    _describe(tensor, {LOCATION: parameter} | ({TRANSPOSED: "1"} if transposed else {}))


def named_tensor(name: str, kind: int, dims: Sequence[int], parameter: str) -> TensorProto:
    """Return a tensor of that type and shape that names a parameter; 4-bit values come two in a byte."""
    tensor = TensorProto(name=name, data_type=kind, dims=dims)
    refer(tensor, parameter, transposed=False)
    return tensor


def fill(tensor: TensorProto, values: Values) -> None:
    """Take the parameter's values into the graph."""
    raw = _bytes_of(tensor, values)
    del tensor.external_data[:]
    tensor.ClearField("data_location")  # even the default takes two bytes
    tensor.raw_data = raw.tobytes()


def write_graph(proto: onnx.ModelProto, path: Path, values: Values, *, apart: bool = False) -> Path:
    """Write a graph, which is changed, with the parameters that it names, atomically. Return `path`.

    One file, or, from core.large.LARGE_BYTES on or where `apart`, one with all larger tensors in `path` + DATA. Those
    are read and written one by one. Raises BadInput where the disk says no.
    """
    data = data_of(path)
    outside = sum(bytes_in(tensor) for tensor in proto.graph.initializer if is_outside(tensor))
    if not apart and proto.ByteSize() + outside < large.LARGE_BYTES:
        for tensor in proto.graph.initializer:
            if is_outside(tensor):
                fill(tensor, values)
        message = proto.SerializeToString(deterministic=True)
        onnx.checker.check_model(message)
        write_bytes(path, message)
        data.unlink(missing_ok=True)
        return path
    with new_file(data) as file:
        for tensor, offset in _places(proto):
            file.write(b"\0" * (offset - file.tell()))
            raw = _bytes_of(tensor, values) if is_outside(tensor) else np.frombuffer(tensor.raw_data, np.uint8)
            file.write(raw.data)
            _place(tensor, data.name, offset, raw.nbytes)
    write_bytes(path, proto.SerializeToString(deterministic=True))
    onnx.checker.check_model(str(path))
    return path


def describe_graph(proto: onnx.ModelProto, path: Path) -> int:
    """Write what `write_graph` writes apart, but for the data file; return the bytes that both files would take."""
    end = 0
    for tensor, offset in _places(proto):
        length = bytes_in(tensor)
        _place(tensor, data_of(path).name, offset, length)
        end = offset + length
    write_bytes(path, proto.SerializeToString(deterministic=True))
    return path.stat().st_size + end


def bytes_of(path: Path) -> int:
    """Return the bytes of a file, and of the data beside it where there is some."""
    data = data_of(path)
    return path.stat().st_size + (data.stat().st_size if data.exists() else 0)


def data_of(path: Path) -> Path:
    """Return where the data of a graph's file lies."""
    return path.with_name(path.name + DATA)


def copy_graph(source: Path, target: Path) -> None:
    """Copy a graph's file, and the data beside it, whose new name goes into the graph. Raises BadInput as writing."""
    data = data_of(source)
    if not data.exists():
        write_bytes(target, source.read_bytes())
        data_of(target).unlink(missing_ok=True)
        return
    proto = onnx.load(str(source), load_external_data=False)
    for tensor in proto.graph.initializer:
        if is_outside(tensor):
            _describe(tensor, _entries(tensor) | {LOCATION: data_of(target).name})
    with new_file(data_of(target)) as copy, data.open("rb") as file:
        while chunk := file.read(1 << 24):
            copy.write(chunk)
    write_bytes(target, proto.SerializeToString(deterministic=True))


def _places(proto: onnx.ModelProto) -> Iterator[tuple[TensorProto, int]]:
    """Yield every tensor for the data file with where it begins, in the order of the graph."""
    end = 0
    for tensor in proto.graph.initializer:
        length = bytes_in(tensor)
        if not is_outside(tensor) and length < INLINE_BYTES:
            continue
        begin = -(-end // ALIGNMENT) * ALIGNMENT
        yield tensor, begin
        end = begin + length


def _bytes_of(tensor: TensorProto, values: Values) -> np.ndarray[Any, Any]:
    """Return the parameter's values as the tensor orders them, flat bytes."""
    name = _entries(tensor)[LOCATION]
    array = values(name)
    flat = np.ascontiguousarray(array.T if is_transposed(tensor) else array).reshape(-1).view(np.uint8)
    if flat.nbytes != bytes_in(tensor):
        raise ValueError(f"{name} has {flat.nbytes} bytes, the graph's {bytes_in(tensor)}")
    return flat


def _entries(tensor: TensorProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in tensor.external_data}


def _place(tensor: TensorProto, name: str, offset: int, length: int) -> None:
    tensor.ClearField("raw_data")
    _describe(tensor, {LOCATION: name, OFFSET: str(offset), LENGTH: str(length)})


def _describe(tensor: TensorProto, entries: dict[str, str]) -> None:
    tensor.data_location = TensorProto.EXTERNAL
    del tensor.external_data[:]
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
