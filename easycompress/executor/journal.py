"""The journal: what a run has decided and measured, so that a killed run goes on and comes to the same end.

A run is a program whose clock-dependent or expensive values go through `once`: a resumed run takes the same path, finds
them, and recomputes only what is cheap and deterministic. Training has its own checkpoint, one an epoch.
"""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
import time
from typing import TYPE_CHECKING, Any

from easycompress.core import stopping
from easycompress.core.errors import BadInput
from easycompress.core.files import read_json, write_text
from easycompress.core.ledger import spent
from easycompress.executor.lock import FOLDER, LOCK, Lock, hold, is_held, taken

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

SCHEMA = "easycompress-journal/1"

FILE = "journal.json"
OURS = (
    FOLDER, "model.onnx", "model.onnx.data", "model.ecz", "model.pt2", "model.safetensors", "record.json",
    "report.json", "report.html", "recipe.yaml", "predictions.npz", "pretrained",
)  # fmt: skip
"""Everything that easycompress writes into OUT; anything else there belongs to somebody else."""

_UNFINISHED = re.compile(r"\.(.+)\.\d+\.tmp")
"""What core.files calls a file while it writes it: a kill can leave one behind."""

RESULT = ": result"
"""The end of an attempt's key; what an attempt came to is what took long to make."""

PARTS = "parts of a batch"
"""The key of how many parts a batch of training is divided into: more than one once memory was short."""

KEPT = (RESULT, PARTS)

CHECKPOINT = ".checkpoint"
"""The end of the name of a training state, in the journal's folder."""


def stage_file(tag: str, place: int) -> str:
    """Return the name of the file of what the first `place` actions of the attempt `tag` have made."""
    return f"{tag}.stage {place}.onnx"


class Journal:
    """The journal of one run in OUT/journal. Entries are JSON values under readable keys.

    `began` is when this process started to spend the budget, by the monotonic clock; `data` what journal.json holds.
    """

    def __init__(self, out: Path, data: dict[str, Any], began: float, lock: Lock) -> None:
        self.out, self.folder, self.data = out, out / FOLDER, data
        self.entries: dict[str, Any] = data["entries"]
        self.began = began - float(data["elapsed"])
        self._before = dict(data.get("spent", {}))
        self.label = ""
        self._lock = lock

    def part(self, label: str) -> Journal:
        """Return this journal for a part of the run, whose keys and files begin with `label`."""
        part = copy.copy(self)
        part.label = f"{self.label}{label}"
        return part

    def once(self, key: str, compute: Callable[[], Any]) -> Any:  # noqa: ANN401 - any JSON value
        """Return the journalled value of `key`, or compute, journal and return it."""
        key = f"{self.label}{key}"
        if key not in self.entries:
            self.entries[key] = json.loads(json.dumps(compute()))  # the same value now and after a resume
            self.save()
        return self.entries[key]

    def get(self, key: str, otherwise: Any) -> Any:  # noqa: ANN401 - any JSON value
        """Return the journalled value of `key`, or `otherwise`."""
        return self.entries.get(f"{self.label}{key}", otherwise)

    def put(self, key: str, value: Any) -> None:  # noqa: ANN401 - any JSON value
        """Journal a value that takes the place of an earlier one."""
        self.entries[f"{self.label}{key}"] = value
        self.save()

    def elapsed(self) -> float:
        """Return the seconds this run has taken, those before a resume included."""
        return time.monotonic() - self.began

    def spent(self) -> dict[str, float]:
        """Return the seconds by kind of work (see core.ledger), those before a resume included."""
        now = spent()
        return {kind: self._before.get(kind, 0.0) + now.get(kind, 0.0) for kind in {**self._before, **now}}

    def save(self) -> None:
        """Write the entries and the time spent so far. NaN and infinity are kept, as Python's JSON spells them."""
        stopping.check()
        self.data["elapsed"], self.data["spent"] = self.elapsed(), self.spent()
        write_text(self.folder / FILE, json.dumps(self.data, indent=2) + "\n")

    def path(self, name: str) -> Path:
        """Return where a file of the journal lives."""
        return self.folder / f"{self.label}{name}"

    def holds(self, key: str) -> bool:
        """Tell whether `key` has a value."""
        return f"{self.label}{key}" in self.entries

    def checkpoints(self, tag: str) -> list[Path]:
        """Return the training states of the attempt `tag`."""
        return sorted(self.folder.glob(f"{self.label}{tag}.*{CHECKPOINT}"))

    def stages(self, tag: str) -> list[Path]:
        """Return the files of the models half way through the attempt `tag`."""
        return sorted(self.folder.glob(f"{self.label}{tag}.stage *"))

    def finish(self) -> None:
        """Mark the run as finished and drop what only a resume would need."""
        self.data["state"] = "finished"
        self.save()
        _clear_unfinished(self.out)
        _clear_folder(self.folder)

    def discard(self) -> None:
        """Remove the journal of a run that was refused, unless there is work in it that a resume can go on with."""
        worked = any(key.endswith(KEPT) for key in self.entries) or any(self.folder.glob(f"*{CHECKPOINT}"))
        if worked or _names(self.out) != {FOLDER}:
            return
        _clear_unfinished(self.out)
        _clear_folder(self.folder)
        (self.folder / FILE).unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of the folder."""
        self._lock.release()


def state_of(out: Path) -> str:
    """Return `missing`, `empty`, `finished`, `interrupted` or `foreign` for an output folder.

    `empty` is also a folder of ours in which no run has begun yet: one that a kill caught between two runs.
    """
    if not out.exists():
        return "missing"
    names = _names(out) if out.is_dir() else {""}
    if not names <= set(OURS) or (out / FOLDER).is_symlink():  # what lies behind the link isn't ours to empty
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
    if is_held(out):
        raise taken(out)
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


def open_journal(
    out: Path, fingerprint: dict[str, Any], *, resume: bool, began: float, lock: Lock | None = None
) -> Journal:
    """Open OUT for a run: go on with its journal under `resume`, else begin anew in an emptied folder.

    `fingerprint` is what the journalled values depend on; a resume with another one is refused. `began` is when this
    process started to spend the budget, by the monotonic clock. Nobody else's run is touched: the folder is locked
    before anything in it is, unless the caller has the `lock` already.
    """
    if resume and state_of(out) in ("interrupted", "finished"):
        data = check_same(out, fingerprint)
        return Journal(out, data, began, lock or hold(out))
    folder = out / FOLDER
    data = {"schema": SCHEMA, "state": "emptying", "elapsed": 0.0, "fingerprint": fingerprint, "entries": {}}
    journal = Journal(out, data, began, lock or hold(out))
    try:
        journal.save()  # from here to the next save a kill leaves a folder that any run may take
        _clear_folder(folder)
        _clear_unfinished(out)
        for name in OURS:
            if name != FOLDER:
                _remove(out / name)
    except OSError as error:
        raise BadInput(f"{out}: can't be emptied ({error.strerror}); choose another folder with -o") from error
    data["state"] = "running"
    journal.save()
    return journal


def tidy(out: Path) -> None:
    """Remove what a run that was killed at its very end left in OUT beside its result."""
    if any(_UNFINISHED.fullmatch(path.name) for path in out.iterdir()) or _names(out / FOLDER) > {FILE, LOCK}:
        lock = hold(out)
        _clear_unfinished(out)
        _clear_folder(out / FOLDER)
        lock.release()


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


def foreign_names(names: Iterable[str]) -> list[str]:
    """Return those of the names in OUT that easycompress doesn't write, sorted."""
    return sorted(name for name in names if _plain(name) not in OURS)


def _foreign(out: Path) -> str:
    names = foreign_names(path.name for path in out.iterdir())
    return ", ".join(names[:3]) if names else "no journal of a run"


def _read(out: Path) -> dict[str, Any]:
    path = out / FOLDER / FILE
    data = read_json(path)
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        raise BadInput(f"{path}: not a journal that this version wrote; start anew with --force, or use another -o")
    return data
