"""Sessions of ONNX Runtime on the CPU, and graphs of constants run once."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import onnx
import onnxruntime
from onnx import helper

from easycompress.core.opening import last_line, opened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    import numpy as np

    Run = Callable[
        [Iterable[onnx.NodeProto], Iterable[onnx.TensorProto], Sequence[str], onnx.ModelProto],
        dict[str, np.ndarray[Any, Any]],
    ]

SECONDS = 300
"""Longest time that a graph of constants may take in a process of its own."""

onnxruntime.disable_telemetry_events()  # for a process that had imported it before easycompress could say so

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
    session = open_session(_graph(nodes, tensors, names, like), 1, optimised=False)
    return dict(zip(names, session.run(list(names), {}), strict=True))


def constants_apart(
    nodes: Iterable[onnx.NodeProto],
    tensors: Iterable[onnx.TensorProto],
    names: Sequence[str],
    like: onnx.ModelProto,
) -> dict[str, np.ndarray[Any, Any]]:
    """Return the same, run in a process of its own, for a graph that anybody may have made. Raises RuntimeError."""
    try:
        run = opened(_graph(nodes, tensors, names, like).SerializeToString(), SECONDS, [{}])
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"not done in {SECONDS} s") from error
    if run.code:
        raise RuntimeError(last_line(run.text) if run.code > 0 else f"ONNX Runtime crashed (signal {-run.code})")
    return dict(zip(names, run.answers[0], strict=True))


def _graph(
    nodes: Iterable[onnx.NodeProto], tensors: Iterable[onnx.TensorProto], names: Sequence[str], like: onnx.ModelProto
) -> onnx.ModelProto:
    outputs = [helper.make_empty_tensor_value_info(name) for name in names]
    graph = helper.make_graph(list(nodes), "constants", [], outputs, list(tensors))
    return helper.make_model(graph, opset_imports=like.opset_import, ir_version=like.ir_version)
