"""Structured pruning as a technique: widths from the settings, channels from the weights, recovery in between."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from easycompress.core.errors import CannotCompress
from easycompress.pruning.graph import PruningGraph
from easycompress.pruning.settings import StructuredPruning
from easycompress.pruning.widths import kept_widths, least_important, rounded
from easycompress.technique import Applied, Context, Need

if TYPE_CHECKING:
    from torch import nn

    from easycompress.core.profile import ModelProfile


class StructuredPruner:
    """Removes whole channels and neurons, in steps, each followed by a little training."""

    name = "structured-pruning"
    settings = StructuredPruning
    needs: frozenset[Need] = frozenset()
    source = "Fang et al., DepGraph, CVPR 2023; EasyCompress thesis, section 4.4"

    def refuses(self, profile: ModelProfile, action: StructuredPruning) -> str | None:
        """Refuse a model without layers of the strategy's family."""
        families = {layer.family for layer in profile.layers}
        if action.strategy != "global" and action.strategy not in families:
            return f"structured pruning: strategy {action.strategy} finds no {action.strategy} layer in this model"
        if not families & {"convolutional", "linear"}:
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
        groups = graph.groups(action.strategy, action.importance)
        if not groups:
            raise CannotCompress(f"structured pruning: no channel can be removed with strategy {action.strategy}")
        goal = kept_widths(groups, action.strength, action.round_to)
        full = {group.root: group.width for group in groups}
        with torch.no_grad():
            shape = model(example).shape
        record: list[list[Any]] = []
        epochs = 0
        steps = action.steps if context.recover is not None else 1
        for step in range(1, steps + 1):
            if step > 1:
                graph = PruningGraph(model, example)  # training replaced nothing, but scores must be fresh
            for group in graph.groups(action.strategy, action.importance):
                gone = (full[group.root] - goal[group.root]) * step // steps
                wanted = rounded(full[group.root], full[group.root] - gone, action.round_to)
                channels = least_important(group.scores, group.width - wanted)
                if channels:
                    graph.remove(group.root, channels)
                    record.append([group.root, channels])
            if context.recover is not None and step < steps:
                epochs += context.recover(model, step)
        with torch.no_grad():
            if model(example).shape != shape:
                raise CannotCompress(
                    "structured pruning changed the model's output; its last layer can't be told apart"
                )
        return Applied(model, {"removed": record, "widths": goal}, epochs=epochs)

    def replay(self, model: nn.Module, record: dict[str, Any], example: torch.Tensor) -> nn.Module:
        """Remove the recorded channels in the recorded order."""
        graph = PruningGraph(model, example)
        for root, channels in record["removed"]:
            graph.remove(root, channels)
        return model
