"""Who measures points: this process, or several of its own. Every one reads the task once."""

from __future__ import annotations

import contextlib
import multiprocessing
import pickle
import signal
import sys
import tempfile
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from easycompress.core.errors import BadInput, EasyCompressError, one_line
from easycompress.core.progress import Silent
from easycompress.exploration.points import Bench, Row, Spec, blank

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess

    from easycompress.exploration.plan import Point

LAST_SECONDS = 5.0
"""How long a process that is told to end may take to clear up."""

Job = tuple["Point", str]
"""A point and its key."""

UNSENDABLE = (pickle.PicklingError, AttributeError, TypeError)
"""What Python raises for an object that can't go to another process."""


class Crew(Protocol):
    """Measures points in any order. `results` yields the rows of what was given so far; `close` stops at once."""

    size: int

    def give(self, job: Job) -> None:
        """Begin a point, or queue it where all are busy."""
        ...

    def next(self) -> Row:
        """Wait for a point to be finished and return it."""
        ...

    def close(self) -> None:
        """End all work at once. What an unfinished point has journalled stays."""
        ...


def carried_out(bench: Bench, job: Job) -> Row:
    """Return a measured point, or one that says why it failed: that ends no exploration."""
    point, key = job
    try:
        return bench.measure(point, key)
    except EasyCompressError as error:
        return blank(point, key, str(error))
    except (RuntimeError, ValueError, ArithmeticError, LookupError, TypeError, MemoryError) as error:
        return blank(point, key, f"{type(error).__name__}: {one_line(error)}")


@dataclass
class Alone:
    """This process, one point after the other."""

    bench: Bench
    size: int = 1
    waiting: list[Job] = field(default_factory=list)

    def give(self, job: Job) -> None:
        """Queue a point."""
        self.waiting.append(job)

    def next(self) -> Row:
        """Measure the point that waits longest."""
        return carried_out(self.bench, self.waiting.pop(0))

    def close(self) -> None:
        """Leave nothing: the bench belongs to the caller."""


class Processes:
    """Processes of this machine. One that dies costs its point; another one takes its place."""

    def __init__(self, spec: Spec, size: int) -> None:
        self.spec, self.size = spec, size
        self.context = multiprocessing.get_context("spawn")
        self.idle: list[_Worker] = []
        self.busy: dict[_Worker, Job] = {}
        self.waiting: list[Job] = []

    def give(self, job: Job) -> None:
        """Hand a point to an idle process, to a new one while there are fewer than `size`, or queue it."""
        self.waiting.append(job)
        self._hand_out()

    def _hand_out(self) -> None:
        while self.waiting and len(self.busy) < self.size:
            worker = self.idle.pop() if self.idle else _Worker(self.context, self.spec)
            job = self.waiting.pop(0)
            self.busy[worker] = job
            worker.connection.send(job)

    def next(self) -> Row:
        """Wait for a point. A process that ended without a word makes a failed one."""
        ready: Any = wait([worker.connection for worker in self.busy])
        worker = next(worker for worker in self.busy if worker.connection in ready)
        point, key = self.busy.pop(worker)
        try:
            answer = worker.connection.recv()
            self.idle.append(worker)
        except (EOFError, OSError):
            worker.process.join()
            code = worker.process.exitcode
            answer = blank(point, key, f"its process ended with {code}, for lack of memory perhaps; run it again")
        self._hand_out()
        if isinstance(answer, Exception):
            raise answer
        row: Row = answer
        return row

    def close(self) -> None:
        """End all processes: whatever they write is whole or not there."""
        for worker in (*self.idle, *self.busy):
            worker.process.terminate()
        for worker in (*self.idle, *self.busy):
            worker.process.join(LAST_SECONDS)
            worker.process.kill()
            worker.process.join()
            worker.connection.close()


class _Worker:
    """One process and this end of its pipe."""

    def __init__(self, context: Any, spec: Spec) -> None:  # noqa: ANN401 - multiprocessing's spawn context
        mine, theirs = context.Pipe()
        self.connection: Connection[Any, Any] = mine
        self.process: SpawnProcess = context.Process(target=_serve, args=(theirs, spec), daemon=True)
        try:
            self.process.start()
        except UNSENDABLE as error:
            raise BadInput(
                f"workers: this model or its data can't be sent to another process ({one_line(error)}); use workers=1"
            ) from error
        theirs.close()


def _serve(connection: Connection[Any, Any], spec: Spec) -> None:
    """Measure what comes through the pipe until it is closed. Ctrl-C is the parent's business."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with contextlib.suppress(EOFError, BrokenPipeError), tempfile.TemporaryDirectory(prefix="easycompress-") as folder:
        bench: Bench | None = None
        while True:
            job = connection.recv()
            try:
                bench = bench or Bench(spec, Path(folder), Silent())
                answer: Row | Exception = carried_out(bench, job)
            except EasyCompressError as error:
                answer = error
            connection.send(answer)
