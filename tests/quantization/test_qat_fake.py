"""The simulated integers: QuantizeLinear and DequantizeLinear, and the gradient that passes through them."""

from __future__ import annotations

import math

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

from easycompress.codes.affine import INT8_LIMIT, REDUCED_LIMIT, quantize_per_channel
from easycompress.quantization.fake import Activation, Weights, grid, on_grid


def by_runtime(x: torch.Tensor, scale: float, zero: int) -> torch.Tensor:
    """Return what ONNX Runtime's two operators make of `x`."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    values = [
        helper.make_tensor("s", TensorProto.FLOAT, [], [scale]),
        helper.make_tensor("z", TensorProto.UINT8, [], [zero]),
    ]
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None]) for name in "xy"]
    model = helper.make_model(
        helper.make_graph(nodes, "g", ports[:1], ports[1:], values),
        opset_imports=[helper.make_opsetid("", 21)],
        ir_version=10,
    )
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return torch.as_tensor(session.run(None, {"x": x.numpy()})[0])


@pytest.mark.parametrize(
    ("low", "high"), [(0, 3.7), (-1.3, 2.9), (-5, 0), (0.5, 2), (-127.5, 127.5), (0, 0), (0, 1e-30)]
)
def test_it_is_the_arithmetic_of_the_runtime(low: float, high: float) -> None:
    scale, zero = grid(low, high)
    generator = torch.Generator().manual_seed(0)
    ties = (torch.arange(-300, 300) + 0.5) * scale
    x = torch.cat([torch.randn(4000, generator=generator) * max(high - low, 1e-3), ties, torch.zeros(1)])
    assert torch.equal(on_grid(x, scale, zero), by_runtime(x, scale, zero))


def test_a_grid_holds_zero_and_reaches_both_ends() -> None:
    assert grid(0.0, 0.0) == (1.0, 0)
    assert grid(0.5, 2.55) == grid(0.0, 2.55)
    assert grid(-1.0, -0.5) == (float(np.float32(1 / 255)), 255)
    scale, zero = grid(-1.0, 3.0)
    ends = on_grid(torch.tensor([-9.0, 0.0, 9.0]), scale, zero)
    assert ends[1] == 0
    assert ends[[0, 2]].tolist() == pytest.approx([-1.0, 3.0], abs=scale / 2)


def test_the_gradient_passes_straight_through_where_nothing_is_cut_off() -> None:
    scale, zero = grid(-1.0, 3.0)
    x = torch.tensor([-1.5, -0.9, 0.0, 0.1234, 2.9, 3.5], requires_grad=True)
    on_grid(x, scale, zero).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0, 1, 1, 1, 1, 0]


def test_behind_a_relu_the_gradient_is_the_relus() -> None:
    values = torch.tensor([-1.0, -1e-6, 0.0, 1e-6, 1.0, 4.0])
    fused, plain = (values.clone().requires_grad_() for _ in range(2))
    scale, zero = grid(0.0, 3.0)
    left, right = on_grid(fused, scale, zero, floor=0.0), on_grid(torch.relu(plain), scale, zero)
    assert torch.equal(left, right)
    left.sum().backward()
    right.sum().backward()
    assert fused.grad is not None
    assert plain.grad is not None
    assert torch.equal(fused.grad, plain.grad)
    assert fused.grad.tolist() == [0, 0, 0, 1, 1, 0]


def test_bfloat16_is_rounded_once() -> None:
    x = torch.linspace(0, 4, 5000).bfloat16()
    scale, zero = grid(0.0, 4.0)
    assert torch.equal(on_grid(x, scale, zero), on_grid(x.float(), scale, zero).bfloat16())


def test_no_number_stays_no_number() -> None:
    assert math.isnan(float(on_grid(torch.tensor([math.nan]), 0.1, 3)))


def test_a_range_follows_the_batches_that_it_watches() -> None:
    activation = Activation(-1.0, 1.0, rectified=False).train()
    x = torch.linspace(-2, 6, 64).reshape(64, 1)
    activation(x)
    assert activation.range.tolist() == [-1, 1]
    activation.watch(2)
    activation(x, watched=False)
    assert activation.range.tolist() == [-1, 1]
    activation(x)
    first = activation.range.tolist()
    assert first[0] < -1
    assert first[1] > 1
    activation.eval()(x)
    assert activation.range.tolist() == first
    activation.train()(x)
    second = activation.range.tolist()
    activation(x)
    assert activation.range.tolist() == second != first


@pytest.mark.parametrize("limit", [INT8_LIMIT, REDUCED_LIMIT])
def test_weights_are_those_of_the_code(limit: int) -> None:
    weight = torch.randn(5, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    weight[2] = 0
    dense, bias = Weights(limit, None)(weight)
    assert bias is None
    assert torch.equal(dense, quantize_per_channel(weight, limit=limit).dense())


def test_biases_are_whole_numbers_of_the_layers_sums_and_gradients_pass() -> None:
    source = Activation(0.0, 2.55, rectified=False)
    weight = torch.tensor([[1.27, 0.3], [0.0, -2.54]], requires_grad=True)
    bias = torch.tensor([0.12345678, -3.3], requires_grad=True)
    dense, offset = Weights(INT8_LIMIT, source)(weight, bias)
    steps = torch.tensor([0.01, 0.02]) * source.grid()[0]
    assert torch.allclose((offset / steps).round(), offset / steps, atol=1e-2)
    assert torch.allclose(offset, bias, atol=float(steps.max()) / 2 + 1e-6)
    (dense.sum() + 3 * offset.sum()).backward()
    assert weight.grad is not None
    assert bias.grad is not None
    peaks = weight.detach().abs().amax(1, keepdim=True)  # steps are relative to the channel's largest weight
    assert torch.equal(weight.grad, peaks.square().expand(2, 2))
    assert bias.grad.tolist() == [3, 3]
