from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import nets
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from easycompress.artifact.write import write_model
from easycompress.codes.composed import Additive
from easycompress.codes.half import Half
from easycompress.codes.hashed import Hashed
from easycompress.codes.lowrank import LowRank, matrix_size
from easycompress.codes.sparse import sparse_from
from easycompress.lc.settings import EntropyQuantization
from easycompress.lc.untrained import EntropyQuantizer
from easycompress.measure.compute import macs
from easycompress.measure.decoded import decoded
from easycompress.measure.files import objective_of, params
from easycompress.measure.runtime import Runtime
from easycompress.quantization.settings import StaticInt8
from easycompress.quantization.technique import StaticQuantizer

if TYPE_CHECKING:
    from pathlib import Path

    from easycompress.codes.base import Code


def pair(model: nn.Module, codes: dict[str, Code], folder: Path) -> tuple[Path, Path]:
    """Write the model dense and as its codes; its weights are made what the codes say."""
    with torch.no_grad():
        for name, code in codes.items():
            model.get_parameter(name).copy_(code.dense())
    write_model(model, nets.images(2), folder / "dense.onnx")
    write_model(model, nets.images(2), folder / "coded.onnx", codes=codes)
    return folder / "dense.onnx", folder / "coded.onnx"


def assert_alike(dense: Path, coded: Path) -> None:
    plain, stored = (onnx.load(str(path)) for path in (dense, coded))
    assert len(stored.graph.node) > len(plain.graph.node)  # it decodes itself, indeed
    made = decoded(stored)
    assert macs(made) == macs(plain) > 0
    assert params(made) == params(plain) > 0
    assert objective_of(coded, "compute") == objective_of(dense, "compute")
    onnx.checker.check_model(made)


@pytest.mark.parametrize("net", nets.NETS, ids=lambda n: n.__name__)
def test_a_self_decoding_file_counts_as_the_dense_one(net: type[nn.Module], tmp_path: Path) -> None:
    work = nets.task(nets.make(net))
    action = EntropyQuantization(strength=0.3)
    applied = EntropyQuantizer().apply(copy.deepcopy(work.model), action, nets.context(work))
    assert_alike(*pair(applied.model, applied.codes, tmp_path))


def codes_of(kind: str, weight: torch.Tensor) -> Code:
    shape = tuple(weight.shape)
    if kind == "hashed":
        return Hashed(torch.linspace(-1, 1, 30), shape, 5)
    if kind == "half":
        return Half(weight.half())
    sparse = sparse_from(weight, weight.abs() > weight.abs().median())
    if kind == "sparse":
        return sparse
    rows, columns = matrix_size(shape, "scheme-2")
    low = LowRank(torch.randn(rows, 2), torch.randn(2, columns), shape, "scheme-2")
    return Additive((low, sparse))


@pytest.mark.parametrize("kind", ["hashed", "half", "sparse", "sum"])
def test_every_form_counts_as_the_dense_weight(kind: str, tmp_path: Path) -> None:
    model = nets.make(nets.LeNet)
    names = ("conv2.weight", "fc1.weight")
    codes = {name: codes_of(kind, model.get_parameter(name).detach()) for name in names}
    assert_alike(*pair(model, codes, tmp_path))


def test_the_decoded_graph_answers_as_the_file(tmp_path: Path) -> None:
    model = nets.make(nets.LeNet)
    codes = {name: codes_of("sparse", model.get_parameter(name).detach()) for name in ("conv2.weight", "fc1.weight")}
    _, coded = pair(model, codes, tmp_path)
    made = decoded(onnx.load(str(coded)))
    session = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    inputs = nets.images(7).numpy()
    answers = session.run(None, {session.get_inputs()[0].name: inputs})[0]
    assert np.array_equal(answers, Runtime(coded, 1).run(torch.from_numpy(inputs)))
    weights = {t.name: numpy_helper.to_array(t) for t in made.graph.initializer}
    assert all(np.array_equal(weights[name], code.dense().numpy()) for name, code in codes.items())


def test_energy_of_a_self_decoding_file_is_that_of_running_it(tmp_path: Path) -> None:
    """It runs on the weights that it decoded once, so it moves as many bytes as the dense one."""
    model = nets.make(nets.LeNet)
    codes = {"fc1.weight": codes_of("sparse", model.fc1.weight.detach())}
    dense, coded = pair(model, codes, tmp_path)
    assert objective_of(coded, "energy") == pytest.approx(objective_of(dense, "energy"), rel=0.01)


@pytest.mark.parametrize("net", [nets.Mlp, nets.BatchNormed])
def test_files_that_hold_their_weights_stay_as_they_are(net: type[nn.Module], tmp_path: Path) -> None:
    work = nets.task(nets.make(net))
    applied = StaticQuantizer().apply(copy.deepcopy(work.model), StaticInt8(), nets.context(work))
    assert applied.file_pass is not None
    write_model(applied.model, nets.images(2), tmp_path / "int8.onnx", [applied.file_pass])
    write_model(work.model, nets.images(2), tmp_path / "float.onnx")
    for name in ("int8.onnx", "float.onnx"):
        stored = onnx.load(str(tmp_path / name))
        assert decoded(stored) is stored
    assert {n.op_type for n in onnx.load(str(tmp_path / "int8.onnx")).graph.node} >= {"DequantizeLinear"}


def test_the_graph_that_is_decoded_stays_as_it_was(tmp_path: Path) -> None:
    model = nets.make(nets.LeNet)
    _, coded = pair(model, {"fc1.weight": codes_of("sparse", model.fc1.weight.detach())}, tmp_path)
    stored = onnx.load(str(coded))
    before = stored.SerializeToString()
    assert decoded(stored) is not stored
    assert stored.SerializeToString() == before
