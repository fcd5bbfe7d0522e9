"""Whose the tensors of a stripped file are: every kind of net and of stored form, by sums that must come out."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import nets
import onnx
import pytest
from architectures.nets import KINDS
from torch import nn

from easycompress.artifact.inspection import inspect_onnx
from easycompress.artifact.write import write_model
from easycompress.codes.affine import INT8_LIMIT
from easycompress.measure.compute import macs, macs_by_operator
from easycompress.measure.decoded import decoded
from easycompress.measure.ownership import Ownership, ownership
from easycompress.quantization.recurrent import dynamic_lstms
from easycompress.quantization.settings import StaticInt8
from easycompress.quantization.technique import StaticQuantizer

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor


def tensors(model: nn.Module) -> dict[str, Tensor]:
    return dict(model.named_parameters())


def bytes_of(found: Ownership) -> dict[str, int]:
    """Return each layer's bytes; a tensor that several layers read counts at the first."""
    sums: dict[str, int] = {}
    for holding in found.holdings:
        sums[holding.layers[0]] = sums.get(holding.layers[0], 0) + holding.row.bytes
    return sums


def macs_of(found: Ownership) -> dict[str, int]:
    sums: dict[str, int] = {}
    for row in macs_by_operator(decoded(found.graph)):
        layer = found.operators.get(row.output, "(products)" if row.output in found.free else "?")
        sums[layer] = sums.get(layer, 0) + row.macs
    return sums


@pytest.fixture(scope="module")
def int8(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    model = nets.make(nets.LeNet)
    applied = StaticQuantizer().apply(copy.deepcopy(model), StaticInt8(), nets.context(nets.task(model)))
    assert applied.file_pass is not None
    path = tmp_path_factory.mktemp("int8") / "int8.onnx"
    write_model(applied.model, nets.images(2), path, [applied.file_pass])
    return model, path


def test_a_float_file_is_told_to_the_byte(tmp_path: Path) -> None:
    model = nets.make(nets.LeNet)
    found = ownership(write_model(model, nets.images(2), tmp_path / "float.onnx"), tensors(model))
    expected = {name: 4 * sum(p.numel() for p in module.parameters()) for name, module in model.named_children()}
    assert bytes_of(found) == expected
    assert macs_of(found)["conv1"] == 6 * 9 * 64
    assert sum(macs_of(found).values()) == macs(found.graph)


def test_integers_come_with_their_scales_and_biases(int8: tuple[nn.Module, Path]) -> None:
    model, path = int8
    found = ownership(path, tensors(model))
    sizes = bytes_of(found)
    for name, module in model.named_children():
        weight, bias = module.weight, module.bias
        least, most = weight.numel() + (4 + 1) * len(bias) + 4 * len(bias), weight.numel() + (4 + 1 + 12) * len(bias)
        assert least <= sizes[name] <= most, "scale and zero point a channel, biases of 4 to 12 bytes"
        assert sum(h.row.weights for h in found.holdings if h.counts and name in h.layers) == (
            weight.numel() + bias.numel()
        )
    assert set(macs_of(found)) == set(sizes)


def test_no_tensor_is_counted_twice(int8: tuple[nn.Module, Path]) -> None:
    model, path = int8
    rows = {row.name: row.bytes for row in inspect_onnx(path)}
    found = ownership(path, tensors(model))
    names = [holding.row.name for holding in found.holdings]
    assert len(names) == len(set(names))
    rest = sum(size for name, size in rows.items() if name not in names)
    assert sum(bytes_of(found).values()) + rest == sum(rows.values())
    assert rest < 0.2 * sum(rows.values())  # ranges of activations, shapes


@pytest.mark.parametrize("name", ["wide-lstm", "tied-embedding", "attention"])
def test_every_matrix_of_a_net_is_found(name: str, tmp_path: Path) -> None:
    kind = KINDS[name]
    model = kind.make()
    found = ownership(write_model(model, kind.draw(2, 0), tmp_path / "net.onnx"), tensors(model))
    matrices = {parameter: p.numel() for parameter, p in model.named_parameters() if p.dim() > 1}
    assert {parameter: count for parameter, count in found.known.items() if parameter in matrices} == matrices
    assert "?" not in macs_of(found)


def test_an_lstm_in_integers(tmp_path: Path) -> None:
    kind = KINDS["lstm"]
    model = kind.make()
    example = kind.draw(2, 0)
    path = write_model(model, example, tmp_path / "int8.onnx", [lambda proto: dynamic_lstms(proto, INT8_LIMIT)])
    assert "DynamicQuantizeLSTM" in {node.op_type for node in onnx.load(str(path)).graph.node}
    found = ownership(path, tensors(model))
    counted = sum(h.row.weights for h in found.holdings if h.counts and h.layers == ("body",))
    assert counted == sum(p.numel() for p in model.body.parameters())


def test_a_module_of_other_weights_owns_nothing(int8: tuple[nn.Module, Path]) -> None:
    other = copy.deepcopy(int8[0])
    for parameter in other.parameters():
        nn.init.normal_(parameter)
    found = ownership(int8[1], tensors(other))
    assert found.holdings == ()
    assert found.operators == {}
