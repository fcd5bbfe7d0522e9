"""Transformer pruning as a technique: counts from the settings, heads and neurons from their effect on the loss."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from easycompress.core.errors import CannotCompress, one_line
from easycompress.core.inputs import answer
from easycompress.pruning.transformers.configuration import change
from easycompress.pruning.transformers.layout import find_blocks
from easycompress.pruning.transformers.scores import choose, importance
from easycompress.pruning.transformers.settings import TransformerPruning
from easycompress.pruning.transformers.shares import by_groups, pieces, planned
from easycompress.pruning.transformers.surgery import keep, silence
from easycompress.technique import Applied, Context, Need

if TYPE_CHECKING:
    from torch import nn

    from easycompress.core.inputs import Inputs
    from easycompress.core.profile import ModelProfile
    from easycompress.pruning.transformers.blocks import Block

TOLERANCE = 1e-3
"""Largest difference, relative to the largest output, between a unit silenced and a unit removed: rounding is 1e-6."""

NAMED = 6
"""Module types that a refusal lists."""


class TransformerPruner:
    """Removes attention heads and feed-forward neurons, in steps, each followed by a little training."""

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
        blocks = found(model, action)
        scores: dict[str, torch.Tensor] = {}
        if not action.uniform:
            scores = importance(model, blocks, action.importance, context.task, context.seed)
        goal, settings = planned(model, blocks, action, scores, action.strength)
        if action.part == "attention" and action.uniform and not can_lose(model, blocks, action):
            raise CannotCompress(
                "transformer pruning: the model's configuration can't say fewer heads; "
                "prune the feed-forward part, or set uniform: false"
            )
        full = {block.name: pieces(block, action.grouped) for block in blocks}
        steps = action.steps if context.recover is not None else 1
        epochs = 0
        for step in range(1, steps + 1):
            here = [block for block in find_blocks(model) if goal.get(block.name, 0) < full.get(block.name, 0)]
            counts = {b.name: full[b.name] - (full[b.name] - goal[b.name]) * step // steps for b in here}
            self._narrow(model, here, counts, action, context)
            if context.recover is not None and step < steps:
                epochs += context.recover(model, step)
        change(model, settings)
        return Applied(model, {**shape_record(model, goal), "configuration": settings}, epochs=epochs)

    def replay(self, model: nn.Module, record: dict[str, Any], example: Inputs) -> nn.Module:  # noqa: ARG002 - nothing is traced
        """Narrow the blocks to the recorded counts: which units they were is in the weights that come afterwards."""
        for block in find_blocks(model):
            if block.name in record["blocks"]:
                units, groups = record["blocks"][block.name]
                per_old, per_new = block.units // block.groups, units // groups
                keep(model, block, [group * per_old + unit for group in range(groups) for unit in range(per_new)])
        change(model, record["configuration"])
        return model

    @staticmethod
    def _narrow(
        model: nn.Module, blocks: list[Block], counts: dict[str, int], action: TransformerPruning, context: Context
    ) -> None:
        """Remove the least important units, down to `counts` pieces, and check that they were understood."""
        scores = importance(model, blocks, action.importance, context.task, context.seed)
        tied: dict[str, torch.Tensor] = {}
        for block in blocks:
            tied[block.tie] = tied.get(block.tie, torch.zeros(block.units)) + scores[block.name]
        kept = {
            block.name: choose(block, tied[block.tie], counts[block.name], whole=by_groups(block, action.grouped))
            for block in blocks
        }
        example = context.task.example
        for block in blocks:
            silence(model, block, sorted(set(range(block.units)) - set(kept[block.name])))
        with torch.no_grad():
            before = answer(model, example)
        for block in blocks:
            keep(model, block, kept[block.name])
        try:
            with torch.no_grad():
                after = answer(model, example)
        except Exception as error:  # whatever the model's forward runs into
            raise CannotCompress(_elsewhere(blocks, one_line(error, 100))) from error
        same = before.shape == after.shape
        if not same or (before - after).abs().max() > TOLERANCE * before.abs().max().clamp_min(1e-6):
            raise CannotCompress(_elsewhere(blocks, "its output changed"))


def found(model: nn.Module, action: TransformerPruning) -> list[Block]:
    """Return the blocks of the action's part. Raises CannotCompress with what the model has instead."""
    blocks = [block for block in find_blocks(model) if action.part in ("both", block.kind)]
    if not blocks:
        kinds = ", ".join(list(dict.fromkeys(type(m).__name__ for m in model.modules()))[:NAMED])
        part = "attention or feed-forward" if action.part == "both" else action.part
        raise CannotCompress(f"transformer pruning: no {part} block that it understands; the model has {kinds}")
    return blocks


def can_lose(model: nn.Module, blocks: list[Block], action: TransformerPruning) -> bool:
    """Tell whether any block loses something at full strength, or has but one piece to begin with."""
    least, _ = planned(model, blocks, action, {}, 1.0)
    full = {block.name: pieces(block, action.grouped) for block in blocks}
    return max(full.values()) == 1 or any(least[name] < count for name, count in full.items())


def shape_record(model: nn.Module, goal: dict[str, int]) -> dict[str, Any]:
    """Return how many units and groups each planned block has now."""
    return {"blocks": {b.name: [b.units, b.groups] for b in find_blocks(model) if b.name in goal}}


def _elsewhere(blocks: list[Block], reason: str) -> str:
    names = ", ".join(block.name for block in blocks[:2])
    return f"transformer pruning: the model uses the widths of {names} in more places than are known ({reason})"
