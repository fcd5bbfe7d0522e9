"""How long a run still takes: an estimate from what it has measured of itself, told whenever something happened."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from easycompress.core.progress import EpochDone, TimeLeft, tell

if TYPE_CHECKING:
    from easycompress.core.goal import Budget
    from easycompress.core.progress import Event, Progress
    from easycompress.executor.clock import Allowance, Clock


@dataclass(frozen=True)
class Standing:
    """What a run still has to do, in seconds; None: no basis for a number.

    `training`: the rest of the running attempt's, if it goes to its planned end. `finishing`: what comes after it,
    export and judgement. `attempt`: one that may follow, `following` how many of them are expected if the running one
    is accepted. `reserve`: the measurement at the end. `spent`: what this seed took so far; `seeds` are still to come,
    each expected to take as long as this one.
    """

    training: float | None
    finishing: float
    following: int | None
    attempt: float | None = None
    reserve: float = 0.0
    spent: float = 0.0
    seeds: int = 0


def seconds_left(standing: Standing, at_most: float | None) -> float | None:
    """Return the seconds until the run ends if the running attempt is accepted, None without a basis for them.

    The budget ends a run whatever is still planned: it is never more than `at_most`, and never below 0.
    """
    if standing.training is None or standing.following is None:
        return None
    if standing.following and standing.attempt is None:
        return None
    seed = standing.training + standing.finishing + standing.following * (standing.attempt or 0.0)
    whole = max(0.0, seed + standing.seeds * (standing.spent + seed) + standing.reserve)
    return whole if at_most is None else min(whole, at_most)


def of_budget(left: float, reserve: float) -> float | None:
    """Return what remains of a time budget: the most that a run may still take.

    None once less remains than the last measurement takes: that is done in any case, and the budget says nothing of it.
    """
    return left if left >= reserve else None


@dataclass
class Running:
    """The running attempt: the `samples` that it may train in all, and how fast it does.

    `pace` is seconds a sample, None while nothing was measured. `began`, `ended` (of its training) and `deadline`
    (0: none) are seconds of the run.
    """

    began: float
    samples: int
    pace: float | None = None
    deadline: float = 0.0
    ended: float | None = None
    _done: int = 0
    _label: str = ""
    _part: int = 0
    _measured: tuple[float, int] = (0.0, 0)
    _before: float = 0.0

    def take(self, epoch: EpochDone, now: float) -> None:
        """Take note of an epoch that ends `now`.

        The pace is the mean of its part's epochs, from end to end: saving them takes time too, and one slow epoch
        hardly moves it. What was done of the part before a resume counts; what the part before this one left, because
        it was good enough, isn't done any more.
        """
        took = epoch.seconds
        if epoch.label != self._label:
            self.samples -= self._part
            self._done += (epoch.epoch - 1) * epoch.samples
            self._label, self._measured = epoch.label, (0.0, 0)
        elif self._before:
            took = max(took, now - self._before)
        self._before = now
        seconds, samples = self._measured
        self._measured = seconds + took, samples + epoch.samples
        self._done += epoch.samples
        self._part = (epoch.epochs - epoch.epoch) * epoch.samples
        if self._measured[1]:
            self.pace = self._measured[0] / self._measured[1]

    @property
    def left(self) -> int:
        """Return the samples that it may still train."""
        return max(self.samples - self._done, self._part, 0)

    def training(self, now: float) -> float | None:
        """Return the seconds that its training still takes if it goes to its planned end."""
        if not self.left or self.ended is not None:
            return 0.0
        if self.pace is None:
            return None
        rest = self.left * self.pace
        return min(rest, max(0.0, self.deadline - now)) if self.deadline else rest

    def finishing(self, now: float, usual: float) -> float:
        """Return what is left of the `usual` seconds after training, which begin with the end of it."""
        since = self.ended if self.ended is not None else self.began if not self.samples else now
        return max(0.0, usual - (now - since))


class Pacer:
    """Passes on what is told, and tells after it how much time is left.

    `budget` is the whole command's, `seeds` how many are still to come; `began` is when this one did, in seconds of the
    run. `epoch` is the training split's size.
    """

    def __init__(self, progress: Progress, clock: Clock, epoch: int) -> None:
        self.progress, self.clock, self.epoch = progress, clock, epoch
        self.say, self.now = progress.say, progress.now
        self.budget: Budget = clock.budget
        self.seeds, self.began = 0, 0.0
        self._running: Running | None = None
        self._seconds: list[float] = []

    def event(self, event: Event) -> None:
        """Pass an event on; after an epoch tell what it means for the time left."""
        tell(self.progress, event)
        if isinstance(event, EpochDone) and self._running is not None:
            self._running.take(event, self.clock.journal.elapsed())
            self.tell()

    def begin(self, allowance: Allowance, epoch_seconds: float) -> None:
        """Take note that an attempt begins. `epoch_seconds` is what an epoch takes untrained, 0 if nobody looked."""
        each = min(allowance.samples or self.epoch, self.epoch)
        pace = epoch_seconds / self.epoch if epoch_seconds and self.epoch else None
        self._running = Running(self.clock.journal.elapsed(), allowance.epochs * each, pace, allowance.deadline)
        self.tell()

    def training_ended(self) -> None:
        """Take note that what is left of the running attempt is no training."""
        if self._running is not None:
            self._running.ended = self.clock.journal.elapsed()
            self.tell()

    def end(self, seconds: float) -> None:
        """Take note that an attempt was judged, which took so many seconds in all."""
        self._running = None
        self._seconds.append(seconds)
        self.tell()

    def tell(self) -> None:
        """Tell how much time is left. Between attempts it is open whether another one follows."""
        now, run = self.clock.journal.elapsed(), self._running
        at_most = self._at_most(now)
        seconds = None if run is None else seconds_left(self._standing(now, run), at_most)
        tell(self.progress, TimeLeft(seconds=seconds, at_most=at_most))

    def _standing(self, now: float, run: Running) -> Standing:
        training, finishing = run.training(now), run.finishing(now, self.clock.finishing)
        whole = None if training is None else now - run.began + training + finishing
        attempt = sum(self._seconds) / len(self._seconds) if self._seconds else whole
        spent = now - self.began
        return Standing(training, finishing, self.clock.following, attempt, self.clock.reserve, spent, self.seeds)

    def _at_most(self, now: float) -> float | None:
        """Return the most that the budget permits, in seconds; None if it says nothing.

        Of a time budget it is what remains. Of epochs it is an estimate itself: all that are left, at the pace of now.
        """
        run, clock = self._running, self.clock
        if self.budget.kind == "time":
            return of_budget(self.budget.value - now, clock.reserve)
        if self.budget.kind != "epochs" or run is None or run.pace is None or clock.following is None or self.seeds:
            return None
        beyond = max(0.0, clock.left() * self.epoch - run.samples)  # what is left of the budget for other attempts
        return (run.left + beyond) * run.pace + (1 + clock.following) * clock.finishing + clock.reserve
