"""Remove from an ONNX graph everything that the runtime doesn't read.

Exporter metadata, names and defaults weigh more than the weights of a well compressed model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import numpy_helper

from easycompress.artifact.external import bytes_in, is_outside, is_transposed, parameter_of

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME_SHARE = 0.02
"""A weight keeps its parameter's name where the name costs at most this share of its bytes: `inspect` can then tell."""

ALL_ONES = ("strides", "dilations")
ALL_ZEROS = ("pads",)
WINDOWED = ("Conv", "ConvTranspose", "MaxPool", "AveragePool")


def slim(proto: onnx.ModelProto, keep: frozenset[str] = frozenset()) -> onnx.ModelProto:
    """Return an equivalent graph without metadata, spare types, defaults and doubles.

    Inputs, outputs and the tensors in `keep` keep their names. Weights outside the graph stay there.
    """
    result = onnx.ModelProto()
    result.CopyFrom(proto)
    result.producer_name, result.producer_version, result.doc_string, result.domain = "easycompress", "", "", ""
    del result.metadata_props[:]
    graph = result.graph
    graph.name, graph.doc_string = "g", ""
    del graph.value_info[:], graph.metadata_props[:], graph.quantization_annotation[:]
    for tensor in [*graph.input, *graph.output]:
        tensor.ClearField("doc_string")
        del tensor.metadata_props[:]
    opset = next(o.version for o in result.opset_import if not o.domain)
    for node in graph.node:
        for field in ("name", "doc_string", "overload"):
            node.ClearField(field)  # an empty string takes two bytes, no string none
        del node.metadata_props[:]
        _drop_defaults(node, opset)
    for initializer in graph.initializer:
        _raw(initializer)
    fixed = {value.name for value in [*graph.input, *graph.output]} | set(_names_in_branches(graph)) | keep
    _drop_unused(graph, fixed)
    _merge_equal_initializers(graph, fixed)
    _shorten_names(graph, fixed)
    used = {node.domain or "" for node in graph.node}
    kept = [o for o in result.opset_import if (o.domain or "") in used]
    del result.opset_import[:]
    result.opset_import.extend(kept)
    return result


def _names_in_branches(graph: onnx.GraphProto) -> Iterator[str]:
    """Yield every name used inside If and Loop bodies: they see the outer graph's tensors, and may not shadow them."""
    for node in graph.node:
        for attribute in node.attribute:
            for body in [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]:
                yield from (value.name for value in [*body.input, *body.output, *body.initializer])
                yield from (name for inner in body.node for name in [*inner.input, *inner.output])
                yield from _names_in_branches(body)


def _drop_defaults(node: onnx.NodeProto, opset: int) -> None:
    schema = None if node.domain else onnx.defs.get_schema(node.op_type, max_inclusive_version=opset)
    kept = []
    for attribute in node.attribute:
        value = onnx.helper.get_attribute_value(attribute)
        default = schema.attributes.get(attribute.name) if schema else None
        if (
            default is not None
            and default.default_value.name
            and onnx.helper.get_attribute_value(default.default_value) == value
        ):
            continue
        if node.op_type in WINDOWED:
            if attribute.name in ALL_ONES and all(v == 1 for v in value):
                continue
            if attribute.name in ALL_ZEROS and all(v == 0 for v in value):
                continue
            if attribute.name == "kernel_shape" and node.op_type.startswith("Conv"):
                continue
        if node.op_type == "Reshape" and attribute.name == "allowzero":
            continue  # only a zero in the shape gives it a meaning, and exported shapes hold none
        attribute.ClearField("doc_string")
        kept.append(attribute)
    del node.attribute[:]
    node.attribute.extend(kept)


def _raw(tensor: onnx.TensorProto) -> None:
    """Store a small tensor's typed fields as raw bytes: varints of int32 data can take ten bytes a value."""
    tensor.ClearField("doc_string")
    del tensor.metadata_props[:]
    if tensor.raw_data or is_outside(tensor) or tensor.data_type == onnx.TensorProto.STRING:
        return
    name = tensor.name
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor), name))


def _drop_unused(graph: onnx.GraphProto, fixed: set[str]) -> None:
    used = {name for node in graph.node for name in node.input} | fixed
    kept = [i for i in graph.initializer if i.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _merge_equal_initializers(graph: onnx.GraphProto, fixed: set[str]) -> None:
    first: dict[tuple[int, tuple[int, ...], bytes, str | None, bool], str] = {}
    renamed: dict[str, str] = {}
    kept = []
    for tensor in graph.initializer:
        outside = (parameter_of(tensor), is_transposed(tensor))
        key = (tensor.data_type, tuple(tensor.dims), tensor.raw_data, *outside)
        if (tensor.raw_data or is_outside(tensor)) and key in first and tensor.name not in fixed:
            renamed[tensor.name] = first[key]
            continue
        first.setdefault(key, tensor.name)
        kept.append(tensor)
    del graph.initializer[:]
    graph.initializer.extend(kept)
    _rename(graph, renamed)


def _shorten_names(graph: onnx.GraphProto, fixed: set[str]) -> None:
    renamed = _kept_names(graph, fixed)
    taken = fixed | set(renamed.values())
    count = 0
    names = [t.name for t in graph.initializer] + [name for node in graph.node for name in node.output if name]
    for name in names:
        if name in renamed or name in fixed:
            continue
        while (short := np.base_repr(count, 36).lower()) in taken:
            count += 1
        renamed[name] = short
        count += 1
    _rename(graph, renamed)
    for tensor in graph.initializer:
        tensor.name = renamed.get(tensor.name, tensor.name)


def _kept_names(graph: onnx.GraphProto, fixed: set[str]) -> dict[str, str]:
    """Return the names of weights that cost little, stored ones and decoded ones."""
    kept: dict[str, str] = {}
    uses: dict[str, int] = {}
    for node in graph.node:
        for name in node.input:
            uses[name] = uses.get(name, 0) + 1
    taken = set(fixed)
    for tensor in graph.initializer:
        plain = tensor.name.removesuffix("_quantized")
        cost = len(plain) * (1 + uses.get(tensor.name, 0))
        if tensor.name not in fixed and plain not in taken and cost <= NAME_SHARE * bytes_in(tensor):
            kept[tensor.name] = plain
            taken.add(plain)
    rebuilt = [name for name in _rebuilt(graph) if name not in taken]
    cost = sum(len(name) * (1 + uses.get(name, 0)) for name in rebuilt)
    if cost <= NAME_SHARE * sum(bytes_in(tensor) for tensor in graph.initializer):
        kept |= {name: name for name in rebuilt}
    return kept


def _rebuilt(graph: onnx.GraphProto) -> list[str]:
    """Return what is made of initializers alone and read by the rest: the weights that a file decodes."""
    constant = {tensor.name for tensor in graph.initializer} | {""}
    made: list[str] = []
    read: set[str] = set()
    for node in graph.node:
        if constant.issuperset(node.input):
            constant.update(node.output)
            made.extend(node.output)
            if node.op_type == "Transpose" and not node.attribute:
                read.update(node.input)  # the weight behind its transposed copy
        else:
            read.update(node.input)
    return [name for name in made if name in read and not name.startswith("decode_")]


def _rename(graph: onnx.GraphProto, names: dict[str, str]) -> None:
    if not names:
        return
    for node in graph.node:
        for tensors in (node.input, node.output):
            changed = [names.get(name, name) for name in tensors]
            del tensors[:]
            tensors.extend(changed)
