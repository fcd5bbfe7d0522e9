"""How long work tells whoever watches. Algorithms call it; a face (terminal, page) implements it."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from easycompress.core.goal import Frozen


class EpochDone(Frozen):
    """One epoch of training is over: `epoch` of `epochs` in the part `label`; None: nobody looked.

    `quality` is on *select* in the metric's unit. `distance` is the norm of w - delta(theta) at penalty `mu`, told
    once an L step. `samples` is how many training samples were seen, 0: not known.
    """

    label: str
    epoch: int
    epochs: int
    seconds: float
    loss: float | None = None
    quality: float | None = None
    distance: float | None = None
    mu: float | None = None
    samples: int = 0


class AttemptBegun(Frozen):
    """An attempt begins: its number, what it does in words, and how many epochs it may train."""

    number: int
    what: str
    epochs: int


class AttemptDone(Frozen):
    """An attempt was judged: objective, ratio, quality and drop of its file on *select*, `error` one standard error.

    A resumed run tells those that were judged before it once more, without their beginning. With several seeds each
    counts its attempts from 1.
    """

    number: int
    what: str
    objective: float
    ratio: float
    quality: float | None
    drop: float | None
    error: float | None
    accepted: bool
    reason: str
    epochs: int
    seconds: float


class TimeLeft(Frozen):
    """An estimate of the seconds until the run ends (None: no basis for one) and the most that the budget permits.

    The estimate holds if the running attempt trains to its planned end and is accepted: training that is good enough
    early ends sooner, and after a rejection others follow.
    """

    seconds: float | None
    at_most: float | None


Event = EpochDone | AttemptBegun | AttemptDone | TimeLeft


class Progress(Protocol):
    """A listener. Every method returns at once and never raises."""

    def say(self, text: str) -> None:
        """Tell a finished fact that stays on the screen."""

    def now(self, text: str) -> None:
        """Tell what is being tried; replaced by the next call."""


@runtime_checkable
class Watcher(Progress, Protocol):
    """A listener that also takes what happens as values."""

    def event(self, event: Event) -> None:
        """Take note of what happened. Returns at once and never raises."""


def tell(progress: Progress, event: Event) -> None:
    """Tell an event to a listener that takes events."""
    if isinstance(progress, Watcher):
        progress.event(event)


class Words:
    """A listener that passes on what is said, and no events: for work whose caller tells of them itself."""

    def __init__(self, progress: Progress) -> None:
        self.say, self.now = progress.say, progress.now


class Silent:
    """A listener that ignores everything."""

    def say(self, text: str) -> None:
        """Ignore."""

    def now(self, text: str) -> None:
        """Ignore."""
