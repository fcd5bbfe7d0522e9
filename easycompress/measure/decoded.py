"""A self-decoding graph with its weights decoded: what ONNX Runtime makes of it when a session starts."""

from __future__ import annotations

import onnx
from onnx import numpy_helper

from easycompress.artifact.session import constants


def decoded(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph with every operator that depends on no input carried out, DequantizeLinear apart.

    A graph that holds its weights as they are is returned as it is.
    """
    constant = {tensor.name for tensor in proto.graph.initializer}
    settled, rest = [], []
    for node in proto.graph.node:
        fixed = node.input and all(not name or name in constant for name in node.input)
        if fixed and node.op_type != "DequantizeLinear" and not node.domain:
            settled.append(node)
            constant.update(node.output)
        else:
            rest.append(node)
    made = {name for node in settled for name in node.output}
    outputs = {value.name for value in proto.graph.output}
    wanted = sorted(made & ({name for node in rest for name in node.input} | outputs))
    if not wanted:
        return proto
    values = constants(settled, proto.graph.initializer, wanted, proto)
    result = onnx.ModelProto()
    result.CopyFrom(proto)
    del result.graph.node[:], result.graph.initializer[:]
    result.graph.node.extend(rest)
    used = {name for node in rest for name in node.input}
    result.graph.initializer.extend(tensor for tensor in proto.graph.initializer if tensor.name in used)
    result.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in values.items())
    return result
