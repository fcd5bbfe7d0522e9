"""`model.ecz`: an ONNX graph whose tensors are entropy coded, for transport.

    "ECZ" version(1)  digest(8)  length of the graph frame(4)  crc32 of it(4)
    graph frame: zstandard, with DICTIONARY, of [length of the skeleton, skeleton (ONNX without data), directory]
    for each tensor: crc32(4) payload

Numbers in the header are little-endian; the digest is blake2b over everything but itself. The directory has one
whole number for each initializer, in order: the bytes of its payload, 0 where the skeleton holds it. Nothing is used
before the digest has been checked, and nothing is allocated that the file's own bytes don't vouch for, for a digest
proves integrity and not good faith.
"""

from __future__ import annotations

import hashlib
import math
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx
import zstandard
from google.protobuf.message import DecodeError
from onnx import TensorProto

from easycompress.artifact.claims import check_memory
from easycompress.artifact.coded import PLAIN, read_code, write_code
from easycompress.artifact.dictionary import DICTIONARY
from easycompress.artifact.rows import TensorRow
from easycompress.artifact.stream import Sink, Source, known, read_numbers, unsqueeze, varint, was_halved, write_numbers
from easycompress.codes.affine import Affine
from easycompress.codes.codebook import Codebook
from easycompress.codes.composed import Additive, Scaled
from easycompress.codes.half import Half
from easycompress.codes.hashed import Hashed
from easycompress.codes.lowrank import LowRank
from easycompress.codes.sparse import Sparse
from easycompress.core.errors import BadInput, CannotCompress
from easycompress.core.files import write_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from easycompress.artifact.stream import Kind
    from easycompress.codes.base import Code

MAGIC, VERSION = b"ECZ", 1
HEADER = struct.Struct("<3sB8sII")
CRC = struct.Struct("<I")

LEVEL = 22
"""zstandard's strongest: graphs are small."""

MOST_GRAPH = 1 << 26
"""Bytes of a graph without its data: 64 MB. Real ones have a hundredth of that."""

SMALL = 64
"""Tensors of up to so many bytes stay in the graph: a checksum and a length of their own would cost more."""

KINDS: dict[int, tuple[int, Kind, str]] = {
    TensorProto.FLOAT: (4, "float", "float32"),
    TensorProto.DOUBLE: (8, "float", "float64"),
    TensorProto.FLOAT16: (2, "float", "float16"),
    TensorProto.BFLOAT16: (2, "float", "bfloat16"),
    TensorProto.INT8: (1, "signed", "int8"),
    TensorProto.UINT8: (1, "unsigned", "uint8"),
    TensorProto.INT32: (4, "signed", "int32"),
    TensorProto.INT64: (8, "signed", "int64"),
}
"""Bytes a number, and the name, of the types that are taken out of the graph."""


@dataclass(frozen=True)
class _Parts:
    """A file taken apart, checksums verified: the graph's payloads by initializer, and the bytes of the graph frame."""

    skeleton: onnx.ModelProto
    payloads: dict[str, bytes]
    frame: int


def pack(skeleton: onnx.ModelProto, codes: dict[str, Code]) -> bytes:
    """Return the bytes of an .ecz file.

    `skeleton` is a float graph; each code belongs to the float32 initializer of its name, of the code's shape, whose
    data are replaced by it. Raises ValueError where there is none, CannotCompress where the graph alone is over 64 MB.
    """
    tensors = {tensor.name: tensor for tensor in skeleton.graph.initializer}
    for name, code in codes.items():
        tensor = tensors.get(name)
        if tensor is None or tensor.data_type != TensorProto.FLOAT or tuple(tensor.dims) != tuple(code.shape):
            raise ValueError(f"no float32 initializer {name!r} of shape {tuple(code.shape)} for its code")
    bare = onnx.ModelProto()
    bare.CopyFrom(skeleton)
    directory, payloads = b"", []
    for tensor in bare.graph.initializer:
        payload = _payload(tensor, codes.get(tensor.name))
        directory += varint(len(payload))
        if payload:
            payloads.append(payload)
            _clear(tensor)
    body = bare.SerializeToString(deterministic=True)
    graph = varint(len(body)) + body + directory
    if len(graph) > MOST_GRAPH:
        raise CannotCompress(
            f"the graph without its weights takes {len(graph)} bytes, over {MOST_GRAPH}: too large for .ecz"
        )
    frame = zstandard.ZstdCompressor(level=LEVEL, dict_data=known(DICTIONARY)).compress(graph)
    tail = b"".join([frame, *(CRC.pack(zlib.crc32(payload)) + payload for payload in payloads)])
    return _header(tail, frame) + tail


def write_ecz(path: Path, skeleton: onnx.ModelProto, codes: dict[str, Code]) -> None:
    """Write the .ecz file atomically; see `pack`."""
    write_bytes(path, pack(skeleton, codes))


def read_ecz(path: Path) -> tuple[onnx.ModelProto, dict[str, Code]]:
    """Return the skeleton and the codes of an .ecz file. Coded initializers have no data: see `dense_graph`.

    Raises BadInput, in one line, on a file that is missing, damaged in any bit, cut off, of another version, or lying
    about what it holds.
    """
    parts, codes = _take_apart(path), {}
    tensors = {tensor.name: tensor for tensor in parts.skeleton.graph.initializer}
    check_memory(path, ((tensors[name].dims, len(payload)) for name, payload in parts.payloads.items()))
    for name, payload in parts.payloads.items():
        try:
            code = _read_payload(tensors[name], payload)
        except (ValueError, RuntimeError, OverflowError, MemoryError) as error:
            raise _damaged(path, f"tensor {name}: {error}") from error
        if code is not None:
            codes[name] = code
    return parts.skeleton, codes


def dense_graph(skeleton: onnx.ModelProto, codes: dict[str, Code]) -> onnx.ModelProto:
    """Return the graph with every coded initializer's dense values filled in."""
    result = onnx.ModelProto()
    result.CopyFrom(skeleton)
    for tensor in result.graph.initializer:
        if tensor.name in codes:
            _clear(tensor)
            tensor.raw_data = codes[tensor.name].dense().detach().cpu().numpy().astype("<f4").tobytes()
    return result


def ecz_rows(path: Path) -> list[TensorRow]:
    """Return one row a stored tensor, largest first, then "graph" and "header and checksums": together, the file.

    Raises BadInput as `read_ecz` does.
    """
    parts = _take_apart(path)
    skeleton, codes = read_ecz(path)
    tensors = {tensor.name: tensor for tensor in skeleton.graph.initializer}
    rows = []
    for name, payload in parts.payloads.items():
        tensor = tensors[name]
        form = _words(codes[name]) if name in codes else _plain_words(tensor, payload)
        weights = max(math.prod(tensor.dims), 1)
        rows.append(TensorRow(name, form, tuple(tensor.dims), 8 * len(payload) / weights, len(payload)))
    rows.sort(key=lambda row: -row.bytes)
    sums = HEADER.size + CRC.size * len(rows)
    rows.append(TensorRow("graph", "zstandard", (), 8.0 * parts.frame, parts.frame))
    rows.append(TensorRow("header and checksums", "plain", (), 8.0 * sums, sums))
    return rows


def _payload(tensor: TensorProto, code: Code | None) -> bytes:
    """Return what replaces an initializer's data, empty where they stay in the graph."""
    sink = Sink()
    if code is not None:
        write_code(sink, code)
        return sink.finish()
    if tensor.data_type not in KINDS or len(tensor.raw_data) <= SMALL:
        return b""
    size, kind, _ = KINDS[tensor.data_type]
    sink.byte(PLAIN)
    write_numbers(sink, tensor.raw_data, size, tuple(tensor.dims), kind)
    return sink.finish()


def _read_payload(tensor: TensorProto, payload: bytes) -> Code | None:
    """Return the tensor's code; or, where it has none, fill in its data and return None."""
    shape = tuple(tensor.dims)
    source = Source(payload)
    if any(size < 0 for size in shape) or tensor.data_type not in KINDS:
        raise ValueError("an impossible shape or type")
    source.claim(math.prod(max(size, 1) for size in shape))
    form = source.byte()
    if form == PLAIN:
        size, kind, _ = KINDS[tensor.data_type]
        tensor.raw_data = read_numbers(source, size, shape, kind)
        source.finish()
        return None
    if tensor.data_type != TensorProto.FLOAT:
        raise ValueError("a code of a tensor that isn't float32")
    code = read_code(source, shape, form)
    source.finish()
    return code


def _clear(tensor: TensorProto) -> None:
    for field in ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data"):
        tensor.ClearField(field)


def _header(tail: bytes, frame: bytes) -> bytes:
    length, crc = len(frame), zlib.crc32(frame)
    digest = _digest(HEADER.pack(MAGIC, VERSION, bytes(8), length, crc), tail)
    return HEADER.pack(MAGIC, VERSION, digest, length, crc)


def _digest(header: bytes, tail: bytes) -> bytes:
    return hashlib.blake2b(header + tail, digest_size=8).digest()


def _damaged(path: Path, what: str) -> BadInput:
    return BadInput(f"{path}: damaged or not an .ecz file ({what}); copy it again")


def _take_apart(path: Path) -> _Parts:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path}: can't be read ({error.strerror or error})") from error
    if data[: len(MAGIC)] != MAGIC or len(data) < HEADER.size:
        raise _damaged(path, "no header")
    _, version, digest, length, crc = HEADER.unpack_from(data)
    if version != VERSION:
        raise BadInput(f"{path}: written by format {version}, this version reads {VERSION}; update easycompress")
    tail = data[HEADER.size :]
    whole = _digest(HEADER.pack(MAGIC, VERSION, bytes(8), length, crc), tail) == digest
    frame = tail[:length]
    if zlib.crc32(frame) != crc:
        raise _damaged(path, "graph" if length <= len(tail) else "cut off")
    try:
        return _split(frame, tail[length:], whole=whole)
    except (ValueError, DecodeError) as error:
        raise _damaged(path, str(error)) from error


def _split(frame: bytes, tail: bytes, *, whole: bool) -> _Parts:
    """Return the parts; where the digest was wrong (not `whole`), raise ValueError that names the damaged one."""
    graph = Source(unsqueeze(frame, MOST_GRAPH, DICTIONARY))
    skeleton = onnx.ModelProto.FromString(graph.block())
    tensors, source, payloads = skeleton.graph.initializer, Source(tail), {}
    for tensor in tensors:
        length = graph.whole()
        if not length:
            continue
        crc, payload = CRC.unpack(source.raw(CRC.size))[0], source.raw(length)
        if zlib.crc32(payload) != crc:
            raise ValueError(f"tensor {tensor.name}")
        payloads[tensor.name] = payload
    if not whole:
        raise ValueError("header")
    graph.end()
    source.end()
    names = {tensor.name for tensor in tensors if isinstance(tensor.name, str)}  # bytes where they aren't UTF-8
    if len(names) != len(tensors) or not skeleton.graph.node:
        raise ValueError("graph")
    return _Parts(skeleton, payloads, len(frame))


def _words(code: Code) -> str:  # noqa: PLR0911 - one a form
    """Return a code's stored form in words."""
    if isinstance(code, Additive):
        return " + ".join(_words(part) for part in code.parts)
    if isinstance(code, Scaled):
        return f"{_words(code.code)}, scaled per channel"
    if isinstance(code, Codebook):
        return f"codebook of {len(code.entries)}"
    if isinstance(code, Sparse):
        return f"sparse, {len(code.positions)} nonzeros"
    if isinstance(code, LowRank):
        return f"low rank {code.rank}"
    if isinstance(code, Hashed):
        return f"hashed, {len(code.values)} values"
    if isinstance(code, Half):
        return "float16"
    return "affine int8, per channel" if isinstance(code, Affine) and len(code.scale) > 1 else "affine int8"


def _plain_words(tensor: TensorProto, payload: bytes) -> str:
    name = KINDS[tensor.data_type][2]
    return f"{name} as float16" if was_halved(payload[1]) else name
