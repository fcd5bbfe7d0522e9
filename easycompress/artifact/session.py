"""Sessions of ONNX Runtime on the CPU, and graphs of constants run once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnx
import onnxruntime
from onnx import helper

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    import numpy as np

ERRORS, FATAL = 3, 4
"""Levels of ONNX Runtime's log: what is worth telling, or nothing short of a crash."""


def open_session(
    model: onnx.ModelProto | Path, threads: int = 0, *, optimised: bool = True, level: int = ERRORS
) -> Any:  # noqa: ANN401 - onnxruntime is untyped
    """Return a session of a graph or file with so many threads an operator, 0: as many as there are cores.

    Not `optimised` is quicker for a graph that runs once. Raises the runtime's own errors.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = level
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    source = model.SerializeToString() if isinstance(model, onnx.ModelProto) else str(model)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def constants(
    nodes: Iterable[onnx.NodeProto],
    tensors: Iterable[onnx.TensorProto],
    names: Sequence[str],
    like: onnx.ModelProto,
) -> dict[str, np.ndarray[Any, Any]]:
    """Return the tensors `names` that operators without any input make of stored ones; opsets are those of `like`."""
    outputs = [helper.make_empty_tensor_value_info(name) for name in names]
    graph = helper.make_graph(list(nodes), "constants", [], outputs, list(tensors))
    proto = helper.make_model(graph, opset_imports=like.opset_import, ir_version=like.ir_version)
    session = open_session(proto, 1, optimised=False)
    return dict(zip(names, session.run(list(names), {}), strict=True))
