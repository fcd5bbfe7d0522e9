"""A run as the page reads it."""

from __future__ import annotations

import functools
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from easycompress.core.errors import BadInput
from easycompress.core.files import read_json
from easycompress.web.files import items
from easycompress.web.store import LOOK, OUT, OUTPUT, PLAN

if TYPE_CHECKING:
    from pathlib import Path

    from easycompress.web.queue import Queue
    from easycompress.web.store import Run, Store

TAIL = 20_000
"""Bytes of a failed job's output that the page shows, the last ones."""

NUMBERS = ("verdict", "summary", "ratio", "drop", "target_met", "drop_met", "baseline", "final")


def short(run: Run, store: Store, queue: Queue) -> dict[str, Any]:
    """Return a run as a line of the history."""
    shown = run.model_dump(
        mode="json", include={"id", "created", "stage", "state", "begun", "ended", "failure", "goal"}
    )
    model = str(run.given.get("model", ""))
    shown["name"] = model.rstrip("/").rpartition("/")[2] or model
    shown["edited"] = run.steps is not None
    shown["ahead"] = queue.ahead(run) if run.state == "queued" else 0
    shown["result"] = result_of(store.place(run.id)) if finished(run) else None
    return shown


def whole(run: Run, store: Store, queue: Queue) -> dict[str, Any]:
    """Return everything that the page shows of a run."""
    place = store.place(run.id)
    failed = run.state == "failed"
    return short(run, store, queue) | {
        "given": run.given,
        "steps": run.steps,
        "look": store.part(run.id, LOOK),
        "plan": store.part(run.id, PLAN),
        "files": [asdict(item) for item in items(place)] if finished(run) else [],
        "output": _tail(place / OUTPUT) if failed else "",
        "resumable": run.stage == "compress" and run.state in ("cancelled", "failed"),
    }


def finished(run: Run) -> bool:
    """Tell whether a run came to a verdict."""
    return run.stage == "compress" and run.state == "done"


def result_of(place: Path) -> dict[str, Any] | None:
    """Return the numbers of a report; None where it can't be read."""
    path = place / OUT / "report.json"
    try:
        return _numbers(path, path.stat().st_mtime_ns)
    except (OSError, BadInput, KeyError):
        return None


@functools.lru_cache(256)
def _numbers(path: Path, _changed: int) -> dict[str, Any]:
    """Return them; a report that has not changed is read once."""
    report = read_json(path)
    found = {name: report[name] for name in NUMBERS}
    request, metric = report["request"], report["profile"]["metric"]
    found["metric"] = metric
    found["goal"] = {name: request.get(name) for name in ("objective", "target", "max_drop", "min_quality", "format")}
    found["batch"] = request.get("batch", 1)
    found["actions"] = [s["action"] for s in report["steps"] if s["verdict"] == "kept" and s["action"] != "search"]
    return found


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""
