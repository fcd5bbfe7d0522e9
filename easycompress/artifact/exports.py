"""Export once a structure: candidates of one run mostly differ in their weights alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import numpy_helper

from easycompress.artifact.onnx_export import export

if TYPE_CHECKING:
    from torch import Tensor, nn

    from easycompress.core.inputs import Inputs

FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)


class Exports:
    """Graphs by structure. A second model of a known structure gets the first one's graph with its own weights.

    Only graphs are kept whose float tensors are the parameters and buffers, each under its own name with its own
    values: there is nothing that export could have computed from them. A constant of the forward's own (the 6 of a
    ReLU6) can't be told from that, so such models are exported every time.
    """

    def __init__(self) -> None:
        self._known: dict[str, onnx.ModelProto] = {}

    def export(self, model: nn.Module, example: Inputs) -> onnx.ModelProto:
        """Return the module's graph, as onnx_export.export does."""
        state = {name: value for name, value in model.state_dict().items() if value.is_floating_point()}
        key = "\n".join([repr(model), *(f"{name} {tuple(value.shape)}" for name, value in state.items())])
        known = self._known.get(key)
        if known is not None:
            return _filled(known, state)
        proto = export(model, example)
        if _is_plain(proto, state):
            self._known[key] = proto
        return proto


def _is_plain(proto: onnx.ModelProto, state: dict[str, Tensor]) -> bool:
    tensors = {tensor.name: tensor for tensor in proto.graph.initializer}
    floats = {name for name, tensor in tensors.items() if tensor.data_type in FLOATS}
    return floats == state.keys() and all(
        np.array_equal(numpy_helper.to_array(tensors[name]), value.detach().numpy()) for name, value in state.items()
    )


def _filled(known: onnx.ModelProto, state: dict[str, Tensor]) -> onnx.ModelProto:
    """Return a copy of a graph with the tensors of `state` in place of its own of those names."""
    result = onnx.ModelProto()
    result.CopyFrom(known)
    for tensor in result.graph.initializer:
        if tensor.name in state:
            tensor.CopyFrom(numpy_helper.from_array(state[tensor.name].detach().contiguous().numpy(), tensor.name))
    return result
