"""Which parameters a file can hold as codes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from easycompress.core.inputs import call

if TYPE_CHECKING:
    from easycompress.core.inputs import Inputs
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


def unread(model: nn.Module, example: Inputs) -> frozenset[str]:
    """Return the parameters that no operator of a run on `example` reads: layers that forward never calls."""
    seen = _Reads()
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), seen:
            call(model, example)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    parameters = model.named_parameters(remove_duplicate=False)
    return frozenset(name for name, parameter in parameters if id(parameter) not in seen.tensors)


class _Reads(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    """Notes every tensor that an operator is given."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.tensors: dict[int, object] = {}

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401 - torch's operator type
        types: Any,  # noqa: ANN401 - torch's signature
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - whatever the operator returns
        """Run an operator; its arguments are held, so that no other tensor gets their identity."""
        self.tensors.update((id(leaf), leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor))
        return func(*args, **(kwargs or {}))
