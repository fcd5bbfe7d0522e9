"""Entropy-constrained quantization whose free values are trained afterwards, as a technique."""

from __future__ import annotations

from typing import TYPE_CHECKING

from easycompress.lc.run import Means, Recipe, tune
from easycompress.lc.schedule import spread
from easycompress.lc.settings import ALPHA, FIRST_MU, LAST_MU, TEMPERATURE, TUNING_RATE, TunedQuantization
from easycompress.lc.untrained import EntropyQuantizer, applied, quantized
from easycompress.training.terms import taught

if TYPE_CHECKING:
    from torch import nn

    from easycompress.core.plan import Action
    from easycompress.technique import Applied, Context

BATCH, TRANSFORMER_BATCH = 128, 32
"""A transformer's epochs are few and long: smaller batches make more of them."""

TRANSFORMER_RATE = 1e-4
"""Of AdamW, in the place of TUNING_RATE: of 1e-4, 3e-4 and 1e-3 the one that ended best on MiniLM, in one run each."""


class TunedQuantizer(EntropyQuantizer):
    """Weights on few levels by rate and distortion, and then their values trained."""

    name = "tuned-quantization"
    settings = TunedQuantization
    source = "Frantar et al., GPTQ, 2023; Idelbayev and Carreira-Perpinan, LC toolkit (fine-tuning of what stays free)"

    def apply(self, model: nn.Module, action: Action, context: Context) -> Applied:
        """Quantize, and train as the context allows; without epochs it is the quantization alone."""
        assert isinstance(action, TunedQuantization)  # noqa: S101 - technique_for() goes by that
        codes = quantized(model, action, context)
        epochs = min(action.epochs or context.epochs, context.epochs)
        if not epochs or context.speed is None:
            return applied(model, codes, action, context)
        alpha = ALPHA if action.alpha is None else action.alpha
        term = taught(
            action.technique, context.task.loss, context.teacher, action.temperature or TEMPERATURE, alpha
        )  # fmt: skip
        transformer = context.profile.architecture == "transformer"
        rate = action.tuning_rate or TUNING_RATE
        recipe = Recipe(
            spread(FIRST_MU, LAST_MU, 0), tune_epochs=epochs, batch=TRANSFORMER_BATCH if transformer else BATCH,
            tune_lr=TRANSFORMER_RATE * rate / TUNING_RATE if transformer else rate,
            tune_samples=context.samples, seed=context.seed, optimizer="adamw" if transformer else "sgd",
        )  # fmt: skip
        means = Means(
            context.task.data.train, term, context.speed, context.evaluate, context.task.augment, context.out_of_time,
            context.progress, higher_is_better=context.task.metric.higher_is_better, troubles=context.troubles,
        )  # fmt: skip
        codes, history = tune(model, codes, recipe, means, context.checkpoint)
        context.trained("fine-tuning", history)
        return applied(model, codes, action, context, history)
