"""Points on a Ray cluster that loses machines. Ray itself is played: benchmarks/cluster.py has the real one."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from easycompress.core.errors import BadInput
from easycompress.core.progress import Silent
from easycompress.exploration import cluster
from easycompress.exploration.cluster import MOST_LOSSES, OnRay, hired
from easycompress.exploration.plan import Point
from easycompress.exploration.points import POINTS, Spec, blank

if TYPE_CHECKING:
    from pathlib import Path

SPEC = SimpleNamespace(threads=1)


class RayError(Exception):
    pass


class RayTaskError(RayError):
    cause: Exception | None = None


class Heard(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


class Played:
    """A cluster with `places`; `fate` says what comes of the n-th measurement, or of the n-th actor's start."""

    exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)

    def __init__(self, places: int, fate: dict[int, Exception], starts: dict[int, Exception] | None = None) -> None:
        self.places, self.fate, self.starts = places, fate, starts or {}
        self.results: dict[str, Any] = {}
        self.begun: list[str] = []
        self.hired = 0
        self.closed = False

    def init(self, **_: Any) -> None:
        pass

    def put(self, value: Any) -> Any:
        return value

    def shutdown(self) -> None:
        self.closed = True

    def remote(self, **_: Any) -> Any:
        return lambda _: SimpleNamespace(remote=lambda _: self._actor())

    def _actor(self) -> Any:
        self.hired += 1
        number = self.hired
        return SimpleNamespace(
            ready=SimpleNamespace(remote=lambda: self._start(number)),
            measure=SimpleNamespace(remote=self._measure),
        )

    def _start(self, number: int) -> str:
        name = f"start {number}"
        if self.places:
            self.places -= 1
            self.results[name] = self.starts.get(number)
        return name

    def _measure(self, job: Any) -> str:
        name = f"measurement {len(self.begun)}"
        self.results[name] = self.fate.get(len(self.begun), blank(*job, "measured"))
        self.begun.append(job[1])
        return name

    def wait(self, names: list[str], num_returns: int) -> Any:
        ready = [name for name in names if name in self.results]
        assert ready, "Ray would wait for ever"
        return ready[:num_returns], ready[num_returns:]

    def get(self, name: str) -> Any:
        if isinstance(self.results[name], Exception):
            raise self.results[name]
        return self.results[name]


def crew(monkeypatch: pytest.MonkeyPatch, played: Played, size: int = 2) -> tuple[OnRay, Heard]:
    monkeypatch.setitem(sys.modules, "ray", played)  # type: ignore[arg-type]  # what is used of the module
    heard = Heard()
    return OnRay(SPEC, size, "local", heard), heard  # type: ignore[arg-type]  # no task is read


def job(key: str) -> tuple[Point, str]:
    return Point("curves", "prune", key, 0, 0.0, ()), key


def test_a_point_whose_machine_is_lost_is_begun_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    played = Played(places=2, fate={1: RayError("its node died")})
    made, heard = crew(monkeypatch, played)
    for key in "abc":
        made.give(job(key))
    rows = [made.next() for _ in range(3)]
    assert sorted(row.key for row in rows) == ["a", "b", "c"]
    assert {row.reason for row in rows} == {"measured"}
    assert played.begun.count("b") == 2
    assert heard.said == ["prune, b: Ray has lost its process; it is begun anew"]


def test_a_point_that_ends_its_process_each_time_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    played = Played(places=9, fate={number: RayError("its process died") for number in range(MOST_LOSSES)})
    made, _ = crew(monkeypatch, played, size=1)
    made.give(job("a"))
    assert made.next().reason == "lost by Ray 3 times: its process died; run it again"
    made.give(job("b"))
    assert made.next().reason == "measured"


def test_a_cluster_smaller_than_asked_for_measures_all(monkeypatch: pytest.MonkeyPatch) -> None:
    played = Played(places=1, fate={})
    made, _ = crew(monkeypatch, played, size=3)
    for key in "ab":
        made.give(job(key))
    assert [made.next().key for _ in range(2)] == ["a", "b"]


def test_an_actor_that_does_not_start_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    played = Played(places=2, fate={}, starts={1: RayError("no room")})
    made, _ = crew(monkeypatch, played, size=1)
    made.give(job("a"))
    assert made.next().reason == "measured"
    assert played.hired == 2


def test_a_cluster_that_starts_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    made, _ = crew(monkeypatch, Played(99, {}, {number: RayError("no room") for number in range(99)}), size=1)
    made.give(job("a"))
    with pytest.raises(BadInput, match=r"--ray: the cluster starts no process \(no room\); see its logs"):
        made.next()


def test_what_refuses_the_task_ends_the_exploration(monkeypatch: pytest.MonkeyPatch) -> None:
    refusal = RayTaskError("in the actor")
    refusal.cause = BadInput("data: not there")
    made, _ = crew(monkeypatch, Played(1, {0: refusal}), size=1)
    made.give(job("a"))
    with pytest.raises(BadInput, match="data: not there"):
        made.next()


def test_the_cluster_is_left_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    played = Played(1, {})
    monkeypatch.setitem(sys.modules, "ray", played)  # type: ignore[arg-type]  # what is used of the module
    with hired(SPEC, 1, "local", SimpleNamespace(progress=Silent())):  # type: ignore[arg-type]  # no task is read
        pass
    assert played.closed


def test_a_point_waits_for_who_had_it_before(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    looks: list[Path] = []
    monkeypatch.setattr(cluster, "is_held", lambda folder: looks.append(folder) or len(looks) < 3)
    monkeypatch.setattr(cluster, "PAUSE", 0.0)
    monkeypatch.setattr(cluster, "Bench", lambda *_: None)
    monkeypatch.setattr(cluster, "carried_out", lambda _, asked: blank(*asked, "measured"))
    spec = Spec("model", None, tmp_path, (), 1, 1, tmp_path)  # type: ignore[arg-type]  # never read
    assert cluster._Actor(spec).measure(job("a")).reason == "measured"
    assert looks == [tmp_path / POINTS / "a"] * 3
