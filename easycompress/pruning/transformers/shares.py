"""How many heads and neurons each block keeps at a given strength."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from easycompress.core.plan import ramp
from easycompress.pruning.graph import ChannelGroup
from easycompress.pruning.transformers.configuration import (
    Settings,
    accepts,
    configured,
    describes,
    feed_forward_changes,
    head_changes,
    joint_changes,
)
from easycompress.pruning.transformers.stream import Stream, stream_of
from easycompress.pruning.widths import kept_widths, rounded

if TYPE_CHECKING:
    from torch import Tensor, nn

    from easycompress.pruning.transformers.blocks import Block
    from easycompress.pruning.transformers.settings import Grouped, TransformerPruning

HIDDEN_FROM = 0.5
"""Share of the neurons that has gone before heads and hidden width begin to, where both can go."""


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


@dataclass(frozen=True)
class Shares:
    """The pieces that each block keeps, the settings of the configuration that say so, the stream if it narrows."""

    goal: dict[str, int]
    settings: Settings
    stream: Stream | None = None


def planned(
    model: nn.Module,
    blocks: list[Block],
    action: TransformerPruning,
    scores: dict[str, Tensor],
    strength: float,
    *,
    hidden: bool = True,
) -> Shares:
    """Return what is left at a strength. In no block does a larger strength keep more.

    Where a configuration rules the heads, and can't say fewer of them at their size, they go together with hidden
    width, if `hidden` allows it and the configuration can say that; else it keeps them all. Where it can say some
    numbers only (Llama wants one that divides its width) the next larger one is taken.
    """
    goal: dict[str, int] = {}
    settings: Settings = {}
    stream = None
    for kind in ("attention", "feed-forward"):
        here = [block for block in blocks if block.kind == kind]
        tied = any(block.tie != block.name for block in here)
        if not action.uniform and not tied:
            goal |= _free(here, action, scores, strength)
            continue
        equal = {block.name: equal_shares(block, strength, action) for block in here}
        if action.uniform and here and configured(model) is not None:
            said = _heads(model, here, equal, action) if kind == "attention" else _neurons(model, here, equal, action)
            if said is None:
                said = (_joint(model, here, action, strength) if hidden else None) or Shares(_all(here, action), {})
            equal, stream = said.goal, said.stream or stream
            settings |= said.settings
        goal |= equal
    return Shares(goal, settings, stream)


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


def _neurons(model: nn.Module, blocks: list[Block], wanted: dict[str, int], action: TransformerPruning) -> Shares:
    """Return what is kept of feed-forward blocks, with settings where the configuration can say it."""
    first, root = blocks[0], configured(model)
    full, count = pieces(first, action.grouped), wanted[first.name]
    if root is None or count == full:
        return Shares(wanted, {})
    if not _alike(blocks):
        return _ratio(model, blocks, wanted) or Shares(wanted, {})
    settings = feed_forward_changes(root[1].config, full, count)
    return Shares(wanted, settings if describes(model, settings, _kept(blocks, count, action)) else {})


def _ratio(model: nn.Module, blocks: list[Block], wanted: dict[str, int]) -> Shares | None:
    """Return what is kept where a configuration says all widths as one ratio to the hidden ones, as Swin's does."""
    root = configured(model)
    if root is None or not hasattr(root[1].config, "mlp_ratio"):
        return None
    widths = {b.name: model.get_parameter(b.outputs[0].tensor).shape[1 - b.outputs[0].axis] for b in blocks}
    least = min(blocks, key=lambda block: widths[block.name])
    ratio = wanted[least.name] / widths[least.name]
    counts = {name: int(ratio * width) for name, width in widths.items()}
    if any(not 0 < counts[block.name] <= block.units for block in blocks):
        return None
    settings: Settings = {"mlp_ratio": ratio}
    kept = [(block, range(counts[block.name])) for block in blocks]
    return Shares(counts, settings) if describes(model, settings, kept) else None


def _heads(model: nn.Module, blocks: list[Block], wanted: dict[str, int], action: TransformerPruning) -> Shares | None:
    """Return what is kept where the configuration says heads of their size, None where it can't say fewer."""
    first, root = blocks[0], configured(model)
    full = pieces(first, action.grouped)
    if wanted[first.name] == full:
        return Shares(_all(blocks, action), {})
    if root is None or not _alike(blocks):
        return None
    for count in range(wanted[first.name], full):
        heads = units_left(first, count, action.grouped)
        groups = count if by_groups(first, action.grouped) else first.groups
        settings = head_changes(root[1].config, first, heads, groups)
        if accepts(root[1].config, settings):
            if describes(model, settings, _kept(blocks, count, action)):
                return Shares({block.name: count for block in blocks}, settings)
            return None  # it computes the head size from the number of heads
    return Shares(_all(blocks, action), {})


def _joint(model: nn.Module, blocks: list[Block], action: TransformerPruning, strength: float) -> Shares | None:
    """Return what is kept where heads go together with hidden width, None where no configuration says that.

    Hidden width is what every layer works on: where neurons can go as well, they go first.
    """
    first, root = blocks[0], configured(model)
    share = ramp(strength, HIDDEN_FROM) if action.part == "both" else strength
    count, full = equal_shares(first, share, action), pieces(first, action.grouped)
    if root is None or not _alike(blocks) or first.groups != first.units:
        return None
    for heads in range(count, full):
        width, settings = joint_changes(root[1].config, first, heads)
        if not settings:
            return None
        if accepts(root[1].config, settings) and describes(model, settings, _kept(blocks, heads, action)):
            stream = stream_of(model, blocks, settings, width, heads * width // full)
            return None if stream is None else Shares({block.name: heads for block in blocks}, settings, stream)
    return None


def _all(blocks: list[Block], action: TransformerPruning) -> dict[str, int]:
    return {block.name: pieces(block, action.grouped) for block in blocks}


def _alike(blocks: list[Block]) -> bool:
    """Tell whether one number says how wide the blocks are."""
    return len({(block.units, block.groups, block.outputs[0].width) for block in blocks}) == 1


def _kept(blocks: list[Block], count: int, action: TransformerPruning) -> list[tuple[Block, list[Any]]]:
    """Return units that `count` pieces of each block could be: which they are makes no difference to shapes."""
    return [(block, first_units(block, count, action.grouped)) for block in blocks]


def first_units(block: Block, count: int, grouped: Grouped) -> list[int]:
    """Return the first `count` pieces' units."""
    per = block.units // block.groups
    if by_groups(block, grouped):
        return list(range(count * per))
    return [group * per + unit for group in range(block.groups) for unit in range(count)]
