"""Where candidates are tried for an estimate: the product's own attempts, cut short, on a part of the data."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from easycompress.carry import make_workshop
from easycompress.core.goal import Budget
from easycompress.core.inputs import answer, chunk_size
from easycompress.core.progress import Silent
from easycompress.core.task import Splits
from easycompress.executor.clock import Allowance
from easycompress.executor.trainer import BATCH

if TYPE_CHECKING:
    from collections.abc import Sequence

    from easycompress.core.outcome import Drop
    from easycompress.core.plan import Action
    from easycompress.core.request import Request
    from easycompress.core.task import Metric, Split, Task
    from easycompress.executor.journal import Journal
    from easycompress.executor.workshop import Attempt, Workshop
    from easycompress.prepare import Prepared

LEAST_SELECT = 1000

TEACHER_MACS = 160e9
"""What the original's answers to the training samples may take: short recoveries see no more of them."""

LEAST_TRAIN = 20 * BATCH

FIRST_STEPS = 48
"""Optimizer steps of a first short recovery."""

LEAST_STEPS = 10
"""Optimizer steps of the second one, whatever they cost."""

SPREAD = 5
"""How many times longer the second one is, at least: from less no slope can be told."""

PASSES = 3
"""Multiply-accumulates of an optimizer step, in those of a forward pass: backward takes about twice as many."""

Z_95 = 1.645


@dataclass(frozen=True)
class Effort:
    """How much may be tried for one answer, in multiply-accumulates of the original (a core does some 50e9 a second).

    A count and no clock, so that the same is tried every time.
    *select* is cut to the samples that `judging` permits, at least LEAST_SELECT. The longer recovery of a candidate
    takes `recovery`, at most `steps` optimizer steps.
    """

    judging: float
    recovery: float
    steps: int


THOROUGH = Effort(judging=250e9, recovery=4e12, steps=800)

BRIEF = Effort(judging=40e9, recovery=5e11, steps=160)
"""For one answer of many."""


@dataclass(frozen=True)
class Seen:
    """What a candidate's file showed after `steps` optimizer steps of training (0: none), on `n` samples of *select*.

    `drop` and its standard `error` are in the metric's unit; `churn` is the share of samples that changed without net
    effect, `seconds` what making it took.
    """

    steps: int
    drop: float
    error: float
    churn: float
    n: int
    seconds: float


@dataclass(frozen=True)
class Point:
    """A chain at one strength: the ratio of its untrained file, and what was seen, untrained first."""

    strength: float
    ratio: float
    seen: tuple[Seen, ...]

    @property
    def step_seconds(self) -> float:
        """Return the seconds of one optimizer step, 0 where nothing was trained."""
        if len(self.seen) < 2:  # noqa: PLR2004 - untrained and trained
            return 0.0
        before, last = self.seen[-2], self.seen[-1]
        return max(last.seconds - before.seconds, 0.1 * last.seconds) / (last.steps - before.steps)


class Bench:
    """Tries candidates of one goal. `whole` tells whether it judges by all of *select*, as a run does."""

    def __init__(self, prepared: Prepared, request: Request, journal: Journal, effort: Effort = THOROUGH) -> None:
        self.full, self.effort = prepared, effort
        self.prepared, self.evaluation_seconds = cut(prepared, effort.judging)
        self.whole = len(self.prepared.task.data.select) == len(prepared.task.data.select)
        self.journal = journal
        endless = replace(self.prepared, budget=Budget(kind="epochs", value=math.inf, text="short recoveries"))
        self.shop: Workshop = make_workshop(endless, request, journal, Silent())
        self._count = 0

    @property
    def steps_an_epoch(self) -> int:
        """Return the optimizer steps of one epoch of all training samples."""
        return max(1, math.ceil(len(self.full.task.data.train) / BATCH))

    def attempt(self, actions: Sequence[Action], steps: int) -> tuple[Seen, float]:
        """Make a candidate with about `steps` optimizer steps; return what its file showed, and its ratio."""
        self._count += 1
        tag = f"attempt {self._count}"
        allowance = self._allowance(steps)
        self.journal.put(f"{tag}: allowance", allowance.model_dump())
        begin = time.perf_counter()
        attempt = self.shop.attempt(self._count, [action.insisting() for action in actions], 1.0, 0.0)
        seconds = time.perf_counter() - begin
        for path in self.journal.folder.glob(f"{self.journal.label}{tag}.*"):
            path.unlink()
        return self._seen(attempt, self._taken(allowance), seconds), attempt.ratio

    def point(self, actions: Sequence[Action], strength: float, ratio: float, horizon: int) -> Point:
        """Try the candidate untrained and, where it will train `horizon` > 0 steps, after two short recoveries.

        None is longer than the horizon.
        """
        seen = [self.attempt(actions, 0)[0]]
        if horizon <= 0 or not any(action.trains for action in actions):
            return Point(strength, ratio, tuple(seen))
        affordable = round(self.effort.recovery / (PASSES * BATCH * max(self.prepared.profile.macs, 1)))
        longest = min(max(affordable, LEAST_STEPS), self.effort.steps, horizon)
        if longest >= SPREAD:
            seen.append(self.attempt(actions, min(FIRST_STEPS, longest // SPREAD))[0])
        seen.append(self.attempt(actions, longest)[0])
        return Point(strength, ratio, tuple(seen))

    def _allowance(self, steps: int) -> Allowance:
        if not steps:
            return Allowance(epochs=0)
        an_epoch = max(1, math.ceil(len(self.prepared.task.data.train) / BATCH))
        if steps <= an_epoch:
            return Allowance(epochs=1, samples=min(steps * BATCH, len(self.prepared.task.data.train)))
        return Allowance(epochs=round(steps / an_epoch))

    def _taken(self, allowance: Allowance) -> int:
        samples = allowance.samples or len(self.prepared.task.data.train)
        return allowance.epochs * math.ceil(samples / BATCH)

    def _seen(self, attempt: Attempt, steps: int, seconds: float) -> Seen:
        drop, metric = attempt.drop, self.prepared.task.metric
        churn = 2 * min(drop.worse, drop.better) / drop.n
        return Seen(steps, drop.estimate, error_of(drop, metric), churn, drop.n, seconds)


def error_of(drop: Drop, metric: Metric) -> float:
    """Return the standard error of a drop in the metric's unit; of one without any change what a single one makes."""
    if metric.binary:
        changed = max(drop.worse + drop.better, 1) / drop.n
        return metric.scale * math.sqrt(max(changed - (drop.estimate / metric.scale) ** 2, 1 / drop.n**2) / drop.n)
    if drop.upper_95 is not None:
        return (drop.upper_95 - drop.estimate) / Z_95
    return abs(drop.estimate) / math.sqrt(max(drop.worse + drop.better, 1))


def cut(prepared: Prepared, judging: float) -> tuple[Prepared, float]:
    """Return the task on as much data as can be tried in seconds, and the seconds of judging all of *select*.

    `judging` is what judging one candidate may take, in multiply-accumulates.

    The latter only where time is the budget, 0 elsewhere.
    """
    task, macs = prepared.task, max(prepared.profile.macs, 1)
    data = task.data
    generator = torch.Generator().manual_seed(0)
    select, places = _part(data.select, max(LEAST_SELECT, round(judging / macs)), generator)
    train, _ = _part(data.train, max(LEAST_TRAIN, round(TEACHER_MACS / macs)), generator)
    scores = prepared.scores if places is None else prepared.scores[places.numpy()]
    splits = Splits(train=train, calibration=data.calibration, select=select, report=data.report, note=data.note)
    smaller = replace(prepared, task=replace(task, data=splits), scores=scores, quality=task.metric.quality(scores))
    seconds = _seconds_a_sample(task) * len(data.select) if prepared.budget.kind == "time" else 0.0
    return smaller, seconds


def _part(split: Split, count: int, generator: torch.Generator) -> tuple[Split, torch.Tensor | None]:
    """Return at most `count` samples drawn from a split, and their places; None for all of them."""
    if len(split) <= count:
        return split, None
    places = torch.randperm(len(split), generator=generator)[:count].sort().values
    return split.take(places), places


@torch.no_grad()
def _seconds_a_sample(task: Task) -> float:
    """Return how long the original takes for one sample of *select* among others."""
    inputs = task.data.select.inputs
    inputs = inputs[: min(chunk_size(task.model, inputs), len(inputs))]
    answer(task.model, inputs[:2])
    begin = time.perf_counter()
    answer(task.model, inputs)
    return max(time.perf_counter() - begin, 1e-9) / len(inputs)
