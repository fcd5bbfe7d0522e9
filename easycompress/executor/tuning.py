"""`--search`: short trials of other settings for what a plan trains, all at the size or speed of the plan's own.

Every trial is judged on *select* alone. What wins there takes the place of the plan's settings in the attempts that
follow; those are judged as ever, and *report* is looked at once, at the end.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from easycompress.core.outcome import Trial, Tuning
from easycompress.executor.clock import LATE, Allowance
from easycompress.executor.journal import RESULT
from easycompress.executor.told import tuning_words
from easycompress.executor.trainer import BATCH
from easycompress.executor.trials import Course, carry_out

if TYPE_CHECKING:
    from collections.abc import Sequence

    from easycompress.core.goal import Search
    from easycompress.core.plan import Action
    from easycompress.executor.dial import Dial
    from easycompress.executor.trainer import Trainer
    from easycompress.executor.workshop import Workshop

SHARE = 0.5
"""Share of what is left that trials counted by their number may use; the attempts with what they found get the rest."""

MOST_SHARE = 0.75
"""Share of what is left that trials counted by their time may use, however much time that is."""

USUAL_EPOCHS = 6
"""Epochs of a trial where their time is given: enough for settings to show, and few enough for many of them."""

FEWEST, MOST = 4, 40
"""Trials that a time is divided by: with fewer there is nothing to choose from, with more each could be longer."""

MORE = 3
"""How many times as many trials may be begun as a time was divided by: those that end early leave time for others."""

TINY = 1e-6
"""Seconds of an epoch that nobody timed."""

HALF_WAY = 0.5
"""The strength that trials compare at where no target says one."""

ERRORS = 1.0
"""Standard errors by which the best trial must gain over the plan's own settings: the best of many is lucky too."""


def tune(shop: Workshop, search: Search, dial: Dial, least: float | None) -> tuple[Dial, float | None, Tuning | None]:
    """Return the dial with the best settings found, its least strength that reaches the target, and the story.

    `least` is that of the dial as it is, None where the target is out of reach or the most is wanted. Where nothing
    that the plan trains has knobs, or there is no time for a trial, dial and strength come back as they are.
    """
    knobs = dial.knobs()
    strength = HALF_WAY if least is None else least
    actions = dial.at(strength) if dial.fixed else dial.without_training(strength)
    trainer = shop.trainer
    if not knobs or not any(action.trains for action in actions):
        trainer.progress.say("search: nothing that is trained here has settings to try")
        return dial, least, None
    begun = trainer.journal.once("search: begun", trainer.journal.elapsed)
    course = Course.model_validate(
        trainer.journal.once("search: course", lambda: _course(shop, search, actions).model_dump())
    )
    if not course.epochs:
        trainer.progress.say("search: too little time is left for a trial")
        return dial, least, None
    done: list[Trial] = []
    while len(done) < course.trials and _may_begin(trainer, course, len(done)):
        done.append(_trial(shop, dial, strength, done, course))
        trainer.clock.epochs_used += done[-1].epochs
    seconds = trainer.journal.once("search: seconds", lambda: trainer.journal.elapsed() - begun)
    tuning = _judged(search.text, course, done, seconds)
    trainer.progress.say(tuning_words(tuning, percent=trainer.task.metric.percent))
    if not tuning.used or tuning.best is None:
        return dial, least, tuning
    best = done[tuning.best]
    return dial.turned(best.values), None if least is None else best.strength, tuning


def _course(shop: Workshop, search: Search, actions: Sequence[Action]) -> Course:
    """Divide the seconds or epochs that a search may use among its trials."""
    clock, train = shop.trainer.clock, shop.trainer.train
    step_seconds, left = shop.probe(actions).step_seconds, clock.left()
    timed = clock.budget.kind == "time"
    total = min(search.value, MOST_SHARE * left) if timed and search.kind == "time" else SHARE * left
    an_epoch = step_seconds * math.ceil(len(train) / BATCH) if timed else 1.0
    trials = int(search.value)
    if search.kind == "time":
        trials = min(max(round(total / (USUAL_EPOCHS * max(an_epoch, TINY))), FEWEST), MOST)
    if not timed:
        trials = min(trials, max(1, math.floor(total)))
    allowance = shop.allow(actions, total / trials / left, step_seconds) if left else Allowance(epochs=0)
    until: float | None = None
    if timed or search.kind == "time":
        until = clock.journal.elapsed() + (total * LATE if timed else search.value)
    return Course(
        trials=MORE * trials if search.kind == "time" else trials,
        epochs=allowance.epochs,
        samples=allowance.samples,
        seconds=total / trials if timed else 0.0,
        until=until,
    )


def _may_begin(trainer: Trainer, course: Course, number: int) -> bool:
    """Tell whether another trial is likely to end in time; journalled, so that a resume goes the same way."""
    until = course.until
    if until is None or not number:
        return True
    journal = trainer.journal
    return bool(journal.once(f"trial {number}: may it begin", lambda: journal.elapsed() + course.seconds <= until))


def _trial(shop: Workshop, dial: Dial, strength: float, done: Sequence[Trial], course: Course) -> Trial:
    """Carry out the next trial, or read what the journal has of it."""
    trainer, number = shop.trainer, len(done)
    tag = f"trial {number}"
    fresh = not trainer.journal.holds(f"{tag}{RESULT}")
    trial = Trial.model_validate(
        trainer.journal.once(
            f"{tag}{RESULT}", lambda: carry_out(shop, dial, strength, done, course).model_dump(mode="json")
        )
    )
    if fresh:
        for path in trainer.journal.checkpoints(tag):
            path.unlink()
        score = "" if trial.quality is None else f", {trial.quality:.2f} on select"
        trainer.progress.now(f"search: {tag}: {trial.state}{score}")
    return trial


def _judged(text: str, course: Course, done: Sequence[Trial], seconds: float) -> Tuning:
    """Choose the best finished trial; it is used where it gained more than chance would."""
    finished = [index for index, trial in enumerate(done) if trial.state == "finished" and trial.gain is not None]
    best = max(finished, key=lambda index: done[index].gain or 0.0, default=None)
    used = best is not None and best > 0 and (done[best].gain or 0.0) > ERRORS * (done[best].error or 0.0)
    return Tuning(
        asked=text,
        epochs=course.epochs,
        trials=tuple(done),
        best=best,
        used=used,
        seconds=seconds,
        spent=sum(trial.epochs for trial in done),
    )
