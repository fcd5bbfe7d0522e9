"""LSTM layers in integers, and products of turned tensors in float16: files that run as their modules do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import nets
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from easycompress.artifact.onnx_export import export
from easycompress.artifact.slim import slim
from easycompress.core.errors import CannotCompress
from easycompress.core.opening import Opened
from easycompress.core.profile import LayerProfile, ModelProfile
from easycompress.measure.compute import macs
from easycompress.measure.files import params
from easycompress.measure.runtime import Runtime
from easycompress.quantization import half
from easycompress.quantization.dynamic import DynamicQuantizer
from easycompress.quantization.recurrent import dynamic_lstms, round_gates
from easycompress.quantization.settings import DynamicInt8

if TYPE_CHECKING:
    from pathlib import Path

    from easycompress.technique import Applied

HIDDEN = 72
"""So wide that export leaves the gates to be stacked by operators; a narrow layer's are stacked in the file."""


class Net(nn.Module):
    """Signals -> an LSTM of two directions -> values."""

    def __init__(self, hidden: int = HIDDEN) -> None:
        super().__init__()
        self.body = nn.LSTM(6, hidden, bidirectional=True, batch_first=True)
        self.tail = nn.Linear(2 * hidden, 5)

    def forward(self, signals: Tensor) -> Tensor:
        return self.tail(self.body(signals)[0].mean(1))


def signals(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 9, 6, generator=torch.Generator().manual_seed(seed))


def applied(model: nn.Module) -> tuple[Applied, onnx.ModelProto]:
    work = nets.task(nets.make(nets.Mlp))  # dynamic ranges ask nothing of it
    result = DynamicQuantizer().apply(model, DynamicInt8(reduce_range=False), nets.context(work))
    assert result.file_pass is not None
    return result, slim(result.file_pass(export(result.model, signals(2))))


def integer_rows(proto: onnx.ModelProto) -> set[bytes]:
    """Every row of every matrix in integers, whatever the order of the gates."""
    found = (numpy_helper.to_array(t) for t in proto.graph.initializer if t.data_type == TensorProto.INT8)
    return {row.tobytes() for array in found if array.ndim == 3 for matrix in array for row in matrix.T}


@pytest.mark.parametrize("hidden", [7, HIDDEN])
def test_the_file_holds_the_codes_and_answers_nearly_as_the_module(
    hidden: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("easycompress.quantization.dynamic.fold_checked", lambda *_: [])
    torch.manual_seed(0)
    model = Net(hidden).eval()
    plain = slim(export(model, signals(2)))
    result, proto = applied(model)
    assert [node.op_type for node in proto.graph.node].count("DynamicQuantizeLSTM") == 1
    assert "LSTM" not in [node.op_type for node in proto.graph.node]
    assert macs(proto) == macs(plain)
    assert params(proto) == params(plain)
    rows = integer_rows(proto)
    assert result.codes.keys() == {name for name, p in model.named_parameters() if p.dim() > 1}
    for name, code in result.codes.items():
        assert name == "tail.weight" or {row.tobytes() for row in code.arrays()["values"].numpy()} <= rows
    path = tmp_path / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    inputs = signals(50, 1)
    with torch.no_grad():
        expected = result.model(inputs).numpy()
    answers = Runtime(path, 1).run(inputs)
    assert 0 < float(np.sqrt(np.square(answers - expected).mean()) / expected.std()) < 0.05
    if hidden == HIDDEN:
        assert plain.ByteSize() / proto.ByteSize() > 3


def graph_of(node: onnx.NodeProto, inputs: tuple[str, ...], stored: dict[str, tuple[int, ...]]) -> onnx.ModelProto:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in (*inputs, "y")]
    tensors = [numpy_helper.from_array(np.ones(shape, np.float32), name) for name, shape in stored.items()]
    return helper.make_model(helper.make_graph([node], "g", values[:-1], values[-1:], tensors))


def test_what_the_integer_operator_does_not_know_stays_float() -> None:
    gru = helper.make_node("GRU", ["x", "w", "r"], ["y"], hidden_size=2)
    fed = helper.make_node("LSTM", ["x", "w", "r"], ["y"], hidden_size=2)  # its r is an input of the graph
    turned = helper.make_node("LSTM", ["x", "w", "r"], ["y"], hidden_size=2, layout=1)
    matrices = {"w": (1, 8, 3), "r": (1, 8, 2)}
    for node, inputs in ((gru, ("x",)), (fed, ("x", "r")), (turned, ("x",))):
        proto = graph_of(node, inputs, {name: matrices[name] for name in matrices if name not in inputs})
        assert dynamic_lstms(proto, 127) is proto
    assert not round_gates(nn.LSTM(3, 4, proj_size=2), 127)


def test_an_lstm_needs_no_linear_layer_beside_it() -> None:
    for kind in ("LSTM", "GRU"):
        layer = LayerProfile(name="body", type=kind, family="other", params=10, macs=10)
        facts = ModelProfile(architecture="rnn", layers=(layer,), params=10, macs=10, has_batch_norm=False,
                             input_shape=(9, 6), outputs=5)  # fmt: skip
        refusal = DynamicQuantizer().refuses(facts, DynamicInt8())
        assert (refusal is None) == (kind == "LSTM")


class Turning(nn.Module):
    """A product that reads steps and samples turned around: ONNX Runtime 1.31 crashes on that in float16."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(6, 8)
        self.output = nn.Linear(8, 4)

    def forward(self, signals: Tensor) -> Tensor:
        turned = torch.relu(self.inner(signals.transpose(0, 1))) + signals.transpose(0, 1).sum(2, keepdim=True)
        return self.output(turned).transpose(0, 1)


def test_in_float16_products_come_before_turning(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Turning().eval()
    proto = half.half_graph(export(model, signals(2)))
    made = {name: node.op_type for node in proto.graph.node for name in node.output}
    products = [node for node in proto.graph.node if node.op_type == "MatMul"]
    assert len(products) == 2
    assert made.get(products[0].input[0]) != "Transpose"
    path = tmp_path / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    inputs = signals(5, 1)
    with torch.no_grad():
        assert np.allclose(Runtime(path, 1).run(inputs), model(inputs).numpy(), atol=2e-2)


def test_a_file_that_onnx_runtime_crashes_on_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(half, "_turned_later", lambda proto: proto)
    proto = export(Turning().eval(), signals(2))
    for code in (-11, 0):
        monkeypatch.setattr(half, "opened", lambda *_, code=code: Opened(code, ""))
        if code:
            with pytest.raises(CannotCompress, match=r"^float16: ONNX Runtime crashes on this graph .*signal 11\)"):
                half.half_graph(proto)
        else:
            half.half_graph(proto)
