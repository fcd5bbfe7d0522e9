"""The nodes of an ONNX graph as modules, by onnx2pytorch, and what each of their tensors is called."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING, Any

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, fx, nn

from easycompress.core.errors import BadInput, CannotCompress, one_line
from easycompress.core.opening import last_line, opened
from easycompress.intake.onnx_trace import trace

if TYPE_CHECKING:
    from collections.abc import Sequence

TRAINED = {
    "Conv", "ConvTranspose", "Gemm", "MatMul", "BatchNormalization", "LayerNormalization", "LSTM", "GRU", "RNN",
    "InstanceNormalization", "GroupNormalization", "PRelu", "Gather", "Add", "Mul", "RMSNormalization",
}  # fmt: skip
"""Operators whose floating-point constants were parameters."""

STATES = 5
"""Where the initial states stand among a recurrent node's inputs."""

MADE_UP = re.compile(r"^node_|__\d+$")
"""What torch's exporter puts around the names of nodes."""

SECONDS = 300
"""Longest time that ONNX Runtime may take to open and run a graph."""

FIXED = re.compile(r"^(onnx::|val_|/|_)")
"""Names of tensors that an exporter made up."""


def convert(proto: onnx.ModelProto, example: dict[str, Tensor], where: str) -> Any:  # noqa: ANN401 - untyped library
    """Let onnx2pytorch make modules of the nodes, after what depends on shapes alone was computed."""
    try:
        from onnx2pytorch import ConvertModel  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise BadInput(f"{where}: reading ONNX needs onnx2pytorch; pip install easycompress[onnx-in]") from error
    fixed = onnx.ModelProto()
    fixed.CopyFrom(proto)
    del fixed.graph.value_info[:]
    for value in fixed.graph.input:
        if value.name in example:
            for dimension, length in zip(value.type.tensor_type.shape.dim, example[value.name].shape, strict=True):
                dimension.dim_value = length
    for value in fixed.graph.output:
        value.type.tensor_type.ClearField("shape")
    _compute_shapes(fixed, example, where)
    for place, node in enumerate(fixed.graph.node):
        node.name = node.name or f"{node.op_type}_{place}"
    _each_convertible(fixed, where)
    _without_zero_states(fixed.graph)
    try:
        converted = ConvertModel(fixed).eval()
    except (RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError, AssertionError,
            NotImplementedError) as error:  # fmt: skip
        raise CannotCompress(
            f"{where}: onnx2pytorch can't convert it: {one_line(error, 160)}; export the model as .pt2 instead"
        ) from error
    _with_parameters(converted)
    return converted


def _compute_shapes(proto: onnx.ModelProto, example: dict[str, Tensor], where: str) -> None:
    """Replace what depends on constants and on the inputs' shapes alone by what ONNX Runtime computes for `example`.

    PyTorch would read such numbers out of tensors, which a trace can't follow. Changes `proto`.
    """
    graph = proto.graph
    known = {tensor.name for tensor in graph.initializer}
    nodes = []
    for node in graph.node:
        fixed = node.op_type in ("Shape", "Size") or all(name in known or not name for name in node.input)
        if fixed and not node.op_type.startswith(("Random", "Multinomial", "Bernoulli")) and not _bodies(node):
            nodes.append(node)
            known.update(node.output)
    rest = [node for node in graph.node if node not in nodes]
    read = {name for node in rest for name in _reads(node)} | {value.name for value in graph.output}
    wanted = [name for node in nodes for name in node.output if name in read]
    if not wanted:
        return
    asked = onnx.ModelProto()
    asked.CopyFrom(proto)
    del asked.graph.output[:]
    asked.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted)
    values = _values(asked, example, where)
    graph.initializer.extend(numpy_helper.from_array(v, name) for name, v in zip(wanted, values, strict=True))
    del graph.node[:]
    graph.node.extend(rest)


def _values(graph: onnx.ModelProto, example: dict[str, Tensor], where: str) -> tuple[Any, ...]:
    """Run somebody's graph once, in a process of its own."""
    try:
        run = opened(graph.SerializeToString(), SECONDS, [{name: t.numpy() for name, t in example.items()}])
    except subprocess.TimeoutExpired as error:
        raise BadInput(f"{where}: ONNX Runtime didn't run it in {SECONDS} s; give a smaller model") from error
    if run.code:
        what = one_line(ValueError(last_line(run.text)), 120) if run.code > 0 else f"signal {-run.code}"
        raise BadInput(f"{where}: ONNX Runtime can't compute its constants ({what}); export it again")
    return run.answers[0]


def _bodies(node: Any) -> list[onnx.GraphProto]:  # noqa: ANN401 - a node of a graph
    return [attribute.g for attribute in node.attribute if attribute.HasField("g")]


def _reads(node: Any) -> list[str]:  # noqa: ANN401 - a node of a graph
    return [*node.input, *(name for body in _bodies(node) for inner in body.node for name in _reads(inner))]


def _without_zero_states(graph: onnx.GraphProto) -> None:
    """Let recurrent layers begin at zero by themselves: onnx2pytorch takes no initial states of an LSTM."""
    stored = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type not in ("LSTM", "GRU", "RNN"):
            continue
        for place in range(STATES, len(node.input)):
            tensor = stored.get(node.input[place])
            if tensor is not None and not numpy_helper.to_array(tensor).any():
                node.input[place] = ""


def _each_convertible(proto: onnx.ModelProto, where: str) -> None:
    """Raise CannotCompress with the first node whose operator isn't in ONNX's own set: no converter knows it."""
    for node in proto.graph.node:
        if node.domain not in ("", "ai.onnx") or not onnx.defs.has(node.op_type):
            raise CannotCompress(
                f"{where}: operator {node.domain or 'onnx'}::{node.op_type} (node {node.name}) has no PyTorch form; "
                "export the model as .pt2 instead"
            )


def names_of(converted: Any, proto: onnx.ModelProto) -> dict[int, str]:  # noqa: ANN401 - an untyped library's module
    """Return the file's names of the converted module's tensors, by id; made-up ones are told by their node."""
    graph = converted.onnx_model.graph
    names: dict[int, str] = {}
    fresh = {tensor.name for tensor in proto.graph.initializer}
    for node in graph.node:
        layer = getattr(converted, converted.mapping[node.output[0]], None)
        weights = [name for name in node.input if name in fresh]
        path = _path(node, weights)
        if isinstance(layer, nn.Module):
            for own, tensor in layer.named_parameters():
                names.setdefault(id(tensor), f"{path}.{own.rpartition('.')[2]}")
            for own, buffer in layer.named_buffers():
                names.setdefault(id(buffer), f"{path}.{own.rpartition('.')[2]}")
    for tensor in graph.initializer:
        kept = getattr(converted, _buffer_name(tensor.name), None)
        if isinstance(kept, Tensor):
            names.setdefault(id(kept), _clean(tensor.name))
    return names


def _path(node: Any, weights: Sequence[str]) -> str:  # noqa: ANN401 - a node of a graph
    """Return a layer's path: what comes before `.weight` in its weight's name, else its node's name."""
    for name in weights:
        if name.endswith((".weight", ".weight_ih_l0")) and not FIXED.match(name):
            return _clean(name.rpartition(".")[0])
    parts = [part for part in node.name.split("/") if part]
    if len(parts) > 1 and parts[-1].rstrip("0123456789_") == node.op_type:
        parts.pop()
    return MADE_UP.sub("", _clean(".".join(parts))) or node.op_type


def _clean(name: str) -> str:
    return re.sub(r"[^\w.]", "_", name).strip(".") or "tensor"


def _buffer_name(name: str) -> str:
    from onnx2pytorch.convert.operations import get_buffer_name  # noqa: PLC0415 - an extra

    return str(get_buffer_name(name))


def _with_parameters(converted: Any) -> None:  # noqa: ANN401 - an untyped library's module
    """Make parameters of the constants that operators learned, and whole layers of what onnx2pytorch spells out."""
    graph = converted.onnx_model.graph
    stored = {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        place = converted.mapping[node.output[0]]
        held = getattr(converted, place, None)
        if node.op_type == "LayerNormalization" and held is not None:
            setattr(converted, place, _LayerNorm(held.axis, held.eps))
        elif node.op_type == "Gather" and node.input[0] in stored and getattr(held, "dim", 1) == 0:
            setattr(converted, place, _Embedding())
        for name in node.input:
            value = getattr(converted, _buffer_name(name), None) if name in stored else None
            if not isinstance(value, Tensor) or isinstance(value, nn.Parameter) or not value.is_floating_point():
                continue
            if node.op_type in TRAINED and value.dim():
                delattr(converted, _buffer_name(name))
                converted.register_parameter(_buffer_name(name), nn.Parameter(value))


class _LayerNorm(nn.Module):
    """Layer norm over the axes from `axis` on, as one operator."""

    def __init__(self, axis: int, eps: float) -> None:
        super().__init__()
        self.axis, self.eps = axis, eps

    def forward(self, inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return nn.functional.layer_norm(inputs, inputs.shape[self.axis :], weight, bias, self.eps)


class _Embedding(nn.Module):
    """Rows of a table, as one operator where there is a table; negative indices count from its end."""

    def forward(self, table: Tensor, indices: Tensor) -> Tensor:
        if table.dim() != 2 or not table.is_floating_point():  # noqa: PLR2004 - a matrix
            return table[indices]
        return nn.functional.embedding(indices, table)


def traced(converted: Any, tensors: list[Tensor], where: str) -> fx.GraphModule:  # noqa: ANN401 - untyped library
    """Return the aten graph of a converted module, with its constants' values known: shapes are computed from them."""
    try:
        return trace(converted, tensors)
    except Exception as error:  # each of its operators fails in its own way
        raise CannotCompress(
            f"{where}: {_failing(converted, tensors) or 'its graph'} can't be run by PyTorch "
            f"({one_line(error, 120)}); export the model as .pt2 instead"
        ) from error


def _failing(converted: Any, tensors: list[Tensor]) -> str:  # noqa: ANN401 - an untyped library's module
    """Return the operator and node on which a converted module fails."""
    last: list[str] = []
    kinds = {converted.mapping[node.output[0]]: node for node in converted.onnx_model.graph.node}
    hooks = [
        module.register_forward_pre_hook(lambda _, __, name=name: last.append(name))
        for name, module in converted.named_children()
    ]
    try:
        with torch.no_grad():
            converted(*tensors)
    except Exception:  # noqa: BLE001 - the caller tells what happened
        node = kinds.get(last[-1]) if last else None
        return f"operator {node.op_type} (node {node.name})" if node is not None else ""
    finally:
        for hook in hooks:
            hook.remove()
    return ""
