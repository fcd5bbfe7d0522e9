"""One trial of a search: other settings of what a plan trains, at the size or speed of the plan's own."""

from __future__ import annotations

import io
import math
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from easycompress.core.errors import CannotCompress
from easycompress.core.files import write_bytes
from easycompress.core.goal import Frozen
from easycompress.core.outcome import Trial
from easycompress.core.progress import EpochDone
from easycompress.executor.build import build
from easycompress.executor.clock import Allowance
from easycompress.executor.dial import settled
from easycompress.executor.search import least_strength
from easycompress.executor.study import Asked
from easycompress.executor.together import leading
from easycompress.measure.statistics import paired_drop, paired_error
from easycompress.training.curve import known
from easycompress.training.team import agreed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from easycompress.core.progress import Event
    from easycompress.executor.dial import Dial
    from easycompress.executor.trainer import Trainer
    from easycompress.executor.workshop import Workshop

PROBES = 6
"""Untrained candidates between the weakest and the strongest that a trial whose settings change the file may try."""


class Course(Frozen):
    """How a search goes: at most `trials` of `epochs` epochs (of `samples` samples, 0: all), none begun after `until`.

    `seconds` is what one of them may take, 0 where time is not the budget; `until` is in seconds of the run.
    """

    trials: int
    epochs: int
    samples: int
    seconds: float
    until: float | None


class _Ended(CannotCompress):
    """The trial is worse than the others were at this point."""


def carry_out(shop: Workshop, dial: Dial, strength: float, done: Sequence[Trial], course: Course) -> Trial:
    """Try the settings that Optuna asks for after the trials `done`; the plan's own are the first.

    `strength` is that of the dial as it is. A trial that a kill interrupted goes on at its last epoch.
    """
    trainer, tag = shop.trainer, f"trial {len(done)}"
    begin = time.perf_counter()
    steps = len(done[0].curve) if done else 0
    better = trainer.task.metric.higher_is_better
    asked = Asked(dial.knobs(), done, trainer.seed, steps, higher_is_better=better)
    watch = _Watch(trainer, tag, asked, steps)
    turned = dial if not done else dial.turned(asked.values)
    trial = Trial(values=asked.values, state="finished", strength=strength)
    try:
        if done:
            trial = trial.model_copy(update={"strength": as_good(shop, dial, turned, strength)})
        found = _trained(shop, turned, trial.strength, tag, course, watch)
    except _Ended:
        found = {"state": "ended"}
    except CannotCompress as error:
        found = {"state": "failed", "reason": str(error)}
    seconds = time.perf_counter() - begin
    seen = {"curve": watch.curve, "epochs": watch.epochs, "seconds": seconds}
    return trial.model_copy(update=seen | found)


def as_good(shop: Workshop, usual: Dial, turned: Dial, strength: float) -> float:
    """Return the strength at which settings make an untrained file as good as the plan's own at `strength`.

    Raises CannotCompress where no strength does.
    """
    if usual.fixed:
        return strength
    aim = shop.probe(usual.without_training(strength)).ratio
    if shop.probe(turned.without_training(strength)).ratio == aim:
        return strength

    def ratio(tried: float) -> float:
        actions = turned.without_training(tried)
        return shop.probe(actions).ratio if actions else 1.0

    halvings = iter(range(PROBES))
    found = least_strength(ratio, aim, lambda: next(halvings, None) is not None)
    if found is None:
        raise CannotCompress(f"no strength of these settings reaches {aim:.2f}x")
    return found


def _trained(shop: Workshop, dial: Dial, strength: float, tag: str, course: Course, watch: _Watch) -> dict[str, object]:
    """Train one candidate to the end of its epochs; return what it came to."""
    trainer, journal = shop.trainer, shop.trainer.journal
    deadline = 0.0 if course.until is None else course.until + course.seconds
    allowance = Allowance(epochs=course.epochs, samples=course.samples, deadline=deadline)
    planned = dial.at(strength) if dial.fixed else dial.without_training(strength)
    actions = settled([action.insisting() for action in planned], course.epochs)
    context = replace(
        trainer.context(tag, actions, allowance),
        progress=watch,
        enough=lambda _: agreed(lambda: False),
        hopeless=lambda _, __: agreed(lambda: False),  # that compares with attempts, which train longer
        out_of_time=lambda seconds: agreed(lambda: watch.check() or trainer.tick(allowance, seconds)),
    )
    with leading(trainer, tag, actions, allowance):
        built = build(trainer.task, [action for action in actions if not action.finishes], context)
    quality = built.stages[-1].quality
    if not math.isfinite(quality):
        return {"state": "failed", "reason": "scores on select that are not finite numbers"}
    first: Path = journal.path("trial 0.npy")
    scores, metric = trainer.scores, trainer.task.metric
    found: dict[str, object] = {"quality": quality if metric.higher_is_better else -quality, "epochs": built.epochs}
    if not first.exists():
        if tag != "trial 0":
            return found
        write_bytes(first, _as_bytes(scores))
    before = np.load(first)
    return found | {
        "gain": known(-paired_drop(before, scores, metric, trainer.allowed).estimate + 0.0),
        "error": known(paired_error(before, scores, metric)),
    }


def _as_bytes(scores: np.ndarray[Any, Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, scores)
    return buffer.getvalue()


class _Watch:
    """Listens to a trial: keeps its curve, in the journal too, and asks whether it is worth going on with.

    `steps` is how long the first trial's curve was: who has come that far has nothing left to save.
    """

    def __init__(self, trainer: Trainer, tag: str, asked: Asked, steps: int) -> None:
        self._trainer, self._tag, self._asked, self._steps = trainer, tag, asked, steps
        self._points: dict[str, float] = dict(trainer.journal.get(f"{tag}: points", {}))
        self._samples: int = trainer.journal.get(f"{tag}: samples", 0)
        self._hopeless = False
        for step, quality in enumerate(self._points.values(), 1):
            asked.hopeless(step, quality)

    @property
    def curve(self) -> tuple[float, ...]:
        """The qualities seen, in order."""
        return tuple(self._points.values())

    @property
    def epochs(self) -> int:
        """Passes over the training data, rounded up: what the trial costs."""
        return math.ceil(self._samples / max(1, len(self._trainer.train)) - 1e-9)

    def say(self, text: str) -> None:
        """Tell what is no result of the run's in passing."""
        self.now(text)

    def now(self, text: str) -> None:
        """Tell what is being tried."""
        self._trainer.progress.now(f"search: {self._tag}: {text}")

    def event(self, event: Event) -> None:
        """Take note of an epoch. One that a kill took back counts once."""
        if not isinstance(event, EpochDone):
            return
        key = f"{event.label} {event.epoch}"
        self._samples += event.samples
        if event.quality is not None and key not in self._points:
            self._points[key] = event.quality
            hopeless = self._asked.hopeless(len(self._points), event.quality)
            self._hopeless = hopeless and len(self._points) < self._steps
            self._trainer.journal.put(f"{self._tag}: points", self._points)
        self._trainer.journal.put(f"{self._tag}: samples", self._samples)

    def check(self) -> bool:
        """Return False, or leave a trial that isn't worth going on with."""
        if self._hopeless:
            raise _Ended("worse than the median of the other trials")
        return False
