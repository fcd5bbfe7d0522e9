from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import nets
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from easycompress.artifact.onnx_export import export
from easycompress.artifact.slim import slim
from easycompress.core.errors import CannotCompress
from easycompress.measure.compute import macs, macs_by_operator
from easycompress.measure.energy import estimate
from easycompress.quantization.settings import StaticInt8
from easycompress.quantization.technique import StaticQuantizer

if TYPE_CHECKING:
    from collections.abc import Callable


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(16, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x, x, x, need_weights=False)[0]


class ScaledDotProduct(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(16, 48)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (t.unflatten(-1, (4, 4)).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))
        return functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def flops(model: nn.Module, inputs: Tensor) -> int:
    """Count with torch; attention by its matrix products, since torch knows no count for its fused kernels here."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(inputs.requires_grad_())  # gradients keep nn.MultiheadAttention off its fused path too
    return int(counter.get_total_flops())


LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "plain": (lambda: nn.Conv2d(4, 8, 3), (4, 9, 9)),
    "padded": (lambda: nn.Conv2d(4, 8, 3, padding=1), (4, 9, 9)),
    "strided": (lambda: nn.Conv2d(4, 8, 3, stride=2), (4, 9, 9)),
    "dilated": (lambda: nn.Conv2d(4, 8, 3, dilation=2), (4, 9, 9)),
    "grouped": (lambda: nn.Conv2d(4, 8, 3, groups=2), (4, 9, 9)),
    "depthwise": (lambda: nn.Conv2d(4, 4, 3, groups=4), (4, 9, 9)),
    "depthwise multiplied": (lambda: nn.Conv2d(4, 12, 3, groups=4), (4, 9, 9)),
    "rectangular": (lambda: nn.Conv2d(4, 8, (1, 5), stride=(2, 1)), (4, 9, 9)),
    "pointwise": (lambda: nn.Conv2d(4, 8, 1, bias=False), (4, 9, 9)),
    "1d": (lambda: nn.Conv1d(4, 8, 3, stride=2), (4, 9)),
    "3d": (lambda: nn.Conv3d(2, 3, 3), (2, 5, 5, 5)),
    "transposed": (lambda: nn.ConvTranspose2d(4, 8, 3, stride=2, padding=1), (4, 9, 9)),
    "transposed grouped": (lambda: nn.ConvTranspose2d(4, 8, 3, groups=2), (4, 9, 9)),
    "linear": (lambda: nn.Linear(16, 6), (16,)),
    "linear without bias": (lambda: nn.Linear(16, 6, bias=False), (16,)),
    "linear 3-D": (lambda: nn.Linear(16, 6), (5, 16)),
    "linear 4-D": (lambda: nn.Linear(16, 6), (5, 3, 16)),
    "attention": (Attention, (5, 16)),
    "scaled dot product": (ScaledDotProduct, (5, 16)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_counts_as_torch_counts_it(name: str) -> None:
    make, shape = LAYERS[name]
    layer, inputs = make().eval(), torch.randn(2, *shape)
    model = layer if isinstance(layer, (Attention, ScaledDotProduct)) else nn.Sequential(layer)
    proto = export(model, inputs.clone())
    assert macs(proto) == macs(slim(proto)) == flops(model, inputs) / 2 / len(inputs) > 0  # 2 operations, 2 samples


@pytest.mark.parametrize("net", nets.NETS, ids=lambda n: n.__name__)
def test_a_net_counts_as_torch_counts_it(net: type[nn.Module]) -> None:
    proto = nets.graph(net)
    expected = flops(nets.make(net), nets.images(2)) / 4
    assert macs(proto) == macs(slim(proto)) == expected
    assert sum(row.macs for row in macs_by_operator(proto)) == expected


def test_rows_name_their_weights() -> None:
    rows = {row.weight: (row.op, row.macs) for row in macs_by_operator(nets.graph(nets.LeNet))}
    assert rows == {
        "conv1.weight": ("Conv", 64 * 6 * 9),
        "conv2.weight": ("Conv", 4 * 12 * 54),
        "fc1.weight": ("Gemm", 240),
        "fc2.weight": ("Gemm", 200),
    }


def test_products_of_activations_have_no_weight() -> None:
    rows = macs_by_operator(export(ScaledDotProduct().eval(), torch.randn(2, 5, 16)))
    assert [row.macs for row in rows if not row.weight] == [4 * 5 * 5 * 4] * 2  # heads x T x T x head size, twice


def test_recurrent_layers_count_every_step_and_direction() -> None:
    model = nn.Sequential(nn.LSTM(16, 8, batch_first=True, bidirectional=True), First()).eval()
    proto = export(model, torch.randn(2, 5, 16))
    assert macs(proto) == 5 * 2 * 4 * (8 * 16 + 8 * 8)  # steps x directions x gates x (input + hidden)


class First(nn.Module):
    def forward(self, x: tuple[Tensor, tuple[Tensor, Tensor]]) -> Tensor:
        return x[0]


@pytest.mark.parametrize("trans_a", [0, 1])
def test_a_transposed_gemm_counts_its_inner_dimension(trans_a: int) -> None:
    weight = numpy_helper.from_array(np.zeros((6, 4), dtype=np.float32), "w")
    left = numpy_helper.from_array(np.zeros((6, 3) if trans_a else (3, 6), dtype=np.float32), "left")
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["left", "w"], ["product"], transA=trans_a),
            helper.make_node("Identity", ["x"], ["y"]),
        ],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("product", TensorProto.FLOAT, [3, 4])],
        [weight, left],
    )
    assert macs(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])) == 3 * 6 * 4


def quantized(net: type[nn.Module]) -> onnx.ModelProto:
    work = nets.task(nets.make(net))
    applied = StaticQuantizer().apply(copy.deepcopy(work.model), StaticInt8(samples=16), nets.context(work))
    assert applied.file_pass is not None
    return slim(applied.file_pass(export(applied.model, nets.images(2))))


@pytest.mark.parametrize("net", [nets.Mlp, nets.BatchNormed, nets.DepthwiseSeparable], ids=lambda n: n.__name__)
def test_int8_changes_the_energy_of_an_operation_not_their_number(net: type[nn.Module]) -> None:
    plain, integer = slim(nets.graph(net)), quantized(net)
    assert macs(integer) == macs(plain)
    assert [row.macs for row in macs_by_operator(integer)] == [row.macs for row in macs_by_operator(plain)]
    before, after = estimate(plain, 1000), estimate(integer, 1000)
    assert before.source == after.source == "estimated"
    assert 0 < after.value < before.value


def test_energy_by_hand() -> None:
    proto = nets.graph(nets.Mlp)
    assert macs(proto) == 2080
    assert estimate(proto, 1000).value == pytest.approx((2080 * 4.6 + 1000 * 160) * 1e-9)
    integer = quantized(nets.Mlp)
    assert estimate(integer, 1000).value == pytest.approx((2080 * 0.23 + 1000 * 160) * 1e-9)


def test_more_bytes_cost_more_energy() -> None:
    proto = nets.graph(nets.Mlp)
    assert estimate(proto, 2000).value > estimate(proto, 1000).value


def test_an_unknown_shape_is_refused_with_its_operator() -> None:
    graph = helper.make_graph(
        [
            helper.make_node("NonZero", ["x"], ["places"]),
            helper.make_node("Cast", ["places"], ["floats"], to=TensorProto.FLOAT),
            helper.make_node("MatMul", ["w", "floats"], ["y"]),
        ],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.zeros((4, 2), dtype=np.float32), "w")],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    with pytest.raises(CannotCompress, match=r"^operator MatMul: its shape depends on the data, so its operations can"):
        macs(proto)
