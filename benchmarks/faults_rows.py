"""The faults: each row knows its cases, and each case says what came out and what of it is wrong."""

from __future__ import annotations

import random
import shutil
import signal
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from benchmarks.faults_checks import UNFINISHED, broken, differences
from easycompress.executor.journal import state_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from benchmarks.faults_runs import Case, Ended

    Trap = Callable[[], None] | None

Result = dict[str, Any]

STOPPED = "easycompress: stopped; the same command with --resume goes on"

SOONER = 0.95
"""What the moment of a signal that came too late is multiplied by."""

SHARES = {"size": 0.4, "compute": 0.4, "time": 0.2}
"""How the random moments are divided among the goals."""


@dataclass
class Bench:
    """The task, how many random moments a row has, and the undisturbed runs to compare with, made when needed."""

    case: Case
    counts: dict[str, int]
    references: dict[str, tuple[Path, Ended]] = field(default_factory=dict)

    def reference(self, goal: str, name: str = "", before: Trap = None) -> tuple[Path, Ended]:
        """Return the folder and the end of a run that nobody disturbs, but for the trap called `name`."""
        key = f"{goal}{name}"
        if key not in self.references:
            out = self.fresh(f"reference-{key}")
            self.references[key] = (out, self.case.run(goal, out, before=before))
        return self.references[key]

    def fresh(self, name: str = "out") -> Path:
        """Return a folder that isn't there."""
        out = self.case.folder / name
        shutil.rmtree(out, ignore_errors=True)
        return out

    def resumed(self, goal: str, out: Path, before: Trap = None, name: str = "") -> list[str]:
        """Resume a run and return in what its end differs from the reference's."""
        reference, ended = self.reference(goal, name)
        again = self.case.run(goal, out, "--resume", before=before)
        wrong = differences(out, again.code, reference, ended.code, bytes_too=goal != "time")
        return wrong + ([again.last] if wrong else [])


@dataclass(frozen=True)
class Row:
    """What is done, what is promised then, and the cases: pairs of a key and what makes the result."""

    done: str
    promise: str
    cases: Callable[[Bench], Iterator[tuple[str, Callable[[], Result]]]]


def one_line(ended: Ended, code: int, *words: str) -> list[str]:
    """Return what is wrong with an end that should be that exit code, and one line with these words in it."""
    found = [] if ended.code == code else [f"exit code {ended.code} instead of {code}"]
    said = [line for line in ended.text.splitlines() if line.startswith("easycompress: ")]
    if len(said) != 1 or ended.last != said[0] or "Traceback" in ended.text:
        found.append(f"not one line: {ended.text[-300:]}")
    return found + [f"{word!r} isn't said: {ended.last}" for word in words if word not in ended.last]


def _moments(bench: Bench, kind: str, stop: Callable[[Bench, str, float], Result]) -> Iterator[tuple[str, Any]]:
    for goal, part in SHARES.items():
        draw = random.Random(f"{kind} {goal}")  # noqa: S311 - moments, no secrets
        for number in range(round(part * bench.counts[kind])):
            share = draw.random()
            yield f"{goal} {number + 1}", lambda goal=goal, share=share: stop(bench, goal, share)


def stopped(
    bench: Bench, goal: str, share: float, number: signal.Signals, before: Trap = None, name: str = ""
) -> tuple[Path, Ended, Result]:
    """Send the signal when `share` of the undisturbed run's work is done; return the folder, the end, where it stood.

    Work is the processor's time. A run that had finished before is made again, and stopped a little sooner.
    """
    _, whole = bench.reference(goal, name, before)
    while True:
        out = bench.fresh()
        process = bench.case.start(goal, out, before=before)
        while process.running() and process.work() < share * whole.work:
            time.sleep(0.002)
        process.send(number)
        ended = process.end()
        if ended.code != whole.code:
            unread = broken(out) if out.exists() else []
            return out, ended, {"share": round(share, 4), "state": state_of(out), "wrong": unread}
        share *= SOONER


def _kill(bench: Bench, goal: str, share: float) -> Result:
    out, ended, result = stopped(bench, goal, share, signal.SIGKILL)
    result["unfinished"] = sum(bool(UNFINISHED.fullmatch(path.name)) for path in out.rglob("*")) if out.exists() else 0
    result["ended"] = "killed"
    result["wrong"] += [] if ended.code == -signal.SIGKILL else [f"exit code {ended.code}: {ended.last}"]
    result["wrong"] += bench.resumed(goal, out)
    return result


def _interrupt(bench: Bench, goal: str, share: float) -> Result:
    out, ended, result = stopped(bench, goal, share, signal.SIGINT)
    result["ended"] = "stopped"
    result["wrong"] += one_line(ended, 130)
    result["wrong"] += [] if ended.last == STOPPED else [ended.last]
    result["wrong"] += bench.resumed(goal, out)
    return result


MOMENTS: dict[str, Row] = {
    "kill": Row(
        "SIGKILL at random moments, from the command's begin to its end; then `--resume`",
        "every file whole; the same verdict and, with a budget of epochs, the same bytes",
        lambda bench: _moments(bench, "kill", _kill),
    ),
    "ctrl-c": Row(
        "Ctrl-C at random moments; then `--resume`",
        "exit 130 with one line that names `--resume`; then the same verdict and bytes",
        lambda bench: _moments(bench, "ctrl-c", _interrupt),
    ),
}
