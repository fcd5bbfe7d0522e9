"""What is tried on copies before a plan is made: which change of the structure, and which integers, lose how much."""

from __future__ import annotations

import copy
import math
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.utils.flop_counter import FlopCounterMode

from easycompress.artifact.write import write_model
from easycompress.core.errors import CannotCompress
from easycompress.core.inputs import call
from easycompress.core.progress import Silent
from easycompress.measure.runtime import scores_of
from easycompress.measure.statistics import paired_drop
from easycompress.pruning.depth.blocks import find_blocks
from easycompress.pruning.transformers.layout import find_blocks as transformer_blocks
from easycompress.selection.probe import known, loss_of
from easycompress.technique import Context
from easycompress.techniques import technique_for

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import nn

    from easycompress.core.inputs import Inputs
    from easycompress.core.plan import Action
    from easycompress.core.profile import ModelProfile
    from easycompress.core.task import Task
    from easycompress.measure.statistics import Scores

HALVINGS = 5
"""Steps of the search for the strength at which a candidate is as small as is needed: 1/32 of the dial."""

USUAL = 2.0
"""The ratio at which structures are compared where the most is wanted: at MOST where not too much is lost at this.

Loss of LeNet5 untrained, by its multiply-accumulates: low rank 0.001 and channels 0.024 at 2x, 2.2 and 0.38 at 4x. Of
LeNet300 and ResNet20 low rank loses less at either.
"""

MOST = 4.0
"""Nothing is compared beyond this: untrained, every model is a ruin there."""

INTEGER_SAMPLES = 1000
"""Samples of *select* that integers are tried on."""


def structure_losses(
    task: Task, profile: ModelProfile, actions: Mapping[str, Action], ratio: float
) -> dict[str, float]:
    """Return the loss of each action at the strength that divides the multiply-accumulates by `ratio`, untrained.

    One that the model doesn't permit, or that can't save so much, is left out: beyond MOST, where no losses
    are compared, only where another one can.
    """
    if math.isfinite(ratio):
        compared = losses_at(task, profile, actions, ratio)
        reach = [name for name in compared if ratio <= MOST or _reaches(task, profile, actions[name], ratio)]
        return {name: compared[name] for name in reach} or compared
    usual = losses_at(task, profile, actions, USUAL)
    goes_on = bool(usual) and min(usual.values()) <= known(task).most
    return (losses_at(task, profile, actions, MOST) if goes_on else {}) or usual


def lesser_losses(task: Task, profile: ModelProfile, actions: Mapping[str, Action], ratio: float) -> dict[str, float]:
    """Return the same at a lesser ratio: the square root of `ratio`, at least USUAL. Empty where that isn't less."""
    lesser = max(math.sqrt(ratio), USUAL)
    return losses_at(task, profile, actions, lesser) if lesser < ratio < math.inf else {}


def losses_at(task: Task, profile: ModelProfile, actions: Mapping[str, Action], ratio: float) -> dict[str, float]:
    """Return the loss of each action that can divide the multiply-accumulates by `ratio`, at most MOST, untrained."""
    context = Context(task, profile, 0, Silent())

    def count(model: nn.Module) -> int:
        return operations(model, task.example)

    wanted = count(task.model) / min(ratio, MOST)
    made = {name: _at_count(task, action, context, wanted, count) for name, action in actions.items()}
    return {name: loss_of(model, task) for name, model in made.items() if model is not None}


def narrowing_lost(task: Task, profile: ModelProfile, action: Action, ratio: float) -> float:
    """Return the share of what the original knows that is lost, untrained, when `action` divides its parameters.

    It is the way from its loss to that of a model that answers every sample alike; infinite without such a copy.
    """
    made = _at_count(task, action, Context(task, profile, 0, Silent()), parameters(task.model) / ratio, parameters)
    if made is None:
        return math.inf
    return known(task).lost(loss_of(made, task))


def _made(task: Task, action: Action, context: Context, strength: float) -> nn.Module:
    """Return a copy of the model treated with that strength."""
    settled = action.model_copy(update={"strength": strength})
    return technique_for(action).apply(copy.deepcopy(task.model), settled, context).model.eval()


def _reaches(task: Task, profile: ModelProfile, action: Action, ratio: float) -> bool:
    """Tell whether the strongest copy, every layer treated, saves as many multiply-accumulates as `ratio` asks for."""
    try:
        strongest = _made(task, action.widened(), Context(task, profile, 0, Silent()), 1.0)
    except CannotCompress:
        return False
    return operations(strongest, task.example) <= operations(task.model, task.example) / ratio


def _at_count(
    task: Task, action: Action, context: Context, wanted: float, count: Callable[[nn.Module], int]
) -> nn.Module | None:
    """Return the least treated copy of which there is at most `wanted` by `count`, None where there is none."""

    def made(strength: float) -> nn.Module:
        return _made(task, action, context, strength)

    try:
        best = made(1.0)
        if count(best) > wanted:
            return None
        low, high = 0.0, 1.0
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            candidate = made(middle)
            if count(candidate) <= wanted:
                best, high = candidate, middle
            else:
                low = middle
    except CannotCompress:
        return None
    return best


def parameters(model: nn.Module) -> int:
    """Return how many values the parameters have, each tensor counted once."""
    return sum(parameter.numel() for parameter in model.parameters())


def operations(model: nn.Module, example: Inputs) -> int:
    """Return about how many multiply-accumulates one run takes: to compare candidates by, not to report."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        call(model, example)
    return int(counter.get_total_flops()) // 2


def integer_losses(
    task: Task, profile: ModelProfile, actions: Mapping[str, Action], baseline: Scores, threads: int
) -> dict[str, float]:
    """Return what each kind of integers loses on *select*, on the unchanged model, in the metric's unit.

    The loss is infinite where the outputs are no numbers, and of a kind that the model doesn't permit.
    """
    split = task.data.select.take(slice(0, INTEGER_SAMPLES))
    context = Context(task, profile, 0, Silent())
    found = {}
    with tempfile.TemporaryDirectory(prefix="easycompress-") as folder:
        path = Path(folder) / "integers.onnx"
        for name, action in actions.items():
            try:
                applied = technique_for(action).apply(copy.deepcopy(task.model).eval(), action, context)
            except CannotCompress:
                found[name] = math.inf
                continue
            passes = [] if applied.file_pass is None else [applied.file_pass]
            write_model(applied.model, task.example, path, passes, applied.codes)
            scores = scores_of(path, split, task.metric, threads)
            drop = paired_drop(baseline[: len(split)], scores, task.metric, 0.0).estimate
            found[name] = drop if math.isfinite(drop) else math.inf
    return found


def count_blocks(task: Task) -> int:
    """Return how many residual blocks could be removed together."""
    return find_blocks(copy.deepcopy(task.model), task.example).count


def outside_blocks(model: nn.Module, profile: ModelProfile) -> float:
    """Return the share of what can go from a model with attention that is in none of its blocks; 0 for other models.

    What can go are the blocks, convolutions, and attention that isn't understood; not other linear layers, of which a
    language model's largest gives the answer.
    """
    if profile.architecture != "transformer":
        return 0.0
    tensors = {cut.tensor for block in transformer_blocks(model) for cut in block.cuts}
    inside = sum(model.get_parameter(name).numel() for name in tensors)
    outside = sum(
        parameter.numel()
        for layer in profile.layers
        if layer.family in ("convolutional", "attention") and layer.params
        for name, parameter in model.get_submodule(layer.name).named_parameters(recurse=False)
        if f"{layer.name}.{name}".lstrip(".") not in tensors
    )
    return outside / max(1, inside + outside)
