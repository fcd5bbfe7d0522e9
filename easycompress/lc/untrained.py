"""Entropy-constrained quantization without training, as a technique."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from easycompress.artifact.codable import lacks_codable
from easycompress.codes.codebook import Codebook
from easycompress.lc.biases import coded_biases
from easycompress.lc.feedback import Feedback
from easycompress.lc.papers import ratios
from easycompress.lc.projections.entropy import EntropyConstrained, code_length
from easycompress.lc.rows import quantize_rows
from easycompress.lc.sensitivity import sensitivities, slopes
from easycompress.lc.settings import EntropyQuantization, bits_at
from easycompress.lc.statistics import collect
from easycompress.lc.tasks import weights_of
from easycompress.technique import Applied, Context, Need
from easycompress.training.norms import correct, observed

if TYPE_CHECKING:
    from torch import Tensor, nn

    from easycompress.codes.base import Code
    from easycompress.core.inputs import Inputs
    from easycompress.core.profile import ModelProfile
    from easycompress.training.fit import History

NEAR = 0.01
"""The slope is found when the code length is within this share of the budget."""

TRIES = 8

KEPT_BYTES = 1_000_000_000
"""What feedback knows of all layers is kept from one attempt to the next where it takes no more."""


class EntropyQuantizer:
    """Weights on few levels by rate and distortion, in seconds."""

    name = "entropy-quantization"
    settings = EntropyQuantization
    needs: frozenset[Need] = frozenset()
    source = "Chou, Lookabaugh and Gray 1989; Frantar et al., GPTQ, 2023"

    def refuses(self, profile: ModelProfile, action: EntropyQuantization) -> str | None:  # noqa: ARG002 - the protocol
        """Refuse a model without weights to code."""
        lacking = lacks_codable(profile)
        return f"entropy quantization: {lacking}" if lacking else None

    def apply(self, model: nn.Module, action: EntropyQuantization, context: Context) -> Applied:
        """Quantize to the bits of the strength, then batch norm and biases.

        Without calibration samples there is no feedback: every weight goes to the level that its own error favours.
        """
        codes = quantized(model, action, context)
        return applied(model, codes, action, context)

    def replay(self, model: nn.Module, record: dict[str, Any], example: Inputs) -> nn.Module:  # noqa: ARG002 - the protocol
        """Change nothing: the codes come with the state dict."""
        return model


def quantized(model: nn.Module, action: EntropyQuantization, context: Context) -> dict[str, Code]:
    """Put the weights of `model` on levels, in place, and correct its batch norm; return their codes."""
    names = weights_of(model)
    weights = {name: model.get_parameter(name).detach() for name in names}
    bits = bits_at(action.strength or 0.0)
    inputs = context.task.data.calibration.inputs[: action.samples]
    codes: dict[str, Code] = {}
    shifts: dict[str, Tensor] = {}
    count = len(inputs)
    seen = context.remembered(f"batch norm over {count} samples", model, lambda: observed(model, inputs))
    if action.method == "feedback" and count and names:
        codes, shifts = _fed_back(
            weights, bits, _layers(model, weights, inputs, context), _slopes(model, weights, context)
        )
    else:
        made = EntropyConstrained(bits_per_weight=bits).project(list(weights.values()), 1.0)
        codes = dict(zip(weights, made, strict=True))
    with torch.no_grad():
        for name, code in codes.items():
            model.get_parameter(name).copy_(code.dense())
        for name, shift in shifts.items():
            bias = getattr(model.get_submodule(name.rpartition(".")[0]), "bias", None)
            if bias is not None:
                bias += shift
    correct(model, seen, inputs)
    return codes


def applied(
    model: nn.Module,
    codes: dict[str, Code],
    action: EntropyQuantization,
    context: Context,
    history: History | None = None,
) -> Applied:
    """Return what became of a model whose weights have these codes, its biases coded too where that is asked."""
    if action.biases == "8-bit":
        codes = codes | coded_biases(model)
    paper = ratios(model, codes, {layer.name: layer.macs for layer in context.profile.layers})
    record = {"bits": bits_at(action.strength or 0.0), "papers": paper.named()}
    return Applied(model.eval(), record, codes, history=history, epochs=len(history.epochs) if history else 0)


def _slopes(model: nn.Module, weights: dict[str, Tensor], context: Context) -> dict[str, Tensor]:
    """Return what the slope of each weight, or of each of its rows, is multiplied by."""
    names = list(weights)
    found = context.remembered("sensitivities", model, lambda: sensitivities(model, context.task, names))
    return slopes(found, {name: weight.numel() for name, weight in weights.items()})


def _layers(model: nn.Module, weights: dict[str, Tensor], inputs: Inputs, context: Context) -> dict[str, Feedback]:
    """Return the layers that feedback is possible in, by their weights' names; remembered where that is small."""

    def make() -> dict[str, Feedback]:
        return {name: Feedback(weights[name], known) for name, known in collect(model, inputs, weights).items()}

    size = sum(4 * (weight[0].numel() ** 2 + weight.numel()) for weight in weights.values() if len(weight))
    return context.remembered(f"feedback over {len(inputs)} samples", model, make) if size <= KEPT_BYTES else make()


def _fed_back(
    weights: dict[str, Tensor], bits: float, layers: dict[str, Feedback], relative: dict[str, Tensor]
) -> tuple[dict[str, Code], dict[str, Tensor]]:
    """Return codes of about `bits` bits a weight, and what each layer's mean output lost.

    `relative`: what each weight's slope, or that of each of its rows, is multiplied by. Layers without statistics
    (groups, recurrent, tables) are quantized to the levels that each weight's own error favours.
    """
    count = max(sum(weight.numel() for weight in weights.values()), 1)
    power = sum(float((weight * weight).sum()) for weight in weights.values()) / count or 1.0  # zeros are zeros

    def make(slope: float) -> tuple[dict[str, Codebook], float]:
        made = {name: _quantized(weight, slope * relative[name], layers.get(name)) for name, weight in weights.items()}
        return {name: code for name, (code, _) in made.items()}, sum(length for _, length in made.values())

    low, high = -24.0, 6.0  # log2 of slope / power; the length falls as the slope rises
    point = -4.0
    made, length = make(power * 2.0**point)
    for _ in range(TRIES):
        error = math.log2(length / (bits * count))
        if abs(error) <= NEAR:
            break
        low, high = (point, high) if error > 0 else (low, point)
        guess = point + 2 * error  # at rates below one, a slope four times as large about halves the length
        point = guess if low < guess < high else (low + high) / 2
        made, length = make(power * 2.0**point)
    return dict(made), {name: layer.lost(made[name]) for name, layer in layers.items()}


def _quantized(weight: Tensor, slope: Tensor, layer: Feedback | None) -> tuple[Codebook, float]:
    """Return a weight's code and its length in bits, at one slope, (), or one for each row, (rows,)."""
    if slope.dim():
        return quantize_rows(weight, slope)
    if layer is not None:
        code = layer.quantize(float(slope))
    else:
        (found,) = EntropyConstrained(lam=float(slope) / 2).project([weight], 1.0)
        assert isinstance(found, Codebook)  # noqa: S101 - it makes no other
        code = found
    return code, code_length(code)
