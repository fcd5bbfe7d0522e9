"""Which parameters a file can hold as codes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from easycompress.core.profile import ModelProfile

RECURRENT = (nn.RNNBase, nn.RNNCellBase)
RECURRENT_TYPES = frozenset({"LSTM", "GRU", "RNN", "LSTMCell", "GRUCell", "RNNCell"})
RECURRENT_WEIGHT = re.compile(r"weight_(ih|hh)(_l\d+(_reverse)?)?")
"""What torch calls the matrices of such layers. The projection of an LSTM isn't among them: ONNX has no form for it."""

FAMILIES = ("convolutional", "linear", "attention")


def codable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the weights of convolutions, linear and recurrent layers and embeddings by name, in order; tied ones once.

    Those of normalisations, which have a number a channel or place, are left out, and so are biases.
    """
    owners = dict(model.named_modules())
    found = {}
    for name, parameter in model.named_parameters():
        path, _, leaf = name.rpartition(".")
        owner = owners[path]
        plain = leaf == "weight" and parameter.dim() > 1 and "norm" not in type(owner).__name__.lower()
        if plain or (isinstance(owner, RECURRENT) and RECURRENT_WEIGHT.fullmatch(leaf)):
            found[name] = parameter
    return found


def lacks_codable(profile: ModelProfile) -> str | None:
    """Return in one line why a model has no weights to code, or None."""
    if any(layer.family in FAMILIES or layer.type in RECURRENT_TYPES for layer in profile.layers):
        return None
    return "the model has no convolution and no linear or recurrent layer"
