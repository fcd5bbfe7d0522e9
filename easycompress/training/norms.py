"""Batch norm statistics for weights that have changed."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import nn

from easycompress.core.inputs import call

if TYPE_CHECKING:
    from collections.abc import Callable

    from easycompress.core.inputs import Inputs

Seen: TypeAlias = "dict[str, tuple[torch.Tensor, torch.Tensor]]"
"""Mean and variance (C,) of what each batch norm is given, by its name."""

BATCH = 128

FLAT = 1e-9
"""A variance below this share of a norm's `eps` has no ratio to another: nothing varied there."""


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


def observed(model: nn.Module, inputs: Inputs) -> Seen:
    """Return what reestimate() would make of the batch norms' statistics; the model isn't changed."""
    if not has_norms(model):
        return {}
    twin = copy.deepcopy(model)
    reestimate(twin, inputs)
    return {
        name: (module.running_mean, module.running_var)
        for name, module in twin.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)  # noqa: SLF001 - the base
        and module.running_mean is not None
        and module.running_var is not None
    }


@torch.no_grad()
def correct(model: nn.Module, before: Seen, inputs: Inputs) -> None:
    """Change every batch norm's statistics by as much as new weights changed them over `inputs`, in place.

    `before` is what observed() said of the same inputs with the old weights. Means move by the difference, variances in
    proportion. So the statistics stay those of the data that the model was trained on, augmentation included, and where
    no weight changed nothing does; those of a few plain samples alone cost the ResNet20 of the benchmarks 0.8 points.
    """
    for name, (mean, variance) in observed(model, inputs).items():
        norm = model.get_submodule(name)
        assert isinstance(norm, nn.modules.batchnorm._BatchNorm)  # noqa: S101, SLF001 - observed
        assert norm.running_mean is not None  # noqa: S101 - observed
        assert norm.running_var is not None  # noqa: S101 - observed
        old_mean, old_variance = before[name]
        norm.running_mean += mean - old_mean
        known = old_variance > FLAT * norm.eps
        ratio = variance / torch.where(known, old_variance, 1.0)
        norm.running_var.copy_(torch.where(known, norm.running_var * ratio, norm.running_var + variance))


@torch.no_grad()
def kept(model: nn.Module, before: Seen, remove: Callable[[], None]) -> Seen:
    """Return those channels of `before` that are left after `remove()` has taken some from the model.

    Meanwhile each running mean holds its channels' numbers: what removal leaves of it says which they are.
    """
    means = {}
    for name in before:
        mean = _mean_of(model, name)
        means[name] = mean.clone()
        mean.copy_(torch.arange(len(mean)))
    remove()
    found = {}
    for name, (mean, variance) in before.items():
        left = _mean_of(model, name).long()
        _mean_of(model, name).copy_(means[name][left])
        found[name] = (mean[left], variance[left])
    return found


def _mean_of(model: nn.Module, name: str) -> torch.Tensor:
    """Return the running mean, not a copy, of a batch norm that keeps one."""
    mean = model.get_submodule(name).running_mean
    assert isinstance(mean, torch.Tensor)  # noqa: S101 - observed
    return mean
