"""Fold batch norm into the layer before it, on modules, so that integer weights see what the runtime will see."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from easycompress.core.inputs import answer

if TYPE_CHECKING:
    from easycompress.core.inputs import Inputs

FOLDABLE = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)

TOLERANCE = 1e-3
"""Largest change of the outputs, relative to their largest magnitude, that rounding may cause."""


def find_pairs(model: nn.Module, example: Inputs) -> list[tuple[str, str]]:
    """Return (layer, batch norm) names where the norm reads the very tensor the layer returned, each called once."""
    names = {module: name for name, module in model.named_modules()}
    made: dict[int, nn.Module] = {}
    alive: list[Any] = []
    calls: dict[nn.Module, int] = {}
    pairs: list[tuple[nn.Module, nn.Module]] = []

    def after_layer(module: nn.Module, _inputs: Any, output: Tensor) -> None:  # noqa: ANN401 - hook signature
        calls[module] = calls.get(module, 0) + 1
        made[id(output)] = module
        alive.append(output)  # keeps the id from being used again

    def before_norm(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        calls[module] = calls.get(module, 0) + 1
        layer = made.get(id(inputs[0]))
        if layer is not None:
            pairs.append((layer, module))

    handles: list[Any] = []
    for module in model.modules():
        if isinstance(module, FOLDABLE):
            handles.append(module.register_forward_hook(after_layer))
        elif isinstance(module, NORMS):
            handles.append(module.register_forward_pre_hook(before_norm))
    try:
        with torch.no_grad():
            answer(model, example)
    finally:
        for handle in handles:
            handle.remove()
    layers = [layer for layer, _ in pairs]
    return [
        (names[layer], names[norm])
        for layer, norm in pairs
        if calls[layer] == 1
        and calls[norm] == 1
        and layers.count(layer) == 1
        and norm.running_mean is not None  # else it normalises by the batch, which no weight can hold
    ]


def fold(model: nn.Module, pairs: list[tuple[str, str]]) -> nn.Module:
    """Fold each norm into its layer and put an identity in its place. The model must be in evaluation mode."""
    for layer_name, norm_name in pairs:
        layer, norm = model.get_submodule(layer_name), model.get_submodule(norm_name)
        fuse: Any = fuse_linear_bn_eval if isinstance(layer, nn.Linear) else fuse_conv_bn_eval
        _replace(model, layer_name, fuse(layer, norm))
        _replace(model, norm_name, nn.Identity())
    return model


def fold_checked(model: nn.Module, example: Inputs) -> list[tuple[str, str]]:
    """Fold every pair whose folding leaves the outputs as they are; return the pairs that were folded.

    A layer whose output something else reads too (a shortcut) changes the outputs: its pair is left alone.
    """
    folded: list[tuple[str, str]] = []
    with torch.no_grad():
        reference = answer(model, example)
        allowed = TOLERANCE * float(reference.abs().max())
        for pair in find_pairs(model, example):
            before = (model.get_submodule(pair[0]), model.get_submodule(pair[1]))
            fold(model, [pair])
            if float((answer(model, example) - reference).abs().max()) <= allowed:
                folded.append(pair)
            else:
                _replace(model, pair[0], before[0])
                _replace(model, pair[1], before[1])
    return folded


class ChannelScale(nn.Module):
    """What a batch norm in evaluation mode does, as a product and a sum that no exporter folds into a weight."""

    scale: Tensor
    shift: Tensor

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        known: Any = norm
        scale = torch.rsqrt(known.running_var + known.eps) * (1 if known.weight is None else known.weight.detach())
        shift = (0 if known.bias is None else known.bias.detach()) - known.running_mean * scale
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)

    def forward(self, x: Tensor) -> Tensor:
        """Scale and shift the channels of x (N, C, ...)."""
        shape = (1, -1, *[1] * (x.dim() - 2))
        return x * self.scale.view(shape) + self.shift.view(shape)


def unfold(model: nn.Module) -> None:
    """Put a ChannelScale in the place of every batch norm, in place.

    The exporter folds norms that `fold` leaves alone: those behind transposed convolutions, and behind layers that run
    more than once. A weight would then have other values than its code.
    """
    for name, module in list(model.named_modules()):
        if isinstance(module, NORMS) and module.running_mean is not None:
            _replace(model, name, ChannelScale(module))


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, module)
