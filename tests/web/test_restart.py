"""Servers that end, or are killed, while a job is at work."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from easycompress.web import queue
from easycompress.web.job import at_work
from easycompress.web.queue import Queue
from easycompress.web.store import Run, Store

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("pretend")

FLAGS = {"model": "net.onnx"}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs")


@pytest.fixture
def long(store: Store) -> Run:
    """A run that lasts until somebody ends it."""
    run = store.new(dict(FLAGS), dict(FLAGS))
    return store.save(run.model_copy(update={"stage": "compress", "goal": {"target": "10x", "budget": "1h"}}))


def wait(holds: Callable[[], Any]) -> None:
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def epochs(store: Store, run: Run) -> int:
    path = store.place(run.id) / "out" / "journal" / "epochs"
    return int(path.read_text() or 0) if path.exists() else 0


def begun(store: Store, run: Run, work: Path) -> Queue:
    """Return a server's queue that is at work on a run."""
    made = Queue(store, work)
    made.start()
    wait(lambda: epochs(store, run) >= 2)
    return made


def test_a_server_that_ends_stops_its_job_and_the_next_goes_on(store: Store, long: Run, tmp_path: Path) -> None:
    begun(store, long, tmp_path).close()
    assert at_work(store.place(long.id)) is None
    assert store.get(long.id).state == "running"
    before = epochs(store, long)
    second = begun(store, long, tmp_path)
    wait(lambda: epochs(store, long) > before)
    text = (store.place(long.id) / "events.jsonl").read_text()
    assert "the server was restarted" in text
    assert "resumed after epoch" in text
    second.cancel(long.id)
    wait(lambda: store.get(long.id).state == "cancelled")
    second.close()


def test_a_job_outlives_a_killed_server_and_is_found_again(
    store: Store, long: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.save(long.model_copy(update={"state": "running"}))
    first = Queue(store, tmp_path)._spawn(long, store.place(long.id))
    wait(lambda: at_work(store.place(long.id)) == first.pid and epochs(store, long) >= 2)
    monkeypatch.setattr(queue, "START", "raise SystemExit('no second job must be started')")
    second = Queue(store, tmp_path)
    second.start()
    before = epochs(store, long)
    wait(lambda: epochs(store, long) > before + 2)
    assert at_work(store.place(long.id)) == first.pid
    second.cancel(long.id)
    first.wait(20)
    wait(lambda: store.get(long.id).state == "cancelled")
    second.close()


def test_a_job_that_was_killed_with_its_server_is_resumed(store: Store, long: Run, tmp_path: Path) -> None:
    store.save(long.model_copy(update={"state": "running"}))
    first = Queue(store, tmp_path)._spawn(long, store.place(long.id))
    wait(lambda: epochs(store, long) >= 2)
    os.killpg(first.pid, 9)
    first.wait()
    second = begun(store, long, tmp_path)
    wait(lambda: at_work(store.place(long.id)) not in (None, first.pid))
    second.close()


def test_what_ended_while_no_server_was_there_is_settled(store: Store, long: Run, tmp_path: Path) -> None:
    place = store.place(long.id)
    (place / "end.json").write_text('{"code": 3, "line": "layer fc: no", "field": null}')
    store.save(long.model_copy(update={"state": "running"}))
    cancelled = store.new(dict(FLAGS), dict(FLAGS))
    store.save(cancelled.model_copy(update={"state": "cancelling"}))
    made = Queue(store, tmp_path)
    made.start()
    wait(lambda: store.get(long.id).resting and store.get(cancelled.id).resting)
    made.close()
    failure = store.get(long.id).failure
    assert failure is not None
    assert (failure.line, failure.code) == ("layer fc: no", 3)
    assert store.get(cancelled.id).state == "cancelled"


def test_two_threads_may_write_a_run(store: Store, long: Run) -> None:
    failed: list[Exception] = []

    def write() -> None:
        try:
            for _ in range(20):
                store.save(long)
        except Exception as error:  # noqa: BLE001 - a thread's own end would not be seen
            failed.append(error)

    threads = [threading.Thread(target=write) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert store.get(long.id) == long
