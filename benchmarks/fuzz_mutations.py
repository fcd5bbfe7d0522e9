"""How the fuzzer damages a file: blind ones, ones that know the container, ones that know the graph.

Every mutation takes (data, generator, others) and returns other bytes. `SEALED` ones recompute all checksums of an .ecz
file, so that what lies behind them is reached: what they make may be whole and another model.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import onnx
import zstandard
from onnx import AttributeProto, TensorProto, helper

from easycompress.artifact.container import CRC, HEADER, MOST_GRAPH, _header
from easycompress.artifact.dictionary import DICTIONARY
from easycompress.artifact.stream import Source, known, unsqueeze, varint

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Mutation: TypeAlias = Callable[[bytes, np.random.Generator, Sequence[bytes]], bytes]

EDGES = (0, 1, 2, 3, 7, 8, 127, 128, 255, 256, 65535, 1 << 16, 1 << 20, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 40,
         (1 << 62) - 1, (1 << 63) - 1)  # fmt: skip
"""Numbers at which readers go wrong."""

BYTES = (0, 1, 127, 128, 255)

OPERATORS = ("Conv", "Gemm", "MatMul", "Add", "Mul", "Gather", "Reshape", "Split", "Cast", "Expand", "Tile", "Range",
             "ConstantOfShape", "ScatterElements", "Slice", "Transpose", "CumSum", "Mod", "BitShift", "Pad", "Resize",
             "Concat", "TopK", "GatherND", "LSTM", "Loop", "DequantizeLinear", "QuantizeLinear", "Einsum",
             "NoSuch")  # fmt: skip


def _whole(rng: np.random.Generator) -> int:
    return int(EDGES[rng.integers(len(EDGES))])


def flip_bits(data: bytes, rng: np.random.Generator, _: Sequence[bytes]) -> bytes:
    """Flip one to eight bits."""
    changed = bytearray(data)
    for place in rng.integers(0, 8 * len(data), int(rng.integers(1, 9))):
        changed[place // 8] ^= 1 << int(place % 8)
    return bytes(changed)


def set_bytes(data: bytes, rng: np.random.Generator, _: Sequence[bytes]) -> bytes:
    """Set one to four bytes to numbers that readers dislike."""
    changed = bytearray(data)
    for place in rng.integers(0, len(data), int(rng.integers(1, 5))):
        changed[place] = int(BYTES[rng.integers(len(BYTES))])
    return bytes(changed)


def truncate(data: bytes, rng: np.random.Generator, _: Sequence[bytes]) -> bytes:
    """Cut the end off."""
    return data[: int(rng.integers(0, len(data)))]


def splice(data: bytes, rng: np.random.Generator, others: Sequence[bytes]) -> bytes:
    """Leave out, double or replace a piece, also by one of another file."""
    begin, length = int(rng.integers(0, len(data))), int(rng.integers(1, 64))
    other = others[int(rng.integers(len(others)))] if rng.random() < 0.5 else data
    at = int(rng.integers(0, len(other)))
    piece = (b"", data[begin : begin + length] * 2, other[at : at + length])[int(rng.integers(3))]
    return data[:begin] + piece + data[begin + length :]


def lengths(data: bytes, rng: np.random.Generator, _: Sequence[bytes]) -> bytes:
    """Write a number at an edge, as a varint or in four bytes, over some place."""
    value = _whole(rng)
    piece = varint(value) if rng.random() < 0.6 else (value & 0xFFFFFFFF).to_bytes(4, "little")
    at = int(rng.integers(0, min(len(data), 64) if rng.random() < 0.3 else len(data)))
    return data[:at] + piece + data[at + len(piece) :]


BLIND: dict[str, Mutation] = {
    "bits": flip_bits, "bytes": set_bytes, "cut": truncate, "splice": splice, "lengths": lengths,
}  # fmt: skip


def _split(data: bytes) -> tuple[bytes, bytes]:
    """Return the graph's bytes, decompressed, and the payloads with their checksums."""
    length = HEADER.unpack_from(data)[3]
    frame = data[HEADER.size : HEADER.size + length]
    return unsqueeze(frame, MOST_GRAPH, DICTIONARY), data[HEADER.size + length :]


def _sealed(graph: bytes, rest: bytes) -> bytes:
    frame = zstandard.ZstdCompressor(level=1, dict_data=known(DICTIONARY)).compress(graph)
    return _header(frame + rest, frame) + frame + rest


def _directory(graph: bytes) -> tuple[onnx.ModelProto, list[int]]:
    source = Source(graph)
    skeleton = onnx.ModelProto.FromString(source.block())
    return skeleton, [source.whole() for _ in skeleton.graph.initializer]


def _joined(skeleton: onnx.ModelProto, sizes: Sequence[int]) -> bytes:
    body = skeleton.SerializeToString()
    return varint(len(body)) + body + b"".join(varint(size) for size in sizes)


def sealed_payload(data: bytes, rng: np.random.Generator, others: Sequence[bytes]) -> bytes:
    """Damage one tensor's payload, under right checksums and a right length."""
    graph, rest = _split(data)
    skeleton, sizes = _directory(graph)
    chosen = int(rng.choice(np.flatnonzero(sizes)))
    payloads, at = [], 0
    for size in sizes:
        if size:
            payloads.append(rest[at + CRC.size : at + CRC.size + size])
            at += CRC.size + size
        else:
            payloads.append(b"")
    kind = (flip_bits, set_bytes, splice, lengths, truncate)[int(rng.integers(5))]
    payloads[chosen] = kind(payloads[chosen], rng, [bytes(p) for p in payloads if p] + list(others[:2])) or b"\0"
    tail = b"".join(CRC.pack(zlib.crc32(p)) + p for p in payloads if p)
    return _sealed(_joined(skeleton, [len(p) for p in payloads]), tail)


def sealed_graph(data: bytes, rng: np.random.Generator, others: Sequence[bytes]) -> bytes:
    """Damage the decompressed graph and directory blindly, and seal it."""
    graph, rest = _split(data)
    kind = list(BLIND.values())[int(rng.integers(len(BLIND)))]
    return _sealed(kind(graph, rng, others) or b"\0", rest)


def sealed_directory(data: bytes, rng: np.random.Generator, _: Sequence[bytes]) -> bytes:
    """Say another length of a payload, or of none, or name the payloads in another order."""
    graph, rest = _split(data)
    skeleton, sizes = _directory(graph)
    at = int(rng.integers(len(sizes)))
    kind = int(rng.integers(3))
    if kind == 0:
        sizes[at] = max(0, sizes[at] + int(rng.integers(-9, 10)))
    elif kind == 1:
        sizes[at] = _whole(rng)
    else:
        rng.shuffle(sizes)
    return _sealed(_joined(skeleton, sizes), rest)


def sealed_skeleton(data: bytes, rng: np.random.Generator, _: Sequence[bytes]) -> bytes:
    """Edit the graph by its fields, and seal it."""
    graph, rest = _split(data)
    skeleton, sizes = _directory(graph)
    edit_graph(skeleton, rng)
    sizes = (sizes + [0] * len(skeleton.graph.initializer))[: len(skeleton.graph.initializer)]
    return _sealed(_joined(skeleton, sizes), rest)


def sealed_frame(data: bytes, rng: np.random.Generator, _: Sequence[bytes]) -> bytes:
    """Damage the compressed graph frame itself, its declared size among it, under right checksums."""
    length = HEADER.unpack_from(data)[3]
    frame, rest = data[HEADER.size : HEADER.size + length], data[HEADER.size + length :]
    changed = bytearray(frame)
    if rng.random() < 0.5:  # the frame's head says how much it holds
        for place in rng.integers(4, 14, 2):
            changed[int(place)] = int(rng.integers(256))
        frame = bytes(changed)
    else:
        frame = flip_bits(frame, rng, [])
    return _header(frame + rest, frame) + frame + rest


SEALED: dict[str, Mutation] = {
    "sealed payload": sealed_payload, "sealed graph": sealed_graph, "sealed directory": sealed_directory,
    "sealed skeleton": sealed_skeleton, "sealed frame": sealed_frame,
}  # fmt: skip


def edited(data: bytes, rng: np.random.Generator, _: Sequence[bytes]) -> bytes:
    """Edit an .onnx file by its fields, once to three times."""
    proto = onnx.ModelProto.FromString(data)
    for _again in range(int(rng.integers(1, 4))):
        edit_graph(proto, rng)
    return bytes(proto.SerializeToString())


def edit_graph(proto: onnx.ModelProto, rng: np.random.Generator) -> None:
    """Change one field of a model."""
    edits = (_edit_tensor, _edit_node, _edit_attribute, _edit_edges, _edit_model, _edit_outside, _grow)
    edits[int(rng.integers(len(edits)))](proto, rng)


def _one(items: Any, rng: np.random.Generator) -> Any:  # noqa: ANN401 - protobuf's lists
    return items[int(rng.integers(len(items)))]


def _edit_tensor(proto: onnx.ModelProto, rng: np.random.Generator) -> None:
    if not proto.graph.initializer:
        return
    tensor = _one(proto.graph.initializer, rng)
    kind = int(rng.integers(6))
    if kind == 0 and tensor.dims:
        tensor.dims[int(rng.integers(len(tensor.dims)))] = _whole(rng)
    elif kind == 1:
        tensor.dims.append(_whole(rng))
    elif kind == 2:
        tensor.data_type = int(rng.integers(0, 30))
    elif kind == 3:
        tensor.raw_data = flip_bits(tensor.raw_data, rng, []) if tensor.raw_data else b"\0"
    elif kind == 4:
        tensor.name = _one(proto.graph.initializer, rng).name
    else:
        tensor.raw_data = tensor.raw_data[: int(rng.integers(0, len(tensor.raw_data) + 1))]


def _edit_node(proto: onnx.ModelProto, rng: np.random.Generator) -> None:
    at = int(rng.integers(len(proto.graph.node)))
    node = proto.graph.node[at]
    kind = int(rng.integers(4))
    if kind == 0:
        node.op_type = str(_one(OPERATORS, rng))
    elif kind == 1:
        node.domain = str(_one(("", "com.microsoft", "ai.onnx.ml", "nobody"), rng))
    elif kind == 2:
        del proto.graph.node[at]
    else:
        proto.graph.node.add().CopyFrom(node)


def _edit_attribute(proto: onnx.ModelProto, rng: np.random.Generator) -> None:
    node = _one(proto.graph.node, rng)
    if not node.attribute or rng.random() < 0.2:
        name = str(_one(("axis", "axes", "perm", "to", "group", "pads", "strides", "kernel_shape", "value"), rng))
        value = _whole(rng) if rng.random() < 0.5 else [_whole(rng) for _ in range(int(rng.integers(1, 5)))]
        node.attribute.append(helper.make_attribute(name, value))
        return
    attribute = _one(node.attribute, rng)
    if attribute.ints:
        attribute.ints[int(rng.integers(len(attribute.ints)))] = _whole(rng) * (1 if rng.random() < 0.7 else -1)
    elif rng.random() < 0.3:
        attribute.type = int(_one(AttributeProto.AttributeType.values(), rng))
    else:
        attribute.i = _whole(rng) * (1 if rng.random() < 0.7 else -1)


def _edit_edges(proto: onnx.ModelProto, rng: np.random.Generator) -> None:
    names = [name for node in proto.graph.node for name in [*node.input, *node.output]] + [""]
    node = _one(proto.graph.node, rng)
    side = node.input if rng.random() < 0.7 else node.output
    kind = int(rng.integers(3))
    if kind == 0 and side:
        side[int(rng.integers(len(side)))] = str(_one(names, rng))
    elif kind == 1 and side:
        del side[int(rng.integers(len(side)))]
    else:
        side.append(str(_one(names, rng)))


def _edit_model(proto: onnx.ModelProto, rng: np.random.Generator) -> None:
    kind = int(rng.integers(4))
    if kind == 0 and proto.opset_import:
        _one(proto.opset_import, rng).version = _whole(rng)
    elif kind == 1:
        proto.ir_version = _whole(rng)
    else:
        value = _one(proto.graph.input if kind == 2 else proto.graph.output, rng)
        dimensions = value.type.tensor_type.shape.dim
        if dimensions:
            _one(dimensions, rng).dim_value = _whole(rng)
        value.type.tensor_type.elem_type = int(rng.integers(0, 25)) if rng.random() < 0.4 else TensorProto.FLOAT


def _edit_outside(proto: onnx.ModelProto, rng: np.random.Generator) -> None:
    tensor = _one(proto.graph.initializer, rng) if proto.graph.initializer else proto.graph.initializer.add()
    places = ("/etc/passwd", "../x", "apart.onnx.data", "no.data", "a/../../x", "", "./apart.onnx.data")
    del tensor.external_data[:]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=str(_one(places, rng)))
    for key in ("offset", "length"):
        if rng.random() < 0.7:
            tensor.external_data.add(key=key, value=str(_whole(rng) * (1 if rng.random() < 0.8 else -1)))


def _grow(proto: onnx.ModelProto, rng: np.random.Generator) -> None:
    """Add a constant that is huge when computed, and add it to a product's input."""
    shape = helper.make_tensor("grown_shape", TensorProto.INT64, [2], [_whole(rng), int(rng.integers(1, 9))])
    proto.graph.initializer.append(shape)
    kind = str(_one(("ConstantOfShape", "Expand", "Tile", "Range"), rng))
    inputs = {"ConstantOfShape": ["grown_shape"], "Expand": ["grown_one", "grown_shape"],
              "Tile": ["grown_row", "grown_shape"], "Range": ["grown_zero", "grown_many", "grown_step"]}  # fmt: skip
    for name, value in (
        ("grown_one", 1.0),
        ("grown_zero", 0.0),
        ("grown_step", 1.0),
        ("grown_many", float(_whole(rng))),
    ):
        proto.graph.initializer.append(helper.make_tensor(name, TensorProto.FLOAT, [], [value]))
    proto.graph.initializer.append(helper.make_tensor("grown_row", TensorProto.FLOAT, [1, 2], [1.0, 2.0]))
    proto.graph.node.insert(0, helper.make_node(kind, inputs[kind], ["grown"]))
    node = _one(proto.graph.node, rng)
    if node.input and rng.random() < 0.7:
        node.input[int(rng.integers(len(node.input)))] = "grown"


def mutations_for(suffix: str) -> dict[str, Mutation]:
    """Return the mutations of a kind of file by name."""
    return BLIND | (SEALED if suffix == ".ecz" else {"fields": edited})
