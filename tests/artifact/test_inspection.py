from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING

import nets
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from easycompress.artifact.attach import attach_codes
from easycompress.artifact.inspection import SHARED, inspect_onnx, read_onnx
from easycompress.artifact.slim import slim
from easycompress.artifact.write import write_model
from easycompress.codes.affine import Affine, quantize_per_channel
from easycompress.codes.codebook import Codebook
from easycompress.codes.composed import Additive, Scaled
from easycompress.codes.hashed import Hashed
from easycompress.codes.lowrank import LowRank
from easycompress.codes.sparse import Sparse, sparse_from
from easycompress.core.errors import BadInput
from easycompress.quantization.settings import StaticInt8
from easycompress.quantization.technique import StaticQuantizer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from easycompress.artifact.rows import TensorRow
    from easycompress.codes.base import Code


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("files")
    model = nets.make(nets.LeNet)
    work = nets.task(model)
    write_model(model, nets.images(2), folder / "float.onnx")
    applied = StaticQuantizer().apply(copy.deepcopy(model), StaticInt8(), nets.context(work))
    assert applied.file_pass is not None
    write_model(applied.model, nets.images(2), folder / "int8.onnx", [applied.file_pass])
    return {name: folder / f"{name}.onnx" for name in ("float", "int8")}


def stored(path: Path) -> dict[str, onnx.TensorProto]:
    return {tensor.name: tensor for tensor in onnx.load(str(path)).graph.initializer}


@pytest.mark.parametrize("kind", ["float", "int8"])
def test_rows_cover_every_stored_byte_once(files: dict[str, Path], kind: str) -> None:
    rows = inspect_onnx(files[kind])
    total = sum(row.bytes for row in rows)
    assert total == sum(len(tensor.raw_data) for tensor in stored(files[kind]).values())
    assert total <= files[kind].stat().st_size
    assert len({row.name for row in rows}) == len(rows)
    assert {row.name for row in rows} <= stored(files[kind]).keys()
    assert [row.bytes for row in rows] == sorted((row.bytes for row in rows), reverse=True)
    for row in rows:
        assert row.weights == math.prod(row.shape)
        assert row.bits_per_weight == pytest.approx(8 * row.bytes / row.weights)


def test_float_weights_take_32_bits(files: dict[str, Path]) -> None:
    weights = [row for row in inspect_onnx(files["float"]) if len(row.shape) > 1]
    assert {row.form for row in weights} == {"float32"}
    assert {row.bits_per_weight for row in weights} == {32.0}
    assert sorted(row.shape for row in weights) == [(6, 1, 3, 3), (10, 20), (12, 6, 3, 3), (20, 12)]
    assert all(row.name == "conv2.weight" for row in weights if row.shape == (12, 6, 3, 3))


def test_int8_weights_count_their_scales(files: dict[str, Path]) -> None:
    weights = [row for row in inspect_onnx(files["int8"]) if len(row.shape) > 1]
    assert {row.form for row in weights} == {"affine int8, per channel"}
    big = next(row for row in weights if row.shape == (12, 6, 3, 3))
    values, scales = 12 * 54, 4 * 12
    assert values + scales <= big.bytes <= values + scales + 12  # zero points
    assert 8 < big.bits_per_weight < 9


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"none\.onnx: can't be read \(No such file"):
        read_onnx(tmp_path / "none.onnx")


@pytest.mark.parametrize("data", [b"", b"no model at all", b"\x00" * 100])
def test_what_is_no_onnx_file_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    with pytest.raises(BadInput, match=r"model\.onnx: not a readable ONNX file"):
        read_onnx(path)


def test_a_truncated_file_is_refused(files: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(files["float"].read_bytes()[:-100])
    with pytest.raises(BadInput, match=r"model\.onnx: not a readable ONNX file"):
        read_onnx(path)


SHAPE = (24, 20, 3, 3)


def book(k: int, rare: float = 1.0, shape: tuple[int, ...] = SHAPE) -> Codebook:
    indices = torch.randint(k, shape) * (torch.rand(shape) < rare)
    return Codebook(indices.to(torch.uint8), torch.randn(k))


def sparse(count: int, shape: tuple[int, ...] = SHAPE) -> Sparse:
    keep = torch.zeros(math.prod(shape), dtype=torch.bool)
    keep[torch.randperm(len(keep))[:count]] = True
    return sparse_from(torch.randn(shape), keep.reshape(shape))


def inspected(codes: dict[str, Code], folder: Path, *, slimmed: bool = False) -> dict[str, TensorRow]:
    """Write a graph that adds x to each coded weight; return its rows by name, after checking that no byte is lost."""
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", name], [f"{name} out"]) for name in codes],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info(f"{name} out", TensorProto.FLOAT, None) for name in codes],
        [numpy_helper.from_array(code.dense().numpy(), name) for name, code in codes.items()],
    )
    plain = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    proto = attach_codes(plain, codes)
    proto = slim(proto) if slimmed else proto
    path = folder / "coded.onnx"
    onnx.save(proto, str(path))
    rows = inspect_onnx(path)
    assert sum(row.bytes for row in rows) == sum(len(t.raw_data) for t in proto.graph.initializer)
    assert len({row.name for row in rows}) == len(rows)
    return {row.name: row for row in rows}


@pytest.mark.parametrize(
    ("make", "form"),
    [
        (lambda: book(2), "codebook k=2 (planes)"),
        (lambda: book(16), "codebook k=16 (planes)"),
        (lambda: book(256), "codebook k=256 (planes)"),
        (lambda: book(5, 0.5), "codebook k=5 (mask)"),
        (lambda: book(4, 0.02), "codebook k=4 (gaps)"),
        (lambda: book(1), "one value"),
        (lambda: sparse(432), "sparse 10 %"),
        (lambda: sparse(134), "sparse 3.1 %"),
        (lambda: sparse(0), "one value"),
        (lambda: Additive((book(2), sparse(54))), "codebook k=2 (planes) + sparse 1.2 %"),
        (
            lambda: Additive((book(2), book(5, 0.5), sparse(54))),
            "codebook k=2 (planes) + codebook k=5 (mask) + sparse 1",
        ),
        (lambda: Hashed(torch.randn(300), SHAPE), "hashed 300"),
        (lambda: LowRank(torch.randn(24, 10).half(), torch.randn(10, 180).half(), SHAPE), "low-rank r=10"),
        (lambda: LowRank(torch.randn(72, 4).half(), torch.randn(4, 60).half(), SHAPE, "scheme-2"), "low-rank r=4"),
        (lambda: quantize_per_channel(torch.randn(SHAPE)), "affine int8, per channel"),
        (lambda: Affine(torch.ones(SHAPE).to(torch.int8), torch.ones(1)), "affine int8"),
        (lambda: Scaled(book(4), torch.randn(24)), "codebook k=4 (planes), scaled"),
        (lambda: Scaled(book(4), torch.randn(24).half().float()), "codebook k=4 (planes), scaled"),
        (lambda: Hashed(torch.randn(300).half(), SHAPE), "hashed 300"),
    ],
)
@pytest.mark.parametrize("slimmed", [False, True])
def test_a_coded_weight_is_one_row(make: Callable[[], Code], form: str, slimmed: bool, tmp_path: Path) -> None:  # noqa: FBT001
    code = make()
    rows = inspected({"layer.weight": code}, tmp_path, slimmed=slimmed)
    (row,) = rows.values()
    assert slimmed or row.name == "layer.weight"
    assert row.form.startswith(form)
    assert row.shape == SHAPE
    assert code.bits() / 16 < row.bytes <= code.bits() / 8 + 250  # float32 values may be exact in float16
    assert row.bits_per_weight == pytest.approx(8 * row.bytes / math.prod(SHAPE))


def test_joint_bytes_are_divided_as_they_are_used(tmp_path: Path) -> None:
    codes: dict[str, Code] = {
        "a": book(4),
        "b": book(4, shape=(8, 20, 3, 3)),
        "c": book(16),
        "d": Additive((book(2), sparse(400))),
        "e": Additive((book(2), sparse(100))),
        "f": sparse(200, (24, 20, 9)),
    }
    rows = inspected(codes, tmp_path)
    assert set(rows) == {*codes, SHARED}
    for name, code in codes.items():
        assert rows[name].bytes == pytest.approx(code.bits() / 8, abs=60, rel=0.06)
        assert rows[name].shape == code.shape
    assert rows["d"].form == "codebook k=2 (planes) + sparse 9.3 %"
    assert rows["e"].form == "codebook k=2 (planes) + sparse 2.3 %"
    assert rows["d"].bytes > rows["e"].bytes + 2 * 300
    assert 0 < rows[SHARED].bytes < 300
    assert rows[SHARED].form == "constants"


def test_the_rest_of_a_coded_file_has_its_plain_rows(tmp_path: Path) -> None:
    model = nets.make(nets.LeNet)
    fc1, conv2 = model.get_parameter("fc1.weight"), model.get_parameter("conv2.weight")
    codes: dict[str, Code] = {
        "fc1.weight": book(4, shape=tuple(fc1.shape)),
        "conv2.weight": book(2, shape=(12, 6, 3, 3)),
    }
    with torch.no_grad():
        fc1.copy_(codes["fc1.weight"].dense())
        conv2.copy_(codes["conv2.weight"].dense())
    path = tmp_path / "model.onnx"
    write_model(model, nets.images(2), path, [lambda plain: attach_codes(plain, codes)])
    rows = inspect_onnx(path)
    assert sum(row.bytes for row in rows) == sum(len(tensor.raw_data) for tensor in stored(path).values())
    forms = {(row.form, row.shape) for row in rows}
    assert {("codebook k=4 (planes)", (20, 12)), ("codebook k=2 (planes)", (12, 6, 3, 3))} <= forms
    assert {("float32", (6, 1, 3, 3)), ("float32", (10, 20)), ("float32", (20,))} <= forms


def test_a_weight_stored_for_its_transpose_has_its_own_shape(tmp_path: Path) -> None:
    dense = book(4, shape=(30, 20))
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "val_3"], ["y"])],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 20])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 30])],
        [numpy_helper.from_array(np.ascontiguousarray(dense.dense().numpy().T), "val_3")],
    )
    plain = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(attach_codes(plain, {"fc.weight": dense}), str(tmp_path / "m.onnx"))
    (row,) = inspect_onnx(tmp_path / "m.onnx")
    assert (row.name, row.shape, row.form) == ("fc.weight", (30, 20), "codebook k=4 (planes)")


def test_operators_that_do_not_run_are_one_clear_error(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Reshape", ["w", "shape"], ["v"]), helper.make_node("Add", ["x", "v"], ["y"])],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.ones(6, np.float32), "w"), numpy_helper.from_array(np.array([4, 5]), "shape")],
    )
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), str(path))
    with pytest.raises(BadInput, match=r"m\.onnx: the operators that decode its weights don't run: ") as caught:
        inspect_onnx(path)
    assert "\n" not in str(caught.value)
