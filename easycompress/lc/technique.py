"""Learning-compression as a technique."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from easycompress.artifact.codable import lacks_codable
from easycompress.lc.biases import coded_biases
from easycompress.lc.factor import factor, refactor
from easycompress.lc.papers import ratios
from easycompress.lc.run import Means, Recipe, points_of, run
from easycompress.lc.schedule import spread
from easycompress.lc.schemes import tasks_for
from easycompress.lc.settings import (
    ALPHA,
    FIRST_MU,
    FIRST_RATE,
    LAST_MU,
    LAST_RATE,
    TEMPERATURE,
    TUNING_RATE,
    LearningCompression,
    bits_at,
)
from easycompress.technique import Applied, Context, Need
from easycompress.training.speed import Speed
from easycompress.training.terms import taught

if TYPE_CHECKING:
    from torch import nn

    from easycompress.core.inputs import Inputs
    from easycompress.core.profile import ModelProfile

TUNING_SHARE = 0.2
"""Share of the epochs for what stays free once the code is settled."""

LEAST_STEPS, MOST_STEPS = 10, 60
"""Alternations of L and C steps; with few epochs of much data an L step is a part of one."""

LEAST_UPDATES = 60
"""Optimizer steps of an L step: with fewer the weights don't come to where the pull and the loss balance."""

BATCH = 128

LOOKS = 20
"""Evaluations of the compressed net on the way, for its curve, at most: each costs a pass over *select*."""


class LearningCompressor:
    """Finds the best weights among those that a code can say."""

    name = "lc"
    settings = LearningCompression
    needs: frozenset[Need] = frozenset()
    source = "Carreira-Perpinan and Idelbayev, LC algorithm; Idelbayev and Carreira-Perpinan, additive combinations"

    def refuses(self, profile: ModelProfile, action: LearningCompression) -> str | None:  # noqa: ARG002 - the protocol
        """Refuse a model without weights to code."""
        lacking = lacks_codable(profile)
        return f"learning-compression: {lacking}" if lacking else None

    def apply(self, model: nn.Module, action: LearningCompression, context: Context) -> Applied:
        """Train as the context allows; without epochs this is direct compression."""
        strength = action.strength or 0.0
        tasks = tasks_for(action.scheme, model, bits_at(strength), action.ranks, (action.tilt, action.bow))
        data = context.task.data
        epochs = min(action.epochs or context.epochs, context.epochs)
        speed = context.speed or Speed(threads=1, channels_last=False, bfloat16=False, step_seconds=0.0)  # unused then
        # Nothing trained, no teacher: its answers would be made for nothing.
        teacher = context.teacher if epochs else None
        alpha = ALPHA if action.alpha is None else action.alpha
        term = taught(action.technique, context.task.loss, teacher, action.temperature or TEMPERATURE, alpha)
        samples = context.samples or len(data.train)
        recipe = recipe_for(epochs, samples, context.seed, action)
        better = context.task.metric.higher_is_better
        means = Means(
            data.train, term, speed, context.evaluate, context.task.augment, context.out_of_time, context.progress,
            watch_every=math.ceil(recipe.penalty.steps / LOOKS), higher_is_better=better, troubles=context.troubles,
        )  # fmt: skip
        made = run(model, tasks, recipe, means, context.checkpoint)
        context.curve.extend(points_of(made, higher_is_better=better))
        passes = len(made.rows) * recipe.epochs * recipe.samples / max(samples, 1) + len(made.tuning.epochs)
        macs = {layer.name: layer.macs for layer in context.profile.layers}
        paper = ratios(model, made.codes, macs)
        codes, factored = factor(model, made.codes)
        if action.biases == "8-bit":
            codes |= coded_biases(model)
        record = {"scheme": action.scheme, "factored": factored, "papers": paper.named()}
        return Applied(model.eval(), record, codes, history=made.tuning, epochs=round(passes))

    def replay(self, model: nn.Module, record: dict[str, Any], example: Inputs) -> nn.Module:  # noqa: ARG002 - the protocol
        """Make two layers of what was low rank; the codes come with the state dict."""
        return refactor(model, record["factored"])


def recipe_for(epochs: int, samples: int, seed: int, action: LearningCompression | None = None) -> Recipe:
    """Return how `epochs` epochs of `samples` samples are spent, at the rates and the penalty of `action`.

    An L step is as many whole epochs as its least number of optimizer steps takes, or a part of one where the data is
    so large that fewer alternations than the least would come of it.
    """
    action = action or LearningCompression()
    first = action.mu or FIRST_MU
    if not epochs:
        return Recipe(spread(first, LAST_MU, 0))
    tuning = round(TUNING_SHARE * epochs)
    learning = max(epochs - tuning, 1)
    an_epoch = math.ceil(samples / BATCH)
    whole = min(max(1, math.ceil(LEAST_UPDATES / an_epoch)), learning)
    steps = min(learning // whole, MOST_STEPS)
    if steps >= LEAST_STEPS or an_epoch < 2 * LEAST_UPDATES:
        part, whole = samples, max(whole, learning // steps)
    else:
        steps, whole = LEAST_STEPS, 1
        part = math.ceil(learning * samples / steps)
    rate, last = FIRST_RATE, LAST_RATE
    if action.rate is not None:
        rate, last = action.rate, action.rate * LAST_RATE / FIRST_RATE
    return Recipe(
        spread(first, LAST_MU, steps), epochs=whole, lr=rate, lr_last=last, tune_epochs=tuning,
        tune_lr=action.tuning_rate or TUNING_RATE, batch=BATCH, samples=min(part, samples), tune_samples=samples,
        seed=seed,
    )  # fmt: skip
