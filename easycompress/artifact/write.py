"""A module, its file passes and its codes become files."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch

from easycompress.artifact.attach import attach_codes, own_names
from easycompress.artifact.codable import unread
from easycompress.artifact.container import dense_graph, write_ecz
from easycompress.artifact.exports import Exports
from easycompress.artifact.external import data_of
from easycompress.artifact.fold import find_pairs, fold_checked, unfold
from easycompress.artifact.large import is_large, write_large
from easycompress.artifact.slim import slim
from easycompress.codes.composed import Scaled
from easycompress.core.errors import CannotCompress
from easycompress.core.files import write_bytes
from easycompress.core.inputs import answer
from easycompress.core.ledger import spending

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor, nn

    from easycompress.codes.base import Code
    from easycompress.core.inputs import Inputs

TOLERANCE = 1e-3
"""Largest difference between the float file and PyTorch, relative to the largest output, that is only rounding."""

PACKED = ".ecz"


HALVED = 5e-4
"""Largest change of the answers, relative to their largest magnitude, that scales and shifts in float16 may cause."""


@spending("writing")
def write_model(
    model: nn.Module,
    example: Inputs,
    path: Path,
    passes: Sequence[Callable[[onnx.ModelProto], onnx.ModelProto]] = (),
    codes: Mapping[str, Code] | None = None,
    *,
    packed: bool = False,
    exports: Exports | None = None,
) -> Path:
    """Export a module and write it to `path`, an .onnx file, atomically. Return the file whose bytes count.

    `codes` are the stored forms of parameters: the file holds them and decodes itself. Where `passes` rewrite the graph
    they decide how weights are stored. With `packed` an .ecz file of the same graph stands beside it and counts.
    `exports` remembers graphs from one call to the next. A large model's weights aren't held twice: passes get a graph
    that names them (see artifact.large), and over 2 GB they lie in one file beside `path`.
    """
    if is_large(model):
        if packed or (codes and not passes):
            raise CannotCompress("a model over 2 GB has no packed file and no coded one; use weight-only quantization")
        return write_large(model, example, path, passes)
    exports = exports or Exports()
    if codes and not passes:
        skeleton, stored = _coded(model, example, codes, exports)
        result = unpacked(skeleton, stored)
    else:
        proto = exports.export(model, example)
        for file_pass in passes:
            proto = file_pass(proto)
        skeleton, stored = slim(proto), {}
        result = skeleton
    onnx.checker.check_model(result)
    write_bytes(path, result.SerializeToString(deterministic=True))
    if not packed:
        return path
    container = path.with_suffix(PACKED)
    write_ecz(container, skeleton, stored)
    return container


def move_model(source: Path, target: Path) -> None:
    """Move what write_model wrote to `source`, an .onnx file: its data and its packed form too, where there are any.

    Nothing else stays under the names of `target`. Both lie in one folder: a graph knows its data by name, so the data
    must come back to its own before the file is read again.
    """
    for beside in (lambda path: path, data_of, lambda path: path.with_suffix(PACKED)):
        if beside(source).exists():
            beside(source).replace(beside(target))
        else:
            beside(target).unlink(missing_ok=True)


def unpacked(skeleton: onnx.ModelProto, codes: dict[str, Code]) -> onnx.ModelProto:
    """Return the self-decoding graph of a skeleton and its codes: what an .ecz file unpacks to."""
    in_order = dict(sorted(codes.items()))  # the same file whatever order the codes come in
    return slim(attach_codes(dense_graph(skeleton, in_order), in_order)) if codes else slim(skeleton)


def _coded(
    model: nn.Module, example: Inputs, codes: Mapping[str, Code], exports: Exports
) -> tuple[onnx.ModelProto, dict[str, Code]]:
    """Return the slim graph of a model, batch norm folded, with the codes of its weights as they then are."""
    treated = copy.deepcopy(model).eval()
    scales = {layer: _scale(treated, norm) for layer, norm in find_pairs(treated, example)}
    folded = fold_checked(treated, example)
    stored = dict(codes)
    for layer, _ in folded:
        stored.pop(f"{layer}.bias", None)  # the norm's shift has made another bias of it
    layers = [layer for layer, _ in folded if f"{layer}.weight" in codes]
    stored |= _with_scales(treated, {layer: codes[f"{layer}.weight"] for layer in layers}, scales, example)
    unfold(treated)
    proto = exports.export(treated, example)
    try:
        named = own_names(proto, stored)
    except CannotCompress:
        idle = unread(treated, example) & stored.keys()
        if not idle:
            raise
        stored = {name: code for name, code in stored.items() if name not in idle}
        named = own_names(proto, stored)
    skeleton = slim(named, keep=frozenset(stored))
    present = {tensor.name for tensor in skeleton.graph.initializer}
    return skeleton, {name: code for name, code in stored.items() if name in present}


@torch.no_grad()
def _with_scales(
    model: nn.Module, codes: Mapping[str, Code], scales: Mapping[str, Tensor], example: Inputs
) -> dict[str, Code]:
    """Return the codes of weights with their batch norms' scales, by the weights' names; the model gets their values.

    Scales and shifts are rounded to float16 where that hardly moves the answers to `example`: behind a norm that has
    seen no variance a shift is the small rest of two large numbers.
    """
    made: dict[str, Code] = {}

    def put(layer: str, *, halved: bool) -> None:
        module: Any = model.get_submodule(layer)
        scale, bias = scales[layer], biases[layer]
        made[f"{layer}.weight"] = Scaled(codes[layer], scale.half().float() if halved else scale)
        module.weight.copy_(made[f"{layer}.weight"].dense())
        module.bias.copy_(bias.half().float() if halved else bias)

    biases: dict[str, Tensor] = {layer: model.get_submodule(layer).bias.detach().clone() for layer in codes}  # type: ignore[operator] # folding made one
    for layer in codes:
        put(layer, halved=False)
    exact = answer(model, example)
    allowed = HALVED * float(exact.abs().max())
    for layer in codes:
        put(layer, halved=True)
    if float((answer(model, example) - exact).abs().max()) <= allowed:
        return made
    for layer in codes:
        put(layer, halved=False)
    for layer in codes:
        put(layer, halved=True)
        if not float((answer(model, example) - exact).abs().max()) <= allowed:
            put(layer, halved=False)
    return made


def _scale(model: nn.Module, name: str) -> Tensor:
    """Return what a batch norm in evaluation mode multiplies each channel by."""
    norm: Any = model.get_submodule(name)
    scale: Tensor = torch.rsqrt(norm.running_var + norm.eps)
    return (scale if norm.weight is None else scale * norm.weight).detach().float()


def check_float_file(model: nn.Module, example: Inputs, answers: np.ndarray[Any, Any]) -> None:
    """Raise CannotCompress when a float file's `answers` for `example` are not the module's own."""
    with torch.no_grad():
        expected = answer(model, example).numpy()
    if expected.shape != answers.shape:
        raise CannotCompress(
            f"the exported file answers in shape {answers.shape}, the model in {expected.shape}: "
            "its forward probably depends on values that export freezes"
        )
    scale = float(np.abs(expected).max()) or 1.0
    difference = float(np.abs(answers - expected).max())
    if not difference <= TOLERANCE * scale:
        raise CannotCompress(
            f"the exported file doesn't answer as the model does (off by {difference:.3g}, outputs reach {scale:.3g}): "
            "its forward probably depends on values that export freezes"
        )
