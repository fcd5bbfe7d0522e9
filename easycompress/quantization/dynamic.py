"""Dynamic int8: linear and LSTM layers in integers, the ranges of their inputs measured at each run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from onnx import TensorProto, helper

from easycompress.artifact.fold import fold, fold_checked
from easycompress.codes.affine import quantize_per_channel
from easycompress.quantization.mixed import SENSITIVITY_SAMPLES, harms_of, most_sensitive
from easycompress.quantization.processor import reduced
from easycompress.quantization.recurrent import dynamic_lstms, round_gates
from easycompress.quantization.rewrite import Rewriter, store_tables, unbiased, with_bias
from easycompress.quantization.settings import DynamicInt8
from easycompress.quantization.weights import LINEAR, TABLES, Found, coded_weights, found, limit_of, round_weights
from easycompress.technique import Applied, Context, Need

if TYPE_CHECKING:
    import onnx
    from torch import nn

    from easycompress.codes.affine import Affine
    from easycompress.core.inputs import Inputs
    from easycompress.core.profile import ModelProfile

LSTM = "LSTM"

NOTHING_LINEAR = "the model has no linear layer; convolutions stay float, their integers are made for static int8"


def lacks_linear(profile: ModelProfile) -> bool:
    """Tell whether a model has neither linear layers nor embeddings."""
    return not any(layer.family in ("linear", "attention") or "Embedding" in layer.type for layer in profile.layers)


class DynamicQuantizer:
    """8-bit weights of linear and LSTM layers and embeddings; activations are quantized as they come, uncalibrated.

    Convolutions stay float32: ConvInteger ran 15 times slower than Conv in ONNX Runtime.
    The range of an activation is that of the whole batch, so an answer depends slightly on what is asked along with it.
    """

    name = "dynamic-int8"
    settings = DynamicInt8
    needs: frozenset[Need] = frozenset()
    source = "Zafrir et al., Q8BERT, 2019; EasyCompress thesis, section 4.6"

    def refuses(self, profile: ModelProfile, action: DynamicInt8) -> str | None:  # noqa: ARG002 - the protocol
        """Refuse a model without linear layers and without an LSTM."""
        lacks = lacks_linear(profile) and all(layer.type != LSTM for layer in profile.layers)
        return f"dynamic int8: {NOTHING_LINEAR}" if lacks else None

    def apply(self, model: nn.Module, action: DynamicInt8, context: Context) -> Applied:
        """Fold, round the weights to their grid, and leave the integer operators to a pass over the graph."""
        pairs = fold_checked(model, context.task.example)
        reduce = reduced(action.reduce_range)
        limit = limit_of(reduce=reduce)
        spared = _spared(model, action.keep_float, limit, context) if action.keep_float else []
        floats = Found({name: (model.get_parameter(f"{name}.weight".lstrip(".")), name) for name in spared})
        codes = round_weights(model, (*LINEAR, *TABLES), limit, spared) | round_gates(model, limit)
        record = {"folded": [list(pair) for pair in pairs], "reduce_range": reduce, "float_layers": spared}

        def integer_graph(proto: onnx.ModelProto) -> onnx.ModelProto:
            known = found(codes)
            products = dynamic_products(store_tables(proto, known)[0], known, limit, floats)
            return dynamic_lstms(products, limit)

        return Applied(model, record, dict(codes), integer_graph)

    def replay(self, model: nn.Module, record: dict[str, Any], example: Inputs) -> nn.Module:  # noqa: ARG002 - the protocol
        """Fold the recorded pairs; the weights on their grid come with the state dict."""
        return fold(model.eval(), [(layer, norm) for layer, norm in record["folded"]])


def _spared(model: nn.Module, count: int, limit: int, context: Context) -> list[str]:
    """Return the `count` linear layers whose integers move the model's answers most."""
    data = context.task.data.calibration.inputs if len(context.task.data.calibration) else context.task.example

    def measured() -> dict[str, float]:
        weights = {
            name.removesuffix("weight").removesuffix("."): quantize_per_channel(
                module.weight, limit=limit, name=name
            ).dense()
            for name, module in coded_weights(model, LINEAR)
        }
        return harms_of(model, weights, data[:SENSITIVITY_SAMPLES], activations=True)

    return most_sensitive(context.remembered(f"dynamic-int8 {limit}", model, measured), count)


def dynamic_products(
    proto: onnx.ModelProto, codes: Found[Affine], limit: int, floats: Found[str] | None = None
) -> onnx.ModelProto:
    """Return the graph with every product with a constant matrix in integers, but for the matrices in `floats`.

    x (..., K) becomes uint8 by its own range, W (N, K) is int8 by rows: DynamicQuantizeLinear (once for all products of
    an input), MatMulInteger, Cast, Mul by both scales: the form that ONNX Runtime fuses into one operator. A weight
    without a code, one that several parameters are computed into, is rounded here, to integers up to `limit`.
    """
    rewriter = Rewriter(proto)
    quantized: dict[str, list[str]] = {}

    def change(node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
        product = rewriter.product(node)
        if product is None or (floats is not None and floats.find(product.weight) is not None):
            return None
        known = codes.find(product.weight)
        name, code = known or (
            product.stored,
            quantize_per_channel(torch.from_numpy(product.weight.copy()), limit=limit, name=product.stored),
        )
        nodes = []
        if product.source not in quantized:
            quantized[product.source] = [f"{product.source}_{part}" for part in ("integers", "step", "zero")]
            nodes.append(helper.make_node("DynamicQuantizeLinear", [product.source], quantized[product.source]))
        integers, step, zero = quantized[product.source]
        out, plain = product.output, unbiased(product)
        columns, scale = f"{name}_quantized", rewriter.add(f"{name}_step", code.scale.numpy())
        if columns in rewriter.stored:  # tied to a table, whose rows are there: ONNX Runtime turns them once
            nodes.append(helper.make_node("Transpose", [columns], [f"{out}_columns"], perm=[1, 0]))
            columns = f"{out}_columns"
        else:
            rewriter.add(columns, code.values.numpy().T)
        nodes += [
            helper.make_node("MatMulInteger", [integers, columns, zero], [f"{out}_sums"]),
            helper.make_node("Cast", [f"{out}_sums"], [f"{out}_float"], to=TensorProto.FLOAT),
            helper.make_node("Mul", [step, scale], [f"{out}_steps"]),
            helper.make_node("Mul", [f"{out}_float", f"{out}_steps"], [plain]),
        ]
        return [*nodes, *with_bias(product, plain)]

    rewriter.replace(change)
    return rewriter.finished()
