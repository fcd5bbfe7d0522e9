"""Logit distillation as a technique: the original model teaches the compressed one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from easycompress.distillation.settings import Distillation
from easycompress.technique import Applied, Context, Need
from easycompress.training.fit import Hooks, Schedule, fit
from easycompress.training.terms import Distil, Labels, Term

if TYPE_CHECKING:
    import torch
    from torch import nn

    from easycompress.core.profile import ModelProfile

RATE = 0.05
"""Peak rate of momentum SGD."""


class Distiller:
    """Recovers quality after a structural change."""

    name = "distillation"
    settings = Distillation
    needs: frozenset[Need] = frozenset({"training"})
    source = "Hinton, Vinyals and Dean 2015; EasyCompress thesis, section 4.5"

    def refuses(self, profile: ModelProfile, action: Distillation) -> str | None:
        """Refuse outputs that are no logits."""
        if action.technique != "hard" and profile.outputs < 2:  # noqa: PLR2004 - one output has no softmax
            return f"distillation: technique {action.technique} needs at least two logits; use hard"
        return None

    def apply(self, model: nn.Module, action: Distillation, context: Context) -> Applied:
        """Train for at most `context.epochs` (or the action's own) epochs and keep the best one."""
        epochs = min(action.epochs or context.epochs, context.epochs)
        if epochs < 1 or context.speed is None or context.evaluate is None:
            return Applied(model, {"epochs": 0})
        hooks = Hooks(
            evaluate=context.evaluate,
            start=context.evaluate(model),
            enough=context.enough if action.mode == "target" else lambda _: False,
            out_of_time=context.out_of_time,
            augment=context.task.augment,
            progress=context.progress,
            label=f"distillation ({action.technique})",
        )
        schedule = Schedule(epochs=epochs, lr=RATE, samples=context.samples, seed=context.seed)
        term = make_term(action, context)
        file = None if context.checkpoint is None else context.checkpoint("last")
        history = fit(model, context.task.data.train, term, schedule, context.speed, hooks, file)
        return Applied(model, {"epochs": len(history.epochs)}, history=history, epochs=len(history.epochs))

    def replay(self, model: nn.Module, record: dict[str, Any], example: torch.Tensor) -> nn.Module:  # noqa: ARG002 - the protocol
        """Change nothing: distillation changes weights only."""
        return model


def make_term(action: Distillation, context: Context) -> Term:
    """Return what the settings minimise."""
    hard = Labels(context.task.loss)
    if action.technique == "hard" or context.teacher is None:
        return hard
    return Distil(action.technique, context.teacher(), hard, action.temperature, action.alpha)
