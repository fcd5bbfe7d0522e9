from __future__ import annotations

import math
import struct
import tracemalloc
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from easycompress.artifact.container import (
    CRC,
    HEADER,
    MOST_GRAPH,
    _header,
    dense_graph,
    ecz_rows,
    pack,
    read_ecz,
    write_ecz,
)
from easycompress.artifact.dictionary import DICTIONARY
from easycompress.artifact.stream import Sink, Source, known, read_numbers, varint, write_numbers
from easycompress.codes.affine import quantize_per_channel
from easycompress.codes.codebook import Codebook
from easycompress.codes.composed import Additive, Scaled
from easycompress.codes.entropy import code_length
from easycompress.codes.hashed import Hashed
from easycompress.codes.lowrank import LowRank
from easycompress.codes.sparse import sparse_from
from easycompress.core.errors import BadInput, CannotCompress

if TYPE_CHECKING:
    from pathlib import Path

    from easycompress.codes.base import Code

    Array = np.ndarray[Any, Any]

SHAPE = (6, 4, 3, 3)
WIDTH = 72


def codebook(shape: tuple[int, ...], k: int = 3, seed: int = 0) -> Codebook:
    rng = np.random.default_rng(seed)
    indices = rng.choice(k, shape, p=np.array([0.8, *[0.2 / (k - 1)] * (k - 1)]))
    return Codebook(torch.from_numpy(indices.astype(np.uint8)), torch.from_numpy(rng.normal(size=k).astype(np.float32)))


def sparse(shape: tuple[int, ...], share: float = 0.1) -> Code:
    weight = torch.randn(shape)
    return sparse_from(weight, torch.rand(shape) < share)


def lowrank(shape: tuple[int, ...], rank: int) -> LowRank:
    rows, columns = shape[0], math.prod(shape[1:])
    return LowRank(torch.randn(rows, rank).half(), torch.randn(rank, columns).half(), shape)


def codes() -> dict[str, Code]:
    torch.manual_seed(0)
    n, c, h, w = SHAPE
    scheme2 = LowRank(torch.randn(n * h, 2).half(), torch.randn(2, c * w).half(), SHAPE, "scheme-2")
    tiny = Codebook(torch.zeros(SHAPE, dtype=torch.uint8), torch.tensor([-0.0]))
    halves = Codebook(codebook(SHAPE).indices, torch.tensor([0.0, 0.5, -0.5]))
    return {
        "affine": quantize_per_channel(torch.randn(SHAPE)),
        "codebook": codebook(SHAPE),
        "codebook of float16 entries": halves,
        "codebook of one": tiny,
        "codebook of 256": codebook(SHAPE, 256),
        "codebook of a vector": codebook((40,)),
        "codebook of nothing": codebook((0, 5)),
        "sparse": sparse(SHAPE),
        "sparse without nonzeros": sparse(SHAPE, 0),
        "dense sparse": sparse(SHAPE, 1.1),
        "low rank": lowrank(SHAPE, 3),
        "low rank 0": lowrank(SHAPE, 0),
        "low rank scheme 2": scheme2,
        "hashed": Hashed(torch.randn(11), SHAPE, 1234567),
        "additive": Additive((codebook(SHAPE), sparse(SHAPE))),
        "scaled": Scaled(codebook(SHAPE), torch.randn(SHAPE[0])),
        "scaled sum": Scaled(Additive((lowrank(SHAPE, 1), sparse(SHAPE), codebook(SHAPE))), torch.randn(SHAPE[0])),
    }


FORMS = codes()


def graph(weight: Array, bias: Array, *more: TensorProto) -> onnx.ModelProto:
    """y = relu(x @ w.T + b); `more` initializers hang loose."""
    nodes = [
        helper.make_node("Flatten", ["x"], ["f"]),
        helper.make_node("Gemm", ["f", "w", "b"], ["h"], transB=1),
        helper.make_node("Relu", ["h"], ["y"]),
    ]
    value = helper.make_tensor_value_info
    made = helper.make_graph(
        nodes,
        "g",
        [value("x", TensorProto.FLOAT, ["n", weight.shape[1]])],
        [value("y", TensorProto.FLOAT, ["n", weight.shape[0]])],
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(bias, "b"), *more],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def small() -> tuple[onnx.ModelProto, dict[str, Code]]:
    code = codebook((8, 12))
    return graph(code.dense().numpy(), np.linspace(-1, 1, 8, dtype=np.float32)), {"w": code}


def coded(code: Code) -> tuple[onnx.ModelProto, dict[str, Code]]:
    model = small()[0]
    model.graph.initializer.append(numpy_helper.from_array(code.dense().numpy(), "c"))
    return model, {"c": code}


def there_and_back(
    tmp_path: Path, model: onnx.ModelProto, held: dict[str, Code]
) -> tuple[onnx.ModelProto, dict[str, Code]]:
    path = tmp_path / "m.ecz"
    write_ecz(path, model, held)
    return read_ecz(path)


def sealed(tmp_path: Path, graph_bytes: bytes, *payloads: bytes) -> Path:
    """A file that lies under right checksums."""
    frame = zstandard.ZstdCompressor(level=3, dict_data=known(DICTIONARY)).compress(graph_bytes)
    return resealed(tmp_path, frame, b"".join(CRC.pack(zlib.crc32(p)) + p for p in payloads))


def resealed(tmp_path: Path, frame: bytes, rest: bytes) -> Path:
    path = tmp_path / "lie.ecz"
    path.write_bytes(_header(frame + rest, frame) + frame + rest)
    return path


def skeleton_bytes(*dims: int, data_type: int = TensorProto.FLOAT) -> bytes:
    model = small()[0]
    del model.graph.initializer[:]
    model.graph.initializer.append(TensorProto(name="c", dims=list(dims), data_type=data_type))
    body: bytes = model.SerializeToString()
    return varint(len(body)) + body


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_code_comes_back_to_the_bit(tmp_path: Path, form: str) -> None:
    code = FORMS[form]
    skeleton, back = there_and_back(tmp_path, *coded(code))
    assert back.keys() == {"c"}
    assert type(back["c"]) is type(code)
    assert back["c"].shape == code.shape
    assert back["c"].dense().numpy().tobytes() == code.dense().numpy().tobytes()
    before, after = code.arrays(), back["c"].arrays()
    assert before.keys() == after.keys()
    assert all(before[name].numpy().tobytes() == after[name].numpy().tobytes() for name in before)
    assert back["c"].meta() == code.meta()
    assert next(t for t in skeleton.graph.initializer if t.name == "c").raw_data == b""


PLAIN = {
    "float32": np.random.default_rng(0).normal(size=(20, 30)).astype(np.float32),
    "float32 that float16 holds": np.arange(-300, 300, dtype=np.float32).reshape(20, 30) / 8,
    "odd float32": np.tile(np.array([np.nan, -0.0, np.inf, -np.inf, 1e-42, 3.4e38, 65504, 65520], np.float32), 40),
    "a NaN with a payload": np.frombuffer(struct.pack("<I", 0x7FC12345) * 40, np.float32),
    "constant": np.full((50, 60), 0.1, np.float32),
    "periodic": np.tile(np.random.default_rng(1).normal(size=37).astype(np.float32), 90),
    "large": np.random.default_rng(2).normal(size=(100, 700)).astype(np.float32),
    "float16": np.random.default_rng(3).normal(size=100).astype(np.float16),
    "float64": np.random.default_rng(4).normal(size=100),
    "int8": np.random.default_rng(5).normal(size=(30, 40), scale=9).astype(np.int8),
    "uint8": np.random.default_rng(6).integers(0, 256, (30, 40)).astype(np.uint8),
    "int32": np.random.default_rng(7).integers(-5, 5, (30, 40)).astype(np.int32),
    "int64": np.arange(-50, 50),
    "bool": np.random.default_rng(8).random(200) < 0.5,
    "scalar": np.array(2.5, np.float32),
    "empty": np.zeros((0, 7), np.float32),
}


@pytest.mark.parametrize("kind", PLAIN)
def test_what_has_no_code_comes_back_to_the_bit(tmp_path: Path, kind: str) -> None:
    model, held = small()
    model.graph.initializer.append(numpy_helper.from_array(PLAIN[kind], "p"))
    skeleton, back = there_and_back(tmp_path, model, held)
    assert dense_graph(skeleton, back) == model
    assert len((tmp_path / "m.ecz").read_bytes()) <= len(pack(*small())) + PLAIN[kind].nbytes + 64


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([1, 2, 4, 8]), st.sampled_from(["float", "signed", "unsigned"]))
def test_any_numbers_come_back(data: bytes, size: int, kind: Any) -> None:
    data = data[: len(data) // size * size]
    sink = Sink()
    write_numbers(sink, data, size, (len(data) // size,), kind)
    assert read_numbers(Source(sink.finish()), size, (len(data) // size,), kind) == data


def test_the_dense_graph_runs_as_before(tmp_path: Path) -> None:
    model, held = small()
    dense = dense_graph(*there_and_back(tmp_path, model, held))
    assert dense == model
    x = {"x": np.random.default_rng(0).normal(size=(5, 12)).astype(np.float32)}
    answers = [onnxruntime.InferenceSession(m.SerializeToString()).run(None, x)[0] for m in (model, dense)]
    assert np.array_equal(*answers)


def test_nothing_of_the_callers_changes(tmp_path: Path) -> None:
    model, held = small()
    before = model.SerializeToString()
    skeleton, back = there_and_back(tmp_path, model, held)
    bare = skeleton.SerializeToString()
    dense_graph(skeleton, back)
    assert model.SerializeToString() == before
    assert skeleton.SerializeToString() == bare


def test_equal_models_give_equal_bytes() -> None:
    assert pack(*small()) == pack(*small())


def big() -> tuple[onnx.ModelProto, dict[str, Code], float]:
    rng = np.random.default_rng(0)
    code = codebook((300, 784), 9)
    first = np.random.default_rng(1).permutation(300)  # a layer with rows of all kinds
    code = Codebook(code.indices[first], code.entries)
    values = rng.normal(size=(64, 300)).astype(np.float32)
    model = graph(code.dense().numpy(), np.zeros(300, np.float32), numpy_helper.from_array(values, "v"))
    ideal = code_length(code.indices.numpy(), 9) / 8 + values.nbytes
    return model, {"w": code}, ideal


def test_at_most_two_percent_and_a_kilobyte_over_the_ideal() -> None:
    model, held, ideal = big()
    assert len(pack(model, held)) <= 1.02 * ideal + 1024


def test_a_small_graph_costs_little() -> None:
    model, held = small()
    ideal = code_length(codebook((8, 12)).indices.numpy(), 3) / 8
    assert len(pack(model, held)) <= ideal + 250


def test_rows_account_for_every_byte(tmp_path: Path) -> None:
    model, _ = small()
    held: dict[str, Code] = {}
    for name, code in FORMS.items():
        model.graph.initializer.append(numpy_helper.from_array(code.dense().numpy(), name))
        held[name] = code
    for name, array in PLAIN.items():
        model.graph.initializer.append(numpy_helper.from_array(array, f"plain {name}"))
    path = tmp_path / "m.ecz"
    write_ecz(path, model, held)
    rows = ecz_rows(path)
    assert sum(row.bytes for row in rows) == path.stat().st_size
    assert [row.name for row in rows[-2:]] == ["graph", "header and checksums"]
    tensors = {row.name: row for row in rows[:-2]}
    assert tensors.keys() >= held.keys()
    forms = {name: row.form for name, row in tensors.items()}
    assert forms["affine"] == "affine int8, per channel"
    assert forms["codebook of 256"] == "codebook of 256"
    assert forms["sparse without nonzeros"] == "sparse, 0 nonzeros"
    assert forms["low rank"] == "low rank 3"
    assert forms["hashed"] == "hashed, 11 values"
    assert forms["scaled"] == "codebook of 3, scaled per channel"
    assert forms["additive"].startswith("codebook of 3 + sparse, ")
    assert forms["plain float32"] == "float32"
    assert forms["plain float32 that float16 holds"] == "float32 as float16"
    assert forms["plain int8"] == "int8"
    weights = math.prod(SHAPE)
    assert tensors["codebook"].shape == SHAPE
    assert tensors["codebook"].bits_per_weight == 8 * tensors["codebook"].bytes / weights
    assert [row.bytes for row in rows[:-2]] == sorted((row.bytes for row in rows[:-2]), reverse=True)


def test_every_flipped_bit_is_found(tmp_path: Path) -> None:
    path = tmp_path / "m.ecz"
    write_ecz(path, *small())
    data = path.read_bytes()
    texts = set()
    for place in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(damaged)
        with pytest.raises(BadInput) as caught:
            read_ecz(path)
        texts.add(str(caught.value))
    versions = {f"{path}: written by format {1 ^ 1 << b}, this version reads 1; update easycompress" for b in range(8)}
    whats = {"no header", "header", "graph", "cut off", "tensor w"}
    assert texts == versions | {f"{path}: damaged or not an .ecz file ({what}); copy it again" for what in whats}


def test_every_cut_is_found(tmp_path: Path) -> None:
    path = tmp_path / "m.ecz"
    write_ecz(path, *small())
    data = path.read_bytes()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(BadInput, match=r"damaged or not an \.ecz file \(.+\); copy it again$"):
            read_ecz(path)
    path.write_bytes(data + b"\0")
    with pytest.raises(BadInput, match=r"damaged or not an \.ecz file \(header\); copy it again$"):
        ecz_rows(path)


def test_the_damaged_tensor_is_named(tmp_path: Path) -> None:
    path = tmp_path / "m.ecz"
    write_ecz(path, *coded(FORMS["sparse"]))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(BadInput, match=r"m\.ecz: damaged or not an \.ecz file \(tensor c\); copy it again$"):
        read_ecz(path)


def test_a_missing_file_and_a_foreign_one(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"none\.ecz: can't be read \(No such file or directory\)$"):
        read_ecz(tmp_path / "none.ecz")
    path = tmp_path / "m.ecz"
    path.write_bytes(small()[0].SerializeToString())
    with pytest.raises(BadInput, match=r"m\.ecz: damaged or not an \.ecz file \(no header\); copy it again$"):
        read_ecz(path)


def test_another_version_says_so(tmp_path: Path) -> None:
    path = tmp_path / "m.ecz"
    data = bytearray(pack(*small()))
    data[3] = 2
    path.write_bytes(data)
    with pytest.raises(BadInput, match=r"m\.ecz: written by format 2, this version reads 1; update easycompress$"):
        read_ecz(path)


CODEBOOK, SPARSE, LOW_RANK, HASHED, ADDITIVE, SCALED = 2, 3, 4, 5, 6, 7
ENTRY = b"\0" + bytes(4)
HUGE = varint(2**40)

LIES: dict[str, tuple[tuple[int, ...], bytes]] = {
    "a huge shape": ((2**20, 2**20), bytes([CODEBOOK, 1]) + ENTRY + b"\0"),
    "a huge shape with an empty axis": ((0, 2**62), bytes([CODEBOOK, 1]) + ENTRY + b"\0"),
    "a negative shape": ((-5, 4), bytes([CODEBOOK, 1]) + ENTRY + b"\0"),
    "more weights than bytes can hold": ((2**10, 2**11), bytes([CODEBOOK, 1]) + ENTRY + b"\0"),
    "a huge codebook": ((4, 4), bytes([CODEBOOK]) + HUGE + ENTRY + b"\0"),
    "a codebook of 257": ((4, 4), bytes([CODEBOOK]) + varint(257) + b"\0" + bytes(4 * 257) + b"\0"),
    "a codebook of none": ((4, 4), bytes([CODEBOOK, 0, 0, 0])),
    "a huge block": ((4, 4), bytes([CODEBOOK, 2]) + b"\0" + bytes(8) + HUGE),
    "a number without end": ((4, 4), bytes([CODEBOOK]) + b"\xff" * 30),
    "a huge rank": ((4, 4), bytes([LOW_RANK, 0]) + HUGE),
    "a matrix view of a vector": ((4,), bytes([LOW_RANK, 0, 0, 0, 0])),
    "an unknown matrix view": ((4, 4), bytes([LOW_RANK, 9, 0, 0, 0])),
    "huge hashed values": ((4, 4), bytes([HASHED, 0]) + HUGE),
    "no hashed values": ((4, 4), bytes([HASHED, 0, 0, 0])),
    "an impossible seed": ((4, 4), bytes([HASHED]) + HUGE + bytes([1]) + ENTRY),
    "a thousand parts": ((4, 4), bytes([ADDITIVE]) + varint(1000) + (bytes([CODEBOOK, 1]) + ENTRY + b"\0") * 1000),
    "a sum of nothing": ((4, 4), bytes([ADDITIVE, 0])),
    "sums of sums of sums": ((4, 4), bytes([ADDITIVE, 1] * 5000)),
    "sums of many sums": ((4, 4), bytes([ADDITIVE, 16]) + bytes([ADDITIVE, 2] + [SPARSE, 0, 0] * 2) * 16),
    "scales of a lone number": ((), bytes([SCALED]) + ENTRY + bytes([CODEBOOK, 1]) + ENTRY + b"\0"),
    "int8 scales of a lone number": ((), bytes([1, 1, 0]) + ENTRY),
    "an unknown form": ((4, 4), bytes([99])),
    "an unknown way of numbers": ((4, 4), bytes([0, 3]) + bytes(64)),
    "too few numbers": ((4, 4), bytes([0, 0]) + bytes(63)),
    "numbers that are a bomb": ((4, 4), bytes([0, 2, 40]) + zstandard.compress(bytes(10**8), 1)[:40]),
    "bytes left over": ((4, 4), bytes([0, 0]) + bytes(64) + b"\x01"),
    "nothing": ((4, 4), b""),
}


@pytest.mark.parametrize("lie", LIES)
def test_lies_under_right_checksums_are_refused_without_much_memory(tmp_path: Path, lie: str) -> None:
    dims, payload = LIES[lie]
    path = sealed(tmp_path, skeleton_bytes(*dims) + varint(len(payload) or 2**40), payload)
    tracemalloc.start()
    with pytest.raises(BadInput, match=r"damaged or not an \.ecz file \(.+\); copy it again$"):
        read_ecz(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6


def test_lying_graphs_are_refused(tmp_path: Path) -> None:
    bomb = zstandard.ZstdCompressor(dict_data=known(DICTIONARY)).compress(bytes(MOST_GRAPH + 1))
    skeleton, payload = skeleton_bytes(4, 4), bytes([0, 0]) + bytes(64)
    twice = small()[0]
    twice.graph.initializer.append(twice.graph.initializer[0])
    body = twice.SerializeToString()
    paths = {
        "compressed bytes that say to be more than they can be": lambda: resealed(tmp_path, bomb, b""),
        "compressed bytes that can't be read": lambda: resealed(tmp_path, b"nonsense", b""),
        "a tensor ends early": lambda: sealed(tmp_path, varint(10**9) + bytes(20)),
        "Error parsing message": lambda: sealed(tmp_path, varint(20) + b"\xff" * 20),
        "bytes left over": lambda: sealed(tmp_path, skeleton + varint(66) + b"\1", payload),
        "graph": lambda: sealed(tmp_path, varint(len(body)) + body + b"\0\0\0"),
        "tensor c: an impossible shape or type": lambda: sealed(
            tmp_path, skeleton_bytes(4, 4, data_type=TensorProto.STRING) + varint(66), payload
        ),
        "tensor c: a code of a tensor that isn't float32": lambda: sealed(
            tmp_path, skeleton_bytes(4, 4, data_type=TensorProto.INT8) + varint(2), bytes([CODEBOOK, 1])
        ),
    }
    for text, make in paths.items():
        with pytest.raises(BadInput, match=rf"damaged or not an \.ecz file \({text}"):
            read_ecz(make())
    with pytest.raises(BadInput, match="bytes left over"):
        read_ecz(sealed(tmp_path, skeleton + varint(66), payload, payload))
    read_ecz(sealed(tmp_path, skeleton + varint(66), payload))  # the same without a lie


def test_changed_payloads_under_right_checksums_never_crash(tmp_path: Path) -> None:
    model, held = small()
    for name in ("affine", "additive", "hashed", "low rank scheme 2"):
        model.graph.initializer.append(numpy_helper.from_array(FORMS[name].dense().numpy(), name))
        held[name] = FORMS[name]
    data = pack(model, held)
    length = HEADER.unpack_from(data)[3]
    frame, rest = data[HEADER.size : HEADER.size + length], data[HEADER.size + length :]
    path = tmp_path / "m.ecz"
    path.write_bytes(data)
    sizes = {row.name: row.bytes for row in ecz_rows(path)}
    rng, read, begin = np.random.default_rng(0), 0, 0
    for size in (sizes[tensor.name] for tensor in model.graph.initializer if tensor.name in sizes):
        for place in range(begin + CRC.size, begin + CRC.size + size):
            changed = bytearray(rest)
            changed[place] ^= int(rng.integers(1, 256))
            changed[begin : begin + CRC.size] = CRC.pack(zlib.crc32(bytes(changed[begin + CRC.size :][:size])))
            try:
                skeleton, back = read_ecz(resealed(tmp_path, frame, bytes(changed)))
            except BadInput:
                continue
            read += 1
            assert dense_graph(skeleton, back).graph.initializer[0].dims == model.graph.initializer[0].dims
        begin += CRC.size + size
    assert read > 0, "a changed number is no damage that structure could tell"


@pytest.mark.parametrize("lie", ["absent", "shape", "type"])
def test_a_code_needs_its_initializer(lie: str) -> None:
    model, held = small()
    if lie == "absent":
        held["v"] = held.pop("w")
    elif lie == "shape":
        held["w"] = codebook((12, 8))
    else:
        model.graph.initializer[0].data_type = TensorProto.INT32
    with pytest.raises(ValueError, match=r"^no float32 initializer '[vw]' of shape \(\d+, \d+\) for its code$"):
        pack(model, held)


def test_a_graph_without_end_is_refused() -> None:
    model, held = small()
    model.doc_string = "x" * (MOST_GRAPH + 1)
    with pytest.raises(
        CannotCompress, match=r"^the graph without its weights takes \d+ bytes, over 67108864: too large"
    ):
        pack(model, held)


def test_a_huge_constant_tensor_is_read_again(tmp_path: Path) -> None:
    code = Codebook(torch.zeros((2000, 2000), dtype=torch.uint8), torch.zeros(1))
    _, back = there_and_back(tmp_path, *coded(code))
    assert torch.equal(back["c"].dense(), code.dense())
    assert (tmp_path / "m.ecz").stat().st_size < 600


def test_the_dictionary_is_a_part_of_format_1() -> None:
    assert zlib.crc32(DICTIONARY) == 2563045393
