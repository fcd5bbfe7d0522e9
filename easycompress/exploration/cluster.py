"""Points measured on the machines of a Ray cluster, any of which may be lost."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from easycompress.core.errors import BadInput, EasyCompressError, one_line
from easycompress.core.progress import Silent
from easycompress.executor.lock import is_held
from easycompress.exploration.crew import UNSENDABLE, Alone, Crew, Job, Processes, carried_out
from easycompress.exploration.points import POINTS, Bench, Row, Spec, blank

if TYPE_CHECKING:
    from collections.abc import Iterator

    from easycompress.core.progress import Progress

MOST_LOSSES = 3
"""A point during which Ray loses its process so often has failed: it may be the point's own doing."""

GONE_SECONDS, PAUSE = 60.0, 0.5
"""How long a point waits for whoever holds its folder, and how often it looks."""


class OnRay:
    """Actors of a Ray cluster, whose machines see the same files; `local` starts one on this machine."""

    def __init__(self, spec: Spec, size: int, address: str, progress: Progress) -> None:
        try:
            import ray  # noqa: PLC0415 - the optional extra `scale`
        except ImportError as error:
            raise BadInput('--ray: Ray is not installed; pip install "easycompress[scale]"') from error
        self.ray, self.size, self.progress = ray, size, progress
        try:
            where: dict[str, Any] = {"num_cpus": size} if address == "local" else {"address": address}
            ray.init(**where, include_dashboard=False, log_to_driver=False, configure_logging=False)
        except Exception as error:  # a start that takes too long is a bare Exception of Ray's
            ray.shutdown()
            raise BadInput(f"--ray {address}: no cluster answers ({one_line(error)}); use local") from error
        try:
            shared = ray.put(spec)
        except UNSENDABLE as error:
            self.close()
            raise BadInput(f"--ray: this model can't be sent to other machines ({one_line(error)})") from error
        self.make: Any = ray.remote(num_cpus=1 if address == "local" else spec.threads)(_Actor)
        self.shared = shared
        self.idle: list[Any] = []
        self.starting: dict[Any, Any] = {}
        self.busy: dict[Any, tuple[Any, Job]] = {}
        self.waiting: list[Job] = []
        self.losses: Counter[str] = Counter()
        for _ in range(size):
            self._hire()

    def _hire(self) -> None:
        """Ask for an actor: it gets work once it has found a place, and does no harm where there is none."""
        actor = self.make.remote(self.shared)
        self.starting[actor.ready.remote()] = actor

    def give(self, job: Job) -> None:
        """Hand a point to an idle actor, or queue it."""
        self.waiting.append(job)
        self._hand_out()

    def _hand_out(self) -> None:
        while self.waiting and self.idle:
            actor, job = self.idle.pop(), self.waiting.pop(0)
            self.busy[actor.measure.remote(job)] = (actor, job)

    def next(self) -> Row:
        """Wait for a point. One whose actor or machine is lost is begun anew elsewhere, where its journal left it."""
        while True:
            (done, *_), _ = self.ray.wait([*self.busy, *self.starting], num_returns=1)
            row = None
            if done in self.starting:
                self._welcome(done)
            else:
                row = self._received(done)
            self._hand_out()
            if row is not None:
                return row

    def _welcome(self, done: Any) -> None:  # noqa: ANN401 - Ray's reference
        """Take on an actor that has found its place; where that is gone already ask for another."""
        actor = self.starting.pop(done)
        try:
            self.ray.get(done)
        except self.ray.exceptions.RayError as error:
            self.losses["places"] += 1
            if self.losses["places"] > MOST_LOSSES * self.size:
                raise BadInput(f"--ray: the cluster starts no process ({one_line(error)}); see its logs") from error
            self._hire()
        else:
            self.idle.append(actor)

    def _received(self, done: Any) -> Row | None:  # noqa: ANN401 - Ray's reference
        """Return a point's row, None where it is begun anew."""
        actor, (point, key) = self.busy.pop(done)
        try:
            row: Row = self.ray.get(done)
        except self.ray.exceptions.RayTaskError as error:
            cause = error.cause
            if isinstance(cause, EasyCompressError):
                raise cause from error
            row = blank(point, key, one_line(error))
        except self.ray.exceptions.RayError as error:
            self._hire()
            self.losses[key] += 1
            if self.losses[key] < MOST_LOSSES:
                self.waiting.insert(0, (point, key))
                self.progress.say(f"{point.curve}, {point.label}: Ray has lost its process; it is begun anew")
                return None
            return blank(point, key, f"lost by Ray {MOST_LOSSES} times: {one_line(error)}; run it again")
        self.idle.append(actor)
        return row

    def close(self) -> None:
        """End the actors, and the cluster where it was started here."""
        self.ray.shutdown()


class _Actor:
    """A bench on one of Ray's machines."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.bench: Bench | None = None
        self.folder = tempfile.TemporaryDirectory(prefix="easycompress-")

    def ready(self) -> None:
        """Answer as soon as there is a place to work."""

    def measure(self, job: Job) -> Row:
        """Return the point, once whoever began it before is gone: a machine is given up before its processes end."""
        until = time.monotonic() + GONE_SECONDS
        while is_held(self.spec.out / POINTS / job[1]) and time.monotonic() < until:
            time.sleep(PAUSE)
        self.bench = self.bench or Bench(self.spec, Path(self.folder.name), Silent())
        return carried_out(self.bench, job)


@contextlib.contextmanager
def hired(spec: Spec, workers: int, ray: str | None, alone: Bench) -> Iterator[Crew]:
    """Provide who measures, and end them whatever happens. `alone` is this process's own bench."""
    crew: Crew
    if ray is not None:
        crew = OnRay(spec, workers, ray, alone.progress)
    elif workers > 1:
        crew = Processes(spec, workers)
    else:
        crew = Alone(alone)
    try:
        yield crew
    finally:
        crew.close()
