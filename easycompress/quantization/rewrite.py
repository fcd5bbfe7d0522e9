"""Exported graphs rewritten: products with constant matrices, and tables that are looked up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from easycompress.codes.affine import Affine
    from easycompress.quantization.weights import Array, Found

GEMM_DEFAULTS: dict[str, float] = {"alpha": 1.0, "beta": 1.0, "transA": 0}


@dataclass(frozen=True)
class Product:
    """output = source x weight^T + bias: float32 `weight` (N, K), one row an output; `bias` is a tensor's name or ''.

    `stored` is the initializer that the weight was read from.
    """

    source: str
    weight: Array
    stored: str
    bias: str
    output: str


class Rewriter:
    """A copy of a graph whose nodes are replaced one by one. Nodes and tensors that nothing reads go at the end."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        self.proto = onnx.ModelProto()
        self.proto.CopyFrom(proto)
        graph = self.proto.graph
        self.stored = {tensor.name: tensor for tensor in graph.initializer}
        self.added: dict[str, TensorProto] = {}

    def add(self, name: str, values: Array) -> str:
        """Store a tensor, once under one name; return the name."""
        return self.add_tensor(numpy_helper.from_array(np.ascontiguousarray(values), name))

    def add_tensor(self, tensor: TensorProto) -> str:
        """Store a tensor as it is, once under one name; return the name."""
        self.added.setdefault(tensor.name, tensor)
        return tensor.name

    def matrix(self, name: str) -> Array | None:
        """Return a stored float32 matrix, None for anything else."""
        tensor = self.stored.get(name)
        if tensor is None or tensor.data_type != TensorProto.FLOAT or len(tensor.dims) != 2:  # noqa: PLR2004 - a matrix
            return None
        values: Array = numpy_helper.to_array(tensor)
        return values

    def product(self, node: onnx.NodeProto) -> Product | None:
        """Return what a MatMul or plain Gemm with a constant matrix computes, None for other nodes."""
        if node.domain or node.op_type not in ("MatMul", "Gemm"):
            return None
        values = self.matrix(node.input[1])
        if values is None:
            return None
        settings: dict[str, Any] = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        if any(settings.get(name, default) != default for name, default in GEMM_DEFAULTS.items()):
            return None
        rows = values if settings.get("transB") else values.T
        bias = node.input[2] if len(node.input) > 2 else ""  # noqa: PLR2004 - Gemm's third input
        return Product(node.input[0], rows, node.input[1], bias, node.output[0])

    def replace(self, change: Callable[[onnx.NodeProto], Sequence[onnx.NodeProto] | None]) -> None:
        """Put what `change` returns for a node in its place; None leaves it."""
        nodes: list[onnx.NodeProto] = []
        for node in self.proto.graph.node:
            instead = change(node)
            nodes.extend([node] if instead is None else instead)
        del self.proto.graph.node[:]
        self.proto.graph.node.extend(nodes)

    def finished(self) -> onnx.ModelProto:
        """Return the graph with the nodes and tensors that something reads."""
        graph = self.proto.graph
        read = {value.name for value in graph.output}
        nodes = []
        for node in reversed(graph.node):
            if not read.isdisjoint(node.output):
                read |= _read([node])
                nodes.append(node)
        nodes.reverse()
        del graph.node[:]
        graph.node.extend(nodes)
        kept = [tensor for tensor in [*graph.initializer, *self.added.values()] if tensor.name in read]
        del graph.initializer[:]
        graph.initializer.extend(kept)
        # What replaces a node makes its output anew, of the same shape: what the exporter knew of it stays true, and
        # inference can't tell all of it (behind a GroupNormalization nothing).
        made = {name for node in nodes for name in node.output}
        shapes = [value for value in graph.value_info if value.name in made]
        del graph.value_info[:]
        graph.value_info.extend(shapes)
        return self.proto


def with_bias(product: Product, output: str) -> list[onnx.NodeProto]:
    """Return what adds a product's bias to `output`: nothing where it has none, see `unbiased`."""
    return [helper.make_node("Add", [output, product.bias], [product.output])] if product.bias else []


def unbiased(product: Product) -> str:
    """Return the name of a product's value before its bias is added: its output where there is no bias."""
    return f"{product.output}_unbiased" if product.bias else product.output


def store_tables(proto: onnx.ModelProto, codes: Found[Affine]) -> tuple[onnx.ModelProto, list[str]]:
    """Return the graph with each coded table that is looked up as int8 rows, and the names of the nodes for that.

    A row and its scale are looked up and multiplied: Gather, Gather, Cast, Mul. What is looked up grows with the
    batch, the table itself never exists in float32. One scale for the whole table doubled the divergence from the
    original's answers: 0.0043 against 0.0023, dynamic int8, MiniLM on 300 sentences of SST-2.
    """
    rewriter = Rewriter(proto)
    names: list[str] = []

    def change(node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
        if node.op_type != "Gather" or any(a.name == "axis" and a.i for a in node.attribute):
            return None
        values = rewriter.matrix(node.input[0])
        known = None if values is None else codes.find(values)
        if known is None:
            return None
        parameter, code = known
        output = node.output[0]
        rows = rewriter.add(f"{parameter}_quantized", code.values.numpy())
        scales = rewriter.add(f"{parameter}_table_scale", code.scale.numpy().reshape(-1, 1))
        row, scale, dense = (f"{output}_table_{part}" for part in ("row", "scale", "float"))
        made = [
            helper.make_node("Gather", [rows, node.input[1]], [row]),
            helper.make_node("Gather", [scales, node.input[1]], [scale]),
            helper.make_node("Cast", [row], [dense], to=TensorProto.FLOAT),
            helper.make_node("Mul", [dense, scale], [output]),
        ]
        for index, new in enumerate(made):
            new.name = f"{output}_table_{index}"
        names.extend(new.name for new in made)
        return made

    rewriter.replace(change)
    return rewriter.finished(), names


def _read(nodes: Iterable[onnx.NodeProto]) -> set[str]:
    """Return every name that the nodes read, inside If and Loop bodies too."""
    names: set[str] = set()
    for node in nodes:
        names.update(node.input)
        for attribute in node.attribute:
            bodies = [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]
            for body in bodies:
                names |= _read(body.node) | {value.name for value in body.output}
    return names
