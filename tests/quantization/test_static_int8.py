from __future__ import annotations

import copy
import dataclasses
import functools
from typing import TYPE_CHECKING, Any, Literal

import nets
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper
from torch import nn

from easycompress.artifact.onnx_export import export
from easycompress.artifact.slim import slim
from easycompress.artifact.write import write_model
from easycompress.core.errors import BadInput
from easycompress.core.task import Task
from easycompress.measure.runtime import Runtime
from easycompress.quantization.settings import StaticInt8
from easycompress.quantization.technique import StaticQuantizer
from easycompress.training.fit import Hooks, Schedule, fit
from easycompress.training.terms import Labels

if TYPE_CHECKING:
    from pathlib import Path

    from easycompress.technique import Applied

SOME = (nets.LeNet, nets.BatchNormed, nets.DepthwiseSeparable, nets.Residual)


def quantize(model: nn.Module, **settings: Any) -> Applied:
    work = nets.task(model)
    return StaticQuantizer().apply(copy.deepcopy(model), StaticInt8(**settings), nets.context(work))


@functools.cache
def quantized(net: type[nn.Module], **settings: Any) -> tuple[Applied, onnx.ModelProto]:
    """Return what was applied, and its graph before slimming."""
    result = quantize(nets.make(net), **settings)
    assert result.file_pass is not None
    return result, result.file_pass(export(result.model, nets.images(2)))


def initializers(proto: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    return {tensor.name: tensor for tensor in proto.graph.initializer}


@pytest.mark.parametrize("net", SOME, ids=lambda n: n.__name__)
@pytest.mark.parametrize("reduce_range", [False, True])
def test_the_file_holds_the_very_integers_of_the_codes(net: type[nn.Module], *, reduce_range: bool) -> None:
    result, proto = quantized(net, reduce_range=reduce_range)
    layers = {name for name, module in result.model.named_modules() if isinstance(module, (nn.Conv2d, nn.Linear))}
    assert result.codes.keys() == {f"{name}.weight" for name in layers}
    stored = initializers(proto)
    scales = {node.input[0]: node.input[1] for node in proto.graph.node if node.op_type == "DequantizeLinear"}
    for name, code in result.codes.items():
        tensor = stored[f"{name}_quantized"]
        assert tensor.data_type == TensorProto.INT8
        arrays = code.arrays()
        assert np.array_equal(numpy_helper.to_array(tensor), arrays["values"].numpy())
        assert int(arrays["values"].abs().max()) == (64 if reduce_range else 127)
        scale = numpy_helper.to_array(stored[scales[tensor.name]])
        assert np.allclose(scale, arrays["scale"].numpy(), rtol=1e-6)
    kept = [
        numpy_helper.to_array(t).tobytes() for t in slim(proto).graph.initializer if t.data_type == TensorProto.INT8
    ]
    assert {code.arrays()["values"].numpy().tobytes() for code in result.codes.values()} <= set(kept)


@pytest.mark.parametrize("net", SOME, ids=lambda n: n.__name__)
def test_activations_are_unsigned(net: type[nn.Module]) -> None:
    proto = slim(quantized(net)[1])
    stored = initializers(proto)
    quantizers = [node for node in proto.graph.node if node.op_type == "QuantizeLinear"]
    assert quantizers
    assert {stored[node.input[2]].data_type for node in quantizers} == {TensorProto.UINT8}
    assert not any(tensor.data_type == TensorProto.FLOAT and len(tensor.dims) > 1 for tensor in stored.values())


def trained(net: type[nn.Module]) -> nn.Module:
    model = nets.make(net)
    work = nets.task(model)
    schedule = Schedule(epochs=6, lr=0.1, batch=32)
    fit(model, work.data.train, Labels(work.loss), schedule, nets.SPEED, Hooks(nets.accuracy), None)
    return model


@pytest.mark.parametrize("net", [nets.LeNet, nets.BatchNormed, nets.Residual], ids=lambda n: n.__name__)
@pytest.mark.parametrize("calibration", ["minmax", "percentile", "entropy"])
def test_the_file_decides_nearly_as_the_original(net: type[nn.Module], calibration: str, tmp_path: Path) -> None:
    model = trained(net)
    result = quantize(model, calibration=calibration)
    assert result.file_pass is not None
    write_model(result.model, nets.images(2), tmp_path / "model.onnx", [result.file_pass])
    report = nets.digits().report
    with torch.no_grad():
        expected, rounded = model(report.inputs), result.model(report.inputs)
    answers = torch.from_numpy(Runtime(tmp_path / "model.onnx", 1).run(report.inputs))
    assert not torch.equal(answers, rounded)  # activations are integers in the file alone
    assert float((rounded.argmax(1) == expected.argmax(1)).float().mean()) > 0.97
    assert float((answers.argmax(1) == expected.argmax(1)).float().mean()) > 0.95


@pytest.mark.parametrize("calibration", ["minmax", "percentile", "entropy"])
def test_calibration_sets_the_ranges_and_nothing_else(
    calibration: Literal["minmax", "percentile", "entropy"], capfd: pytest.CaptureFixture[str]
) -> None:
    result, proto = quantized(nets.LeNet, calibration=calibration)
    usual, usual_proto = quantized(nets.LeNet)
    assert all(
        torch.equal(code.arrays()["values"], usual.codes[name].arrays()["values"])
        for name, code in result.codes.items()
    )
    assert (activation_scales(proto) == activation_scales(usual_proto)) is (calibration == "minmax")
    assert capfd.readouterr().out == ""


def test_samples_limit_the_calibration_data() -> None:
    few, many = (activation_scales(quantized(nets.LeNet, samples=count)[1]) for count in (1, 200))
    assert few.keys() == many.keys()
    assert few != many
    assert all(few[name] <= many[name] * (1 + 1e-6) for name in few)  # more samples only widen the range


def activation_scales(proto: onnx.ModelProto) -> dict[str, float]:
    stored = initializers(proto)
    quantizers = [node for node in proto.graph.node if node.op_type == "QuantizeLinear"]
    return {node.input[0]: float(numpy_helper.to_array(stored[node.input[1]])) for node in quantizers}


def test_the_inputs_range_is_that_of_the_calibration_data() -> None:
    inputs = nets.digits().calibration.inputs
    assert inputs.min() == 0
    assert activation_scales(quantized(nets.LeNet)[1])["x"] == pytest.approx(float(inputs.max()) / 255)


def test_the_calibration_split_is_what_is_read() -> None:
    model = nets.make(nets.LeNet)
    work = nets.task(model)
    seen: list[str] = []

    class Watched(type(work.data)):  # type: ignore[misc]
        def __getattribute__(self, name: str) -> Any:
            seen.append(name)
            return super().__getattribute__(name)

    splits = Watched(**{name: getattr(work.data, name) for name in ("train", "calibration", "select", "report")})
    watched = Task(model, splits, work.example, work.metric, work.loss)
    seen.clear()
    result = StaticQuantizer().apply(copy.deepcopy(model), StaticInt8(), nets.context(watched))
    assert result.file_pass is not None
    result.file_pass(export(result.model, nets.images(2)))
    assert seen == ["calibration"]


def test_a_bare_layer_has_a_code_of_its_own_name() -> None:
    model = nn.Linear(8, 4).eval()
    work = Task(model, nets.digits(), torch.randn(2, 8), nets.task(model).metric, nets.task(model).loss)
    context = nets.context(nets.task(nets.make(nets.Mlp)))
    result = StaticQuantizer().apply(copy.deepcopy(model), StaticInt8(), dataclasses.replace(context, task=work))
    assert result.codes.keys() == {"weight"}


def test_a_tied_weight_has_one_code() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(64, 64)
            self.second = nn.Linear(64, 64)
            self.second.weight = self.first.weight
            self.output = nn.Linear(64, nets.CLASSES)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.output(torch.relu(self.second(torch.relu(self.first(x.flatten(1))))))

    model = nets.make(Tied)
    context = nets.context(nets.task(nets.make(nets.Mlp)))
    work = nets.task(model)
    result = StaticQuantizer().apply(copy.deepcopy(model), StaticInt8(), dataclasses.replace(context, task=work))
    assert result.codes.keys() == {"first.weight", "output.weight"}
    assert torch.equal(result.model.get_submodule("second").weight, result.codes["first.weight"].dense())


@pytest.mark.parametrize("name", ["conv1.weight", "fc2.weight"])
def test_weights_that_are_no_numbers_are_refused_by_name(name: str) -> None:
    model = nets.make(nets.LeNet)
    context = nets.context(nets.task(nets.make(nets.LeNet)))
    with torch.no_grad():
        model.get_parameter(name).flatten()[0] = float("nan")
    with pytest.raises(BadInput, match=f"^{name} holds NaN or infinity"):
        StaticQuantizer().apply(model, StaticInt8(), context)


def test_a_model_without_layers_is_refused() -> None:
    profile = nets.context(nets.task(nets.make(nets.Mlp))).profile
    assert StaticQuantizer().refuses(profile, StaticInt8()) is None
    assert StaticQuantizer().refuses(profile.model_copy(update={"layers": ()}), StaticInt8()) == (
        "static int8: the model has no convolution and no linear layer"
    )


class InGroups(nn.Module):
    """A transposed convolution in groups, for whose bias the runtime's quantizer has no scales, and a plain one."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, stride=2, padding=1)
        self.grouped = nn.ConvTranspose2d(8, 8, 2, stride=2, groups=2)
        self.plain = nn.ConvTranspose2d(8, 6, 2, stride=2)
        self.output = nn.Linear(6, nets.CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.grouped(torch.relu(self.stem(x))))
        return self.output(torch.relu(self.plain(x)).amax((2, 3)))


def test_transposed_convolutions(tmp_path: Path) -> None:
    result, proto = quantized(InGroups)
    stored = initializers(proto)
    assert stored["grouped.weight"].data_type == TensorProto.FLOAT
    integers = numpy_helper.to_array(stored["plain.weight_quantized"])
    scale = numpy_helper.to_array(stored["plain.weight_scale"])
    assert np.allclose(integers * scale[:, None, None], result.model.get_parameter("plain.weight").detach(), rtol=1e-6)
    path = tmp_path / "model.onnx"
    path.write_bytes(slim(proto).SerializeToString())
    images = nets.images(40)
    with torch.no_grad():
        expected = nets.make(InGroups)(images)
    off = torch.from_numpy(Runtime(path, 1).run(images)) - expected
    assert float(off.norm() / expected.norm()) < 0.1
