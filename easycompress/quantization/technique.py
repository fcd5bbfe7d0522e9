"""Static int8 as a technique: batch norm folded, weights on their grid, integer operators in the file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from easycompress.artifact.fold import fold, fold_checked
from easycompress.codes.affine import INT8_LIMIT, REDUCED_LIMIT, quantize_per_channel
from easycompress.quantization.graph import quantize_graph
from easycompress.quantization.settings import StaticInt8
from easycompress.technique import Applied, Context, Need

if TYPE_CHECKING:
    import onnx

    from easycompress.codes.base import Code
    from easycompress.core.profile import ModelProfile

QUANTIZED = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


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
        limit = REDUCED_LIMIT if action.reduce_range else INT8_LIMIT
        codes: dict[str, Code] = {}
        parameters = dict(model.named_parameters())  # a weight that is tied or computed from others has no code
        with torch.no_grad():
            for name, module in model.named_modules():
                weight = f"{name}.weight" if name else "weight"
                if isinstance(module, QUANTIZED) and weight in parameters:
                    code = quantize_per_channel(module.weight, limit=limit, name=weight)
                    module.weight.copy_(code.dense())
                    codes[weight] = code
        inputs = context.task.data.calibration.inputs[: action.samples]

        def integer_graph(proto: onnx.ModelProto) -> onnx.ModelProto:
            return quantize_graph(proto, inputs, action)

        return Applied(model, {"folded": [list(pair) for pair in pairs]}, codes, integer_graph)

    def replay(self, model: nn.Module, record: dict[str, Any], example: torch.Tensor) -> nn.Module:  # noqa: ARG002 - the protocol
        """Fold the recorded pairs; the weights on their grid come with the state dict."""
        return fold(model.eval(), [(layer, norm) for layer, norm in record["folded"]])
