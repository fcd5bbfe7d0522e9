"""Structured pruning as a technique: widths from the settings, channels from the weights, recovery in between."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from easycompress.core.errors import CannotCompress
from easycompress.core.inputs import answer
from easycompress.pruning.graph import PruningGraph
from easycompress.pruning.importance import Evidence, saliency
from easycompress.pruning.sensitivity import spread
from easycompress.pruning.settings import StructuredPruning
from easycompress.pruning.sparsity import scales_of, shrinking
from easycompress.pruning.widths import least_important, rounded
from easycompress.technique import Applied, Context, Need
from easycompress.training.norms import correct, kept, observed

if TYPE_CHECKING:
    from torch import nn

    from easycompress.core.inputs import Inputs
    from easycompress.core.profile import ModelProfile
    from easycompress.pruning.graph import ChannelGroup

NORM_SAMPLES = 512
"""Calibration samples that say how pruning changes what batch norm is given."""


class StructuredPruner:
    """Removes whole channels and neurons, in steps, each followed by a little training."""

    name = "structured-pruning"
    settings = StructuredPruning
    needs: frozenset[Need] = frozenset()  # importance taylor asks for samples itself: the others need none
    source = "Fang et al., DepGraph, CVPR 2023; EasyCompress thesis, section 4.4"

    def refuses(self, profile: ModelProfile, action: StructuredPruning) -> str | None:
        """Refuse a model without layers of the strategy's family."""
        families = {layer.family for layer in profile.layers}
        if action.strategy != "global" and action.strategy not in families:
            return f"structured pruning: strategy {action.strategy} finds no {action.strategy} layer in this model"
        if not families & {"convolutional", "linear", "attention"}:
            return "structured pruning: the model has no convolution and no linear layer to prune"
        return None

    def apply(self, model: nn.Module, action: StructuredPruning, context: Context) -> Applied:
        """Prune to the widths that the untouched `model` and the settings determine.

        The widths depend on nothing but the incoming weights and the settings, so that a file written from an untrained
        copy has the bytes and the speed of the trained one.
        """
        if action.strength is None:
            raise CannotCompress("structured pruning: no strength was set")
        example = context.task.example
        graph = PruningGraph(model, example)
        groups = graph.groups(action.strategy, action.importance, _evidence(model, action, context))
        if not groups:
            raise CannotCompress(
                f"structured pruning: no channel can be removed with strategy {action.strategy}{_why_none(graph)}"
            )
        everything = graph.groups("global", "l1") if action.protect != "none" else groups
        goal = spread(model, groups, everything, action, context)
        with torch.no_grad():
            shape = answer(model, example).shape
        epochs = _make_sparse(model, groups, action, context)
        full = {group.root: group.width for group in groups}
        record, more = _prune(model, action, context, full, goal)
        with torch.no_grad():
            if answer(model, example).shape != shape:
                raise CannotCompress(
                    "structured pruning changed the model's output; its last layer can't be told apart"
                )
        return Applied(model, {"removed": record, "widths": goal}, epochs=epochs + more)

    def replay(self, model: nn.Module, record: dict[str, Any], example: Inputs) -> nn.Module:
        """Remove the recorded channels in the recorded order."""
        graph = PruningGraph(model, example)
        for root, channels in record["removed"]:
            graph.remove(root, channels)
        return model


def leaving_some(group: ChannelGroup, channels: list[int]) -> list[int]:
    """Return `channels` without the most important one of each layer that would be left with none.

    A layer may hold a part of a group only: the sum of one layer's output and two others' put side by side.
    """
    gone = torch.zeros(group.width, dtype=torch.bool)
    gone[channels] = True
    for member in group.members:
        if bool(gone[member.channels].all()):
            gone[member.channels[group.scores[member.channels].argmax()]] = False
    return torch.nonzero(gone).flatten().tolist()


def _why_none(graph: PruningGraph) -> str:
    """Return what stands in the way of every channel."""
    if graph.obstacles:
        return f": they can't be followed through {', '.join(graph.obstacles)}"
    return f": {', '.join(graph.shared)} read the same weight" if graph.shared else ""


def _prune(
    model: nn.Module, action: StructuredPruning, context: Context, full: dict[str, int], goal: dict[str, int]
) -> tuple[list[list[Any]], int]:
    """Remove channels from the widths `full` to `goal`, with recovery between the steps; return the record, epochs."""
    record: list[list[Any]] = []
    epochs = 0
    steps = action.steps if context.recover is not None else 1
    for step in range(1, steps + 1):
        graph = PruningGraph(model, context.task.example)  # training replaced nothing, but scores must be fresh
        removals: list[tuple[str, list[int]]] = []
        for group in graph.groups(action.strategy, action.importance, _evidence(model, action, context)):
            gone = (full[group.root] - goal[group.root]) * step // steps
            wanted = rounded(full[group.root], full[group.root] - gone, action.round_to)
            channels = leaving_some(group, least_important(group.scores, group.width - wanted))
            if channels:
                removals.append((group.root, channels))
        _remove(model, removals, graph, context, last=step == steps)
        record += [[root, channels] for root, channels in removals]
        if context.recover is not None and step < steps:
            epochs += context.recover(model, step)
    return record, epochs


def _remove(
    model: nn.Module, removals: list[tuple[str, list[int]]], graph: PruningGraph, context: Context, *, last: bool
) -> None:
    """Remove channels; the `last` ones, after which this technique doesn't train, from batch norm's statistics too."""
    if not (last and removals) or context.evaluate is None:  # where nobody asks for the quality it only takes time
        graph.remove_all(removals)
        return
    inputs = context.task.data.calibration.inputs[:NORM_SAMPLES]
    what = f"batch norm over {len(inputs)} samples"
    seen = context.remembered(what, model, lambda: observed(model, inputs))
    correct(model, kept(model, seen, lambda: graph.remove_all(removals)), inputs)


def _evidence(model: nn.Module, action: StructuredPruning, context: Context) -> Evidence:
    if action.importance != "taylor":
        return Evidence(context.seed)
    return Evidence(context.seed, saliency(model, context.task.data.train, context.task.loss))


def _make_sparse(model: nn.Module, groups: list[ChannelGroup], action: StructuredPruning, context: Context) -> int:
    """Train with an L1 penalty on batch norm scales, where that was asked for and is possible; return the epochs."""
    scales = scales_of(groups)
    if action.sparsity is None or context.recover is None or not scales:
        return 0
    with shrinking(scales, action.sparsity):
        return context.recover(model, 0)
