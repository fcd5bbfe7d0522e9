"""Which models are too large for several copies of their weights, and a copy that shares them."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from torch import nn

if TYPE_CHECKING:
    from collections.abc import Mapping

LARGE_BYTES = 2**31 - 2**26
"""Weights from which a model doesn't go through memory as one message: protobuf ends at 2 GB, the graph included."""


def weight_bytes(model: nn.Module) -> int:
    """Return the bytes of all parameters and buffers, each counted once."""
    held = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    return sum(tensor.numel() * tensor.element_size() for tensor in held.values())


def around(model: nn.Module, memo: Mapping[int, Any] | None = None) -> nn.Module:
    """Return a copy with modules, parameters and buffers of its own, whose parameters share their values.

    `memo` is what copy.deepcopy is to take as copied already.
    """
    shared: dict[int, Any] = {id(p): nn.Parameter(p.detach(), p.requires_grad) for p in model.parameters()}
    return copy.deepcopy(model, dict(memo or {}) | shared)
