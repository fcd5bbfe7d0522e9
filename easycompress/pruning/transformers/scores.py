"""How much each head and neuron matters, and which of them stay."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from easycompress.core.inputs import answer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn

    from easycompress.core.task import Task
    from easycompress.pruning.transformers.blocks import Block, Cut
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
    along = values.transpose(0, cut.axis).flatten(1).sum(1) if values.dim() > 1 else values
    sums = along[cut.offset : cut.offset + count * cut.width].reshape(count, cut.width).sum(1)
    share = block.units // count
    return sums.repeat_interleave(share) / share


def _norm(model: nn.Module, block: Block) -> Tensor:
    with torch.no_grad():
        squares = [_unit_sums(model.get_parameter(cut.tensor).double() ** 2, cut, block) for cut in block.cuts]
        return torch.stack(squares).sum(0).sqrt()


def _taylor(model: nn.Module, blocks: list[Block], task: Task, seed: int) -> dict[str, Tensor]:
    weights = [model.get_parameter(block.outputs[0].tensor) for block in blocks]
    frozen = [weight for weight in weights if not weight.requires_grad]
    for weight in frozen:
        weight.requires_grad_(True)  # noqa: FBT003 - only for these gradients
    totals = [torch.zeros(block.units, dtype=torch.float64) for block in blocks]
    try:
        for loss in _losses(model, task, seed):
            gradients = torch.autograd.grad(loss, weights, allow_unused=True)
            for block, weight, gradient, total in zip(blocks, weights, gradients, totals, strict=True):
                if gradient is not None:
                    products = weight.detach().double() * gradient.double()
                    total.add_(_unit_sums(products, block.outputs[0], block).abs())
    finally:
        for weight in frozen:
            weight.requires_grad_(False)  # noqa: FBT003 - as it was
    return {block.name: total for block, total in zip(blocks, totals, strict=True)}


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
