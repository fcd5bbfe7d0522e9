"""The journal: what a run has decided and measured, so that a killed run goes on and comes to the same end.

A run is a program whose clock-dependent or expensive values go through `once`: a resumed run takes the same path, finds
them, and recomputes only what is cheap and deterministic. Training has its own checkpoint, one an epoch.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import time
from typing import TYPE_CHECKING, Any

from easycompress.core.errors import BadInput
from easycompress.core.files import read_json, write_text

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SCHEMA = "easycompress-journal/1"

FOLDER = "journal"
FILE = "journal.json"
LOCK = "lock"
OURS = (
    FOLDER, "model.onnx", "model.onnx.data", "model.ecz", "model.pt2", "model.safetensors", "record.json",
    "report.json", "report.html", "recipe.yaml", "predictions.npz", "pretrained",
)  # fmt: skip
"""Everything that easycompress writes into OUT; anything else there belongs to somebody else."""

_UNFINISHED = re.compile(r"\.(.+)\.\d+\.tmp")
"""What core.files calls a file while it writes it: a kill can leave one behind."""

RESULT = ": result"
"""The end of an attempt's key; what an attempt came to is what took long to make."""

CHECKPOINT = ".checkpoint"
"""The end of the name of a training state, in the journal's folder."""


class Journal:
    """The journal of one run in OUT/journal. Entries are JSON values under readable keys.

    `began` is when this process started to spend the budget, by the monotonic clock; `data` what journal.json holds;
    `created` says that OUT was not there before.
    """

    def __init__(
        self,
        out: Path,
        data: dict[str, Any],
        began: float,
        lock: Any,  # noqa: ANN401 - an open file
        *,
        created: bool = False,
    ) -> None:
        self.out, self.folder, self.data = out, out / FOLDER, data
        self.entries: dict[str, Any] = data["entries"]
        self.began = began - float(data["elapsed"])
        self.created = created
        self._lock = lock

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
        """Write the entries and the time spent so far. NaN and infinity are kept, as Python's JSON spells them."""
        self.data["elapsed"] = self.elapsed()
        write_text(self.folder / FILE, json.dumps(self.data, indent=2) + "\n")

    def path(self, name: str) -> Path:
        """Return where a file of the journal lives."""
        return self.folder / name

    def finish(self) -> None:
        """Mark the run as finished and drop what only a resume would need."""
        self.data["state"] = "finished"
        self.save()
        _clear_unfinished(self.out)
        _clear_folder(self.folder)

    def discard(self) -> None:
        """Remove the journal of a run that was refused, unless it has trained: after a full disk, a resume goes on."""
        if any(key.endswith(RESULT) for key in self.entries) or any(self.folder.glob(f"*{CHECKPOINT}")):
            return
        shutil.rmtree(self.folder)
        _clear_unfinished(self.out)
        if self.created:
            self.out.rmdir()

    def close(self) -> None:
        """Let go of the folder."""
        self._lock.close()


def state_of(out: Path) -> str:
    """Return `missing`, `empty`, `finished`, `interrupted` or `foreign` for an output folder.

    `empty` is also a folder of ours in which no run has begun yet: one that a kill caught between two runs.
    """
    if not out.exists():
        return "missing"
    names = _names(out) if out.is_dir() else {""}
    if not names <= set(OURS):
        return "foreign"
    if (out / FOLDER / FILE).is_file():
        try:
            return {"finished": "finished", "emptying": "empty"}.get(_read(out)["state"], "interrupted")
        except BadInput:
            return "interrupted"  # only --force gets past it: what can't be read can't be resumed
    nothing = not names or (names == {FOLDER} and _names(out / FOLDER) <= {FILE, LOCK})
    return "empty" if nothing else "foreign"


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
    nearest = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not os.access(nearest, os.W_OK):
        raise BadInput(f"{out}: {nearest} can't be written to; choose another folder with -o")


def check_same(out: Path, fingerprint: dict[str, Any]) -> dict[str, Any]:
    """Return what OUT's journal.json holds. Raises BadInput when that run began with another value in `fingerprint`."""
    data = _read(out)
    wanted = json.loads(json.dumps(fingerprint))
    differing = sorted(key for key in wanted if data["fingerprint"].get(key) != wanted[key])
    if differing:
        raise BadInput(f"{out}: --resume with another {', '.join(differing)} than the run began with; use another -o")
    return data


def open_journal(out: Path, fingerprint: dict[str, Any], *, resume: bool, began: float) -> Journal:
    """Open OUT for a run: go on with its journal under `resume`, else begin anew in an emptied folder.

    `fingerprint` is what the journalled values depend on; a resume with another one is refused. `began` is when this
    process started to spend the budget, by the monotonic clock. Nobody else's run is touched: the folder is locked
    before anything in it is.
    """
    if resume and state_of(out) in ("interrupted", "finished"):
        data = check_same(out, fingerprint)
        return Journal(out, data, began, _lock(out / FOLDER))
    folder, created = out / FOLDER, not out.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = _lock(folder)
        data = {"schema": SCHEMA, "state": "emptying", "elapsed": 0.0, "fingerprint": fingerprint, "entries": {}}
        journal = Journal(out, data, began, lock, created=created)
        journal.save()  # from here to the next save a kill leaves a folder that any run may take
        _clear_folder(folder)
        _clear_unfinished(out)
        for name in OURS:
            if name != FOLDER:
                _remove(out / name)
    except OSError as error:
        raise BadInput(f"{out}: can't be created ({error.strerror}); choose another folder with -o") from error
    data["state"] = "running"
    journal.save()
    return journal


def _clear_folder(folder: Path) -> None:
    for path in folder.iterdir():
        if path.name not in (FILE, LOCK):
            path.unlink()


def _clear_unfinished(out: Path) -> None:
    for path in out.iterdir():
        if _UNFINISHED.fullmatch(path.name):
            _remove(path)


def _remove(path: Path) -> None:
    """Remove a file or folder of ours, where there is one."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _names(folder: Path) -> set[str]:
    return {_plain(path.name) for path in folder.iterdir()}


def _plain(name: str) -> str:
    """Return the name that a half-written file would have got."""
    match = _UNFINISHED.fullmatch(name)
    return match[1] if match else name


def _foreign(out: Path) -> str:
    names = sorted(path.name for path in out.iterdir() if _plain(path.name) not in OURS)
    return ", ".join(names[:3]) if names else "no journal of a run"


def _read(out: Path) -> dict[str, Any]:
    path = out / FOLDER / FILE
    data = read_json(path)
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        raise BadInput(f"{path}: not a journal that this version wrote; start anew with --force, or use another -o")
    return data


def _lock(folder: Path) -> Any:  # noqa: ANN401 - an open file
    file = (folder / LOCK).open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise BadInput(
            f"{folder.parent}: another easycompress is working in there; wait for it or use another -o"
        ) from error
    return file
