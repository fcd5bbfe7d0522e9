"""How many heads and neurons each block keeps at a given strength."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from easycompress.pruning.graph import ChannelGroup
from easycompress.pruning.transformers.configuration import (
    accepts,
    configured,
    describes,
    feed_forward_changes,
    head_changes,
)
from easycompress.pruning.widths import kept_widths, rounded

if TYPE_CHECKING:
    from torch import Tensor, nn

    from easycompress.pruning.transformers.blocks import Block
    from easycompress.pruning.transformers.settings import Grouped, TransformerPruning


def by_groups(block: Block, grouped: Grouped) -> bool:
    """Tell whether whole groups go: always where each head or neuron is its own group."""
    return block.groups > 1 and (grouped == "key-value" or block.groups == block.units)


def pieces(block: Block, grouped: Grouped) -> int:
    """Return how many steps a block can be narrowed in: its groups, or the query heads of one group."""
    return block.groups if by_groups(block, grouped) else block.units // block.groups


def units_left(block: Block, count: int, grouped: Grouped) -> int:
    """Return how many query heads or neurons `count` pieces are."""
    return count * (block.units // pieces(block, grouped))


def equal_shares(block: Block, strength: float, action: TransformerPruning) -> int:
    """Return the pieces left when every block loses the same share, at least one; widths rounded up."""
    full = pieces(block, action.grouped)
    left = max(1, full - math.floor(strength * full + 1e-9))
    return rounded(full, left, action.round_to if block.kind == "feed-forward" else 1)


def planned(
    model: nn.Module, blocks: list[Block], action: TransformerPruning, scores: dict[str, Tensor], strength: float
) -> tuple[dict[str, int], dict[str, int]]:
    """Return the pieces each block keeps, and the settings of the configuration that say so.

    Where a configuration rules the heads, and can't say fewer of them, it keeps them all. Where it can say some
    numbers only (Llama wants one that divides its width) the next larger one is taken. In no block does a larger
    strength keep more.
    """
    goal: dict[str, int] = {}
    settings: dict[str, int] = {}
    for kind in ("feed-forward", "attention"):
        here = [block for block in blocks if block.kind == kind]
        tied = any(block.tie != block.name for block in here)
        if not action.uniform and not tied:
            goal |= _free(here, action, scores, strength)
            continue
        equal = {block.name: equal_shares(block, strength, action) for block in here}
        if action.uniform and configured(model) is not None:
            equal, said = _said(model, here, equal, action)
            settings |= said
        goal |= equal
    return goal, settings


def _free(
    blocks: list[Block], action: TransformerPruning, scores: dict[str, Tensor], strength: float
) -> dict[str, int]:
    """Return what is left when the least important go first, relative to their block's mean."""
    if not blocks:
        return {}
    groups = []
    for block in blocks:
        full = pieces(block, action.grouped)
        table = scores[block.name].reshape(block.groups, -1)
        each = table.sum(1) if by_groups(block, action.grouped) else table.sort(1).values.sum(0)
        mean = each.mean().clamp_min(1e-30)
        groups.append(ChannelGroup(root=block.name, family="linear", width=full, scores=each / mean))
    return kept_widths(groups, strength, action.round_to if blocks[0].kind == "feed-forward" else 1)


def _said(
    model: nn.Module, blocks: list[Block], wanted: dict[str, int], action: TransformerPruning
) -> tuple[dict[str, int], dict[str, int]]:
    """Return what is kept where a configuration has to say it, and its settings: none where nothing changes."""
    found = configured(model)
    if found is None or not blocks:
        return wanted, {}
    first, config = blocks[0], found[1].config
    alike = all(
        (b.units, b.groups, b.outputs[0].width) == (first.units, first.groups, first.outputs[0].width) for b in blocks
    )
    full = pieces(first, action.grouped)
    if first.kind == "feed-forward":
        settings = feed_forward_changes(config, full, wanted[first.name]) if alike and wanted[first.name] < full else {}
        return wanted, settings if describes(model, settings, _kept(blocks, wanted[first.name], action)) else {}
    for count in range(wanted[first.name], full) if alike else ():
        heads = units_left(first, count, action.grouped)
        groups = count if by_groups(first, action.grouped) else first.groups
        settings = head_changes(config, first, heads, groups)
        if accepts(config, settings):
            if describes(model, settings, _kept(blocks, count, action)):
                return {block.name: count for block in blocks}, settings
            break  # it computes the head size from the number of heads
    return {block.name: pieces(block, action.grouped) for block in blocks}, {}


def _kept(blocks: list[Block], count: int, action: TransformerPruning) -> list[tuple[Block, list[Any]]]:
    """Return units that `count` pieces of each block could be: which they are makes no difference to shapes."""
    return [(block, first_units(block, count, action.grouped)) for block in blocks]


def first_units(block: Block, count: int, grouped: Grouped) -> list[int]:
    """Return the first `count` pieces' units."""
    per = block.units // block.groups
    if by_groups(block, grouped):
        return list(range(count * per))
    return [group * per + unit for group in range(block.groups) for unit in range(count)]
