from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING

import nets
import onnx
import pytest

from easycompress.artifact.inspection import inspect_onnx, read_onnx
from easycompress.artifact.write import write_model
from easycompress.core.errors import BadInput
from easycompress.quantization.settings import StaticInt8
from easycompress.quantization.technique import StaticQuantizer

if TYPE_CHECKING:
    from pathlib import Path


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
