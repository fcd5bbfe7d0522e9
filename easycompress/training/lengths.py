"""Sentences without their padding: batches of about one length, each cut to its longest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from easycompress.core.inputs import Bundle, answer, like, parts

if TYPE_CHECKING:
    from torch import Tensor, nn

    from easycompress.core.inputs import Inputs
    from easycompress.core.task import Split

MASK = "attention_mask"

POOL = 16
"""Batches whose samples are sorted by length together: fewer waste more padding, more mix the samples less."""

WORTH = 0.9
"""Nothing is cut where the mean sentence is longer than this share of the tensors."""

TRIED = 8
"""Of the shortest sentences, on which the model must answer the same without the padding."""

SAME = 1e-3
"""What answers may differ by, as a share of their largest: rounding is well below it, other answers well above."""


@dataclass(frozen=True)
class Lengths:
    """How many tokens each sample has, (N,), before the padding at its end."""

    tokens: Tensor

    def batches(self, order: Tensor, size: int) -> list[Tensor]:
        """Return the samples at `order` (M,) in batches of about one length, in random order."""
        pools = torch.split(order, POOL * size)
        batches = [part for pool in pools for part in torch.split(self._sorted(pool), size)]
        return [batches[i] for i in torch.randperm(len(batches)).tolist()]

    def _sorted(self, places: Tensor) -> Tensor:
        return places[self.tokens[places].argsort(stable=True)]

    def cut(self, inputs: Inputs, places: Tensor) -> Inputs:
        """Return the `inputs` (B, T, ...) of the samples at `places` as long as the longest of them."""
        return shortened(inputs, int(self.tokens[places].max())) if len(places) else inputs

    def usual(self, size: int) -> int:
        """Return how long batches of `size` samples are on average."""
        longest = [int(batch.max()) for batch in torch.split(self.tokens.sort().values, size)]
        return round(sum(longest) / len(longest))


def shortened(inputs: Inputs, length: int) -> Inputs:
    """Return the first `length` places of every tensor (B, T, ...) of an input."""
    return like(inputs, [tensor[:, :length] for tensor in parts(inputs)])


def lengths_of(model: nn.Module, split: Split) -> Lengths | None:
    """Return how long the sentences of a split are; None where they can't be cut, or where that wouldn't pay.

    They can where every tensor is as long as the attention mask, the padding is at the end, and the model answers the
    shortest sentences the same without it: one that answers at every place, or takes one length only, doesn't.
    """
    inputs = split.inputs
    if not isinstance(inputs, Bundle) or MASK not in inputs.names or not len(split):
        return None
    mask = inputs.tensors[inputs.names.index(MASK)]
    if mask.dim() != 2 or any(t.dim() < 2 or t.shape[1] != mask.shape[1] for t in inputs.tensors):  # noqa: PLR2004 - (N, T)
        return None
    tokens = mask.long().sum(1)
    padded = float(tokens.float().mean()) <= WORTH * mask.shape[1]
    ends = torch.arange(mask.shape[1]) < tokens[:, None]
    if not padded or not bool(tokens.min()) or not torch.equal(mask, ends.to(mask)):
        return None
    found = Lengths(tokens)
    return found if _agrees(model, inputs, found) else None


def _agrees(model: nn.Module, inputs: Inputs, found: Lengths) -> bool:
    """Tell whether the shortest sentences are answered the same without their padding."""
    places = found.tokens.argsort(stable=True)[:TRIED]
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            whole = answer(model, inputs[places])
            cut = answer(model, found.cut(inputs[places], places))
    except (RuntimeError, ValueError, IndexError, TypeError, AssertionError):
        return False  # it takes one length only
    finally:
        model.train(training)
    return whole.shape == cut.shape and torch.allclose(whole, cut, rtol=0, atol=SAME * float(whole.abs().max()))
