"""Biases in 8 bits: beside weights of a fraction of a bit, floats would be a tenth of the file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from easycompress.codes.affine import Affine, quantize_per_channel
from easycompress.lc.tasks import weights_of

if TYPE_CHECKING:
    from torch import nn

    from easycompress.codes.base import Code


def coded_biases(model: nn.Module) -> dict[str, Code]:
    """Store the biases of convolutions and linear layers in 8 bits, a scale each, in place; return their codes."""
    parameters = dict(model.named_parameters())
    codes: dict[str, Code] = {}
    for weight in weights_of(model):
        name = f"{weight.removesuffix('weight')}bias"
        if name not in parameters:
            continue
        row = quantize_per_channel(parameters[name].detach()[None], name=name)
        codes[name] = Affine(row.values[0], row.scale)
        with torch.no_grad():
            parameters[name].copy_(codes[name].dense())
    return codes
