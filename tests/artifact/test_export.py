from __future__ import annotations

import logging

import nets
import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from easycompress.artifact.onnx_export import IR_VERSION, OPSET, export
from easycompress.artifact.slim import slim
from easycompress.core.errors import CannotCompress

every_net = pytest.mark.parametrize("net", nets.NETS, ids=lambda n: n.__name__)


def session(data: bytes) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])


@every_net
def test_the_file_keeps_the_modules_interface(net: type[nn.Module]) -> None:
    runtime = session(slim(nets.graph(net)).SerializeToString())
    (inputs,), (outputs,) = runtime.get_inputs(), runtime.get_outputs()
    assert (inputs.name, outputs.name) == ("x", "output")
    assert inputs.type == outputs.type == "tensor(float)"
    assert isinstance(inputs.shape[0], str)  # dynamic
    assert tuple(inputs.shape[1:]) == nets.SHAPE


@every_net
@pytest.mark.parametrize("batch", [1, 2, 7])
def test_it_answers_as_the_module_at_every_batch_size(net: type[nn.Module], batch: int) -> None:
    model, inputs = nets.make(net), nets.images(batch, seed=batch)
    with torch.no_grad():
        expected = model(inputs).numpy()
    (answers,) = session(slim(nets.graph(net)).SerializeToString()).run(None, {"x": inputs.numpy()})
    assert answers.shape == (batch, nets.CLASSES)
    assert np.allclose(answers, expected, atol=1e-5)


@every_net
def test_old_runtimes_can_read_it(net: type[nn.Module]) -> None:
    proto = slim(nets.graph(net))
    assert [(o.domain, o.version <= OPSET <= 21) for o in proto.opset_import] == [("", True)]
    assert proto.ir_version <= IR_VERSION


@every_net
def test_parameters_keep_their_names_before_slimming(net: type[nn.Module]) -> None:
    parameters = {name for name, _ in nets.make(net).named_parameters() if name.endswith("weight")}
    stored = {tensor.name for tensor in nets.graph(net).graph.initializer}
    normed = {name for name in parameters if any(part in name for part in ("norm", "bn", "shortcut.1"))}
    assert parameters - normed - {"features.1.weight", "features.5.weight"} <= stored


class Named(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, pixel_values: Tensor, scale: float = 2.0) -> Tensor:
        return self.fc(pixel_values) * scale


def test_the_input_is_named_as_in_forward() -> None:
    proto = export(Named(), torch.randn(2, 4))
    assert [value.name for value in proto.graph.input] == ["pixel_values"]
    assert [value.name for value in proto.graph.output] == ["output"]


def test_export_leaves_the_mode_as_it_was_and_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    model = Named().train()
    level = logging.getLogger("torch.onnx").level
    export(model, torch.randn(2, 4))
    assert model.training
    assert logging.getLogger("torch.onnx").level == level
    assert capfd.readouterr() == ("", "")


class SingularValues(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.svd(x.unsqueeze(-1))[1]


class Complex(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.complex(x, x).sin().real


class FixedBatch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(2, 8) * 1.0


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (SingularValues(), r"^operator aten\._linalg_svd has no ONNX form, so no file could run it; replace it in"),
        (Complex(), r"^operator aten\.sin has no ONNX form"),
        (
            FixedBatch(),
            r"^the model's forward fixes the batch size \(a constant where x\.shape\[0\] belongs\).*: Found",
        ),
        (
            Branching(),
            r"^operator aten\._local_scalar_dense \(.*\): the model's forward decides in Python on values of ",
        ),
    ],
)
def test_refusals_name_the_cause_in_one_line(model: nn.Module, text: str) -> None:
    with pytest.raises(CannotCompress, match=text) as caught:
        export(model, torch.randn(2, 8))
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 400
