"""Multiply-accumulates of a written graph, operator by operator."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import onnx

from easycompress.artifact.external import is_outside
from easycompress.artifact.session import FATAL, open_session
from easycompress.core.errors import CannotCompress

LINEAR_OPS = ("Gemm", "MatMul", "MatMulInteger")
CONV_OPS = ("Conv", "ConvTranspose")
RECURRENT_OPS = ("LSTM", "GRU", "RNN", "DynamicQuantizeLSTM")


@dataclass(frozen=True)
class OperatorMacs:
    """One operator of the graph: its type, the weight it multiplies by ('' for two activations), MACs per sample.

    `output` is the name of its first output.
    """

    op: str
    weight: str
    macs: int
    output: str = field(default="", compare=False)


def macs_by_operator(proto: onnx.ModelProto) -> list[OperatorMacs]:
    """Count convolutions, linear and recurrent layers and matrix products (attention) for one sample.

    A fused multiply and add counts once; biases, activations and normalisation count nothing. Raises CannotCompress
    where a shape that is needed can neither be inferred nor seen in a run on zeros.
    """
    counted = [node for node in proto.graph.node if node.op_type in (*LINEAR_OPS, *CONV_OPS, *RECURRENT_OPS)]
    shapes = _shapes(proto)
    unknown = {name for node in counted for name in (*node.input[:3], node.output[0]) if name and name not in shapes}
    if unknown and not any(is_outside(tensor) for tensor in proto.graph.initializer):
        shapes |= _observed(proto, sorted(unknown))
    producers = {name: node for node in proto.graph.node for name in node.output}
    weights = {tensor.name for tensor in proto.graph.initializer}
    rows = []
    for node in counted:
        out = _shape(shapes, node.output[0], node)
        if node.op_type == "MatMul" and node.input[0] not in shapes:  # of which only the last size matters
            right = _shape(shapes, node.input[1], node)
            left = right[-2:][:1]
        else:
            left, right = (_shape(shapes, name, node) for name in node.input[:2])
        if node.op_type == "Conv":
            macs = math.prod(out) * math.prod(right[1:])
        elif node.op_type == "ConvTranspose":
            macs = math.prod(left) * math.prod(right[1:])
        elif node.op_type in RECURRENT_OPS:  # both matrices, of every direction and gate, at every step of (T, N, C)
            macs = math.prod(left[:2]) * (math.prod(right) + math.prod(_shape(shapes, node.input[2], node)))
        else:
            transposed = any(a.name == "transA" and a.i for a in node.attribute)
            macs = math.prod(out) * (left[0] if transposed else left[-1])
        rows.append(OperatorMacs(node.op_type, _weight_name(node.input[1], producers, weights), macs, node.output[0]))
    return rows


def macs(proto: onnx.ModelProto) -> int:
    """Return the multiply-accumulates of one sample."""
    return sum(row.macs for row in macs_by_operator(proto))


def _weight_name(name: str, producers: dict[str, onnx.NodeProto], weights: set[str]) -> str:
    """Follow a weight back through dequantization and reshaping to the initializer it is stored in."""
    while name not in weights:
        node = producers.get(name)
        if node is None or node.op_type not in ("DequantizeLinear", "Transpose", "Reshape", "Cast"):
            return ""
        name = node.input[0]
    return name


def _shapes(proto: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    names = {tensor.name for tensor in copy.graph.initializer}
    dims = [value.type.tensor_type.shape.dim for value in copy.graph.input if value.name not in names]
    batches = {sizes[0].dim_param for sizes in dims if sizes}
    for value in copy.graph.value_info:  # what the exporter knew, and inference can't tell
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param and dim.dim_param in batches:
                dim.dim_value = 1
    for value in copy.graph.input:
        if value.name not in names and value.type.tensor_type.shape.dim:
            value.type.tensor_type.shape.dim[0].dim_value = 1
    for value in copy.graph.output:
        value.type.tensor_type.ClearField("shape")
    inferred = onnx.shape_inference.infer_shapes(copy, data_prop=True).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in inferred.initializer}
    for value in [*inferred.input, *inferred.value_info, *inferred.output]:
        dims = value.type.tensor_type.shape.dim
        known = value.type.tensor_type.HasField("shape")  # without one its rank isn't known either
        if known and all(dim.HasField("dim_value") for dim in dims):
            shapes.setdefault(value.name, tuple(dim.dim_value for dim in dims))
    return shapes


def _observed(proto: onnx.ModelProto, names: list[str]) -> dict[str, tuple[int, ...]]:
    """Return the shapes that tensors have in a run on one sample of zeros and again in one of ones.

    A transformer's mask goes through operators (Range, GatherND) whose shapes inference can't tell. Tensors whose
    shapes differ between the two depend on the data and are left out (NonZero). Empty where a dimension is free
    beside the batch, or where a run fails.
    """
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    given = {tensor.name for tensor in made.graph.initializer}
    zeros: dict[str, np.ndarray] = {}
    for value in made.graph.input:
        kind = value.type.tensor_type
        sizes = [1, *(dim.dim_value for dim in kind.shape.dim[1:])]
        if value.name in given:
            continue
        if not all(sizes):
            return {}
        zeros[value.name] = np.zeros(sizes, onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type))
    outputs = {value.name for value in made.graph.output}
    made.graph.output.extend(onnx.helper.make_empty_tensor_value_info(n) for n in names if n not in outputs)
    ones = {name: np.ones_like(value) for name, value in zeros.items()}
    try:
        session = open_session(made, level=FATAL)  # what goes wrong is said in one line of our own
        seen = [[value.shape for value in session.run(names, feeds)] for feeds in (zeros, ones)]
    except Exception:  # noqa: BLE001 - the runtime's own error types share no public base class
        return {}
    return {name: first for name, first, second in zip(names, *seen, strict=True) if first == second}


def _shape(shapes: dict[str, tuple[int, ...]], name: str, node: onnx.NodeProto) -> tuple[int, ...]:
    if name not in shapes:
        raise CannotCompress(
            f"operator {node.op_type}: its shape depends on the data, so its operations can't be counted"
        )
    return shapes[name]
