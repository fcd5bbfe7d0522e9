"""How much each channel of a group matters: from weights, batch norm scales, or gradients."""

from __future__ import annotations

import dataclasses
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from easycompress.core.errors import CannotCompress
from easycompress.core.inputs import answer
from easycompress.training.terms import soft_loss

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from easycompress.core.task import Split
    from easycompress.pruning.graph import ChannelGroup
    from easycompress.pruning.settings import Importance

Role = Literal["makes", "reads", "scales"]

BATCH_NORM = nn.modules.batchnorm._BatchNorm  # noqa: SLF001 - the only common base of BatchNorm1d to 3d

TAYLOR_SAMPLES = 512
"""Training samples whose gradients the Taylor importance averages."""

TAYLOR_BATCH = 32
"""Samples a gradient. The magnitudes of several small batches are averaged: over all samples at once the gradient of a
trained model is near zero, and says nothing."""


@dataclass(frozen=True, eq=False)
class Member:
    """What one layer has to do with the channels of a group.

    It `makes` them (output channels), `reads` them (input channels) or `scales` them (a normalisation). Its places
    (P,) along that dimension belong to the group's channels `channels` (P,): flattened maps have several each.
    """

    name: str
    module: nn.Module
    role: Role
    places: Tensor
    channels: Tensor


@dataclass(frozen=True)
class Evidence:
    """What an importance needs beyond the weights: a seed, and |w dL/dw| by parameter name, shaped as the parameter."""

    seed: int = 0
    saliency: Mapping[str, Tensor] = field(default_factory=dict)


def scored(groups: Sequence[ChannelGroup], importance: Importance, evidence: Evidence) -> list[ChannelGroup]:
    """Return the groups with the scores (width,) of their channels, by which channels of all groups are ranked.

    With W the weights of the layers that make or read a channel:

    - `random`: uniform in [0, 1), from the seed and the root's name.
    - `l1`: sum |W|; `l2`: (sum W^2)^(1/2), after Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017.
    - `group-norm`: sum W^2, the scales of normalisations among them; Fang et al., DepGraph, CVPR 2023, section 3.3.
    - `bn-scale`: mean |gamma| of the channel's batch norms; Liu et al., Network Slimming, ICCV 2017. A group without
      batch norm takes its group-norm scores instead.
    - `taylor`: sum |W dL/dW|; after Molchanov et al., Importance Estimation for Neural Network Pruning, CVPR 2019.

    These are relative to the mean of their group, as layers differ in scale for reasons that say nothing of importance;
    where all are zero each is 1. That also makes the two kinds of `bn-scale` comparable.

    - `lamp`: u^2 / (sum of the v^2 >= u^2 of the group), u^2 the group norm; Lee et al., Layer-Adaptive Sparsity, ICLR
      2021, equation 3, on channels instead of weights. It compares across layers as it is. Zero where u is.
    """
    found = []
    for group in groups:
        raw = _raw(group, importance, evidence)
        scores = _lamp(raw) if importance == "lamp" else _relative(raw)
        found.append(dataclasses.replace(group, scores=scores))
    return found


def _raw(group: ChannelGroup, importance: Importance, evidence: Evidence) -> Tensor:
    if importance == "random":
        generator = torch.Generator().manual_seed(zlib.crc32(f"{evidence.seed} {group.root}".encode()))
        return torch.rand(group.width, generator=generator)
    if importance == "bn-scale":
        norms = [m for m in group.members if m.role == "scales" and isinstance(m.module, BATCH_NORM)]
        norms = [norm for norm in norms if norm.module.weight is not None]
        if norms:
            return _total(group, norms, lambda _, w: w.abs()) / len(norms)
    weights = [member for member in group.members if member.role != "scales"]
    if importance == "taylor":
        return _total(group, group.members, lambda name, _: evidence.saliency[name])
    if importance == "l1":
        return _total(group, weights, lambda _, w: w.abs())
    if importance == "l2":
        return _total(group, weights, lambda _, w: w.square()).sqrt()
    return _total(group, group.members, lambda _, w: w.square())


def _total(group: ChannelGroup, members: Sequence[Member], amount: Callable[[str, Tensor], Tensor]) -> Tensor:
    """Return per channel (width,) the sum of `amount(parameter name, weight)`, shaped as the weight."""
    total = torch.zeros(group.width)
    for member in members:
        weight = getattr(member.module, "weight", None)
        if weight is None:
            continue
        amounts = amount(f"{member.name}.weight" if member.name else "weight", weight.detach().float())
        total.index_add_(0, member.channels, slices(member, amounts)[member.places].sum(1))
    return total


def dimension(member: Member) -> int:
    """Return the dimension of the member's weight along which the shared channels lie."""
    if member.role == "scales":
        return 0
    transposed = bool(getattr(member.module, "transposed", False))
    return int((member.role == "makes") == transposed)


def slices(member: Member, weight: Tensor) -> Tensor:
    """Return the member's weight as (C, rest): one row for each place along the dimension that it shares."""
    return weight.movedim(dimension(member), 0).reshape(weight.shape[dimension(member)], -1)


def _relative(raw: Tensor) -> Tensor:
    mean = raw.mean()
    return raw / mean if mean > 0 else torch.ones_like(raw)


def _lamp(squares: Tensor) -> Tensor:
    ordered, order = torch.sort(squares, stable=True)
    rest = ordered.flip(0).cumsum(0).flip(0)
    scores = torch.empty_like(squares)
    scores[order] = ordered / rest.clamp_min(torch.finfo(squares.dtype).tiny)
    return scores


def saliency(model: nn.Module, split: Split, loss: Callable[[Tensor, Tensor], Tensor]) -> dict[str, Tensor]:
    """Return |w dL/dw| of every parameter by name, averaged over small batches of the first samples of `split`.

    Without labels the loss is the divergence from the model's own predictions drawn apart by TEMPERED: from the
    predictions themselves its gradient would be zero. Raises CannotCompress without samples. Gradients, modes and
    `requires_grad` are left as they were.
    """
    if not len(split):
        raise CannotCompress("structured pruning: importance taylor needs training samples; choose group-norm")
    few = split.take(slice(0, TAYLOR_SAMPLES))
    parameters = dict(model.named_parameters())
    frozen = [p for p in parameters.values() if not p.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(True)  # noqa: FBT003 - torch's own signature
    total = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    try:
        with torch.enable_grad():
            for inputs, targets in few.batches(TAYLOR_BATCH):
                outputs = answer(model, inputs).float()
                value = _own_loss(outputs) if targets is None else loss(outputs, targets)
                gradients = torch.autograd.grad(value, list(parameters.values()), allow_unused=True)
                for (name, parameter), gradient in zip(parameters.items(), gradients, strict=True):
                    if gradient is not None:
                        total[name] += (parameter * gradient).abs().detach() * len(inputs) / len(few)
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)  # noqa: FBT003 - torch's own signature
    return {name: amount.float() for name, amount in total.items()}


TEMPERED = 2.0
"""By how much the own predictions are sharpened that stand for labels."""


def _own_loss(outputs: Tensor) -> Tensor:
    """Return a loss without labels: distance from the own, sharpened predictions."""
    own = outputs.detach()
    if outputs.dim() == 2 and outputs.shape[1] > 1:  # noqa: PLR2004 - logits (N, C)
        return soft_loss(outputs, TEMPERED * own, 1.0)
    return (outputs - TEMPERED * own).square().mean()
