"""Logit distillation as a technique: the original model teaches the compressed one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from easycompress.core.errors import BadInput
from easycompress.distillation.features import imitating
from easycompress.distillation.settings import RATE, Distillation
from easycompress.technique import Applied, Context, Need
from easycompress.training.fit import Hooks, Schedule, fit
from easycompress.training.terms import Term, taught

if TYPE_CHECKING:
    from torch import nn

    from easycompress.core.inputs import Inputs
    from easycompress.core.profile import ModelProfile
    from easycompress.core.task import Split

TRANSFORMER_RATE = 1e-4
"""Peak rate of AdamW.

Measured on MiniLM (SST-2, 3/8 of the feed-forward neurons kept, 640 sentences, 3 epochs in batches of 32, best epoch on
400 others, standard error 1.8): 84.5 % at 5e-5 and at 1e-4, 84.0 at 2e-4, 80.8 at 3e-4, from 85.3 % before training: so
few sentences teach nothing, but show what does harm. Momentum SGD came to chance, 51.8 %, at 0.05 and at 0.005.
"""

TRANSFORMER_DECAY = 0.01
"""Weight decay of AdamW, decoupled from the rate's scaling (Loshchilov and Hutter 2019): the value of BERT's paper."""


class Distiller:
    """Recovers quality after a structural change."""

    name = "distillation"
    settings = Distillation
    needs: frozenset[Need] = frozenset({"training"})
    source = (
        "Hinton, Vinyals and Dean 2015; Zagoruyko and Komodakis, ICLR 2017 (features); EasyCompress thesis, section 4.5"
    )

    def refuses(self, profile: ModelProfile, action: Distillation) -> str | None:
        """Refuse to compare the distributions of outputs that are no logits."""
        if action.technique != "hard" and action.outputs == "logits" and profile.outputs < 2:  # noqa: PLR2004 - one output has no softmax
            return f"distillation: technique {action.technique} needs at least two logits; use hard, or outputs values"
        return None

    def apply(self, model: nn.Module, action: Distillation, context: Context) -> Applied:
        """Train for at most `context.epochs` (or the action's own) epochs and keep the best one.

        Raises BadInput when labels are needed and missing, CannotCompress when no features can be compared.
        """
        epochs = min(action.epochs or context.epochs, context.epochs)
        if epochs < 1 or context.speed is None or context.evaluate is None:
            return Applied(model, {"epochs": 0})
        term, task = make_term(action, context), context.task
        hooks = Hooks(
            evaluate=context.evaluate,
            start=context.evaluate(model),
            enough=context.enough if action.mode == "target" else lambda _: False,
            hopeless=context.hopeless,
            out_of_time=context.out_of_time,
            augment=task.augment,
            progress=context.progress,
            label=f"distillation ({action.technique})",
            higher_is_better=task.metric.higher_is_better,
            troubles=context.troubles,
        )
        plan = Schedule(epochs=epochs, lr=action.rate or RATE, samples=context.samples, seed=context.seed)
        schedule = fitting(plan, context.profile)
        file = None if context.checkpoint is None else context.checkpoint("last")
        teacher = context.teacher() if action.features and context.teacher is not None else None
        with imitating(model, teacher, term, task.example, weight=action.features, layers=action.feature_layers) as aim:
            history = fit(model, task.data.train, aim, schedule, context.speed, hooks, file)
        context.trained("distillation", history)
        return Applied(model, {"epochs": len(history.epochs)}, history=history, epochs=len(history.epochs))

    def replay(self, model: nn.Module, record: dict[str, Any], example: Inputs) -> nn.Module:  # noqa: ARG002 - the protocol
        """Change nothing: distillation changes weights only."""
        return model


def fitting(schedule: Schedule, profile: ModelProfile) -> Schedule:
    """Return the schedule as the architecture wants it: transformers by AdamW, at a rate scaled like `schedule`'s."""
    if profile.architecture != "transformer":
        return schedule
    rate = TRANSFORMER_RATE * schedule.lr / RATE
    return replace(schedule, optimizer="adamw", lr=rate, weight_decay=TRANSFORMER_DECAY)


def missing_labels(action: Distillation, train: Split) -> str | None:
    """Return in one line why the training data's lack of labels rules the action out, or None."""
    if action.technique == "soft" or train.targets is not None:
        return None
    return f"distillation: technique {action.technique} needs labels, and the training data has none; use soft"


def make_term(action: Distillation, context: Context) -> Term:
    """Return what the settings minimise. Raises BadInput when labels are needed and missing."""
    missing = missing_labels(action, context.task.data.train)
    if missing is not None:
        raise BadInput(missing)
    loss, teacher = context.task.loss, context.teacher
    return taught(action.technique, loss, teacher, action.temperature, action.alpha, action.outputs)
