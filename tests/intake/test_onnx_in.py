"""ONNX files become modules of layers under the file's names; what can't be lifted is named."""

from __future__ import annotations

import inspect
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn
from torch.nn import functional

from easycompress.assemble import make_the_task
from easycompress.core.errors import BadInput, CannotCompress
from easycompress.core.inputs import Bundle
from easycompress.intake.config import make_request
from easycompress.intake.models import load_model
from easycompress.intake.onnx_open import face_of, sample_shapes

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


class Mean(nn.Module):
    """Divides by its length, and attends: both are numbers in a trace."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.rnn, self.head = nn.Embedding(9, 8), nn.LSTM(8, 8, batch_first=True), nn.Linear(8, 3)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        states, _ = self.rnn(self.embed(words))
        return self.head(states.sum(1) / words.shape[1])  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def open_file(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, nn.Module]:
    torch.manual_seed(0)
    net, path = Mean().eval(), tmp_path_factory.mktemp("open") / "open.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(net, (torch.zeros(2, 5, dtype=torch.int64),), str(path), dynamo=False, input_names=["words"],
                          dynamic_axes={"words": {0: "n", 1: "t"}})  # fmt: skip
    return path, net


@pytest.mark.parametrize("length", [5, 12])
def test_open_lengths_are_those_of_a_sample(open_file: tuple[Path, nn.Module], length: int) -> None:
    path, net = open_file
    words = torch.randint(9, (6, length), generator=torch.Generator().manual_seed(1))
    for sample in (words[:1], Bundle((words[:1],), ("words",))):
        loaded = load_model(path, None, path.parent, trust_pickle=False, sample=sample)
        torch.testing.assert_close(loaded.model(words), net(words), atol=1e-5, rtol=1e-5)
        assert not loaded.notes


def test_open_lengths_that_nobody_said_are_told(open_file: tuple[Path, nn.Module]) -> None:
    path, net = open_file
    loaded = read(path)
    assert loaded.notes == ("the file leaves dimensions open, which were taken as 16: one sample is words (16,)",)
    words = torch.randint(9, (4, 16))
    torch.testing.assert_close(loaded.model(words), net(words), atol=1e-5, rtol=1e-5)


def test_an_open_length_that_is_fixed_inside(open_file: tuple[Path, nn.Module], tmp_path: Path) -> None:
    proto = onnx.load(str(open_file[0]))
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array([-1, 5]), "five"))
    for node in proto.graph.node:
        node.input[:] = ["fixed" if name == "words" else name for name in node.input]
    proto.graph.node.insert(0, helper.make_node("Reshape", ["words", "five"], ["fixed"]))
    path = tmp_path / "fixed.onnx"
    onnx.save(proto, str(path))
    with pytest.raises(CannotCompress) as caught:
        read(path)
    text = str(caught.value)
    assert "ONNX Runtime can't run it on words (3, 16) (" in text
    assert "a dimension that the file leaves open may be fixed inside: give data of the lengths it takes" in text
    assert "\n" not in text
    words = torch.zeros(2, 5, dtype=torch.int64)
    assert load_model(path, None, tmp_path, trust_pickle=False, sample=words).model(words).shape == (2, 3)


def test_shape_says_open_lengths(open_file: tuple[Path, nn.Module], tmp_path: Path) -> None:
    path, _ = open_file
    request, base = make_request(str(path), {"target": "2x", "shape": "7"}, use_file=False)
    with pytest.raises(BadInput, match="--shape 7: the model doesn't take it"):  # which is of numbers, not of words
        make_the_task(path, request, base, (None, None, None))
    assert sample_shapes(onnx.load(str(path)), torch.zeros(2, 7)) == {"words": (7,)}
    assert sample_shapes(onnx.load(str(path)), torch.zeros(2, 7, 7)) == {"words": (16,)}
    fixed = graph_of([helper.make_node("Relu", ["x"], ["y"])], tmp_path / "fixed.onnx")
    assert face_of(fixed) is None
    face = face_of(path)
    assert face is not None
    assert list(inspect.signature(face.forward).parameters) == ["words"]


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
    with pytest.raises(BadInput, match="not a readable ONNX file"):
        read(tmp_path / "no.onnx")
