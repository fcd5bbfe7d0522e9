"""Heads, neurons and hidden channels taken out of a model, and the proof that nothing else read them."""

from __future__ import annotations

import contextlib
import copy
from typing import TYPE_CHECKING

import torch

from easycompress.core.errors import CannotCompress, one_line
from easycompress.core.inputs import answer
from easycompress.pruning.transformers.shares import first_units
from easycompress.pruning.transformers.stream import keep_channels, normalised_over, silence_channels
from easycompress.pruning.transformers.surgery import keep, silence

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor, nn

    from easycompress.core.inputs import Inputs
    from easycompress.pruning.transformers.blocks import Block
    from easycompress.pruning.transformers.settings import TransformerPruning
    from easycompress.pruning.transformers.shares import Shares
    from easycompress.pruning.transformers.stream import Stream

TOLERANCE = 1e-3
"""Largest difference, relative to the largest output, between a unit silenced and a unit removed: rounding is 1e-6."""


def remove(
    model: nn.Module,
    kept: Sequence[tuple[Block, Sequence[int]]],
    stream: tuple[Stream, Sequence[int]] | None,
    example: Inputs,
) -> None:
    """Leave only the `kept` units of each block, and the kept channels of the stream, in the model itself.

    What goes is silenced first: raises CannotCompress where the narrow model doesn't answer as the silenced one.
    """
    for block, units in kept:
        silence(model, block, sorted(set(range(block.units)) - set(units)))
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        if stream is not None:
            silence_channels(model, *stream)
            stack.enter_context(normalised_over(model, *stream))
        before = answer(model, example)
    for block, units in kept:
        keep(model, block, units)
    if stream is not None:
        keep_channels(model, *stream)
    prove(model, before, example, [block.name for block, _ in kept])


def prove(model: nn.Module, before: Tensor, example: Inputs, names: Sequence[str]) -> None:
    """Raise CannotCompress where the model, narrowed at the modules `names`, doesn't answer `before` any more."""
    try:
        with torch.no_grad():
            after = answer(model, example)
    except Exception as error:  # whatever the model's forward runs into
        raise CannotCompress(_elsewhere(names, one_line(error, 100))) from error
    same = before.shape == after.shape
    if not same or (before - after).abs().max() > TOLERANCE * before.abs().max().clamp_min(1e-6):
        raise CannotCompress(_elsewhere(names, "its output changed"))


def can_narrow(
    model: nn.Module, blocks: Sequence[Block], shares: Shares, action: TransformerPruning, example: Inputs
) -> bool:
    """Tell whether the heads and the stream of `shares` can go, by removing them from a copy of the model."""
    if shares.stream is None:
        return False
    heads = [block for block in blocks if block.kind == "attention"]
    kept = [(block, first_units(block, shares.goal[block.name], action.grouped)) for block in heads]
    try:
        remove(copy.deepcopy(model), kept, (shares.stream, range(shares.stream.kept)), example)
    except CannotCompress:
        return False
    return True


def left_after(full: Mapping[str, int], goal: Mapping[str, int], step: int, steps: int) -> dict[str, int]:
    """Return the pieces left after one of several equal steps."""
    return {name: full[name] - (full[name] - count) * step // steps for name, count in goal.items()}


def _elsewhere(names: Sequence[str], reason: str) -> str:
    some = ", ".join(names[:2])
    return f"transformer pruning: the model uses the widths of {some} in more places than are known ({reason})"
