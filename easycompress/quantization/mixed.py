"""Which layers suffer most from fewer bits, measured one by one."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from easycompress.core.errors import BadInput
from easycompress.core.inputs import answer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from easycompress.core.inputs import Inputs

SENSITIVITY_SAMPLES = 32
"""Samples that a layer's harm is measured on: a model of n layers runs n times on them."""

LEVELS = 255
"""Steps of an unsigned 8-bit activation."""

IMAGE_DIMENSIONS = 4


def most_sensitive(harms: Mapping[str, float], count: int) -> list[str]:
    """Return the names of the `count` largest harms, in the order of their names."""
    return sorted(sorted(harms, key=lambda name: (-harms[name], name))[:count])


def harms_of(model: nn.Module, weights: Mapping[str, Tensor], inputs: Inputs, *, activations: bool) -> dict[str, float]:
    """Return by layer what quantizing it alone does to the model's outputs: their divergence from the float ones.

    `weights` are the quantized weights by the layer's name; with `activations` the layer's input and output are rounded
    to 8 bits too, in the range that they have on `inputs`. The model is left as it was.
    """
    harms = {}
    with torch.no_grad():
        reference = answer(model, inputs)
        for name, weight in weights.items():
            with _quantized(model.get_submodule(name), weight, activations=activations):
                harms[name] = divergence(reference, answer(model, inputs))
    return harms


def divergence(reference: Tensor, outputs: Tensor) -> float:
    """Return how far outputs are from the reference ones, at least 0, in a unit that only serves to compare.

    KL(softmax(reference) || softmax(outputs)), mean over all answers, where there are class scores: in the last axis,
    or the second of (N, C, H, W). The squared difference over the reference's variance where an answer is one number.
    """
    axis = 1 if reference.dim() == IMAGE_DIMENSIONS else -1
    if reference.dim() < 2 or reference.shape[axis] == 1:  # noqa: PLR2004 - no axis of classes
        spread = float(reference.float().var(unbiased=False)) or 1.0
        return float((reference - outputs).float().square().mean()) / spread
    made, wanted = (functional.log_softmax(scores.float(), axis) for scores in (outputs, reference))
    return max(0.0, float(functional.kl_div(made, wanted, reduction="none", log_target=True).sum(axis).mean()))


def check_layers(names: Sequence[str], layers: Sequence[str]) -> None:
    """Raise BadInput where a name is none of the layers."""
    unknown = [name for name in names if name not in layers]
    if unknown:
        raise BadInput(f"float_layers: {unknown[0]!r} is no layer that is quantized; there are {', '.join(layers)}")


@contextlib.contextmanager
def _quantized(module: nn.Module, weight: Tensor, *, activations: bool) -> Iterator[None]:
    layer: Any = module
    original = layer.weight.detach().clone()
    handles: list[Any] = []
    if activations:
        handles.append(layer.register_forward_pre_hook(lambda _module, given: (rounded(given[0]), *given[1:])))
        handles.append(layer.register_forward_hook(lambda _module, _given, made: rounded(made)))
    layer.weight.copy_(weight)
    try:
        yield
    finally:
        layer.weight.copy_(original)
        for handle in handles:
            handle.remove()


def rounded(values: Tensor) -> Tensor:
    """Return activations as unsigned 8 bits hold them in their own range, widened to hold 0."""
    least, most = values.amin().clamp(max=0), values.amax().clamp(min=0)
    step = ((most - least) / LEVELS).clamp(min=torch.finfo(torch.float32).tiny)
    zero = torch.round(-least / step)
    return (torch.clamp(torch.round(values / step) + zero, 0, LEVELS) - zero) * step
