"""Weights that a forward computes from other parameters, as weight norm and spectral norm do, made plain weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.utils import parametrize, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm, SpectralNormLoadStateDictPreHook
from torch.nn.utils.weight_norm import WeightNorm

if TYPE_CHECKING:
    from torch import nn

HOOKED: tuple[tuple[type, Any], ...] = ((WeightNorm, remove_weight_norm), (SpectralNorm, remove_spectral_norm))
"""The older way: a hook that sets the weight before each forward, and what takes it away."""


def plain_weights(model: nn.Module) -> list[str]:
    """Put what each computed weight is in evaluation mode in its place, in place; return their names.

    What is compressed is the weight that multiplies: behind a norm no technique would find it. Training after that
    moves the weight itself.
    """
    made = []
    for path, module in list(model.named_modules()):
        if parametrize.is_parametrized(module):
            names = list(module.parametrizations)
            for name in names:
                parametrize.remove_parametrizations(module, name, leave_parametrized=True)
            made += [f"{path}.{name}".lstrip(".") for name in names]
        for hook in list(module._forward_pre_hooks.values()):  # noqa: SLF001 - that is where these norms keep themselves
            for kind, remove in HOOKED:
                if isinstance(hook, kind):
                    name = str(hook.name)  # type: ignore[attr-defined]  # both have it
                    with torch.no_grad():
                        remove(module, name)
                    _forget(module)
                    made.append(f"{path}.{name}".lstrip("."))
    return made


def _forget(module: nn.Module) -> None:
    """Remove the hook that asks a state dict for the norm's parts: torch looks for it under what it is wrapped in."""
    hooks = module._load_state_dict_pre_hooks  # noqa: SLF001 - as torch's own removal does
    for key, hook in list(hooks.items()):
        if isinstance(getattr(hook, "hook", hook), SpectralNormLoadStateDictPreHook):
            del hooks[key]


def cached(model: nn.Module) -> dict[int, Any]:
    """Return a memo for `copy.deepcopy`: it refuses tensors that something computed, as such norms leave behind."""
    return {
        id(value): value.detach().clone()
        for module in model.modules()
        for value in vars(module).values()
        if isinstance(value, Tensor) and value.grad_fn is not None
    }
