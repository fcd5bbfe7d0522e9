"""Where the seconds of a run went: each is booked once, under the innermost kind of work that was going on."""

from __future__ import annotations

import contextlib
import time
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator

Kind: TypeAlias = Literal[
    "reading",
    "planning",
    "training",
    "checkpoints",
    "teacher",
    "projection",
    "evaluation",
    "calibration",
    "method",
    "export",
    "writing",
    "latency",
    "step timing",
    "report",
]
"""Kinds of work. `teacher`: the original answers the training data; `projection`: C steps of learning-compression;
`method`: what else the techniques compute, such as importances; `evaluation`: quality on *select* and *report*;
`latency`: timing and energy of files; `step timing`: how long a training step takes here."""

NEEDED: tuple[Kind, ...] = ("training", "teacher", "projection", "calibration", "method", "evaluation", "latency")
"""What compressing and proving consist of; the rest is the tool's own."""


@dataclass
class Book:
    """Seconds by kind. `stack` holds the kinds that are open, the innermost last, `since` when it last was entered."""

    seconds: dict[str, float] = field(default_factory=dict)
    stack: list[str] = field(default_factory=list)
    since: float = 0.0

    def turn(self) -> None:
        """Book the time since the last turn on the innermost open kind."""
        now = time.perf_counter()
        if self.stack:
            self.seconds[self.stack[-1]] = self.seconds.get(self.stack[-1], 0.0) + now - self.since
        self.since = now


_BOOK: ContextVar[Book | None] = ContextVar("book", default=None)


@contextlib.contextmanager
def booked() -> Iterator[Book]:
    """Open a book for the run inside the block; `spending` books in it."""
    book = Book()
    token = _BOOK.set(book)
    try:
        yield book
    finally:
        _BOOK.reset(token)


@contextlib.contextmanager
def spending(kind: Kind) -> Iterator[None]:
    """Book the block's seconds as `kind`, without those of blocks inside it; also a decorator. Costs a microsecond."""
    book = _BOOK.get()
    if book is None:
        yield
        return
    book.turn()
    book.stack.append(kind)
    try:
        yield
    finally:
        book.turn()
        book.stack.pop()


def spent() -> dict[str, float]:
    """Return the seconds so far by kind; empty where no book is open."""
    book = _BOOK.get()
    if book is None:
        return {}
    book.turn()
    return dict(book.seconds)


def by_kind(seconds: dict[str, float], total: float) -> dict[str, float]:
    """Return the seconds by kind, most first, to a tenth; what none of them is booked on comes last, as `other`."""
    rows = sorted(seconds.items(), key=lambda row: -row[1])
    booked_on = {kind: round(value, 1) for kind, value in rows if round(value, 1)}
    return booked_on | {"other": round(max(0.0, total - sum(seconds.values())), 1)}
