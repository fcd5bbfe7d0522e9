"""Training while weights are being removed: what is gone stays gone."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from easycompress.training.fit import History, Hooks, Schedule, fit
from easycompress.training.terms import Term, taught

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from easycompress.pruning.unstructured.schedule import Course
    from easycompress.pruning.unstructured.settings import UnstructuredPruning
    from easycompress.technique import Context

RATE = 0.05
"""Learning rate between removals, and the peak of the last training."""

MOMENTUM = 0.9

TEMPERATURE, ALPHA = 2.0, 0.3

PARTS = {"penalty": "with penalty", "finish": "fine-tuning"}
"""What the pieces are called in the report; those between removals are `round 1`, `round 2`, ..."""

FINISH_SEED = 10_000
"""Keeps the last training's order of samples apart from that of the rounds, whose seeds count up from the context's."""


class Masked:
    """The training of one model in pieces; `late` once time is up, `history` that of the last piece.

    Every piece has a checkpoint of its own: a killed run finds the finished ones and goes on in the one it was in.
    """

    def __init__(
        self, model: nn.Module, weights: Mapping[str, nn.Parameter], action: UnstructuredPruning, context: Context
    ) -> None:
        self.model, self.weights, self.action, self.context = model, dict(weights), action, context
        self.price, self._term = action.weight_of_penalty(), term_for(action, context)
        self.stays: list[Tensor] = []
        self.passes, self.late = 0.0, False
        self.history: History | None = None

    @property
    def epochs(self) -> int:
        """Return the passes over an epoch's samples that were made, rounded."""
        return round(self.passes)

    def put(self, masks: Mapping[str, Tensor]) -> None:
        """Set the weights outside the masks to zero, from now on after every step of the optimizer too."""
        self.stays = [masks[name].to(weight) for name, weight in self.weights.items()]
        self.clear()

    def clear(self) -> None:
        """Set removed weights to zero, whatever gradient and momentum made of them."""
        if self.stays:
            with torch.no_grad():
                torch._foreach_mul_(list(self.weights.values()), self.stays)

    def with_penalty(self, epochs: int) -> None:
        """Train with the penalty while nothing is removed."""
        self._train("penalty", epochs, 0, self.context.seed, penalised=True)

    def between(self, index: int, course: Course) -> None:
        """Train after the removal number `index` (from 1), which is not the last one."""
        self._train(f"round-{index}", course.each, course.samples, self.context.seed + index, penalised=True)

    def finish(self, epochs: int) -> None:
        """Train what stays, without penalty, to its best epoch; the start counts as one."""
        context = self.context
        if not epochs or self.late or context.evaluate is None:
            return
        self._train("finish", epochs, 0, context.seed + FINISH_SEED, penalised=False)

    def _train(self, part: str, epochs: int, samples: int, seed: int, *, penalised: bool) -> None:
        context = self.context
        if not epochs or self.late or context.speed is None:
            return
        last = not penalised
        schedule = Schedule(
            epochs=epochs, lr=RATE, shape="cycle" if last else "flat", samples=samples or context.samples,
            momentum=MOMENTUM, weight_decay=0.0, seed=seed,
        )  # fmt: skip
        hooks = Hooks(
            context.evaluate if last else None,
            start=context.evaluate(self.model) if last and context.evaluate is not None else -math.inf,
            enough=context.enough if last else lambda _: False,
            out_of_time=context.out_of_time,
            augment=context.task.augment,
            after_step=self._after_step if penalised else lambda _: self.clear(),
            progress=context.progress,
            label=f"unstructured pruning ({part})",
            higher_is_better=context.task.metric.higher_is_better,
            troubles=context.troubles,
        )
        file = None if context.checkpoint is None else context.checkpoint(f"pruned-{part}")
        train = context.task.data.train
        self.history = fit(self.model, train, self._term, schedule, context.speed, hooks, file)
        context.trained(PARTS.get(part, part.replace("-", " ")), self.history)
        done = len(self.history.epochs)
        whole = min(context.samples or len(train), len(train))
        self.passes += done * min(samples or whole, whole) / whole
        # A piece may be a part of an epoch, after which fit has nothing left to stop.
        self.late = done < epochs or context.out_of_time(self.history.epochs[-1]["seconds"])

    def _after_step(self, rate: float) -> None:
        """Take the penalty's proximal step, then clear: gradient and penalty balance at the minimum of their sum.

        The step is as long as what momentum makes of `rate`: rate / (1 - momentum).
        """
        step = self.price * rate / (1 - MOMENTUM)
        with torch.no_grad():
            for weight in self.weights.values() if step else ():
                if self.action.regularization == "l1":
                    weight.copy_(functional.softshrink(weight, step))
                else:
                    weight.div_(1 + 2 * step)
        self.clear()


def term_for(action: UnstructuredPruning, context: Context) -> Term:
    """Return what training minimises beside the penalty."""
    return taught(action.technique, context.task.loss, context.teacher, TEMPERATURE, ALPHA)
