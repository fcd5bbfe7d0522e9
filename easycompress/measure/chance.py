"""Whether a model makes anything of its inputs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from easycompress.core.errors import BadInput
from easycompress.core.inputs import parts

if TYPE_CHECKING:
    from easycompress.core.task import Task

CHANCE_ERRORS = 3.0
"""A baseline within so many standard errors of always naming the commonest class makes nothing of its inputs."""


def refuse_chance(task: Task, quality: float, classes: int) -> None:
    """Raise BadInput where the accuracy in percent on *select* is no better than chance among `classes`."""
    targets = task.data.select.targets
    if task.metric.name != "accuracy" or not task.metric.binary or targets is None:
        return
    commonest = int(targets.bincount().max()) / len(targets)
    chance = max(commonest, 1 / classes)
    limit = 100 * (chance + CHANCE_ERRORS * math.sqrt(chance * (1 - chance) / len(targets)))
    if quality <= limit:
        numbers = any(tensor.is_floating_point() for tensor in parts(task.data.select.inputs))
        usual = "--mean and --std are missing or not" if numbers else "the numbers of the words are not"
        raise BadInput(
            f"the model's accuracy on select is {quality:.2f}%, no better than chance ({100 * chance:.2f}%): usually "
            f"{usual} those of its training, or the labels are in another order; --force goes on"
        )
