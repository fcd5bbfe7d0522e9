"""What ONNX Runtime's quantizer did to a graph: which tensors it put on which grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto, numpy_helper

from easycompress.core.errors import CannotCompress

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx

QUANTIZED = "_quantized"
"""What the quantizer appends to the name of an initializer."""

RENAMED_OUTPUT = "_QuantizeLinear_Input"
"""What it appends to the graph's outputs before they are quantized."""


@dataclass(frozen=True)
class Layout:
    """`activations`: tensor -> the tensor whose range it has (itself unless shared); `grids`: (scale, zero point) each.

    `weights` and `biases` are the parameters stored as integers, weights by the axis of their scales.
    """

    activations: dict[str, str]
    grids: dict[str, tuple[float, int]]
    weights: dict[str, int]
    biases: frozenset[str]


def read_layout(proto: onnx.ModelProto) -> Layout:
    """Read the layout of a graph with QuantizeLinear/DequantizeLinear pairs, as quantize_graph returns it.

    Raises CannotCompress where a constant that is no layer's weight or bias was quantized.
    """
    stored = {tensor.name: tensor for tensor in proto.graph.initializer}
    activations: dict[str, str] = {}
    grids: dict[str, tuple[float, int]] = {}
    weights: dict[str, int] = {}
    biases: set[str] = set()
    owners: dict[str, str] = {}
    for node in proto.graph.node:
        if node.op_type == "QuantizeLinear":
            name = node.input[0].removesuffix(RENAMED_OUTPUT)
            owner = owners.setdefault(node.input[1], node.input[1].removesuffix("_scale"))
            activations[name] = owner
            grids[owner] = _number(stored[node.input[1]]), int(_number(stored[node.input[2]]))
        elif node.op_type == "DequantizeLinear" and node.input[0] in stored:
            tensor, name = stored[node.input[0]], node.input[0].removesuffix(QUANTIZED)
            if tensor.data_type == TensorProto.INT32:
                biases.add(name)
            elif tensor.data_type == TensorProto.INT8:
                weights[name] = next((a.i for a in node.attribute if a.name == "axis"), 1)
            elif np.prod(tensor.dims) > 1:  # a single number is on its own grid exactly
                raise CannotCompress(
                    f"qat-int8: the runtime quantizes the constant {name}, which can't be imitated; use static-int8"
                )
    return Layout(activations, grids, weights, frozenset(biases))


def _number(tensor: onnx.TensorProto) -> float:
    return float(numpy_helper.to_array(tensor))


def with_grids(
    proto: onnx.ModelProto, grids: Mapping[str, tuple[float, int]], floats: Mapping[str, np.ndarray[Any, Any]]
) -> onnx.ModelProto:
    """Return a quantized graph with the activations' (scale, zero point) set, and its int32 biases made to fit.

    `floats` are the initializers before quantization: the biases' integers are made from them.
    """
    layout = read_layout(proto)
    if layout.grids.keys() != grids.keys():
        odd = min(layout.grids.keys() ^ grids.keys())
        raise CannotCompress(f"qat-int8: the file's tensor {odd} isn't the one that was trained; use static-int8")
    stored = {tensor.name: tensor for tensor in proto.graph.initializer}
    for owner, (scale, zero) in grids.items():
        _set(stored[f"{owner}_scale"], np.asarray(scale, np.float32))
        _set(stored[f"{owner}_zero_point"], np.asarray(zero, np.uint8))
    makers = {name: node for node in proto.graph.node for name in node.output}
    for node in proto.graph.node:
        if len(node.input) <= 2 or not (bias := makers.get(node.input[2])) or not bias.input[0].endswith(QUANTIZED):  # noqa: PLR2004 - input, weight, bias
            continue
        name = bias.input[0].removesuffix(QUANTIZED)
        if name not in layout.biases or name not in floats:
            continue
        data, weight = (numpy_helper.to_array(stored[makers[source].input[1]]) for source in node.input[:2])
        step = np.asarray(data * weight, np.float32)  # what one unit of the node's integer sums is worth
        limits = np.iinfo(np.int32)
        integers = np.clip((floats[name].astype(np.float64) / step).round(), limits.min, limits.max)
        _set(stored[bias.input[0]], integers.astype(np.int32))
        _set(stored[bias.input[1]], step.reshape(-1))
    return proto


def _set(tensor: onnx.TensorProto, values: np.ndarray[Any, Any]) -> None:
    tensor.CopyFrom(numpy_helper.from_array(values.reshape(tuple(tensor.dims)), tensor.name))
