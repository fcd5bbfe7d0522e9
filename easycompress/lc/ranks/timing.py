"""How long a few layers take in ONNX Runtime, on their own."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from easycompress.artifact.session import open_session
from easycompress.measure.runtime import physical_cores

if TYPE_CHECKING:
    from collections.abc import Iterable

WARM_UP = 5

RUNS = 15

ROUNDS = 2
"""Sessions a measurement: where the system puts a session's threads stays, and can halve its speed."""


def seconds_of(layers: Iterable[nn.Module], shape: tuple[int, ...], batch: int) -> float:
    """Return the least median of the seconds that `layers`, one after the other, take for inputs (batch, *shape)."""
    proto = chain(list(layers), shape)
    data = np.random.default_rng(0).standard_normal((batch, *shape), dtype=np.float32)
    medians = []
    for _ in range(ROUNDS):
        session = open_session(proto, physical_cores())
        times = []
        for _ in range(WARM_UP + RUNS):
            begin = time.perf_counter()
            session.run(None, {"x0": data})
            times.append(time.perf_counter() - begin)
        medians.append(float(np.median(times[WARM_UP:])))
    return min(medians)


def chain(layers: list[nn.Module], shape: tuple[int, ...]) -> onnx.ModelProto:
    """Return a graph of linear layers, or of 2-d convolutions, in a row; input `x0` (N, *shape)."""
    nodes, tensors = [], []
    for index, layer in enumerate(layers):
        node, weights = _linear(layer, index) if isinstance(layer, nn.Linear) else _convolution(layer, index)
        nodes += node
        tensors += weights
    given = helper.make_tensor_value_info("x0", TensorProto.FLOAT, ["N", *shape])
    made = helper.make_tensor_value_info(f"x{len(layers)}", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "chain", [given], [made], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def _linear(layer: nn.Linear, index: int) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    weight = numpy_helper.from_array(layer.weight.detach().t().contiguous().numpy(), f"w{index}")
    product = helper.make_node("MatMul", [f"x{index}", f"w{index}"], [f"p{index}"])
    bias = np.zeros(layer.out_features, np.float32) if layer.bias is None else layer.bias.detach().numpy()
    add = helper.make_node("Add", [f"p{index}", f"b{index}"], [f"x{index + 1}"])
    return [product, add], [weight, numpy_helper.from_array(bias, f"b{index}")]


def _convolution(layer: Any, index: int) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:  # noqa: ANN401 - nn.Conv2d
    names, tensors = [f"w{index}"], [numpy_helper.from_array(layer.weight.detach().numpy(), f"w{index}")]
    if layer.bias is not None:
        names.append(f"b{index}")
        tensors.append(numpy_helper.from_array(layer.bias.detach().numpy(), f"b{index}"))
    settings: dict[str, Any] = {"strides": list(layer.stride), "dilations": list(layer.dilation)}
    if isinstance(layer.padding, str):
        settings["auto_pad"] = "SAME_UPPER" if layer.padding == "same" else "VALID"
    else:
        settings["pads"] = [*layer.padding, *layer.padding]
    return [helper.make_node("Conv", [f"x{index}", *names], [f"x{index + 1}"], **settings)], tensors
