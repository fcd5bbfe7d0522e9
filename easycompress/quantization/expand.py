"""Traced operators split into those that the exporter writes them as, where integers come between.

A linear layer on more than two dimensions is a product and a sum in the file, attention two products around a softmax:
the runtime's quantizer puts the values in between on grids of their own, so training has to have them too. A product
with a matrix of inputs by outputs, as GPT-2's layers are, gets the arguments of a layer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from onnx import numpy_helper
from torch import Tensor

if TYPE_CHECKING:
    import onnx
    from torch import fx

aten = torch.ops.aten


def expand(graph: fx.Graph, names: dict[str, fx.Node], proto: onnx.ModelProto) -> dict[str, str]:
    """Rewrite linear layers and attention in place; `names` (value of the file -> node) gains the values in between.

    Returns the initializer that holds each matrix the file multiplies with transposed, by the parameter's name. What
    isn't written in the way known here stays whole.
    """
    pieces = _Pieces(graph, proto)
    replaced: dict[fx.Node, fx.Node] = {}
    for name, node in list(names.items()):
        made = pieces.makers.get(name)
        if made is None or node in replaced:
            continue
        new = None
        if node.target is aten.linear.default:
            new = pieces.linear(node, made)
        elif node.target is aten.scaled_dot_product_attention.default:
            new = pieces.attention(node, made)
        elif node.target is aten.addmm.default and made.op_type == "Gemm" and not node.kwargs:
            bias, x, weight = node.args
            with graph.inserting_before(node):
                new = graph.call_function(columns, (x, weight, bias))
        if new is not None:
            node.replace_all_uses_with(new)
            graph.erase_node(node)
            replaced[node] = new
    for name, node in names.items():
        names[name] = replaced.get(node, node)
    names |= pieces.names
    return pieces.matrices


class _Pieces:
    """What the file's operators are in the traced graph."""

    def __init__(self, graph: fx.Graph, proto: onnx.ModelProto) -> None:
        self.graph = graph
        self.makers = {name: node for node in proto.graph.node for name in node.output}
        self.stored = {tensor.name: tensor for tensor in proto.graph.initializer}
        self.names: dict[str, fx.Node] = {}
        self.matrices: dict[str, str] = {}

    def linear(self, node: fx.Node, made: onnx.NodeProto) -> fx.Node | None:
        """Return the sum at the end of a linear layer (N, ..., K); None for one that is a single operator."""
        weight: Any = node.args[1]
        product = self.makers.get(made.input[0]) if made.op_type == "Add" else made
        if product is None or product.op_type != "MatMul" or product.input[1] not in self.stored:
            return None
        self.matrices[weight.target] = product.input[1]
        if product is made:
            return None
        with self.graph.inserting_before(node):
            inner = self.graph.call_function(aten.linear.default, node.args[:2])
            self.names[product.output[0]] = inner
            return self.graph.call_function(aten.add.Tensor, (inner, node.args[2]))

    def attention(self, node: fx.Node, made: onnx.NodeProto) -> fx.Node | None:
        """Return the last product of an attention over queries, keys and values (N, heads, L, head size)."""
        query, key, value, *rest = node.args
        mask = rest[0] if rest else node.kwargs.get("attn_mask")
        causal = bool(rest[2] if len(rest) > 2 else node.kwargs.get("is_causal"))  # noqa: PLR2004 - mask, dropout, causal
        scores = self._scores(made)
        factor = None if scores is None else self._factor(scores, node.kwargs.get("scale"))
        if scores is None or factor is None or node.kwargs.get("enable_gqa"):
            return None
        graph = self.graph
        with graph.inserting_before(node):
            turned = graph.call_function(aten.transpose.int, (key, -2, -1))
            left, right = query, turned
            if factor != 1.0:
                left, right = (graph.call_function(aten.mul.Tensor, (side, factor)) for side in (query, turned))
            products = graph.call_function(aten.matmul.default, (left, right))
            share = graph.call_function(shares, (products, mask, causal))
            self.names |= {scores.input[0]: left, scores.input[1]: right, scores.output[0]: products}
            self.names[made.input[0]] = share
            return graph.call_function(aten.matmul.default, (share, value))

    def _scores(self, made: onnx.NodeProto) -> onnx.NodeProto | None:
        """Return the product of queries and keys whose softmax the product `made` multiplies with values."""
        if made.op_type != "MatMul":
            return None
        node = self.makers.get(made.input[0])
        if node is not None and node.op_type == "Where":  # rows of which nothing is left are zero
            node = self.makers.get(node.input[2])
        if node is None or node.op_type != "Softmax":
            return None
        node = self.makers.get(node.input[0])
        if node is not None and node.op_type == "Add":
            node = self.makers.get(node.input[0])
        return node if node is not None and node.op_type == "MatMul" else None

    def _factor(self, scores: onnx.NodeProto, scale: Any) -> float | None:  # noqa: ANN401 - a traced argument
        """Return the number that queries and keys are both multiplied with, the root of the attention's `scale`.

        By 1 nothing is multiplied.
        """
        sides = [self.makers.get(name) for name in scores.input]
        if scale == 1 and not any(side is not None and side.op_type == "Mul" for side in sides):
            return 1.0
        if any(side is None or side.op_type != "Mul" or side.input[1] not in self.stored for side in sides):
            return None
        found = {float(numpy_helper.to_array(self.stored[side.input[1]]).item()) for side in sides if side is not None}
        return found.pop() if len(found) == 1 else None


def columns(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return x (N, K) times the weight (K, C) plus the bias (C,): a linear layer with an output a column."""
    return torch.addmm(bias, x, weight)


def shares(products: Tensor, mask: Tensor | None, causal: bool) -> Tensor:  # noqa: FBT001 - called from a traced graph
    """Return the softmax over the last dimension of (N, heads, L, S) where `mask` lets it see; a row of nothing is 0.

    `mask` is broadcast: False is left out, numbers are added. `causal` leaves out what comes later.
    """
    if causal:
        mask = torch.ones(products.shape[-2:], dtype=torch.bool, device=products.device).tril()
    if mask is None:
        return products.softmax(-1)
    outside = ~mask if mask.dtype == torch.bool else None
    masked = products + mask if outside is None else products.masked_fill(outside, float("-inf"))
    return masked.softmax(-1).nan_to_num(0.0)
