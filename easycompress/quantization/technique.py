"""Static int8 as a technique: batch norm folded, weights on their grid, integer operators in the file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from onnx import numpy_helper
from torch import nn

from easycompress.artifact.fold import fold, fold_checked
from easycompress.codes.affine import quantize_per_channel
from easycompress.quantization.graph import quantize_graph
from easycompress.quantization.mixed import SENSITIVITY_SAMPLES, check_layers, harms_of, most_sensitive
from easycompress.quantization.processor import reduced
from easycompress.quantization.rewrite import Rewriter, store_tables
from easycompress.quantization.settings import StaticInt8
from easycompress.quantization.weights import (
    TABLES,
    Found,
    coded_weights,
    found,
    limit_of,
    round_weights,
    transposed_linear,
)
from easycompress.technique import Applied, Context, Need

if TYPE_CHECKING:
    import onnx

    from easycompress.core.inputs import Inputs
    from easycompress.core.profile import ModelProfile

QUANTIZED = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
"""Their output channels are on the weight's second axis: rounded as the runtime's quantizer does, without a code."""


class StaticQuantizer:
    """8-bit weights and activations, calibrated, without training."""

    name = "static-int8"
    settings = StaticInt8
    needs: frozenset[Need] = frozenset({"calibration"})
    source = "Jacob et al., CVPR 2018; EasyCompress thesis, section 4.6"

    def refuses(self, profile: ModelProfile, action: StaticInt8) -> str | None:  # noqa: ARG002 - the protocol
        """Refuse a model with nothing that runs in integers."""
        if not any(layer.family in ("convolutional", "linear", "attention") for layer in profile.layers):
            return "static int8: the model has no convolution and no linear layer"
        return None

    def apply(self, model: nn.Module, action: StaticInt8, context: Context) -> Applied:
        """Fold, round the weights to their grid, and leave the integer operators to a pass over the graph.

        In PyTorch the result computes with the rounded weights and float activations; the file is what is judged.
        """
        pairs = fold_checked(model, context.task.example)
        inputs = context.task.data.calibration.inputs[: action.samples]
        reduce = reduced(action.reduce_range)
        spared = _spared(model, action, inputs, limit_of(reduce=reduce), context)
        codes = round_weights(model, (*QUANTIZED, *TABLES), limit_of(reduce=reduce), spared)
        _round_transposed(model, limit_of(reduce=reduce))
        weights = {name: model.get_parameter(f"{name}.weight".lstrip(".")).detach().clone() for name in spared}
        record = {"folded": [list(pair) for pair in pairs], "reduce_range": reduce, "float_layers": spared}

        def integer_graph(proto: onnx.ModelProto) -> onnx.ModelProto:
            stored, lookups = store_tables(proto, found(codes))
            floats = _nodes_of(stored, Found({name: (weight, name) for name, weight in weights.items()}))
            skipped = [*lookups, *floats, *in_groups(stored)]
            return quantize_graph(stored, inputs, action, reduce=reduce, skip=skipped)

        return Applied(model, record, dict(codes), integer_graph)

    def replay(self, model: nn.Module, record: dict[str, Any], example: Inputs) -> nn.Module:  # noqa: ARG002 - the protocol
        """Fold the recorded pairs; the weights on their grid come with the state dict."""
        return fold(model.eval(), [(layer, norm) for layer, norm in record["folded"]])


def _spared(model: nn.Module, action: StaticInt8, inputs: Inputs, limit: int, context: Context) -> list[str]:
    """Return the names of the layers that stay float: those that the settings name, and the most sensitive others."""
    layers = [weight.rpartition(".")[0] for weight, _ in coded_weights(model, QUANTIZED)]
    check_layers(action.float_layers, layers)
    if not action.keep_float:
        return sorted(action.float_layers)
    weights = {
        weight.rpartition(".")[0]: quantize_per_channel(module.weight, limit=limit, name=weight).dense()
        for weight, module in coded_weights(model, QUANTIZED, action.float_layers)
    }
    samples = inputs[:SENSITIVITY_SAMPLES]
    what = f"static-int8 {limit} {action.float_layers}"
    harms = context.remembered(what, model, lambda: harms_of(model, weights, samples, activations=True))
    return sorted({*action.float_layers, *most_sensitive(harms, action.keep_float)})


def _round_transposed(model: nn.Module, limit: int) -> None:
    """Round weights with their outputs on the second axis as the quantizer of the graph will: a scale an output."""
    with torch.no_grad():
        for name, module in (*coded_weights(model, TRANSPOSED), *transposed_linear(model)):
            if getattr(module, "groups", 1) == 1 or module.weight.shape[1] == 1:
                channels = module.weight.transpose(0, 1)
                channels.copy_(quantize_per_channel(channels, limit=limit, name=name).dense())


def in_groups(proto: onnx.ModelProto) -> list[str]:
    """Return the transposed convolutions in groups, for whose biases the runtime's quantizer finds no scales.

    They stay float in the file; between integers ONNX Runtime then rounds their weights itself, with one scale for all.
    """
    shapes = {tensor.name: tensor.dims for tensor in proto.graph.initializer}
    return [
        node.name
        for node in proto.graph.node
        if node.op_type == "ConvTranspose"
        and any(a.name == "group" and a.i > 1 for a in node.attribute)
        and shapes.get(node.input[1], [0, 0])[1] > 1
    ]


def _nodes_of(proto: onnx.ModelProto, layers: Found[str]) -> list[str]:
    """Return the names of the nodes that compute the given layers, giving names to those without."""
    rewriter = Rewriter(proto)
    names = []
    for index, node in enumerate(proto.graph.node):
        node.name = node.name or f"node_{index}"
        product = rewriter.product(node)
        if product is not None:
            values = product.weight
        elif node.op_type == "Conv" and node.input[1] in rewriter.stored:
            values = numpy_helper.to_array(rewriter.stored[node.input[1]])
        else:
            continue
        if layers.find(values) is not None:
            names.append(node.name)
    return names
