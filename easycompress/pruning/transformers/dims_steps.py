"""Heads made smaller step by step, and the record from which that is done again."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from easycompress.core.errors import CannotCompress
from easycompress.pruning.transformers.dims import (
    HeadDims,
    Kept,
    find_dims,
    first_dims,
    multiply_queries,
    narrow_dims,
    remove_dims,
    scale_of,
)
from easycompress.pruning.transformers.rotary import dimensions, keep_pairs, rotary_changes
from easycompress.pruning.transformers.scores import dims_importance
from easycompress.pruning.transformers.stream import best_channels

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import nn

    from easycompress.pruning.transformers.configuration import Settings
    from easycompress.pruning.transformers.dims_shares import DimShares
    from easycompress.pruning.transformers.settings import TransformerPruning
    from easycompress.technique import Context


class DimSteps:
    """The way from the heads of an untouched model to those that `shares` leaves.

    `pairs` are the rotary pairs that are left, by the path of their module, as places in the untouched one.
    """

    def __init__(self, found: Sequence[HeadDims], shares: DimShares) -> None:
        self.shares = shares
        self.full = {dims.block.name: dims for dims in found if shares.sizes[dims.block.name] < dims.size}
        turned = {dims.rotary: dims.size // 2 for dims in self.full.values() if dims.rotary is not None}
        self.pairs = {path: tuple(range(count)) for path, count in turned.items()}

    def step(self, model: nn.Module, step: int, steps: int, action: TransformerPruning, context: Context) -> None:
        """Remove the least important dimensions of one of several equal steps from the model itself."""
        found = [dims for dims in find_dims(model) if dims.block.name in self.full]
        if not found:
            return
        scores = dims_importance(model, found, action.importance, context.task, context.seed)
        sizes = {dims.block.name: self._left(dims, step, steps) for dims in found}
        weights = {  # norms say nothing about the loss: each attention counts alike
            name: float(products.mean()) or 1.0 if action.importance == "norm" else 1.0
            for name, (products, _) in scores.items()
        }
        tables = {name: products / weights[name] for name, (products, _) in scores.items()}
        pairs = {path: self._pairs(path, found, tables, sizes) for path in self.pairs}
        kept = []
        for dims in found:
            products, values = scores[dims.block.name]
            size = sizes[dims.block.name]
            if dims.rotary is None:
                stay = _best(products, size)
            else:
                stay = dimensions(torch.tensor(pairs[dims.rotary]), dims.size).expand(dims.block.groups, size)
            kept.append((dims, Kept(stay, _best(values, size))))
        remove_dims(model, kept, pairs, context.task.example)
        self.pairs = {path: tuple(here[place] for place in pairs[path]) for path, here in self.pairs.items()}

    def works(self, model: nn.Module, action: TransformerPruning, context: Context) -> bool:
        """Tell whether the heads can become so small, by making those of a copy of the model so."""
        quick = action.model_copy(update={"importance": "norm"})
        try:
            copy.deepcopy(self).step(copy.deepcopy(model), 1, 1, quick, context)
        except CannotCompress:
            return False
        return True

    def finish(self, model: nn.Module) -> Settings:
        """Give the heads the scales that the configuration computes, their queries the rest; return its settings."""
        if not self.shares.settings or not self.full:
            return {}
        for dims in find_dims(model):
            name = dims.block.name
            if name in self.full and name in self.shares.scales:
                owner = model.get_submodule(name)
                before, (attribute, value) = scale_of(owner), self.shares.scales[name]
                assert before is not None  # noqa: S101 - the plan saw one
                multiply_queries(model, dims, before[1] / value)
                setattr(owner, attribute, value)
        settings = dict(self.shares.settings)
        for path, pairs in self.pairs.items():
            size = next(dims.size for dims in self.full.values() if dims.rotary == path)
            settings |= rotary_changes(model, pairs, size) or {}
        return settings

    def record(self) -> dict[str, Any]:
        """Return what replay_dims() needs; nothing where no head becomes smaller."""
        if not self.full:
            return {}
        return {
            "head_dims": {
                "sizes": {name: self.shares.sizes[name] for name in self.full},
                "scales": {name: list(scale) for name, scale in self.shares.scales.items() if name in self.full},
                "pairs": {path: list(pairs) for path, pairs in self.pairs.items()},
            }
        }

    def _left(self, dims: HeadDims, step: int, steps: int) -> int:
        """Return the size after a step, in whole pairs where heads are rotary."""
        full, goal = (
            size // dims.unit for size in (self.full[dims.block.name].size, self.shares.sizes[dims.block.name])
        )
        return (full - (full - goal) * step // steps) * dims.unit

    def _pairs(
        self,
        path: str,
        found: Sequence[HeadDims],
        tables: Mapping[str, Tensor],
        sizes: Mapping[str, int],
    ) -> list[int]:
        """Return the pairs that stay, as places among those there are: the best of all attentions together.

        Where the last step has to leave one of certain sets, the best of those that still can be left stays whole.
        """
        turned = [dims for dims in found if dims.rotary == path]
        total = torch.stack([tables[dims.block.name].sum(0) for dims in turned]).sum(0)
        count = sizes[turned[0].block.name] // 2
        place = {pair: index for index, pair in enumerate(self.pairs[path])}
        possible = [[place[pair] for pair in pairs] for pairs in self.shares.pairs if set(pairs) <= place.keys()]
        ranked = total.clone()
        if possible:
            best = max(possible, key=lambda places: float(total[places].sum()))
            ranked[best] = float("inf")
        return best_channels(ranked, count)


def replay_dims(model: nn.Module, record: Mapping[str, Any]) -> None:
    """Give the heads of a fresh model the recorded sizes, scales and rotary pairs."""
    sizes = record["sizes"]
    found = [dims for dims in find_dims(model) if dims.block.name in sizes]
    narrow_dims(model, [(dims, first_dims(dims, sizes[dims.block.name])) for dims in found], {})
    for name, (attribute, value) in record["scales"].items():
        setattr(model.get_submodule(name), attribute, value)
    for path, pairs in record["pairs"].items():
        keep_pairs(model.get_submodule(path), pairs)


def _best(scores: Tensor, count: int) -> Tensor:
    """Return the places (rows, count) of the largest scores of each row, sorted; of equal ones the later go first."""
    order = torch.sort(scores, dim=1, descending=True, stable=True).indices
    return order[:, :count].sort(1).values
