"""Weight-only blocks: matrices in 4 or 8 bits, activations and everything else in float."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from onnx import TensorProto, helper

from easycompress.artifact.fold import fold, fold_checked
from easycompress.codes.affine import INT8_LIMIT
from easycompress.quantization.blocks import Blocks, packed, quantize_blocks
from easycompress.quantization.dynamic import NOTHING_LINEAR, lacks_linear
from easycompress.quantization.mixed import SENSITIVITY_SAMPLES, harms_of, most_sensitive
from easycompress.quantization.rewrite import Rewriter, store_tables, unbiased, with_bias
from easycompress.quantization.settings import WeightOnly
from easycompress.quantization.weights import LINEAR, TABLES, Found, coded_weights, found, round_weights
from easycompress.technique import Applied, Context, Need

if TYPE_CHECKING:
    import onnx
    from torch import nn

    from easycompress.core.inputs import Inputs
    from easycompress.core.profile import ModelProfile

BYTE = 8

TYPES = {
    (4, True): TensorProto.INT4,
    (4, False): TensorProto.UINT4,
    (8, True): TensorProto.INT8,
    (8, False): TensorProto.UINT8,
}
"""How numbers are stored, by bits and whether blocks are symmetric."""


class BlockQuantizer:
    """Matrices in blocks of 4 or 8 bits, rounded to the nearest level, without data unless layers are compared."""

    name = "weight-only"
    settings = WeightOnly
    needs: frozenset[Need] = frozenset()
    source = "Dettmers and Zettlemoyer, The case for 4-bit precision, ICML 2023; ONNX Runtime, MatMulNBits"

    def refuses(self, profile: ModelProfile, action: WeightOnly) -> str | None:  # noqa: ARG002 - the protocol
        """Refuse a model without linear layers."""
        return f"weight-only: {NOTHING_LINEAR}" if lacks_linear(profile) else None

    def apply(self, model: nn.Module, action: WeightOnly, context: Context) -> Applied:
        """Fold, round the weights to their blocks' levels, and leave the operators to a pass over the graph."""
        pairs = fold_checked(model, context.task.example)
        blocks = {
            weight: _blocks(module.weight, action, action.bits, weight)
            for weight, module in coded_weights(model, LINEAR)
        }
        wide = _wide(model, blocks, action, context)
        with torch.no_grad():
            for weight in wide:
                blocks[weight] = _blocks(model.get_parameter(weight), action, BYTE, weight)
            tied = {id(model.get_parameter(weight)) for weight in blocks}
            for weight, block in blocks.items():
                model.get_parameter(weight).copy_(block.dense())
        spare = [name for name, module in model.named_modules() if id(getattr(module, "weight", None)) in tied]
        codes = round_weights(model, TABLES, INT8_LIMIT, spare)
        record = {"folded": [list(pair) for pair in pairs], "wide": wide}

        def block_graph(proto: onnx.ModelProto) -> onnx.ModelProto:
            known = Found({name: (block.dense(), block) for name, block in blocks.items()})
            return block_products(store_tables(proto, found(codes))[0], known, action)

        return Applied(model, record, dict(codes), block_graph)

    def replay(self, model: nn.Module, record: dict[str, Any], example: Inputs) -> nn.Module:  # noqa: ARG002 - the protocol
        """Fold the recorded pairs; the weights on their levels come with the state dict."""
        return fold(model.eval(), [(layer, norm) for layer, norm in record["folded"]])


def _blocks(weight: torch.Tensor, action: WeightOnly, bits: int, name: str) -> Blocks:
    return quantize_blocks(weight, bits=bits, block=action.block, symmetric=action.symmetric, name=name)


def _wide(model: nn.Module, blocks: dict[str, Blocks], action: WeightOnly, context: Context) -> list[str]:
    """Return the weights that get 8 bits: the share of the layers that 4 bits harm most."""
    count = round(action.wide * len(blocks))
    if action.bits == BYTE or not count:
        return []
    data = context.task.data.calibration.inputs if len(context.task.data.calibration) else context.task.example
    layers = {weight.rpartition(".")[0]: block.dense() for weight, block in blocks.items()}
    samples = data[:SENSITIVITY_SAMPLES]
    what = f"weight-only {action.block} {action.symmetric}"
    harms = context.remembered(what, model, lambda: harms_of(model, layers, samples, activations=False))
    return [f"{name}.weight" if name else "weight" for name in most_sensitive(harms, count)]


def block_products(proto: onnx.ModelProto, known: Found[Blocks], action: WeightOnly) -> onnx.ModelProto:
    """Return the graph with DequantizeLinear by blocks before every product with a constant matrix.

    Standard operators of opset 21, which ONNX Runtime fuses into its own MatMulNBits when a session starts, so that the
    dense weight never exists. Weights that aren't known, computed from several parameters, are rounded here.
    """
    rewriter = Rewriter(proto)

    def change(node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
        product = rewriter.product(node)
        if product is None:
            return None
        name, block = known.find(product.weight) or (
            product.stored,
            _blocks(torch.from_numpy(product.weight.copy()), action, action.bits, product.stored),
        )
        rows, count = block.scale.shape
        kind = TYPES[block.bits, block.symmetric]
        levels = packed(block.columns(), block.bits)
        read = [
            rewriter.add_tensor(helper.make_tensor(f"{name}_quantized", kind, [block.inputs, rows], levels, raw=True)),
            rewriter.add(f"{name}_block_scale", block.scale.t().numpy()),
        ]
        if not block.symmetric:
            zeros = packed(block.zeros(), block.bits)
            read.append(
                rewriter.add_tensor(helper.make_tensor(f"{name}_block_zero", kind, [count, rows], zeros, raw=True))
            )
        dense = f"{product.output}_weight"
        return [
            helper.make_node("DequantizeLinear", read, [dense], axis=0, block_size=block.block),
            helper.make_node("MatMul", [product.source, dense], [unbiased(product)]),
            *with_bias(product, unbiased(product)),
        ]

    rewriter.replace(change)
    return rewriter.finished()
