"""Models too large for several copies of their weights, or for one file: shells that share them, graphs that name them.

A shell is a copy of a model's modules around the same weights. What treats one never writes into a weight, it puts new
modules or parameters in their place. The graph of a shell is its original's, exported once.
"""

from __future__ import annotations

import copy
import os
import weakref
from typing import TYPE_CHECKING, Any

import onnx_ir
from safetensors import SafetensorError
from safetensors.torch import save_file

from easycompress.artifact import external
from easycompress.artifact.onnx_export import finished, traced
from easycompress.artifact.slim import slim
from easycompress.core import large
from easycompress.core.errors import BadInput, CannotCompress, one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy as np
    import onnx
    import torch
    from torch import nn

    from easycompress.core.inputs import Inputs

_ORIGINALS: weakref.WeakKeyDictionary[nn.Module, nn.Module] = weakref.WeakKeyDictionary()
"""Of every shell the model whose structure, and float weights, it began with."""

_GRAPHS: weakref.WeakKeyDictionary[nn.Module, onnx.ModelProto] = weakref.WeakKeyDictionary()
"""Graphs that name their weights, by model: exporting a large one takes minutes."""


def is_large(model: nn.Module) -> bool:
    """Tell whether a model's weights, or those of a shell's original, take core.large.LARGE_BYTES or more."""
    return model in _ORIGINALS or large.weight_bytes(model) >= large.LARGE_BYTES


def shell(model: nn.Module) -> nn.Module:
    """Return a copy of a model in float32 that shares the parameters' values and remembers whose they are."""
    made = large.around(model)
    _ORIGINALS[made] = original_of(model) or model
    return made


def copied(model: nn.Module) -> nn.Module:
    """Return a copy to treat: a deep one, or a shell of a large model."""
    return shell(model) if is_large(model) else copy.deepcopy(model)


def original_of(model: nn.Module) -> nn.Module | None:
    """Return the model that a shell began as, None for a model that is no shell."""
    return _ORIGINALS.get(model)


def own_weights(model: nn.Module) -> None:
    """Give a shell its own values of all parameters, so that they may be written to."""
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()


def named_graph(model: nn.Module, example: Inputs) -> onnx.ModelProto:
    """Return a model's graph as onnx_export.export does, but with weights named instead of held: see `external`.

    A copy of the model's first graph, so that it may be changed. Raises CannotCompress as export.
    """
    if model not in _GRAPHS:
        _GRAPHS[model] = _export(model, example)
    result = type(_GRAPHS[model])()
    result.CopyFrom(_GRAPHS[model])
    return result


def _export(model: nn.Module, example: Inputs) -> onnx.ModelProto:
    program = traced(model, example).model
    places = {
        tensor.data_ptr(): (name, tensor)
        for name, tensor in (*model.named_buffers(), *model.named_parameters())
        if tensor.is_contiguous()
    }
    named: dict[str, tuple[str, bool]] = {}
    inline = 0
    for name, value in program.graph.initializers.items():
        held = value.const_value
        if held is None or held.nbytes < external.INLINE_BYTES:
            continue
        found = _parameter(held.numpy(), places)
        if found is not None:
            named[name] = found
            shape = onnx_ir.Shape(held.shape.numpy())
            value.const_value = onnx_ir.ExternalTensor(found[0], None, None, held.dtype, shape=shape, name=name)
        else:
            inline += held.nbytes
    if inline >= large.LARGE_BYTES:
        raise CannotCompress(
            f"export computed {inline} bytes of constants from the weights, which no graph can hold; store the "
            "weights as the model's forward uses them"
        )
    proto: onnx.ModelProto = finished(onnx_ir.to_proto(program))
    for tensor in proto.graph.initializer:
        if tensor.name in named:
            parameter, transposed = named[tensor.name]
            external.refer(tensor, parameter, transposed=transposed)
    return proto


def _parameter(array: np.ndarray[Any, Any], places: dict[int, tuple[str, torch.Tensor]]) -> tuple[str, bool] | None:
    """Return the parameter in whose memory an array lies, and whether it is the transposed view; None for others."""
    name, tensor = places.get(array.ctypes.data, ("", None))
    if tensor is None:
        return None
    view = tensor.detach().numpy()
    if array.shape == view.shape and array.strides == view.strides:
        return name, False
    return (name, True) if array.shape == view.T.shape and array.strides == view.T.strides else None


def write_large(
    model: nn.Module,
    example: Inputs,
    path: Path,
    passes: Sequence[Callable[[onnx.ModelProto], onnx.ModelProto]] = (),
    *,
    apart: bool = False,
) -> Path:
    """Write a large model, or a shell that was treated, to `path`; see external.write_graph.

    `passes` get the original's graph, whose weights are named; what they leave of those is taken from `model`.
    """
    proto = named_graph(original_of(model) or model, example)
    for file_pass in passes:
        proto = file_pass(proto)
    return external.write_graph(slim(proto), path, lambda name: values_of(model, name), apart=apart)


def write_state(model: nn.Module, path: Path) -> None:
    """Write a model's state dict without another copy of it. Raises BadInput where the disk says no."""
    tensors: dict[str, torch.Tensor] = {}
    places: set[int] = set()
    for name, tensor in model.state_dict().items():
        place = tensor.untyped_storage().data_ptr()
        tensors[name] = tensor.clone() if place in places else tensor.contiguous()  # the format refuses shared memory
        places.add(place)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        save_file(tensors, temporary)
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        raise BadInput(f"{path}: can't be written ({one_line(error)}); choose another folder with -o") from error
    finally:
        temporary.unlink(missing_ok=True)


def describe_large(model: nn.Module, example: Inputs, path: Path) -> int:
    """Write a large model's graph alone; return the bytes that the file and its data would take."""
    return external.describe_graph(slim(named_graph(model, example)), path)


def values_of(model: nn.Module, name: str) -> np.ndarray[Any, Any]:
    """Return the values of a parameter or buffer, or of what a module gives under that name."""
    parent, _, leaf = name.rpartition(".")
    tensor: torch.Tensor = getattr(model.get_submodule(parent), leaf)
    values: np.ndarray[Any, Any] = tensor.detach().cpu().numpy()
    return values
