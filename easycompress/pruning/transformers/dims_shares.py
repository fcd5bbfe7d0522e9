"""How many dimensions the heads of each attention keep at a given strength, and what of it a configuration says."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from easycompress.pruning.graph import ChannelGroup
from easycompress.pruning.transformers.configuration import Settings, built, configured, size_changes
from easycompress.pruning.transformers.dims import scale_of
from easycompress.pruning.transformers.rotary import FREQUENCIES, computes, rotary_changes, spaced
from easycompress.pruning.widths import kept_widths, rounded

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor, nn

    from easycompress.pruning.transformers.dims import HeadDims
    from easycompress.pruning.transformers.settings import TransformerPruning


@dataclass(frozen=True)
class DimShares:
    """The head size that each block keeps; `settings` of the configuration say it, none where they are empty.

    A configuration that says it computes a scale by block, in `scales`, and frequencies of rotary pairs: `pairs` lists
    the sets for which those are the kept ones.
    """

    sizes: dict[str, int]
    settings: Settings = field(default_factory=dict)
    scales: dict[str, tuple[str, float]] = field(default_factory=dict)
    pairs: tuple[tuple[int, ...], ...] = ()


def equal_size(dims: HeadDims, strength: float, round_to: int) -> int:
    """Return the size left when every head loses the same share, at least one dimension or pair; rounded up."""
    left = max(dims.unit, dims.size - math.floor(strength * dims.size + 1e-9))
    return rounded(dims.size, left, round_to if round_to % dims.unit == 0 else round_to * dims.unit)


def planned_dims(
    model: nn.Module,
    found: Sequence[HeadDims],
    action: TransformerPruning,
    scores: Mapping[str, tuple[Tensor, Tensor]],
    strength: float,
) -> DimShares:
    """Return what is left at a strength. In no block does a larger strength keep more.

    `scores` are needed where shares may differ: those of rotary heads never do.
    """
    sizes = {dims.block.name: equal_size(dims, strength, action.round_to) for dims in found}
    if not action.uniform:
        return DimShares(sizes | _free([dims for dims in found if dims.rotary is None], action, scores, strength))
    return _said(model, found, sizes) or DimShares(sizes)


def _free(
    found: Sequence[HeadDims],
    action: TransformerPruning,
    scores: Mapping[str, tuple[Tensor, Tensor]],
    strength: float,
) -> dict[str, int]:
    """Return what is left when the least important go first, relative to their block's mean."""
    if not found:
        return {}
    groups = []
    for dims in found:
        products, values = (
            table.sort(1).values.sum(0) / table.sum().clamp_min(1e-30) for table in scores[dims.block.name]
        )
        groups.append(ChannelGroup(root=dims.block.name, family="linear", width=dims.size, scores=products + values))
    return kept_widths(groups, strength, action.round_to)


def _said(model: nn.Module, found: Sequence[HeadDims], sizes: Mapping[str, int]) -> DimShares | None:
    """Return what is left where the configuration can say it, None where it can't."""
    root = configured(model)
    before, after = {dims.size for dims in found}, set(sizes.values())
    if root is None or len(before) != 1 or len(after) != 1 or before == after:
        return None
    size = after.pop()
    settings = size_changes(root[1].config, before.pop(), size)
    made = built(model, settings)
    if made is None or not _fits(model, made, found, size):
        return None
    scales = {}
    for dims in found:
        name = dims.block.name
        here = scale_of(model.get_submodule(name))
        there = scale_of(made[1].get_submodule(name.removeprefix(f"{made[0]}.")))
        if (here is None) != (there is None):
            return None
        if there is not None:
            scales[name] = there
    turning = {dims.rotary for dims in found} - {None}
    if not turning:
        return DimShares(dict(sizes), settings, scales)
    if len(turning) > 1:
        return None
    pairs = tuple(_computed(model, found[0], settings, size))
    return DimShares(dict(sizes), settings, scales, pairs) if pairs else None


def _fits(model: nn.Module, made: tuple[str, nn.Module], found: Sequence[HeadDims], size: int) -> bool:
    """Tell whether what a configuration built has the shapes that heads of `size` leave, and no others."""
    shapes = {name: list(p.shape) for name, p in model.named_parameters(remove_duplicate=False)}
    widths: dict[tuple[str, int], int] = {}
    for dims in found:
        for cut in dims.cuts("query", "key", "value", "output"):
            heads = dims.block.units if cut.per == "unit" else dims.block.groups
            widths[cut.tensor, cut.axis] = widths.get((cut.tensor, cut.axis), 0) + heads * size
    for (name, axis), width in widths.items():
        shapes[name][axis] = width
    prefix = f"{made[0]}." if made[0] else ""
    theirs = {prefix + name: list(p.shape) for name, p in made[1].named_parameters(remove_duplicate=False)}
    inside = {name: shape for name, shape in shapes.items() if name.startswith(prefix)}
    return theirs == inside and all(name in theirs for name, _ in widths)


def _computed(model: nn.Module, dims: HeadDims, settings: Settings, size: int) -> list[tuple[int, ...]]:
    """Return the sets of pairs whose frequencies the configuration with `settings` and others can compute."""
    assert dims.rotary is not None  # noqa: S101 - asked for rotary heads only
    frequencies = getattr(model.get_submodule(dims.rotary), FREQUENCIES)
    found = []
    for pairs in spaced(dims.size // 2, size // 2):
        changes = rotary_changes(model, pairs, dims.size)
        if changes is not None and computes(model, dims.rotary, settings | changes, frequencies[list(pairs)]):
            found.append(pairs)
    return found
