"""The journal: what a run has decided and measured, so that a killed run goes on and comes to the same end.

A run is a program whose clock-dependent or expensive values go through `once`: a resumed run takes the same path, finds
them, and recomputes only what is cheap and deterministic. Training has its own checkpoint, one an epoch.
"""

from __future__ import annotations

import fcntl
import json
import shutil
import time
from typing import TYPE_CHECKING, Any

from easycompress.core.errors import BadInput
from easycompress.core.files import read_json, write_json

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FOLDER = "journal"
FILE = "journal.json"
OURS = (
    FOLDER, "model.onnx", "model.ecz", "model.safetensors", "record.json", "report.json", "report.html", "recipe.yaml",
    "predictions.npz",
)  # fmt: skip
"""Everything that easycompress writes into OUT; anything else there belongs to somebody else."""


class Journal:
    """The journal of one run in OUT/journal. Entries are JSON values under readable keys."""

    def __init__(self, out: Path, data: dict[str, Any], began: float) -> None:
        self.out, self.folder, self.data = out, out / FOLDER, data
        self.entries: dict[str, Any] = data["entries"]
        self.began = began - float(data["elapsed"])
        self._lock = _lock(self.folder)

    def once(self, key: str, compute: Callable[[], Any]) -> Any:  # noqa: ANN401 - any JSON value
        """Return the journalled value of `key`, or compute, journal and return it."""
        if key not in self.entries:
            self.entries[key] = json.loads(json.dumps(compute()))  # the same value now and after a resume
            self.save()
        return self.entries[key]

    def elapsed(self) -> float:
        """Return the seconds this run has taken, those before a resume included."""
        return time.monotonic() - self.began

    def save(self) -> None:
        """Write the entries and the time spent so far."""
        self.data["elapsed"] = self.elapsed()
        write_json(self.folder / FILE, self.data)

    def path(self, name: str) -> Path:
        """Return where a file of the journal lives."""
        return self.folder / name

    def finish(self) -> None:
        """Mark the run as finished and drop what only a resume would need."""
        self.data["state"] = "finished"
        self.save()
        for path in self.folder.iterdir():
            if path.name not in (FILE, "lock"):
                path.unlink()

    def close(self) -> None:
        """Let go of the folder."""
        self._lock.close()


def state_of(out: Path) -> str:
    """Return `missing`, `empty`, `finished`, `interrupted` or `foreign` for an output folder."""
    if not out.exists():
        return "missing"
    if not out.is_dir():
        return "foreign"
    names = {path.name for path in out.iterdir()}
    if not names:
        return "empty"
    if (out / FOLDER / FILE).exists() and names <= set(OURS):
        return "finished" if _read(out).get("state") == "finished" else "interrupted"
    return "foreign"


def check_out(out: Path, *, resume: bool, force: bool) -> None:
    """Raise BadInput where a run must not write. Changes nothing."""
    state = state_of(out)
    if state == "foreign":
        what = "is a file" if out.is_file() else f"holds other files ({_foreign(out)})"
        raise BadInput(f"{out}: {what}; easycompress writes only into a folder of its own: choose another with -o")
    if state == "interrupted" and not (resume or force):
        raise BadInput(
            f"{out}: an interrupted run is in there; go on with --resume, start anew with --force, or use -o"
        )


def _foreign(out: Path) -> str:
    names = sorted(path.name for path in out.iterdir() if path.name not in OURS)
    return ", ".join(names[:3]) if names else "no journal of a run"


def open_journal(out: Path, fingerprint: dict[str, Any], *, resume: bool, began: float) -> Journal:
    """Open OUT for a run: go on with its journal under `resume`, else begin anew in an emptied folder.

    `fingerprint` is what the journalled values depend on; a resume with another one is refused. `began` is when this
    process started to spend the budget, by the monotonic clock.
    """
    state = state_of(out)
    if resume and state in ("interrupted", "finished"):
        data = _read(out)
        wanted = json.loads(json.dumps(fingerprint))
        differing = sorted(key for key in wanted if data["fingerprint"].get(key) != wanted[key])
        if differing:
            raise BadInput(
                f"{out}: --resume with another {', '.join(differing)} than the run began with; use another -o"
            )
        return Journal(out, data, began)
    if out.exists():
        for path in out.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
    journal_folder = out / FOLDER
    try:
        journal_folder.mkdir(parents=True)
    except OSError as error:
        raise BadInput(f"{out}: can't be created ({error.strerror}); choose another folder with -o") from error
    data = {"state": "running", "elapsed": 0.0, "fingerprint": fingerprint, "entries": {}}
    journal = Journal(out, data, began)
    journal.save()
    return journal


def _read(out: Path) -> dict[str, Any]:
    data: dict[str, Any] = read_json(out / FOLDER / FILE)
    return data


def _lock(folder: Path) -> Any:  # noqa: ANN401 - an open file
    file = (folder / "lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise BadInput(
            f"{folder.parent}: another easycompress is working in there; wait for it or use another -o"
        ) from error
    return file
