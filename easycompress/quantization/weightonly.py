"""Weight-only blocks: matrices in 4 or 8 bits, activations and everything else in float."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from easycompress.artifact.external import fill, is_transposed, named_tensor, parameter_of
from easycompress.artifact.fold import fold, fold_checked
from easycompress.artifact.large import is_large, own_weights, shell, values_of
from easycompress.codes.affine import INT8_LIMIT, TINY
from easycompress.quantization.blocks import Blocks, packed, quantize_blocks
from easycompress.quantization.compact import BlockLinear, empty_blocks, put_blocks
from easycompress.quantization.dynamic import NOTHING_LINEAR, lacks_linear
from easycompress.quantization.mixed import SENSITIVITY_SAMPLES, harms_of, most_sensitive
from easycompress.quantization.rewrite import Rewriter, store_tables, unbiased, with_bias
from easycompress.quantization.settings import WeightOnly
from easycompress.quantization.weights import LINEAR, TABLES, Found, coded_weights, found, round_weights
from easycompress.technique import Applied, Context, Need

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx

    from easycompress.core.inputs import Inputs
    from easycompress.core.profile import ModelProfile
    from easycompress.quantization.rewrite import Product
    from easycompress.quantization.weights import Array

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
        """Fold, round the weights to their blocks' levels, and leave the operators to a pass over the graph.

        The weights of a large model become blocks in the module too: another copy of them wouldn't fit.
        """
        if is_large(model):
            return _apply_to_large(model, action, context)
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
        """Fold the recorded pairs, or put blocks in place; the weights come with the state dict."""
        for name, settings in record.get("blocks", {}).items():
            layer: Any = model.get_submodule(name.rpartition(".")[0])
            put_blocks(model, {name: empty_blocks(layer, **settings)})
        if "blocks" in record:
            own_weights(model)
        return fold(model.eval(), [(layer, norm) for layer, norm in record["folded"]])


def _blocks(weight: torch.Tensor, action: WeightOnly, bits: int, name: str) -> Blocks:
    return quantize_blocks(weight, bits=bits, block=action.block, symmetric=action.symmetric, name=name)


def _wide(model: nn.Module, blocks: dict[str, Blocks], action: WeightOnly, context: Context) -> list[str]:
    """Return the weights that get 8 bits: the share of the layers that 4 bits harm most.

    Those of a large model whose weights change most, relative to their size: its answers to one sample take seconds,
    and measuring each layer's harm takes as many of them as it has layers.
    """
    count = round(action.wide * len(blocks))
    if action.bits == BYTE or not count:
        return []
    if is_large(model):
        return most_sensitive({n: _change(model.get_parameter(n), block.dense()) for n, block in blocks.items()}, count)
    data = context.task.data.calibration.inputs if len(context.task.data.calibration) else context.task.example
    layers = {weight.rpartition(".")[0]: block.dense() for weight, block in blocks.items()}
    samples = data[:SENSITIVITY_SAMPLES]
    what = f"weight-only {action.block} {action.symmetric}"
    harms = context.remembered(what, model, lambda: harms_of(model, layers, samples, activations=False))
    return [f"{name}.weight" if name else "weight" for name in most_sensitive(harms, count)]


def _change(weight: Tensor, rounded: Tensor) -> float:
    """Return the squared change of a weight over its own square."""
    original = weight.detach()
    return float((rounded - original).square().sum() / original.square().sum().clamp(min=TINY))


def _apply_to_large(model: nn.Module, action: WeightOnly, context: Context) -> Applied:
    """Put blocks in the place of a large model's linear layers; nothing is written into the weights that it shares."""
    treated = shell(model)
    blocks = {
        weight: _blocks(module.weight, action, action.bits, weight)
        for weight, module in coded_weights(treated, LINEAR)
        if module is not treated
    }
    wide = _wide(treated, blocks, action, context)
    for weight in wide:
        blocks[weight] = _blocks(treated.get_parameter(weight), action, BYTE, weight)
    settings = {
        weight: {"bits": block.bits, "block": block.block, "symmetric": block.symmetric}
        for weight, block in blocks.items()
    }
    tied = {id(treated.get_parameter(weight)) for weight in blocks}
    spare = {m for m in treated.modules() if id(getattr(m, "weight", None)) in tied}
    put_blocks(treated, blocks)
    blocks.clear()
    own_weights(treated)
    codes = round_weights(treated, TABLES, INT8_LIMIT, [n for n, m in treated.named_modules() if m in spare])

    def block_graph(proto: onnx.ModelProto) -> onnx.ModelProto:
        for tensor in proto.graph.initializer:
            if parameter_of(tensor) in codes:
                fill(tensor, lambda name: values_of(treated, name))
        rewriter = _Named(store_tables(proto, found(codes))[0], treated)

        def read(product: Product) -> list[str]:
            return rewriter.outside(product) or _stored(rewriter, *_rounded(product, action))

        return _with_products(rewriter, read, action)

    return Applied(treated, {"folded": [], "wide": wide, "blocks": settings}, dict(codes), block_graph)


class _Named(Rewriter):
    """Rewrites a graph that names its weights: their values are those of a model."""

    def __init__(self, proto: onnx.ModelProto, model: nn.Module) -> None:
        super().__init__(proto)
        self.model = model

    def matrix(self, name: str) -> Array | None:
        """Return a float32 matrix, in the graph or named by it; None for anything else."""
        tensor = self.stored.get(name)
        parameter = None if tensor is None else parameter_of(tensor)
        if tensor is None or parameter is None:
            return super().matrix(name)
        if tensor.data_type != TensorProto.FLOAT or len(tensor.dims) != 2:  # noqa: PLR2004 - a matrix
            return None
        values = values_of(self.model, parameter)
        return values.T if is_transposed(tensor) else values

    def outside(self, product: Product) -> list[str] | None:
        """Return the names of a product's weight in blocks where the model's own layer holds it so, else None.

        They name what the layer stores in turn: nothing of it goes through memory before the file is written.
        """
        name = parameter_of(self.stored[product.stored])
        path = "" if name is None else name.rpartition(".")[0]
        layer = self.model.get_submodule(path)
        if not isinstance(layer, BlockLinear) or product.weight.shape != (layer.out_features, layer.in_features):
            return None
        rows, count = layer.scale.shape
        kind = TYPES[layer.bits, layer.symmetric]
        held = [
            (f"{name}_quantized", kind, (layer.in_features, rows), "stored_levels"),
            (f"{name}_block_scale", TensorProto.FLOAT, (count, rows), "stored_scale"),
            (f"{name}_block_zero", kind, (count, rows), "stored_zero"),
        ]
        return [
            self.add_tensor(named_tensor(tensor, dtype, dims, f"{path}.{attribute}"))
            for tensor, dtype, dims, attribute in held[: 2 if layer.symmetric else 3]
        ]


def block_products(proto: onnx.ModelProto, known: Found[Blocks], action: WeightOnly) -> onnx.ModelProto:
    """Return the graph with DequantizeLinear by blocks before every product with a constant matrix.

    Standard operators of opset 21, which ONNX Runtime fuses into its own MatMulNBits when a session starts, so that the
    dense weight never exists. Weights that aren't known, computed from several parameters, are rounded here.
    """
    rewriter = Rewriter(proto)

    def read(product: Product) -> list[str]:
        return _stored(rewriter, *(known.find(product.weight) or _rounded(product, action)))

    return _with_products(rewriter, read, action)


def _rounded(product: Product, action: WeightOnly) -> tuple[str, Blocks]:
    weight = torch.from_numpy(product.weight.copy())
    return product.stored, _blocks(weight, action, action.bits, product.stored)


def _stored(rewriter: Rewriter, name: str, block: Blocks) -> list[str]:
    """Store a weight in blocks; return the names of levels, scales and, unless symmetric, zero points."""
    rows, count = block.scale.shape
    kind = TYPES[block.bits, block.symmetric]
    levels = packed(block.columns(), block.bits)
    read = [
        rewriter.add_tensor(helper.make_tensor(f"{name}_quantized", kind, [block.inputs, rows], levels, raw=True)),
        rewriter.add(f"{name}_block_scale", block.scale.t().numpy()),
    ]
    if not block.symmetric:
        zeros = packed(block.zeros(), block.bits)
        read.append(rewriter.add_tensor(helper.make_tensor(f"{name}_block_zero", kind, [count, rows], zeros, raw=True)))
    return read


def _with_products(rewriter: Rewriter, read: Callable[[Product], list[str]], action: WeightOnly) -> onnx.ModelProto:
    """Return the rewriter's graph with its products by blocks, whose tensors `read` stores."""

    def change(node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
        product = rewriter.product(node)
        if product is None:
            return None
        dense = f"{product.output}_weight"
        return [
            helper.make_node("DequantizeLinear", read(product), [dense], axis=0, block_size=action.block),
            helper.make_node("MatMul", [product.source, dense], [unbiased(product)]),
            *with_bias(product, unbiased(product)),
        ]

    rewriter.replace(change)
    return rewriter.finished()
