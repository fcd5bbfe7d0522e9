"""Transformer pruning as a technique: counts from the settings, what goes by its effect on the loss."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from easycompress.core.errors import CannotCompress
from easycompress.pruning.transformers.configuration import change, configured
from easycompress.pruning.transformers.dims import find_dims
from easycompress.pruning.transformers.dims_shares import planned_dims
from easycompress.pruning.transformers.dims_steps import DimSteps, replay_dims
from easycompress.pruning.transformers.layout import find_blocks
from easycompress.pruning.transformers.removal import can_narrow, left_after, remove
from easycompress.pruning.transformers.scores import channel_importance, choose, dims_importance, importance
from easycompress.pruning.transformers.settings import TransformerPruning
from easycompress.pruning.transformers.shares import by_groups, pieces, planned
from easycompress.pruning.transformers.stream import best_channels, keep_channels, stream_of
from easycompress.pruning.transformers.surgery import keep
from easycompress.technique import Applied, Context, Need

if TYPE_CHECKING:
    from torch import nn

    from easycompress.core.inputs import Inputs
    from easycompress.core.profile import ModelProfile
    from easycompress.pruning.transformers.blocks import Block
    from easycompress.pruning.transformers.stream import Stream

NAMED = 6
"""Module types that a refusal lists."""


class TransformerPruner:
    """Removes attention heads, their dimensions and feed-forward neurons, in steps, each followed by some training."""

    name = "transformer-pruning"
    settings = TransformerPruning
    needs: frozenset[Need] = frozenset()
    source = "Michel et al., Are Sixteen Heads Really Better than One?, NeurIPS 2019; EasyCompress thesis, section 4.4"

    def refuses(self, profile: ModelProfile, action: TransformerPruning) -> str | None:
        """Refuse a model without attention. Whether its blocks are understood is seen in the model itself."""
        if profile.architecture == "transformer":
            return None
        kinds = ", ".join(list(profile.counts())[:NAMED]) or "no layers"
        return f"transformer pruning ({action.part}): the model has no attention; it is made of {kinds}"

    def apply(self, model: nn.Module, action: TransformerPruning, context: Context) -> Applied:
        """Prune to the counts that the untouched `model` and the settings determine.

        Raises CannotCompress where no block of the part is understood, or where a block turns out to be read elsewhere.
        """
        if action.strength is None:
            raise CannotCompress("transformer pruning: no strength was set")
        blocks, example = found(model, action), context.task.example
        heads = smaller_heads(model, blocks, action, context)
        scores: dict[str, torch.Tensor] = {}
        if not action.uniform:
            scores = importance(model, blocks, action.importance, context.task, context.seed)
        shares = planned(model, blocks, action, scores, action.strength)
        hidden = shares.stream is None or can_narrow(model, blocks, shares, action, example)
        if not hidden:
            shares = planned(model, blocks, action, scores, action.strength, hidden=False)
        alone = action.part == "attention" and action.uniform and heads is None
        if alone and not can_lose(model, blocks, action, hidden=hidden):
            raise CannotCompress(
                "transformer pruning: the model's configuration can't say fewer heads; "
                "prune the feed-forward part, or set uniform: false"
            )
        full = {block.name: pieces(block, action.grouped) for block in blocks}
        steps = action.steps if context.recover is not None else 1
        epochs = 0
        for step in range(1, steps + 1):
            counts = left_after(full, shares.goal, step, steps)
            here = [block for block in find_blocks(model) if counts.get(block.name, 0) < full.get(block.name, 0)]
            stream = None if shares.stream is None else (shares.stream, shares.stream.after(step, steps))
            if here or stream is not None:
                self._narrow(model, here, counts, stream, action, context)
            if heads is not None:
                heads.step(model, step, steps, action, context)
            if context.recover is not None and step < steps:
                epochs += context.recover(model, step)
        settings = shares.settings | (heads.finish(model) if heads is not None else {})
        change(model, settings)
        record = {**shape_record(model, shares.goal), "configuration": settings}
        record |= heads.record() if heads is not None else {}
        if shares.stream is not None:
            record["hidden"] = [shares.stream.width, shares.stream.kept]
        return Applied(model, record, epochs=epochs)

    def replay(self, model: nn.Module, record: dict[str, Any], example: Inputs) -> nn.Module:  # noqa: ARG002 - nothing is traced
        """Narrow the blocks to the recorded counts: which units they were is in the weights that come afterwards."""
        blocks = find_blocks(model)
        stream = None
        if "hidden" in record:
            stream = stream_of(model, blocks, record["configuration"], *record["hidden"])
            if stream is None:
                raise CannotCompress("transformer pruning: the recorded hidden width isn't the model's")
        for block in blocks:
            if block.name in record["blocks"]:
                units, groups = record["blocks"][block.name]
                per_old, per_new = block.units // block.groups, units // groups
                keep(model, block, [group * per_old + unit for group in range(groups) for unit in range(per_new)])
        if stream is not None:
            keep_channels(model, stream, range(stream.kept))
        if "head_dims" in record:
            replay_dims(model, record["head_dims"])
        change(model, record["configuration"])
        return model

    @staticmethod
    def _narrow(
        model: nn.Module,
        blocks: list[Block],
        counts: dict[str, int],
        stream: tuple[Stream, int] | None,
        action: TransformerPruning,
        context: Context,
    ) -> None:
        """Remove the least important units, down to `counts` pieces, and hidden channels, down to the stream's."""
        scores = importance(model, blocks, action.importance, context.task, context.seed)
        tied: dict[str, torch.Tensor] = {}
        for block in blocks:
            tied[block.tie] = tied.get(block.tie, torch.zeros(block.units)) + scores[block.name]
        kept = [
            (block, choose(block, tied[block.tie], counts[block.name], whole=by_groups(block, action.grouped)))
            for block in blocks
        ]
        narrower = None
        if stream is not None:
            ranks = channel_importance(model, stream[0].cuts, action.importance, context.task, context.seed)
            narrower = stream[0], best_channels(ranks, stream[1])
        remove(model, kept, narrower, context.task.example)


def found(model: nn.Module, action: TransformerPruning) -> list[Block]:
    """Return the blocks of the action's part, of which head dimensions have none of their own.

    Raises CannotCompress with what the model has instead.
    """
    if action.part == "head-dims":
        return []
    blocks = [block for block in find_blocks(model) if action.part in ("both", block.kind)]
    if not blocks:
        kinds = ", ".join(list(dict.fromkeys(type(m).__name__ for m in model.modules()))[:NAMED])
        part = "attention or feed-forward" if action.part == "both" else action.part
        raise CannotCompress(f"transformer pruning: no {part} block that it understands; the model has {kinds}")
    return blocks


def smaller_heads(
    model: nn.Module, blocks: list[Block], action: TransformerPruning, context: Context
) -> DimSteps | None:
    """Return the way to smaller heads, None where it isn't for them to change.

    They do where the action says so, and where attention has one head only, which can't go: there only where the model
    permits it, and not at the cost of a configuration that then says something else.
    Raises CannotCompress where the action says so and none can.
    """
    asked = action.part == "head-dims"
    attention = [block for block in blocks if block.kind == "attention"]
    single = bool(attention) and all(block.units == 1 for block in attention)
    if not (asked or single) or action.strength is None:
        return None
    found = find_dims(model)
    if asked and not found:
        raise CannotCompress(
            "transformer pruning: there is no attention whose heads can be made smaller: they are unknown, mixed, "
            "normalised one by one or turned in an unknown way; prune part both instead"
        )
    scores: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    if not action.uniform:
        scores = dims_importance(model, found, action.importance, context.task, context.seed)
    shares = planned_dims(model, found, action, scores, action.strength)
    heads = DimSteps(found, shares)
    said = bool(shares.settings) or configured(model) is None or not action.uniform
    return heads if asked or (found and said and heads.works(model, action, context)) else None


def can_lose(model: nn.Module, blocks: list[Block], action: TransformerPruning, *, hidden: bool) -> bool:
    """Tell whether any block loses something at full strength, or has but one piece to begin with."""
    least = planned(model, blocks, action, {}, 1.0, hidden=hidden).goal
    full = {block.name: pieces(block, action.grouped) for block in blocks}
    return max(full.values()) == 1 or any(least[name] < count for name, count in full.items())


def shape_record(model: nn.Module, goal: dict[str, int]) -> dict[str, Any]:
    """Return how many units and groups each planned block has now."""
    return {"blocks": {b.name: [b.units, b.groups] for b in find_blocks(model) if b.name in goal}}
