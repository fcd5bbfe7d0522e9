"""Training as the executor offers it to techniques: speed, teacher, checkpoints, and when to stop."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from easycompress.core.inputs import answer, are_images, channels_last, chunk_size, has_channels_last
from easycompress.core.ledger import spending
from easycompress.core.memory import shrinking
from easycompress.distillation.settings import Distillation
from easycompress.distillation.technique import fitting, make_term
from easycompress.executor.guard import comfortable
from easycompress.executor.journal import CHECKPOINT, PARTS
from easycompress.executor.pace import Pacer
from easycompress.measure.statistics import paired_drop, paired_error
from easycompress.technique import Context
from easycompress.training.fit import Hooks, Schedule, fit
from easycompress.training.outlook import Outlook
from easycompress.training.speed import Speed, has_bfloat16, tune
from easycompress.training.team import agreed, team
from easycompress.training.terms import Teacher, make_teacher
from easycompress.training.troubles import Troubles

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import nn

    from easycompress.core.inputs import Inputs
    from easycompress.core.plan import Action
    from easycompress.core.profile import ModelProfile
    from easycompress.core.progress import Progress
    from easycompress.core.task import Task
    from easycompress.executor.attempt import Attempt
    from easycompress.executor.clock import Allowance, Clock
    from easycompress.executor.journal import Journal

BATCH = 128
"""Training batch size."""

RECOVERY_SHARE = 0.1
"""Share of an attempt's epochs that each recovery between two prunings takes, at least one epoch."""

LARGE_MACS = 5_000_000
"""Multiply-accumulates a sample from which several threads and, for images, bfloat16 in channels-last order pay.

Measured with 41 million (ResNet20): 63 s an epoch plain, 30 s with both; with 0.3 million one thread is the fastest.
"""

TRIED_FRESH = 3
"""Times that an augmented batch is tried; the fastest counts."""

RECOVERY_RATE = 0.02
"""Peak rate of those short recoveries."""


class Trainer:
    """Makes the contexts of one run. `allowed` is the permitted drop on *select*, `baseline` the scores there, (N,)."""

    def __init__(
        self,
        task: Task,
        profile: ModelProfile,
        journal: Journal,
        clock: Clock,
        progress: Progress,
        *,
        baseline: np.ndarray[Any, Any],
        allowed: float,
        seed: int,
    ) -> None:
        self.task, self.profile, self.journal, self.clock = task, profile, journal, clock
        self.baseline, self.allowed, self.seed = baseline, allowed, seed
        self.train = task.data.train
        self.pacer = Pacer(progress, clock, len(self.train))
        self.progress: Progress = self.pacer
        self._scores = baseline
        self.memo: dict[str, Any] = {}

    @cached_property
    def speed(self) -> Speed:
        """How to train fast here: tried once a run where time is the budget, else a rule.

        Which setting wins by a little is the clock's mood, and the weights follow it. Where epochs are the budget the
        same seed gives the same weights, whenever and however often the run was interrupted.
        """
        if self.clock.budget.kind != "time":
            return self._usual_speed()
        return Speed.model_validate(
            self.journal.once("speed", lambda: tune(self.task.model, self.train, BATCH).model_dump())
        )

    def _usual_speed(self) -> Speed:
        large = self.profile.macs >= LARGE_MACS
        images = large and self.profile.architecture == "cnn" and are_images(self.train.inputs)
        half = (images or (large and self.profile.architecture == "transformer")) and has_bfloat16()
        threads = torch.get_num_threads() if large else 1
        return Speed(threads=threads, channels_last=images, bfloat16=half, step_seconds=0.0)

    @cached_property
    def outlook(self) -> Outlook:
        """What this run's attempts tell of the next one's chances."""
        return Outlook(self._signed(self.task.metric.quality(self.baseline)), self.allowed)

    @cached_property
    def teacher(self) -> Teacher:
        """The original model's answers, remembered where the training data isn't augmented."""
        self.progress.now("the original model answers the training data, once")
        with self.speed.applied():
            cache = self.task.augment is None
            return make_teacher(self.task.model, self.train, cache=cache, fast_images=self.speed.channels_last)

    def step_seconds(self, model: nn.Module) -> float:
        """Return the seconds of one training step of `model`; 0 where time is not what limits training."""
        if self.clock.budget.kind != "time" or not len(self.train):
            return 0.0
        found = team()
        if found is None:
            return tune(model, self.train, BATCH, only=self.speed).step_seconds + self.fresh_seconds
        step = tune(model, self.train, max(2, BATCH // found.size), only=self.speed).step_seconds
        weights = sum(parameter.numel() for parameter in model.parameters())
        found.tell({"sum": weights})
        return step + found.sum_seconds(weights) + self.fresh_seconds

    @cached_property
    def evaluation_seconds(self) -> float:
        """What judging the original on *select* takes in PyTorch; 0 where time is not what limits training."""
        if self.clock.budget.kind != "time":
            return 0.0
        return float(self.journal.once("evaluation seconds", self._try_evaluation))

    def _try_evaluation(self) -> float:
        begin = time.perf_counter()
        self.evaluate(self.task.model)
        return time.perf_counter() - begin

    @cached_property
    def fresh_seconds(self) -> float:
        """What augmentation adds to a step: itself, and the original's answers to inputs that it has never seen."""
        augment = self.task.augment
        return 0.0 if augment is None else float(self.journal.once("fresh seconds", lambda: self._try_fresh(augment)))

    def _try_fresh(self, augment: Callable[[Inputs], Inputs]) -> float:
        inputs = self.train.inputs[: min(BATCH, len(self.train))]
        times = []
        with self.speed.applied(), torch.no_grad(), torch.random.fork_rng(devices=[]):
            for _ in range(TRIED_FRESH):
                begin = time.perf_counter()
                answer(self.task.model, augment(inputs))
                times.append(time.perf_counter() - begin)
        return min(times)

    @spending("evaluation")
    def evaluate(self, model: nn.Module) -> float:
        """Return the quality on *select* in PyTorch, larger is better, and remember the scores for `enough`."""
        metric, select = self.task.metric, self.task.data.select
        self._scores = shrinking(chunk_size(model, select.inputs), lambda size: self._scored(model, size))
        return self._signed(metric.quality(self._scores))

    def _signed(self, quality: float) -> float:
        """Return a quality so that larger is better."""
        return quality if self.task.metric.higher_is_better else -quality

    def learn(self, attempt: Attempt) -> None:
        """Take in how an attempt's distillation went, where it was trained for all of its epochs."""
        curves = [stage.curve for stage in attempt.stages if stage.action == Distillation.model_fields["kind"].default]
        if len(curves) == 1 and attempt.epochs >= attempt.planned_epochs:
            self.outlook.learn([None if p.quality is None else self._signed(p.quality) for p in curves[0]])

    @torch.no_grad()
    def _scored(self, model: nn.Module, size: int) -> np.ndarray[Any, Any]:
        """Return the scores on *select*, `size` samples at a time."""
        parts, last = [], has_channels_last(model)
        for inputs, targets in self.task.data.select.batches(size):
            outputs = answer(model, channels_last(inputs) if last else inputs).float()
            parts.append(self.task.metric.scores(outputs, targets if targets is not None else torch.empty(0)))
        return np.concatenate(parts)

    @property
    def scores(self) -> np.ndarray[Any, Any]:
        """The scores (N,) that `evaluate` last saw."""
        return self._scores

    def enough(self, _score: float) -> bool:
        """Tell whether what `evaluate` last saw meets the floor comfortably."""
        drop = paired_drop(self.baseline, self._scores, self.task.metric, self.allowed)
        return comfortable(drop, paired_error(self.baseline, self._scores, self.task.metric), self.allowed)

    def plain_context(self) -> Context:
        """Return a context in which nothing is trained and nothing evaluated."""
        return Context(self.task, self.profile, self.seed, self.progress, memo=self.memo, once=self.journal.once)

    def context(self, tag: str, actions: Sequence[Action], allowance: Allowance) -> Context:
        """Return the context of an attempt. Its training is checkpointed under `tag`.

        All attempts are random in the same way: they differ by their settings alone, and a recipe repeats each of them.
        """
        seed = 1000 * self.seed
        distillation = next((a for a in actions if isinstance(a, Distillation)), None)
        if not allowance.epochs or not any(action.trains for action in actions):
            return replace(self.plain_context(), seed=seed, evaluate=self.evaluate)
        pauses = sum(action.pauses for action in actions) if distillation is not None else 0
        later = (a.epochs or 0 for a in actions if isinstance(a, Distillation) and a is not distillation)
        epochs = allowance.epochs - sum(later)
        each = max(1, round(RECOVERY_SHARE * epochs)) if pauses else 0
        if each * pauses > epochs // 4:
            each = 0
        main = Context(
            self.task,
            self.profile,
            seed,
            self.progress,
            epochs=epochs - each * pauses,
            samples=allowance.samples,
            speed=self.speed,
            teacher=lambda: self.teacher,
            evaluate=lambda model: agreed(lambda: self.evaluate(model)),
            enough=lambda score: agreed(lambda: self.enough(score)),
            hopeless=lambda scores, epochs: agreed(lambda: self.outlook.hopeless(scores, epochs)),
            out_of_time=lambda seconds: agreed(lambda: self.tick(allowance, seconds)),
            recover=self._recovery(tag, each, distillation, lambda: main),
            checkpoint=lambda part: self.journal.path(f"{tag}.{part}{CHECKPOINT}"),
            memo=self.memo,
            once=lambda key, make: agreed(lambda: self.journal.once(key, make)),
            troubles=self._troubles(),
        )
        return main

    def _troubles(self) -> Troubles:
        """Return what one attempt takes note of its troubles in. Short memory lasts for the rest of the run."""
        parts = int(self.journal.get(PARTS, 1))
        return Troubles(parts, keep=lambda more: self.journal.put(PARTS, more))

    def _recovery(
        self, tag: str, epochs: int, distillation: Distillation | None, context: Callable[[], Context]
    ) -> Callable[[nn.Module, int], int] | None:
        """Return what trains between two prunings, None where nothing may."""
        if not epochs or distillation is None:
            return None
        return lambda model, index: self._recover(tag, index, model, epochs, distillation, context())

    def _recover(
        self, tag: str, index: int, model: nn.Module, epochs: int, distillation: Distillation, context: Context
    ) -> int:
        """Train briefly between two prunings; return the epochs."""
        plan = Schedule(
            epochs=epochs, lr=RECOVERY_RATE, batch=BATCH, samples=context.samples, seed=context.seed + 500 * index
        )
        schedule = fitting(plan, self.profile)
        hooks = Hooks(
            context.evaluate,
            out_of_time=context.out_of_time,
            augment=self.task.augment,
            progress=self.progress,
            label=f"recovery after pruning step {index}" if index else "training with penalty",
            higher_is_better=self.task.metric.higher_is_better,
            troubles=context.troubles,
        )
        checkpoint = self.journal.path(f"{tag}.{index}{CHECKPOINT}")
        history = fit(model, self.train, make_term(distillation, context), schedule, self.speed, hooks, checkpoint)
        context.trained(f"recovery {index}" if index else "with penalty", history)
        return len(history.epochs)

    def tick(self, allowance: Allowance, epoch_seconds: float) -> bool:
        """Save the time spent, so that a resumed run knows it, and tell whether another epoch would be late."""
        self.journal.save()
        return self.clock.late(allowance, epoch_seconds)
