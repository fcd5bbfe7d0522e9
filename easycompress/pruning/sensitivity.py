"""How the removal is spread over the groups: by what it saves, by position in the graph, by measured sensitivity."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections import OrderedDict
from typing import TYPE_CHECKING

import torch

from easycompress.core.errors import CannotCompress
from easycompress.core.inputs import answer, parts
from easycompress.core.knobs import emphasis
from easycompress.pruning.importance import Member, dimension, slices
from easycompress.pruning.widths import kept_widths, least_important
from easycompress.training.terms import soft_loss

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

    from easycompress.core.inputs import Inputs
    from easycompress.core.profile import ModelProfile
    from easycompress.pruning.graph import ChannelGroup
    from easycompress.pruning.settings import Protect, Saves, StructuredPruning
    from easycompress.technique import Context

SHARES = (0.25, 0.5, 0.75)
"""Shares of a group's channels at which the loss is measured."""

MACS = 5e10
"""Multiply-accumulates that a measurement may cost: seconds of one thread (ResNet20: 32 samples, 37 runs)."""

FEWEST, MOST = 16, 256
"""Samples a measurement."""

REMEMBERED = 8
"""Measurements kept: the executor asks for the same one for every strength that it probes."""

PENALTY = 2.0
"""By how much the channels that are protected cost more.

Sparing nothing is the default, as protection lost: ResNet20 (CIFAR-10, 500 images, group-norm, half of the MACs, no
recovery) keeps 69.0 % with `none`, 62.8 % with `ends`, 65.0 % with `shortcuts`; measured sensitivity per MAC keeps
72.6 %, with or without protected shortcuts.
"""

_measured: OrderedDict[str, dict[str, list[float]]] = OrderedDict()


def spread(
    model: nn.Module,
    groups: list[ChannelGroup],
    everything: Sequence[ChannelGroup],
    action: StructuredPruning,
    context: Context,
) -> dict[str, int]:
    """Return how many channels each root keeps, as the action wants it.

    `everything` are the groups of the whole model, of which `groups` may be a part: they show where the ends are. What
    a channel costs, its score or the measured loss, is divided by what it saves and raised where it is protected,
    and by the action's tilt and bow.
    Raises CannotCompress where sensitivity has no samples to be measured on.
    """
    strength = action.strength if action.strength is not None else 0.0
    saved = savings(groups, context.profile, action.saves)
    spared = protected(groups, everything, action.protect)
    slant = dict(zip((group.root for group in groups), emphasis(len(groups), action.tilt, action.bow), strict=True))
    price = {root: slant[root] * (PENALTY if root in spared else 1.0) / amount for root, amount in saved.items()}
    if action.ratios == "global":
        priced = [dataclasses.replace(group, scores=group.scores * price[group.root]) for group in groups]
        return kept_widths(priced, strength, action.round_to)
    inputs = context.task.data.calibration.inputs
    if not len(inputs):
        raise CannotCompress("structured pruning: ratios sensitivity needs calibration samples; choose global")
    curves = loss_curves(model, groups, inputs, context.profile.macs)
    costs = [[price[g.root] * cost for cost in marginal_losses(g.width, curves[g.root])] for g in groups]
    return kept_widths(groups, strength, action.round_to, costs)


def savings(groups: Sequence[ChannelGroup], profile: ModelProfile, saves: Saves) -> dict[str, float]:
    """Return by root what removing a channel saves first: parameters or multiply-accumulates of its layers.

    Relative to the mean over all channels, so that scores keep their size; 1 for `channels` and where nothing is known.
    """
    if saves == "channels":
        return {group.root: 1.0 for group in groups}
    layers = {layer.name: layer for layer in profile.layers}
    amounts = {}
    for group in groups:
        total = 0.0
        for member in group.members:
            layer, weight = layers.get(member.name), getattr(member.module, "weight", None)
            if layer is not None and weight is not None:
                share = len(member.places) / len(slices(member, weight.detach()))
                total += share * (layer.params if saves == "params" else layer.macs) / group.width
        amounts[group.root] = total
    mean = sum(amounts[g.root] * g.width for g in groups) / sum(g.width for g in groups)
    return {root: amount / mean if mean and amount else 1.0 for root, amount in amounts.items()}


def protected(groups: Sequence[ChannelGroup], everything: Sequence[ChannelGroup], protect: Protect) -> frozenset[str]:
    """Return the roots of the groups that are spared, by their place in the graph.

    `ends`: a layer that makes the channels reads none that could go, as it is fed by the input; or one that reads them
    makes none, as it feeds the output. `shortcuts`: a sum ties the channels of several layers.
    """
    makers = {member.name for group in everything for member in group.members if member.role == "makes"}
    readers = {member.name for group in everything for member in group.members if member.role == "reads"}
    spared = set()
    for group in groups:
        roles = {(member.name, member.role) for member in group.members if _mixes(member)}
        end = any(name not in (readers if role == "makes" else makers) for name, role in roles)
        if (protect in ("ends", "both") and end) or (protect in ("shortcuts", "both") and group.shortcut):
            spared.add(group.root)
    return frozenset(spared)


def _mixes(member: Member) -> bool:
    """Tell whether a layer computes channels from others; normalisations and depthwise convolutions don't."""
    return member.role != "scales" and getattr(member.module, "groups", 1) == 1


def loss_curves(model: nn.Module, groups: Sequence[ChannelGroup], inputs: Inputs, macs: int) -> dict[str, list[float]]:
    """Return by root the loss at each of SHARES of the group's channels, the least important removed.

    The loss is the divergence of the outputs from those of the whole `model`, over the first samples of `inputs`, so
    many as MACS allows at `macs` a sample. Channels are removed by zeroing the weights that read them, and put back.
    Answers are remembered by the weights, the channels' order and the samples.
    """
    runs = 1 + len(groups) * len(SHARES)
    samples = int(min(MOST, max(FEWEST, MACS / (max(macs, 1) * runs))))
    few = inputs[: min(samples, len(inputs))]
    key = _key(model, groups, few)
    if key not in _measured:
        _measured[key] = _measure(model, groups, few)
        if len(_measured) > REMEMBERED:
            _measured.popitem(last=False)
    _measured.move_to_end(key)
    return _measured[key]


def _measure(model: nn.Module, groups: Sequence[ChannelGroup], inputs: Inputs) -> dict[str, list[float]]:
    curves: dict[str, list[float]] = {}
    with torch.no_grad():
        reference = answer(model, inputs).float()
        for group in groups:
            counts = [round(share * group.width) for share in SHARES]
            curves[group.root] = [
                _loss_without(model, group, least_important(group.scores, count), inputs, reference) for count in counts
            ]
    return curves


def _loss_without(
    model: nn.Module, group: ChannelGroup, channels: list[int], inputs: Inputs, reference: Tensor
) -> float:
    gone = torch.zeros(group.width, dtype=torch.bool)
    gone[channels] = True
    saved: list[tuple[Tensor, Tensor]] = []
    try:
        for member in group.members:
            weight = member.module.weight
            if member.role == "reads" and isinstance(weight, torch.Tensor):
                saved.append((weight, weight.clone()))
                weight.index_fill_(dimension(member), member.places[gone[member.channels]], 0)
        return divergence(answer(model, inputs).float(), reference)
    finally:
        for weight, before in reversed(saved):
            weight.copy_(before)


def divergence(outputs: Tensor, reference: Tensor) -> float:
    """Return KL(softmax(reference) || softmax(outputs)) of logits (N, C); of other outputs, the relative squared error.

    Never below zero; infinite outputs count as infinite.
    """
    if outputs.dim() == 2 and outputs.shape[1] > 1:  # noqa: PLR2004 - logits
        loss = float(soft_loss(outputs, reference, 1.0))
    else:
        loss = float((outputs - reference).square().mean() / reference.var(unbiased=False).clamp_min(1e-12))
    return max(loss, 0.0) if loss == loss else float("inf")  # noqa: PLR0124 - not a number


def marginal_losses(width: int, curve: Sequence[float]) -> list[float]:
    """Return the loss that the 1st, 2nd, ... channel adds, (width,), from the losses at SHARES of them.

    The loss grows linearly between the measured shares, and beyond the last as before it. A later channel never costs
    less than an earlier one: the curves flatten only where the outputs are lost already.
    """
    points = [(0.0, 0.0)]
    for share, loss in zip(SHARES, curve, strict=True):
        points.append((round(share * width), max(loss, points[-1][1])))
    costs: list[float] = []
    slope = 0.0
    for (start, before), (stop, after) in itertools.pairwise(points):
        count = int(stop) - int(start)
        if count:
            slope = max(slope, (after - before) / count)
            costs += [slope] * count
    return costs + [slope] * (width - len(costs))


def _key(model: nn.Module, groups: Sequence[ChannelGroup], inputs: Inputs) -> str:
    digest = hashlib.sha256()
    for group in groups:
        digest.update(repr((group.root, torch.sort(group.scores, stable=True).indices.tolist())).encode())
    for tensor in (*model.state_dict().values(), *parts(inputs)):
        digest.update(tensor.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()
