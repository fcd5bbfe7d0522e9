"""One process at a time in an output folder. The kernel lets go of the lock when its process ends, however it ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING

from easycompress.core.errors import BadInput

if TYPE_CHECKING:
    from pathlib import Path

FOLDER = "journal"
"""The folder in OUT in which the lock is, and with it everything that a resume needs."""

LOCK = "lock"

TRIES, PAUSE = 5, 0.02
"""How often the lock is asked for, and the seconds between: whoever looks whether it is free holds it for a moment."""


@dataclass
class Lock:
    """OUT, held for this process. `made` are the folders that taking it created, outermost first."""

    out: Path
    made: list[Path] = field(default_factory=list)
    _file: IO[str] | None = None

    @property
    def created(self) -> bool:
        """Tell whether OUT was not there before."""
        return self.out in self.made

    def release(self) -> None:
        """Let go of OUT; where nothing was written into it, remove what taking it created."""
        if self._file is None:
            return
        journal = self.out / FOLDER
        with contextlib.suppress(OSError):  # what holds something stays
            if journal in self.made and [path.name for path in journal.iterdir()] == [LOCK]:
                (journal / LOCK).unlink()
            for folder in reversed(self.made):
                folder.rmdir()
        self._file.close()
        self._file = None


def hold(out: Path) -> Lock:
    """Take OUT for this process, creating it where it is missing. Raises BadInput where another one has it."""
    folder = out / FOLDER
    lock = Lock(out, [path for path in reversed((folder, *folder.parents)) if not path.exists()])
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for attempt in range(TRIES):
            if attempt:
                time.sleep(PAUSE)
            file = (folder / LOCK).open("a")
            if _taken(file, fcntl.LOCK_EX) and _same(file, folder / LOCK):
                lock._file = file  # noqa: SLF001 - the one place where a lock comes from
                return lock
            file.close()
    except OSError as error:
        raise BadInput(f"{out}: can't be created ({error.strerror}); choose another folder with -o") from error
    raise taken(out)


def is_held(out: Path) -> bool:
    """Tell whether a process is at work in OUT. Changes nothing."""
    try:
        with (out / FOLDER / LOCK).open() as file:
            return not _taken(file, fcntl.LOCK_SH)
    except OSError:
        return False


def taken(out: Path) -> BadInput:
    """Return what to raise where another process has OUT."""
    return BadInput(f"{out}: another easycompress is working in there; wait for it or use another -o")


def _taken(file: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _same(file: IO[str], path: Path) -> bool:
    """Tell whether `path` is still the open file: its last owner may have removed it."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
