"""The weights of recurrent operators: ONNX stacks PyTorch's gates in another order, and both directions in one tensor.

A parameter of PyTorch is (gates x hidden, inputs); an operator's W and R are (directions, gates x hidden, inputs).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import onnx

    from easycompress.artifact.chains import Array

ORDERS = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2), "RNN": (0,)}
"""Which of PyTorch's gates stands at each place of an operator's: i f g o become i o f c, r z n become z r h."""

MATRICES = slice(1, 3)
"""W and R among a recurrent operator's inputs."""


def recurrent_matrices(graph: onnx.GraphProto) -> Iterator[tuple[str, tuple[int, ...], list[Array]]]:
    """Yield each stored W and R once: its name, the order of its gates, and each direction's matrix as PyTorch has it.

    What isn't stored but computed from the parameters, as export leaves large ones, needs no such reading.
    """
    stored = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT}
    seen: set[str] = set()
    for node in graph.node:
        if node.domain or node.op_type not in ORDERS:
            continue
        order = ORDERS[node.op_type]
        for name in node.input[MATRICES]:
            if name in stored and name not in seen:
                seen.add(name)
                values = numpy_helper.to_array(stored[name])
                directions, rows, columns = values.shape
                gates = values.reshape(directions, len(order), rows // len(order), columns)
                own = gates[:, np.argsort(order)].reshape(values.shape)
                yield name, order, [np.ascontiguousarray(matrix) for matrix in own]


def unstack(graph: onnx.GraphProto, find: Callable[[Array], tuple[str, Array] | None]) -> None:
    """Store, in place, every parameter that `find` knows under its own name, with operators that stack it.

    `find` returns the parameter that a matrix is, with its values, or None. A direction that it doesn't know stays as
    it is, beside the other. A runtime folds the operators when a session starts.
    """
    taken = {tensor.name for tensor in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    gone: set[str] = set()
    made: dict[str, Array] = {}
    for name, order, matrices in recurrent_matrices(graph):
        found = [find(matrix) for matrix in matrices]
        if not any(found):
            continue
        gone.add(name)
        parts = []
        for index, (matrix, known) in enumerate(zip(matrices, found, strict=True)):
            source, values = known or (f"{name}_direction_{index}", matrix)
            if source not in taken:
                made[source] = values
            part = name if len(matrices) == 1 else f"{name}_part_{index}"
            nodes += _stacked(source, part, order, made, matrix.shape)
            parts.append(part)
        if len(parts) > 1:
            nodes.append(helper.make_node("Concat", parts, [name], axis=0))
    kept = [tensor for tensor in graph.initializer if tensor.name not in gone]
    nodes += graph.node
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend([*kept, *(numpy_helper.from_array(values, name) for name, values in made.items())])
    graph.node.extend(nodes)


def _stacked(
    source: str, target: str, order: tuple[int, ...], made: dict[str, Array], shape: tuple[int, ...]
) -> list[onnx.NodeProto]:
    """Return what makes (1, rows, columns) of a parameter (rows, columns), gates in `order`; `made` gets constants."""
    rows, columns = shape
    made[f"{target}_stacked"] = np.array([1, rows, columns], np.int64)
    last = f"{target}_stacked"
    if len(order) == 1:
        return [helper.make_node("Reshape", [source, last], [target])]
    made[f"{target}_apart"] = np.array([len(order), rows * columns // len(order)], np.int64)
    made[f"{target}_order"] = np.array(order, np.int64)
    return [
        helper.make_node("Reshape", [source, f"{target}_apart"], [f"{target}_gates"]),
        helper.make_node("Gather", [f"{target}_gates", f"{target}_order"], [f"{target}_placed"], axis=0),
        helper.make_node("Reshape", [f"{target}_placed", last], [target]),
    ]
