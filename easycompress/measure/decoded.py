"""A self-decoding graph with its weights decoded: what ONNX Runtime makes of it when a session starts."""

from __future__ import annotations

import onnx
import onnxruntime
from onnx import numpy_helper

QUIET = 3
"""ONNX Runtime's log level for errors only."""


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
    graph = onnx.helper.make_graph(
        settled,
        "constants",
        [],
        [onnx.helper.make_empty_tensor_value_info(name) for name in wanted],
        list(proto.graph.initializer),
    )
    model = onnx.helper.make_model(graph, opset_imports=list(proto.opset_import), ir_version=proto.ir_version)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = QUIET
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    values = dict(zip(wanted, session.run(wanted, {}), strict=True))
    result = onnx.ModelProto()
    result.CopyFrom(proto)
    del result.graph.node[:], result.graph.initializer[:]
    result.graph.node.extend(rest)
    used = {name for node in rest for name in node.input}
    result.graph.initializer.extend(tensor for tensor in proto.graph.initializer if tensor.name in used)
    result.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in values.items())
    return result
