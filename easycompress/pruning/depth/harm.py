"""In which order blocks go: how much the model's answers lose without each."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from easycompress.core.inputs import Inputs, answer
from easycompress.pruning.depth.blocks import first_tensor, stream, watched
from easycompress.pruning.depth.removal import without

if TYPE_CHECKING:
    from easycompress.pruning.depth.blocks import Removable

BATCH = 64

LARGEST = 1e4
"""Logits beyond this are masks."""

IMAGES_DIM = 4
"""From this many dimensions on (N, C, H, W) the classes are the second, otherwise the last: tokens are (N, T, C)."""


class Answers:
    """The original's answers on some inputs, and how far a changed model's are from them.

    Mean over the samples of KL(original || changed) over the classes; where `numbers` (the targets aren't classes) or
    there is one output only, the mean squared difference.
    """

    def __init__(self, model: nn.Module, inputs: Inputs, *, numbers: bool) -> None:
        self.batches = [inputs[start : start + BATCH] for start in range(0, len(inputs), BATCH)]
        with torch.no_grad():
            self.wanted = [answer(model, batch).float() for batch in self.batches]
        width = self.wanted[0].shape
        self.numbers = numbers or len(width) == 1 or width[_classes(self.wanted[0])] == 1
        self.count = len(inputs)

    def harm(self, model: nn.Module) -> float:
        """Return the divergence of `model`'s answers, infinite where they are not finite."""
        total = 0.0
        with torch.no_grad():
            for batch, wanted in zip(self.batches, self.wanted, strict=True):
                total += self._one(answer(model, batch).float(), wanted) * len(batch)
        return total / self.count if math.isfinite(total) else math.inf

    def _one(self, given: Tensor, wanted: Tensor) -> float:
        if self.numbers:
            return float(functional.mse_loss(given, wanted))
        dim = _classes(wanted)
        left, right = (functional.log_softmax(v.clamp(-LARGEST, LARGEST), dim) for v in (given, wanted))
        return float(functional.kl_div(left, right, reduction="none", log_target=True).sum(dim).mean())


def _classes(outputs: Tensor) -> int:
    return 1 if outputs.dim() >= IMAGES_DIM else -1


def extend_order(model: nn.Module, blocks: Removable, answers: Answers, order: list[str], count: int) -> None:
    """Extend `order`, the blocks that go first, to `count`: each next one harms least with those before it gone.

    Greedy and measured anew after each removal, so that interactions count; ties by the place in the model. A longer
    order starts with the shorter one.
    """
    while len(order) < count:
        harms: dict[str, float] = {}
        for name in blocks.left(order):
            with without(model, [*order, name]):
                harms[name] = answers.harm(model)
        order.append(min(harms, key=harms.__getitem__))


def order_by_similarity(model: nn.Module, blocks: Removable, inputs: Inputs) -> list[str]:
    """Return the blocks by 1 - cosine(input, output), least first: what changes least of what passes through it.

    Men et al., ShortGPT, 2024, equation 1 (block influence), with a whole sample as the vector. One run of the model.
    """
    influence: dict[str, float] = {}

    def see(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:  # noqa: ANN401 - any result
        given, made = stream(args, kwargs), first_tensor(output)
        assert given is not None  # noqa: S101 - blocks are such modules
        assert made is not None  # noqa: S101 - as above
        influence[name] = 1 - float(torch.cosine_similarity(given.flatten(1), made.flatten(1)).mean())

    with watched(model, blocks.names, see), torch.no_grad():
        answer(model, inputs)
    order: list[str] = []
    while left := blocks.left(order):
        order.append(min(left, key=influence.__getitem__))
    return order
