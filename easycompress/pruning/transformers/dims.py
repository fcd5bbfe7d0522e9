"""The dimensions of attention heads: which can go, and taking them out.

A dimension of queries and keys is one term of their products; a dimension of values and of what the output layer reads
is one number that a head passes on. Each group of query heads with their key and value keeps its own, as many as all
others of the block: of queries and keys, and apart from that of values and outputs. The scale of the products stays.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from easycompress.core.inputs import answer
from easycompress.pruning.transformers.layout import HEAD_SIZES, PARTS, TOTALS, find_blocks
from easycompress.pruning.transformers.removal import prove
from easycompress.pruning.transformers.rotary import keep_pairs, nearest, understood
from easycompress.pruning.transformers.stream import is_norm
from easycompress.pruning.transformers.surgery import keep_size, select, tell

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from easycompress.core.inputs import Inputs
    from easycompress.pruning.transformers.blocks import Block, Cut, Role

SCALES = ("scaling", "scale")
"""What attention modules call the number that they multiply products of queries and keys with."""


@dataclass(frozen=True)
class HeadDims:
    """An attention `block` whose heads can lose dimensions; `rotary` is the path of the module that turns them."""

    block: Block
    rotary: str | None = None

    @property
    def size(self) -> int:
        """Return the number of dimensions of a head."""
        return self.block.outputs[0].width

    @property
    def unit(self) -> int:
        """Return how many go at a time: those of a rotary pair, or one."""
        return 1 if self.rotary is None else 2

    def cuts(self, *roles: Role) -> list[Cut]:
        """Return the cuts of the given roles."""
        return [cut for cut in self.block.cuts if cut.role in roles]


@dataclass(frozen=True)
class Kept:
    """The dimensions that stay, (groups, count) each, sorted: of queries and keys, and of values and outputs."""

    products: Tensor
    values: Tensor

    def of(self, role: Role) -> Tensor:
        """Return those of a role."""
        return self.products if role in ("query", "key") else self.values


def find_dims(model: nn.Module) -> list[HeadDims]:
    """Return the attention blocks whose heads can lose dimensions, in the order of the modules.

    Left out are blocks that mix queries, keys and values, that normalise each head over its dimensions, or whose heads
    are turned in a way that isn't understood; and all that share a rotary module with one of these.
    """
    found, spoilt = [], set()
    for block in find_blocks(model):
        if block.kind != "attention":
            continue
        size, turning = block.outputs[0].width, nearest(model, block.name)
        whole = {*PARTS, "output"} <= {cut.role for cut in block.cuts}
        plain = not _normalises(model.get_submodule(block.name), size)
        turned = not turning or (len(turning) == 1 and understood(model.get_submodule(turning[0]), size))
        if whole and plain and turned:
            found.append(HeadDims(block, turning[0] if turning else None))
        else:
            spoilt.update(turning)
    return [dims for dims in found if dims.rotary not in spoilt]


def _normalises(module: nn.Module, size: int) -> bool:
    """Tell whether a module normalises over the dimensions of a head: without some of them it gives other numbers."""
    norms = [part for part in module.modules() if is_norm(part)]
    return any(weight.numel() == size for part in norms for _, weight in part.named_parameters(recurse=False))


def remove_dims(
    model: nn.Module, kept: Sequence[tuple[HeadDims, Kept]], pairs: Mapping[str, Sequence[int]], example: Inputs
) -> None:
    """Leave only the `kept` dimensions of each block, and the `pairs` of each rotary module, in the model itself.

    What goes is set to zero first: raises CannotCompress where the narrow model doesn't answer as that one does.
    """
    for dims, stay in kept:
        silence_dims(model, dims, stay)
    with torch.no_grad():
        before = answer(model, example)
    narrow_dims(model, kept, pairs)
    prove(model, before, example, [dims.block.name for dims, _ in kept])


@torch.no_grad()
def silence_dims(model: nn.Module, dims: HeadDims, kept: Kept) -> None:
    """Set to zero everything of a block that makes or reads the dimensions that aren't kept."""
    for cut in dims.cuts(*PARTS, "output"):
        parameter = model.get_parameter(cut.tensor)
        count = dims.block.units if cut.per == "unit" else dims.block.groups
        gone = torch.ones(cut.offset + count * cut.width, dtype=torch.bool)
        gone[: cut.offset] = False
        gone[_places(dims.block, cut, kept.of(cut.role))] = False
        parameter.index_fill_(cut.axis, gone.nonzero().flatten(), 0.0)


@torch.no_grad()
def narrow_dims(model: nn.Module, kept: Sequence[tuple[HeadDims, Kept]], pairs: Mapping[str, Sequence[int]]) -> None:
    """Leave only the kept dimensions and pairs.

    A module that keeps its scale as a number keeps that number; where it computes the scale from the size of a head,
    queries become larger or smaller instead.
    """
    for dims, stay in kept:
        owner, size = keep_size(model, dims.block), stay.products.shape[1]
        if scale_of(owner) is None:
            multiply_queries(model, dims, math.sqrt(size / dims.size))
        select(model, [(cut, _places(dims.block, cut, stay.of(cut.role))) for cut in dims.cuts(*PARTS, "output")])
        tell(owner, HEAD_SIZES, dims.size, size)
        tell(owner, TOTALS, dims.block.units * dims.size, dims.block.units * size)
    for path, stay_pairs in pairs.items():
        keep_pairs(model.get_submodule(path), stay_pairs)


def scale_of(module: nn.Module) -> tuple[str, float] | None:
    """Return the attribute that holds the scale of an attention, and its value; None where there is none."""
    found = ((name, getattr(module, name, None)) for name in SCALES)
    return next(((name, float(value)) for name, value in found if isinstance(value, (int, float))), None)


@torch.no_grad()
def multiply_queries(model: nn.Module, dims: HeadDims, factor: float) -> None:
    """Multiply what makes the queries of a block, in place."""
    for cut in dims.cuts("query"):
        model.get_parameter(cut.tensor).narrow(cut.axis, cut.offset, dims.block.units * cut.width).mul_(factor)


def _places(block: Block, cut: Cut, table: Tensor) -> Tensor:
    """Return where along a cut's axis the dimensions `table` (groups, count) of each head are."""
    heads = block.units if cut.per == "unit" else block.groups
    starts = torch.arange(heads)[:, None] * cut.width + cut.offset
    return (starts + table.repeat_interleave(heads // block.groups, dim=0)).flatten()


def first_dims(dims: HeadDims, size: int) -> Kept:
    """Return the first dimensions of every head: for shapes, which they are makes no difference."""
    table = torch.arange(size).expand(dims.block.groups, size)
    return Kept(table, table)
