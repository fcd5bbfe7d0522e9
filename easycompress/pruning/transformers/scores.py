"""How much each head and neuron matters, and which of them stay."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from easycompress.core.inputs import answer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import Tensor, nn

    from easycompress.core.task import Task
    from easycompress.pruning.transformers.blocks import Block, Cut, Role
    from easycompress.pruning.transformers.dims import HeadDims
    from easycompress.pruning.transformers.settings import Importance

BATCH = 8
"""Small batches: the magnitude is taken of each batch's gradient, and larger ones cancel more of it."""

SAMPLES = 128
"""More change the order little: Michel et al. 2019 rank heads on a few hundred."""


def importance(model: nn.Module, blocks: list[Block], kind: Importance, task: Task, seed: int) -> dict[str, Tensor]:
    """Return each block's scores (units,), 0 or larger, by name.

    `taylor`: the mean over small batches of |sum of w * dL/dw| over the weights through which a unit reaches the model,
    which is to first order what its removal does to the loss (Michel et al., Are Sixteen Heads Really Better than One?,
    2019, eq. 6). Without labels L is a random projection of the outputs, so that the squared score estimates how
    far the outputs move. `norm`, and `taylor` without data: the L2 norm of all weights of the unit.
    """
    if not blocks:
        return {}
    if kind == "norm" or not len(task.data.calibration):
        return {block.name: _norm(model, block) for block in blocks}
    return _taylor(model, blocks, task, seed)


def choose(block: Block, scores: Tensor, count: int, *, whole: bool) -> list[int]:
    """Return the units that stay, sorted: the best `count` groups, or the best `count` units of each group.

    `scores` (units,); of equal ones the later go first.
    """
    table = scores.reshape(block.groups, -1)
    per_group = table.shape[1]
    if whole:
        order = torch.sort(table.sum(1), descending=True, stable=True).indices[:count]
        return [group * per_group + unit for group in sorted(order.tolist()) for unit in range(per_group)]
    order = torch.sort(table, dim=1, descending=True, stable=True).indices[:, :count].sort(1).values
    return [group * per_group + unit for group, row in enumerate(order.tolist()) for unit in row]


def _unit_sums(values: Tensor, cut: Cut, block: Block) -> Tensor:
    """Return the sums over a cut's places, one a unit; a shared group's go to its units in equal parts."""
    count = block.units if cut.per == "unit" else block.groups
    along = _along(values, cut.axis)
    sums = along[cut.offset : cut.offset + count * cut.width].reshape(count, cut.width).sum(1)
    share = block.units // count
    return sums.repeat_interleave(share) / share


def _norm(model: nn.Module, block: Block) -> Tensor:
    with torch.no_grad():
        squares = [_unit_sums(model.get_parameter(cut.tensor).double() ** 2, cut, block) for cut in block.cuts]
        return torch.stack(squares).sum(0).sqrt()


def channel_importance(
    model: nn.Module, cuts: Sequence[tuple[str, int]], kind: Importance, task: Task, seed: int
) -> Tensor:
    """Return the scores (width,) of the hidden channels that lie along each (tensor, axis) of `cuts`.

    `taylor` as for units, summed over everything that writes or reads a channel. `norm`: the L2 norm within each
    tensor relative to that tensor's mean, summed over all: else the embeddings, which have the most rows, decide alone.
    """
    if kind == "norm" or not len(task.data.calibration):
        total = torch.zeros(1, dtype=torch.float64)
        for name, axis in cuts:
            norms = _along(model.get_parameter(name).detach().double() ** 2, axis).sqrt()
            total = total + norms / norms.mean().clamp_min(1e-30)
        return total
    names = list(dict.fromkeys(name for name, _ in cuts))
    totals = torch.zeros(1, dtype=torch.float64)
    for products in _products(model, names, task, seed):
        for name, axis in cuts:
            if name in products:
                totals = totals + _along(products[name], axis).abs()
    return totals


def dims_importance(
    model: nn.Module, found: Sequence[HeadDims], kind: Importance, task: Task, seed: int
) -> dict[str, tuple[Tensor, Tensor]]:
    """Return by block the scores of dimensions of queries and keys, and of values and outputs, (groups, size) each.

    Where rotary pairs go the first are those of pairs, (groups, size / 2). `taylor`: as for units, of the weights that
    make queries and of those that read values. `norm`: the product of the L2 norms of both sides, since a dimension is
    a product, which stays the same when one side grows and the other shrinks.
    """
    if not found:
        return {}
    if kind == "norm" or not len(task.data.calibration):
        squares = {
            dims.block.name: [_dim_sums(model, None, dims, role) for role in ("query", "key", "value", "output")]
            for dims in found
        }
        return {name: ((q * k).sqrt(), (v * o).sqrt()) for name, (q, k, v, o) in squares.items()}
    totals: dict[str, tuple[Tensor, Tensor]] = {}
    names = list(dict.fromkeys(cut.tensor for dims in found for cut in dims.cuts("query", "output")))
    for products in _products(model, names, task, seed):
        for dims in found:
            both = tuple(_dim_sums(model, products, dims, role).abs() for role in ("query", "output"))
            before = totals.get(dims.block.name, (0.0, 0.0))
            totals[dims.block.name] = before[0] + both[0], before[1] + both[1]
    return totals


def _dim_sums(model: nn.Module, products: Mapping[str, Tensor] | None, dims: HeadDims, role: Role) -> Tensor:
    """Return a role's sums over each dimension of each group of heads: of `products`, or of the squared weights."""
    total = torch.zeros(dims.block.groups, dims.size, dtype=torch.float64)
    for cut in dims.cuts(role):
        if products is None:
            values = model.get_parameter(cut.tensor).detach().double() ** 2
        elif cut.tensor in products:
            values = products[cut.tensor]
        else:
            continue
        heads = dims.block.units if cut.per == "unit" else dims.block.groups
        along = _along(values, cut.axis)[cut.offset : cut.offset + heads * cut.width]
        total += along.reshape(dims.block.groups, -1, cut.width).sum(1)
    if dims.rotary is not None and role in ("query", "key"):
        return total[:, : dims.size // 2] + total[:, dims.size // 2 :]
    return total


def _along(values: Tensor, axis: int) -> Tensor:
    """Return the sums at each place of an axis."""
    return values.transpose(0, axis).flatten(1).sum(1) if values.dim() > 1 else values


def _taylor(model: nn.Module, blocks: list[Block], task: Task, seed: int) -> dict[str, Tensor]:
    totals = {block.name: torch.zeros(block.units, dtype=torch.float64) for block in blocks}
    for products in _products(model, [block.outputs[0].tensor for block in blocks], task, seed):
        for block in blocks:
            cut = block.outputs[0]
            if cut.tensor in products:
                totals[block.name].add_(_unit_sums(products[cut.tensor], cut, block).abs())
    return totals


def _products(model: nn.Module, names: Sequence[str], task: Task, seed: int) -> Iterator[dict[str, Tensor]]:
    """Yield w * dL/dw of the named weights, batch by batch; a weight that the loss doesn't reach is left out."""
    weights = [model.get_parameter(name) for name in names]
    frozen = [weight for weight in weights if not weight.requires_grad]
    for weight in frozen:
        weight.requires_grad_(True)  # noqa: FBT003 - only for these gradients
    try:
        for loss in _losses(model, task, seed):
            gradients = torch.autograd.grad(loss, weights, allow_unused=True)
            yield {
                name: weight.detach().double() * gradient.double()
                for name, weight, gradient in zip(names, weights, gradients, strict=True)
                if gradient is not None
            }
    finally:
        for weight in frozen:
            weight.requires_grad_(False)  # noqa: FBT003 - as it was


def _losses(model: nn.Module, task: Task, seed: int) -> Iterator[Tensor]:
    """Yield the loss of each small batch, ready for gradients. The model stays in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    for inputs, targets in task.data.calibration.take(slice(0, SAMPLES)).batches(BATCH):
        with torch.enable_grad():
            outputs = answer(model, inputs)
            if targets is None:
                yield (outputs * torch.randn(outputs.shape, generator=generator).to(outputs)).mean()
            else:
                yield task.loss(outputs, targets)
