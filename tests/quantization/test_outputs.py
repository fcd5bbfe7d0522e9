"""Answers of a quantized graph are floats where that costs nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import nets
import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from easycompress.artifact.onnx_export import export
from easycompress.measure.runtime import Runtime
from easycompress.quantization.graph import quantize_graph
from easycompress.quantization.outputs import plain_outputs
from easycompress.quantization.settings import StaticInt8

if TYPE_CHECKING:
    from pathlib import Path

    import onnx


def quantized(net: type[nn.Module]) -> onnx.ModelProto:
    return quantize_graph(export(nets.make(net), nets.images(2)), nets.images(64), StaticInt8(), reduce=False)


def makers(proto: onnx.ModelProto) -> dict[str, str]:
    return {name: node.op_type for node in proto.graph.node for name in node.output}


@pytest.mark.parametrize("net", [nets.Mlp, nets.LeNet])
def test_scores_are_no_longer_on_a_grid(net: type[nn.Module], tmp_path: Path) -> None:
    proto = quantized(net)
    assert [makers(proto)[value.name] for value in proto.graph.output] == ["Gemm"]
    read = {name for node in proto.graph.node for name in node.input}
    assert {tensor.name for tensor in proto.graph.initializer} <= read
    path = tmp_path / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    answers = torch.as_tensor(Runtime(path, 1).run(nets.images(200)))
    assert len(answers.flatten().unique()) > 1000  # of 2 000; a grid has 256
    with torch.no_grad():
        assert (answers - nets.make(net)(nets.images(200))).abs().max() < 0.1 * answers.abs().max()


def test_a_convolutions_answer_stays_in_integers() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1)).eval()
    proto = quantize_graph(export(model, nets.images(2)), nets.images(64), StaticInt8(), reduce=False)
    assert makers(proto)[proto.graph.output[0].name] == "DequantizeLinear"


def graph(*, read_again: bool) -> onnx.ModelProto:
    """Return x W -> grid -> output, of which something else may read the grid's values."""
    weights = numpy_helper.from_array(torch.eye(3).numpy(), "w")
    scale = numpy_helper.from_array(np.array(0.1, np.float32), "s")
    zero = numpy_helper.from_array(np.array(0, np.uint8), "z")
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["made"]),
        helper.make_node("Relu", ["made"], ["second"]),
        helper.make_node("QuantizeLinear", ["made", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["output"]),
    ]
    if read_again:
        nodes.append(helper.make_node("Neg", ["output"], ["third"]))
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3]) for name in ("x", "output", "second")]
    return helper.make_model(helper.make_graph(nodes, "g", values[:1], values[1:], [weights, scale, zero]))


def test_other_readers_of_the_product_keep_it() -> None:
    changed = plain_outputs(graph(read_again=False)).graph
    assert [(node.op_type, list(node.input), list(node.output)) for node in changed.node] == [
        ("MatMul", ["x", "w"], ["output"]),
        ("Relu", ["output"], ["second"]),
    ]
    assert [tensor.name for tensor in changed.initializer] == ["w"]


def test_integers_that_something_else_reads_stay() -> None:
    assert makers(plain_outputs(graph(read_again=True)))["output"] == "DequantizeLinear"
