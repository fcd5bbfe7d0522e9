"""ONNX files become modules of layers under the file's names; what can't be lifted is named."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn
from torch.nn import functional

from easycompress.core.errors import BadInput, CannotCompress
from easycompress.intake.models import load_model

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("onnx2pytorch")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.LayerNorm(10)
        self.fc = nn.Linear(4 * 16, 10)
        self.rnn = nn.LSTM(10, 6, batch_first=True)
        self.out = nn.Linear(6, 3, bias=False)

    def forward(self, x: torch.Tensor, extra: torch.Tensor) -> torch.Tensor:
        x = functional.max_pool2d(functional.relu(self.conv(x)), 2).flatten(1)
        x = self.norm(self.fc(x) + extra)
        y, _ = self.rnn(x.view(-1, 2, 5).transpose(1, 2).reshape(-1, 1, 10))
        return self.out(y[:, 0])


def read(path: Path) -> Any:
    return load_model(path, None, path.parent, trust_pickle=False)


def saved(model: nn.Module, tensors: tuple[torch.Tensor, ...], names: list[str], path: Path) -> Path:
    """Export as files of earlier years are, which is quick, and whose weights keep other names than today's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model, tensors, str(path), dynamo=False, input_names=names, dynamic_axes={name: {0: "n"} for name in names}
        )
    return path


def test_two_inputs_recurrence_and_names(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = Net().eval()
    tensors = (torch.randn(2, 1, 8, 8), torch.randn(2, 10))
    model = read(saved(net, tensors, ["x", "extra"], tmp_path / "net.onnx")).model
    x, extra = torch.randn(5, 1, 8, 8), torch.randn(5, 10)
    torch.testing.assert_close(model(x, extra), net(x, extra), atol=1e-5, rtol=1e-5)
    assert isinstance(model.conv, nn.Conv2d)
    assert isinstance(model.fc, nn.Linear)
    assert any(isinstance(module, nn.LSTM) for module in model.modules())
    assert isinstance(model.norm, nn.LayerNorm)
    torch.testing.assert_close(model.fc.weight, net.fc.weight)
    assert {n for n in net.state_dict() if "rnn" not in n} <= model.state_dict().keys()
    model.train()(x, extra).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def graph_of(nodes: list[Any], path: Path) -> Path:
    value = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 4]) for n in ("x", "y")]
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    made = helper.make_model(helper.make_graph(nodes, "g", value[:1], value[1:]), opset_imports=opsets, ir_version=10)
    onnx.save(made, str(path))
    return path


def test_an_operator_outside_of_onnx_is_named(tmp_path: Path) -> None:
    node = helper.make_node("FastGelu", ["x"], ["y"], name="act", domain="com.microsoft")
    with pytest.raises(CannotCompress, match=r"com\.microsoft::FastGelu \(node act\) has no PyTorch form"):
        read(graph_of([node], tmp_path / "g.onnx"))


def test_integers_are_refused(tmp_path: Path) -> None:
    constants = [
        helper.make_node("Constant", [], ["s"], value=helper.make_tensor("s", TensorProto.FLOAT, [], [0.1])),
        helper.make_node("Constant", [], ["z"], value=helper.make_tensor("z", TensorProto.INT8, [], [0])),
    ]
    nodes = [
        *constants,
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], name="quantize"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    with pytest.raises(CannotCompress, match="already quantized: QuantizeLinear quantize"):
        read(graph_of(nodes, tmp_path / "q.onnx"))


def test_what_is_no_onnx_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "no.onnx").write_bytes(b"not a protobuf at all")
    with pytest.raises(BadInput, match="ONNX Runtime can't open it"):
        read(tmp_path / "no.onnx")
