"""A server of the page in this process, whose jobs only pretend unless a test asks for real ones."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from starlette.testclient import TestClient

from easycompress.web import queue
from easycompress.web.app import make_app
from easycompress.web.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HERE = Path(__file__).parent

PRETENDING = f"import sys; sys.path.insert(0, {str(HERE)!r}); import fake_job; fake_job.main()"

BASE = "http://127.0.0.1:8000"

GOAL = {"objective": "size", "target": "10x", "max_drop": "1%", "budget": "none"}


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """The folder that a server is started in, with a model and its data."""
    place = tmp_path / "work"
    place.mkdir()
    (place / "net.onnx").write_bytes(b"\x08\x07 a graph")
    (place / "bad.onnx").write_bytes(b"\x08\x07 a graph")
    (place / "net.py").write_text("def make(): ...\n")
    (place / "data.npz").write_bytes(b"PK\x03\x04 arrays")
    return place


@pytest.fixture
def settings(work: Path) -> Settings:
    return Settings(folder=work / "easycompress-runs", work=work, max_upload=1000)


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let jobs be those of fake_job."""
    monkeypatch.setattr(queue, "START", PRETENDING)


@pytest.fixture
def client(settings: Settings, pretend: None) -> Iterator[TestClient]:  # noqa: ARG001 - before the queue starts
    with TestClient(make_app(settings), base_url=BASE) as made:
        yield made


@pytest.fixture
def planned(client: TestClient) -> str:
    """The number of a run whose plan is made."""
    number = str(client.post("/api/runs", json={"model": "net.onnx", "data": "data.npz"}).json()["id"])
    assert _rested(client, number)["state"] == "done"
    answer = client.post(f"/api/runs/{number}/plan", json=GOAL)
    assert answer.status_code == 200, answer.text
    _rested(client, number)
    return number


def _rested(client: TestClient, number: str, seconds: float = 20.0) -> dict[str, Any]:
    """Wait until nothing more happens with a run, and return it."""
    return _until(client, number, lambda run: run["state"] in ("done", "failed", "cancelled"), seconds)


def _until(
    client: TestClient, number: str, holds: Callable[[dict[str, Any]], bool], seconds: float = 20.0
) -> dict[str, Any]:
    """Wait until something holds of a run, and return it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        run: dict[str, Any] = client.get(f"/api/runs/{number}").json()
        if holds(run):
            return run
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} s: {run['stage']} {run['state']} {run['failure']}")


@pytest.fixture
def rested() -> Callable[..., dict[str, Any]]:
    """What waits until nothing more happens with a run."""
    return _rested


@pytest.fixture
def until() -> Callable[..., dict[str, Any]]:
    """What waits until something holds of a run."""
    return _until
