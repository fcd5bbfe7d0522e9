"""Runs on the disk, a folder each: what was asked, how far it came, what happened.

FOLDER/uploads/ID/NAME, and in FOLDER/runs/ID: run.json (what was asked, and the state; only the server writes it),
look.json (the model's profile), plan.json and end.json (how the last job ended), which the job writes, events.jsonl
(everything that happened, a line each), output.txt (what the job's process printed), out (OUT of the command line).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import threading
import time
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, ValidationError

from easycompress.core.errors import BadInput
from easycompress.core.files import read_json, write_json
from easycompress.core.goal import Frozen

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RUN, LOOK, PLAN, END, EVENTS, OUTPUT, OUT = (
    "run.json", "look.json", "plan.json", "end.json", "events.jsonl", "output.txt", "out",
)  # fmt: skip
RECIPE = "recipe.yaml"

Stage = Literal["look", "plan", "compress"]
State = Literal["queued", "running", "cancelling", "done", "failed", "cancelled"]

RESTING: tuple[State, ...] = ("done", "failed", "cancelled")
"""States in which nothing more happens by itself."""

_ID = re.compile(r"\d{8}-\d{6}-[0-9a-f]{6}")


class Unknown(BadInput):
    """There is no such run."""


class Failure(Frozen):
    """Why a stage failed: its one line, the exit code of the command line, and the field that it is about."""

    line: str
    code: int
    field: str | None = None


class Run(Frozen):
    """One run. `given` is what the page's fields say, `flags` what a request takes; times are seconds of the epoch.

    `stage` is the last one that was asked for, `state` how far it came. `steps` is the plan as edited, None where it
    wasn't. `queued` orders those that wait. `verdict` and the numbers behind it come from the report.
    """

    id: str
    created: float
    given: dict[str, Any]
    flags: dict[str, Any]
    goal: dict[str, Any] = Field(default_factory=dict)
    stage: Stage = "look"
    state: State = "queued"
    steps: tuple[dict[str, Any], ...] | None = None
    queued: float = 0.0
    begun: float | None = None
    ended: float | None = None
    failure: Failure | None = None

    @property
    def resting(self) -> bool:
        """Tell whether nothing more happens by itself."""
        return self.state in RESTING


class Store:
    """The runs of one server."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._writing = folder, threading.Lock()
        self._folder.mkdir(parents=True, exist_ok=True)

    def new(self, given: dict[str, Any], flags: dict[str, Any]) -> Run:
        """Create a run that nothing has been done for."""
        now = time.time()
        run = Run(
            id=f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime(now))}-{secrets.token_hex(3)}",
            created=now, given=given, flags=flags, queued=now,
        )  # fmt: skip
        self.place(run.id).mkdir()
        self.save(run)
        return run

    def place(self, number: str) -> Path:
        """Return the folder of a run. Raises Unknown for what is no run's number."""
        if not _ID.fullmatch(number):
            raise Unknown(f"{number}: no such run")
        return self._folder / number

    def get(self, number: str) -> Run:
        """Read a run. Raises Unknown where there is none."""
        path = self.place(number) / RUN
        if not path.is_file():
            raise Unknown(f"{number}: no such run")
        try:
            return Run.model_validate(read_json(path))
        except (BadInput, ValidationError) as error:
            raise Unknown(f"{number}: can't be read; another version may have written it") from error

    def save(self, run: Run) -> Run:
        """Write a run. One thread at a time: a half-written file is called by its process, not by its thread."""
        with self._writing:
            write_json(self.place(run.id) / RUN, run.model_dump(mode="json"))
        return run

    def all(self) -> list[Run]:
        """Return every run, the newest first."""
        found = []
        for path in sorted(self._folder.iterdir(), reverse=True):
            if _ID.fullmatch(path.name):
                with contextlib.suppress(Unknown):
                    found.append(self.get(path.name))
        return found

    def remove(self, number: str) -> None:
        """Remove a run with all its files."""
        shutil.rmtree(self.place(number), ignore_errors=True)

    def part(self, number: str, name: str) -> Any:  # noqa: ANN401 - any JSON value
        """Return what a job wrote; None where it has not, or was stopped over it."""
        try:
            return read_json(self.place(number) / name)
        except BadInput:
            return None

    def tell(self, number: str, kind: str, **values: Any) -> None:  # noqa: ANN401 - any JSON values
        """Add a line to what happened."""
        append(self.place(number) / EVENTS, kind, **values)


def append(path: Path, kind: str, **values: Any) -> None:  # noqa: ANN401 - any JSON values
    """Add a line to a file of events in one write, so that two processes don't get into each other's lines."""
    line = json.dumps({"kind": kind, "at": round(time.time(), 3), **values}) + "\n"
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def mend(path: Path) -> None:
    """End a line that a kill cut short: it becomes one that readers pass over."""
    with contextlib.suppress(FileNotFoundError), path.open("rb+") as file:
        file.seek(0, os.SEEK_END)
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")


def events(path: Path, start: int) -> Iterator[tuple[int, str]]:
    """Yield the whole lines from byte `start` on, each with the byte after it: where a reader goes on from."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        file.seek(max(0, min(start, path.stat().st_size)))
        for line in file:
            if not line.endswith(b"\n"):
                return
            start += len(line)
            text = line.decode("utf-8", "replace").strip()
            if text.startswith("{") and text.endswith("}"):
                yield start, text
