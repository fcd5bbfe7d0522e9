"""float16: for GPUs, which have units for it. Nothing here is timed on one."""

from __future__ import annotations

import importlib
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from onnx import helper

from easycompress.artifact.fold import fold, fold_checked
from easycompress.codes.half import Half
from easycompress.core.errors import BadInput, CannotCompress
from easycompress.core.files import SCRATCH_REMEDY, write_bytes
from easycompress.core.opening import opened
from easycompress.quantization.rewrite import Rewriter
from easycompress.quantization.settings import Float16
from easycompress.technique import Applied, Context, Need

if TYPE_CHECKING:
    import onnx
    from torch import nn

    from easycompress.codes.base import Code
    from easycompress.core.inputs import Inputs
    from easycompress.core.profile import ModelProfile


OPENING = 120.0
"""Seconds that ONNX Runtime may take to open a graph in a process of its own."""


class HalfPrecision:
    """Weights and operators in float16, the model's inputs and outputs in float32."""

    name = "float16"
    settings = Float16
    needs: frozenset[Need] = frozenset()
    source = "Micikevicius et al., Mixed precision training, ICLR 2018"

    def refuses(self, profile: ModelProfile, action: Float16) -> str | None:  # noqa: ARG002 - the protocol
        """Refuse a model without weights."""
        return None if profile.params else "float16: the model has no weights"

    def apply(self, model: nn.Module, action: Float16, context: Context) -> Applied:  # noqa: ARG002 - the protocol
        """Fold, round every parameter to float16, and leave the operators to a pass over the graph.

        Raises BadInput, naming the parameter, where a number is too large for float16.
        """
        pairs = fold_checked(model, context.task.example)
        codes: dict[str, Code] = {}
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                code = Half(parameter.detach().half())
                if not torch.isfinite(code.values).all():
                    raise BadInput(f"{name} holds numbers beyond 65504, which float16 can't; choose another technique")
                parameter.copy_(code.dense())
                codes[name] = code
        return Applied(model, {"folded": [list(pair) for pair in pairs]}, codes, half_graph)

    def replay(self, model: nn.Module, record: dict[str, Any], example: Inputs) -> nn.Module:  # noqa: ARG002 - the protocol
        """Fold the recorded pairs; the rounded weights come with the state dict."""
        return fold(model.eval(), [(layer, norm) for layer, norm in record["folded"]])


def half_graph(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph with float16 weights and operators; its inputs and outputs keep their types.

    Raises CannotCompress where ONNX Runtime would crash on it.
    """
    result: onnx.ModelProto = _converter().convert_float_to_float16(_turned_later(proto), keep_io_types=True)
    _sort(result.graph)
    if _turns(result.graph):
        _opened(result)
    return result


def _turned_later(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph with each product of a Transpose that leaves the last axis alone and a matrix turned afterwards.

    The same numbers, and ONNX Runtime 1.31 crashes on the other order in float16: it fuses the two.
    """
    rewriter = Rewriter(proto)
    makers = {name: node for node in rewriter.proto.graph.node for name in node.output}

    def change(node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
        turn = makers.get(node.input[0]) if node.op_type == "MatMul" else None
        if turn is None or turn.op_type != "Transpose" or rewriter.matrix(node.input[1]) is None:
            return None
        order = next((list(a.ints) for a in turn.attribute if a.name == "perm"), [])
        if not order or order[-1] != len(order) - 1:
            return None
        inner = f"{node.output[0]}_unturned"
        product = helper.make_node("MatMul", [turn.input[0], node.input[1]], [inner])
        return [product, helper.make_node("Transpose", [inner], node.output, perm=order)]

    rewriter.replace(change)
    return rewriter.finished()


def _turns(graph: onnx.GraphProto) -> bool:
    """Tell whether a product reads something that was turned around: ONNX Runtime may fuse those two."""
    turned = {name for node in graph.node if node.op_type == "Transpose" for name in node.output}
    return any(not turned.isdisjoint(node.input) for node in graph.node if node.op_type in ("MatMul", "Identity"))


def _opened(proto: onnx.ModelProto) -> None:
    """Raise CannotCompress where ONNX Runtime crashes on a graph; tried in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = write_bytes(Path(folder) / "half.onnx", proto.SerializeToString(), SCRATCH_REMEDY)
        try:
            code = opened(path, OPENING).code
        except subprocess.TimeoutExpired:
            return  # slow, which is for others to judge
    if code < 0:
        raise CannotCompress(
            f"float16: ONNX Runtime crashes on this graph in float16 (signal {-code}); use another technique"
        )


def _sort(graph: onnx.GraphProto) -> None:
    """Put every node behind those whose results it reads: the converter appends its casts at the end."""
    makers = {name: index for index, node in enumerate(graph.node) for name in node.output}
    ordered: list[int] = []
    waiting = [(index, False) for index in reversed(range(len(graph.node)))]
    seen: set[int] = set()
    while waiting:
        index, ready = waiting.pop()
        if ready:
            ordered.append(index)
        elif index not in seen:
            seen.add(index)
            waiting.append((index, True))
            waiting += [(makers[name], False) for name in graph.node[index].input if name in makers]
    nodes = [graph.node[index] for index in ordered]
    kept = [type(node).FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)


def _converter() -> Any:  # noqa: ANN401 - an untyped module
    """Return ONNX Runtime's converter. Its package puts its own folder on the path when imported: undo that."""
    path = list(sys.path)
    try:
        return importlib.import_module("onnxruntime.transformers.float16")
    finally:
        sys.path[:] = path
