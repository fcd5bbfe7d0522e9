from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import nets
import numpy as np
import onnx
import pytest
import torch
from torch import nn

from easycompress.artifact.fold import fold_checked
from easycompress.artifact.slim import slim
from easycompress.artifact.write import write_model
from easycompress.core.errors import CannotCompress
from easycompress.core.task import Split
from easycompress.measure import latency
from easycompress.measure.compute import macs
from easycompress.measure.energy import estimate
from easycompress.measure.files import measure_pair, objective_of, params
from easycompress.measure.runtime import Runtime, scores_of
from easycompress.metrics import METRICS
from easycompress.quantization.settings import StaticInt8
from easycompress.quantization.technique import StaticQuantizer

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return BatchNormed in float32 and in int8."""
    folder = tmp_path_factory.mktemp("files")
    work = nets.task(nets.make(nets.BatchNormed))
    write_model(work.model, nets.images(2), folder / "float.onnx")
    applied = StaticQuantizer().apply(copy.deepcopy(work.model), StaticInt8(), nets.context(work))
    assert applied.file_pass is not None
    write_model(applied.model, nets.images(2), folder / "int8.onnx", [applied.file_pass])
    return folder / "float.onnx", folder / "int8.onnx"


def folded_count(net: type[nn.Module]) -> int:
    model = nets.make(net)
    fold_checked(model, nets.images(2))
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("net", nets.NETS, ids=lambda n: n.__name__)
def test_parameters_of_a_file_are_the_modules_with_batch_norm_folded(net: type[nn.Module]) -> None:
    assert params(nets.graph(net)) == params(slim(nets.graph(net))) == folded_count(net)


def test_int8_leaves_the_number_of_parameters(files: tuple[Path, Path]) -> None:
    assert [params(onnx.load(str(path))) for path in files] == [folded_count(nets.BatchNormed)] * 2


def test_objectives_are_read_from_the_file(files: tuple[Path, Path]) -> None:
    for path in files:
        proto = onnx.load(str(path))
        assert objective_of(path, "size") == path.stat().st_size == len(path.read_bytes())
        assert objective_of(path, "compute") == macs(proto)
        assert objective_of(path, "energy") == estimate(proto, path.stat().st_size).value
    assert objective_of(files[0], "compute") == objective_of(files[1], "compute")
    assert objective_of(files[1], "energy") < objective_of(files[0], "energy")


def test_both_files_are_measured_alike(files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "PATIENCE", 0.0)
    before, after = measure_pair(*files, files[1], (97.5, 96.5), nets.images(2), (1, 4), 1)
    for path, quality, found in zip(files, (97.5, 96.5), (before, after), strict=True):
        assert found.quality == quality
        assert found.size_bytes == path.stat().st_size
        assert found.params == folded_count(nets.BatchNormed)
        assert found.macs == macs(onnx.load(str(path)))
        assert [(row.batch, row.threads, row.runs >= 100) for row in found.latency_ms] == [(1, 1, True), (4, 1, True)]
        assert found.energy_mj.source == "estimated"
    assert after.energy_mj.value < before.energy_mj.value


def test_the_size_is_the_counted_file_s(
    files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latency, "PATIENCE", 0.0)
    packed = tmp_path / "model.ecz"
    packed.write_bytes(b"x" * 321)
    before, after = measure_pair(*files, packed, (97.5, 96.5), nets.images(2), (1,), 1)
    assert before.size_bytes == files[0].stat().st_size
    assert after.size_bytes == 321
    assert after.params == folded_count(nets.BatchNormed)
    assert after.energy_mj.value == objective_of(files[1], "energy")


def test_scores_are_those_of_every_sample(files: tuple[Path, Path]) -> None:
    report = nets.digits().report
    assert report.targets is not None
    model = nets.make(nets.BatchNormed)
    with torch.no_grad():
        expected = (model(report.inputs).argmax(1) == report.targets).double().numpy()
    scores = scores_of(files[0], report, METRICS["accuracy"], 1)
    assert scores.shape == (len(report),)
    assert np.array_equal(scores, expected)
    assert METRICS["accuracy"].quality(scores) == pytest.approx(100 * expected.mean())


def test_the_same_file_gives_the_same_answers_bit_for_bit(files: tuple[Path, Path]) -> None:
    split = Split(nets.images(600), None)
    first, second = (Runtime(files[1], 1).outputs(split) for _ in range(2))
    assert first.shape == (600, nets.CLASSES)
    assert np.array_equal(first, second)


def test_a_file_that_the_runtime_cannot_load_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"nothing")
    with pytest.raises(CannotCompress, match=r"^model\.onnx: ONNX Runtime can't load it: ") as caught:
        Runtime(path, 1)
    assert "\n" not in str(caught.value)
