"""Batch norm statistics for weights that have changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from easycompress.core.inputs import call

if TYPE_CHECKING:
    from collections.abc import Callable

    from easycompress.core.inputs import Inputs

BATCH = 128


def has_norms(model: nn.Module) -> bool:
    """Tell whether there is batch norm in a model."""
    return any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules())  # noqa: SLF001 - the base


def reestimate(model: nn.Module, inputs: Inputs, augment: Callable[[Inputs], Inputs] | None = None) -> None:
    """Set every batch norm's running mean and variance to their averages over `inputs` (N, ...), in place.

    `augment` is what training does to its inputs. A model without batch norm isn't run, and a norm that the model
    doesn't call keeps what it has.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]  # noqa: SLF001 - the base
    norms = [norm for norm in norms if norm.track_running_stats]
    if not norms or len(inputs) < 2:  # noqa: PLR2004 - one sample has no variance
        return
    momenta = [norm.momentum for norm in norms]
    states = [{name: value.clone() for name, value in norm.state_dict().items()} for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative average
        norm.train()
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        # Batches of one size, as each counts alike; none of a single sample, which has no variance.
        for places in torch.tensor_split(torch.arange(len(inputs)), -(-len(inputs) // BATCH)):
            batch = inputs[places]
            call(model, batch if augment is None else augment(batch))
    for norm, momentum, state in zip(norms, momenta, states, strict=True):
        if not norm.num_batches_tracked:
            norm.load_state_dict(state)
        norm.momentum = momentum
        norm.eval()
