"""One job at a time; the others wait. Jobs are processes of their own, found again when a server comes back."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

from easycompress.core.errors import BadInput
from easycompress.web.job import BUSY, STOPPED, at_work
from easycompress.web.store import END, OUTPUT, Failure, Run, Stage, Store
from easycompress.web.uploads import PREFIX

if TYPE_CHECKING:
    from pathlib import Path

PATIENCE = 30.0
"""Seconds that a job has for stopping before it is killed: a training step or a measurement ends first."""

GLANCE = 0.1
"""Seconds between two looks at a job."""

START = """
import sys
sys.path[:] = [folder for folder in sys.path if folder]  # "" is the working folder, which may hold a numpy.py
from easycompress.web.job import run
run()
"""
"""What a job's process begins with."""

OVER = (0, 1, 4)
"""Exit codes of a run that came to a verdict."""


class Queue:
    """Runs jobs, the longest waiting first. Its thread is the only one that starts and ends them."""

    def __init__(self, store: Store, work: Path) -> None:
        self._store, self._work = store, work
        self._lock = threading.RLock()
        self._wake, self._closing = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._serve, name="jobs", daemon=True)

    def start(self) -> None:
        """Take up what an earlier server left, and begin."""
        for run in self._store.all():
            if run.state == "running" and not self._over(run):
                self._store.tell(run.id, "say", text="the server was restarted; the run goes on from its journal")
                self._save(run, state="queued")
        self._thread.start()

    def _over(self, run: Run) -> bool:
        """Tell whether a run that says to be at work is, or has written how it ended: either is seen to in its turn."""
        end = self._store.part(run.id, END)
        return at_work(self._store.place(run.id)) is not None or (end is not None and end.get("code") != STOPPED)

    def nudge(self) -> None:
        """Look at once for a new run."""
        self._wake.set()

    def close(self) -> None:
        """Stop the job that is at work, so that the next server goes on with it, and end."""
        self._closing.set()
        self._wake.set()
        self._thread.join(PATIENCE + 10)

    def add(self, run: Run, stage: Stage) -> Run:
        """Let a run wait for a stage. Raises BadInput where it is at work already."""
        with self._lock:
            if not self._store.get(run.id).resting:
                raise BadInput("this run is at work; wait for it, or cancel it")
            run = self._save(run, stage=stage, state="queued", queued=time.time(), failure=None, ended=None)
        self._store.tell(run.id, "state", stage=stage, state="queued")
        self._wake.set()
        return run

    def cancel(self, number: str) -> Run:
        """Stop a run, or take it out of the queue."""
        with self._lock:
            run = self._store.get(number)
            if run.state == "queued":
                return self._rest(run, "cancelled")
            if run.state != "running":
                return run
            run = self._save(run, state="cancelling")
        self._store.tell(number, "state", stage=run.stage, state="cancelling")
        return run

    def ahead(self, run: Run) -> int:
        """Return how many jobs come before a waiting one, the one at work included."""
        others = [each for each in self._store.all() if not each.resting and each.id != run.id]
        return sum(each.state != "queued" or each.queued < run.queued for each in others)

    def _serve(self) -> None:
        while not self._closing.is_set():
            run = self._next()
            if run is None:
                self._wake.wait(1.0)
                self._wake.clear()
            else:
                with contextlib.suppress(BadInput):  # a run that was removed meanwhile
                    self._attend(run)

    def _next(self) -> Run | None:
        """Return the run that is at work without a server, else the one that waits longest."""
        runs = self._store.all()
        left = [run for run in runs if run.state in ("running", "cancelling")]
        waiting = sorted((run for run in runs if run.state == "queued"), key=lambda run: run.queued)
        return next(iter([*left, *waiting]), None)

    def _attend(self, run: Run) -> None:
        """See one job through, from its start, or from where another server left it."""
        place = self._store.place(run.id)
        process = None
        if at_work(place) is None:
            with self._lock:
                run = self._store.get(run.id)
                if run.state != "queued":  # cancelled just now, or over while nobody looked
                    if not run.resting:
                        self._settle(run, None)
                    return
                run = self._save(run, state="running", begun=time.time(), ended=None)
                (place / END).unlink(missing_ok=True)
            self._store.tell(run.id, "state", stage=run.stage, state="running")
            process = self._spawn(run, place)
        asked: float | None = None
        while (process.poll() is None) if process else (at_work(place) is not None):
            if asked is None and (self._closing.is_set() or self._store.get(run.id).state == "cancelling"):
                asked = time.monotonic()
                _signal(process.pid if process else at_work(place), signal.SIGINT)
            if asked is not None and time.monotonic() - asked > PATIENCE:
                _signal(process.pid if process else at_work(place), signal.SIGKILL)
            time.sleep(GLANCE)
        self._settle(self._store.get(run.id), process.returncode if process else None)

    def _spawn(self, run: Run, place: Path) -> subprocess.Popen[bytes]:
        """Start a job where relative names start from; for an upload, where no settings of somebody else's lie."""
        folder = place if str(run.given.get("model", "")).startswith(PREFIX) else self._work
        with (place / OUTPUT).open("ab") as output:
            return subprocess.Popen(  # noqa: S603 - this interpreter, and a folder of ours
                [sys.executable, "-c", START, str(place)],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=folder, start_new_session=True,
            )  # fmt: skip

    def _settle(self, run: Run, code: int | None) -> None:
        """Write down how a job ended."""
        end = self._store.part(run.id, END) or {}
        code = end.get("code", code)
        if code in OVER:
            self._rest(run, "done")
        elif run.state == "cancelling":
            self._rest(run, "cancelled")
        elif self._closing.is_set():
            return  # stopped with the server, or over its end: the next one goes on
        elif code == STOPPED:
            self._rest(run, "cancelled")
        elif code == BUSY:
            time.sleep(1.0)  # an earlier server's job is still on its way out
            self._save(run, state="queued")
        else:
            line = end.get("line") or f"the process was ended from outside ({code}): its memory may have run out"
            failure = Failure(line=line, code=2 if code is None else int(code), field=end.get("field"))
            self._rest(run, "failed", failure)

    def _rest(self, run: Run, state: str, failure: Failure | None = None) -> Run:
        self._store.tell(run.id, "state", stage=run.stage, state=state)  # first: a resting run's events are complete
        return self._save(run, state=state, ended=time.time(), failure=failure)

    def _save(self, run: Run, **changes: object) -> Run:
        with self._lock:
            return self._store.save(run.model_copy(update=changes))


def _signal(pid: int | None, number: signal.Signals) -> None:
    """Signal a job; a kill goes to what it started, too."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if pid is not None:
            (os.killpg if number == signal.SIGKILL else os.kill)(pid, number)
