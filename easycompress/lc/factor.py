"""Low rank as two layers: what a runtime computes faster, not only what a file stores smaller."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from easycompress.codes.half import Half
from easycompress.codes.lowrank import LowRank

if TYPE_CHECKING:
    from collections.abc import Mapping

    from easycompress.codes.base import Code
    from easycompress.codes.lowrank import Layout


def factor(model: nn.Module, codes: Mapping[str, Code]) -> tuple[dict[str, Code], dict[str, list[Any]]]:
    """Replace, in place, every layer whose weight's code is low rank by two layers, where these hold fewer numbers.

    Return the codes as they are then (the factors in float16) and a record for `refactor`: rank and layout by layer.
    """
    kept: dict[str, Code] = {}
    record: dict[str, list[Any]] = {}
    for name, code in codes.items():
        layer_name = name.rpartition(".")[0]
        layer: Any = model.get_submodule(layer_name)
        saves = isinstance(code, LowRank) and 0 < code.left.numel() + code.right.numel() < math.prod(code.shape)
        if not (isinstance(code, LowRank) and saves and splits(layer)):
            kept[name] = code
            continue
        pair: Any = pair_of(layer, code.rank, code.layout)
        first, second = _factors(code, layer)
        kept[f"{layer_name}.0.weight"], kept[f"{layer_name}.1.weight"] = Half(first), Half(second)
        with torch.no_grad():
            pair[0].weight.copy_(first.float())
            pair[1].weight.copy_(second.float())
            if layer.bias is not None:
                pair[1].bias.copy_(layer.bias)
        replace_layer(model, layer_name, pair)
        record[layer_name] = [code.rank, code.layout]
    return kept, record


def refactor(model: nn.Module, record: Mapping[str, list[Any]]) -> nn.Module:
    """Give a fresh module the pairs of layers that `record` names."""
    for name, (rank, layout) in record.items():
        replace_layer(model, name, pair_of(model.get_submodule(name), rank, layout))
    return model


def splits(layer: nn.Module) -> bool:
    """Tell whether the layer is one that two others can stand for."""
    plain = isinstance(layer, nn.Conv2d) and layer.groups == 1 and layer.padding_mode == "zeros"
    return type(layer) is nn.Linear or plain


def pair_of(layer: nn.Module, rank: int, layout: Layout) -> nn.Sequential:
    """Return two layers, weights not set, that compute what `layer` does with a weight of that rank."""
    if isinstance(layer, nn.Linear):
        bias = layer.bias is not None
        return nn.Sequential(nn.Linear(layer.in_features, rank, bias=False), nn.Linear(rank, layer.out_features, bias))
    assert isinstance(layer, nn.Conv2d)  # noqa: S101 - splits
    inputs, outputs, bias = layer.in_channels, layer.out_channels, layer.bias is not None
    (height, width), (down, across) = layer.kernel_size, layer.stride
    if layout == "scheme-1":
        first = nn.Conv2d(inputs, rank, (height, width), layer.stride, layer.padding, layer.dilation, bias=False)  # type: ignore[arg-type]  # 2-tuples
        return nn.Sequential(first, nn.Conv2d(rank, outputs, 1, bias=bias))
    padding: Any = layer.padding
    edges: list[Any] = [padding, padding] if isinstance(padding, str) else [(0, padding[1]), (padding[0], 0)]
    first = nn.Conv2d(inputs, rank, (1, width), (1, across), edges[0], (1, layer.dilation[1]), bias=False)
    second = nn.Conv2d(rank, outputs, (height, 1), (down, 1), edges[1], (layer.dilation[0], 1), bias=bias)
    return nn.Sequential(first, second)


def _factors(code: LowRank, layer: nn.Module) -> tuple[Tensor, Tensor]:
    """Return the float16 weights of the two layers."""
    left, right, rank = code.left.half(), code.right.half(), code.rank
    if isinstance(layer, nn.Linear):
        return right.contiguous(), left.contiguous()
    n, c, h, w = code.shape
    if code.layout == "scheme-1":
        return right.reshape(rank, c, h, w).contiguous(), left.reshape(n, rank, 1, 1).contiguous()
    first = right.reshape(rank, c, 1, w)
    second = left.reshape(n, h, rank).permute(0, 2, 1)[..., None]
    return first.contiguous(), second.contiguous()


def replace_layer(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put `module` where `model` has the submodule `name`."""
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, module.to(next(model.parameters()).device))
