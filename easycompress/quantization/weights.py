"""Weights on their 8-bit grid, in the module and found again in its exported graph."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
import torch
from torch import nn

from easycompress.codes.affine import INT8_LIMIT, REDUCED_LIMIT, Affine, quantize_per_channel

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from torch import Tensor

Array = np.ndarray[Any, Any]

Item = TypeVar("Item")

LINEAR = (nn.Linear,)
TABLES = (nn.Embedding,)


def limit_of(*, reduce: bool) -> int:
    """Return the largest integer of a weight: of 7 bits where `reduce`, else of 8."""
    return REDUCED_LIMIT if reduce else INT8_LIMIT


def coded_weights(
    model: nn.Module, kinds: tuple[type[nn.Module], ...], skip: Collection[str] = ()
) -> Iterator[tuple[str, Any]]:
    """Yield (parameter, module) for each weight of a module of `kinds`, but for the modules named in `skip`.

    A tied weight comes once, and not at all where one of its modules is skipped; one that is computed from other
    parameters has no name and is left out.
    """
    parameters = dict(model.named_parameters())
    spared = {id(getattr(model.get_submodule(name), "weight", None)) for name in skip}
    for name, module in model.named_modules():
        weight = f"{name}.weight" if name else "weight"
        if isinstance(module, kinds) and weight in parameters and id(module.weight) not in spared:
            yield weight, module


def transposed_linear(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield (parameter, module) for each linear layer with a weight of inputs by outputs: GPT-2's Conv1D."""
    for name, module in model.named_modules():
        if type(module).__name__ == "Conv1D" and hasattr(module, "nf"):
            yield f"{name}.weight" if name else "weight", module


def round_weights(
    model: nn.Module, kinds: tuple[type[nn.Module], ...], limit: int, skip: Collection[str] = ()
) -> dict[str, Affine]:
    """Round the weights of all modules of `kinds` to symmetric int8, one scale a row; return their codes by name.

    A row is an output channel, or an entry of an embedding. Tables use all 8 bits: nothing is multiplied by them.
    """
    codes: dict[str, Affine] = {}
    with torch.no_grad():
        for weight, module in coded_weights(model, kinds, skip):
            own = INT8_LIMIT if isinstance(module, TABLES) else limit
            code = quantize_per_channel(module.weight, limit=own, name=weight)
            module.weight.copy_(code.dense())
            codes[weight] = code
    return codes


class Found(Generic[Item]):
    """What stands for a weight, by the weight's values: export renames and transposes linear layers' weights."""

    def __init__(self, items: Mapping[str, tuple[Tensor, Item]]) -> None:
        self._items = {_digest(dense.detach().cpu().numpy()): (name, item) for name, (dense, item) in items.items()}

    def find(self, values: Array) -> tuple[str, Item] | None:
        """Return the parameter with these very values and what stands for it; None where there is none."""
        return self._items.get(_digest(values))


def found(codes: Mapping[str, Affine]) -> Found[Affine]:
    """Return codes by the values of their weights."""
    return Found({name: (code.dense(), code) for name, code in codes.items()})


def _digest(values: Array) -> bytes:
    return hashlib.sha256(repr(values.shape).encode() + np.ascontiguousarray(values, np.float32).tobytes()).digest()
