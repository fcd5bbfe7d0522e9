"""Depth pruning as a technique: blocks by experiment, their order by harm, the count from the strength."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from easycompress.core.errors import CannotCompress
from easycompress.core.inputs import Inputs, answer
from easycompress.pruning.depth.blocks import Removable, find_blocks
from easycompress.pruning.depth.harm import Answers, extend_order, order_by_similarity
from easycompress.pruning.depth.removal import remove
from easycompress.pruning.depth.settings import DepthPruning
from easycompress.technique import Applied, Context, Need, checksum

if TYPE_CHECKING:
    from torch import nn

    from easycompress.core.profile import ModelProfile

WORK = 2e11
"""Multiplications that measuring the order of removal may take: about ten seconds of one core."""

LEAST_SAMPLES = 32
"""Where fewer samples than this are affordable, answers say less than what every block does to its input."""

SIMILAR_SAMPLES = 16
"""Samples that similarity is measured on."""

ANSWER_BYTES = 500_000_000
"""Of the original's answers that are kept for comparison."""


class DepthPruner:
    """Removes whole residual blocks: small nets are as slow as they have operators, however narrow these are."""

    name = "depth-pruning"
    settings = DepthPruning
    needs: frozenset[Need] = frozenset()
    source = "Veit, Wilber and Belongie, NeurIPS 2016; Men et al., ShortGPT, 2024"

    def refuses(self, profile: ModelProfile, action: DepthPruning) -> str | None:  # noqa: ARG002 - the protocol
        """Refuse a model without a layer in it; whether there are residual blocks only a run of the model shows."""
        if not any(layer.family in ("convolutional", "linear", "attention") for layer in profile.layers):
            return "depth pruning: the model has no convolution and no linear layer, so no block to remove"
        return None

    def apply(self, model: nn.Module, action: DepthPruning, context: Context) -> Applied:
        """Remove the blocks that the incoming weights, the calibration samples and the settings determine.

        Raises CannotCompress when there is no residual block to remove, at strength 0 too.
        """
        if action.strength is None:
            raise CannotCompress("depth pruning: no strength was set")
        example = context.task.example
        key = f"depth-pruning: {checksum(model)}"
        blocks: Removable | None = context.memo.get(key)
        if blocks is None:
            blocks = context.memo[key] = find_blocks(model, example)
        if not blocks.count:
            raise CannotCompress(
                "depth pruning: no block of this model has a shortcut around it, so none can go; prune channels instead"
            )
        count = action.blocks(action.strength, blocks.count)
        order: list[str] = context.memo.setdefault(f"{key}: by {action.by} of {action.samples}", [])
        if len(order) < count:
            _continue(order, count, model, blocks, action, context)
        gone = set(order[:count])
        removed = [name for name in blocks.names if name in gone]
        with torch.no_grad():
            shape = answer(model, example).shape
            remove(model, removed)
            if answer(model, example).shape != shape:
                raise CannotCompress(f"depth pruning: without {', '.join(removed)} the output has another shape")
        return Applied(model, {"removed": removed, "removable": blocks.count})

    def replay(self, model: nn.Module, record: dict[str, Any], example: Inputs) -> nn.Module:  # noqa: ARG002 - the protocol
        """Remove the recorded blocks."""
        remove(model, record["removed"])
        return model


def _continue(
    order: list[str], count: int, model: nn.Module, blocks: Removable, action: DepthPruning, context: Context
) -> None:
    """Extend `order` to `count` blocks or more, on calibration samples or, where there are none, the example.

    Where the model is too large to compare answers on enough samples, by similarity, whose cost is one run.
    """
    task = context.task
    calibration = task.data.calibration
    inputs = calibration.inputs if len(calibration) else task.example
    affordable = _affordable(model, blocks, inputs, context)
    if action.by == "similarity" or affordable < min(LEAST_SAMPLES, len(inputs)):
        order[:] = order_by_similarity(model, blocks, inputs[:SIMILAR_SAMPLES])
        return
    numbers = calibration.targets is not None and calibration.targets.is_floating_point()
    answers = Answers(model, inputs[: min(action.samples, affordable)], numbers=numbers)
    extend_order(model, blocks, answers, order, count)


def _affordable(model: nn.Module, blocks: Removable, inputs: Inputs, context: Context) -> int:
    """Return how many samples the whole order can be measured on within WORK and ANSWER_BYTES."""
    runs = 1 + blocks.count * (len(blocks.names) + 1) // 2
    with torch.no_grad():
        one = answer(model, inputs[:1])
    return min(int(WORK // (runs * max(1, context.profile.macs))), ANSWER_BYTES // max(1, 4 * one.numel()))
