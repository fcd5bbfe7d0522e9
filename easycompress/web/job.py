"""One stage of one run, in a process of its own: `python -m easycompress.web.job RUN-FOLDER`.

It outlives the server that started it. Ctrl-C (SIGINT) ends it as it ends the command line: what was done is kept.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import IO, Any, NoReturn

from easycompress.core import stopping
from easycompress.core.errors import Crashed, EasyCompressError, one_line
from easycompress.core.files import read_json, write_json
from easycompress.core.memory import is_exhausted
from easycompress.web.fields import field_of
from easycompress.web.store import END, EVENTS, LOOK, PLAN, RUN, Run, mend
from easycompress.web.watch import Journalist

LOCK = "job.lock"

TRIES, PAUSE = 5, 0.02
"""How often the lock is asked for, and the seconds between: who looks whether it is free holds it for a moment."""

STOPPED, BUG, BUSY = 130, 70, 75
"""Exit codes: stopped by a signal; an error that should have been foreseen; another job is at work in this run."""


def main() -> int:
    """Do the stage that run.json asks for; end.json says how it went."""
    place = Path(sys.argv[1])
    signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever started the server may have ignored it
    stopping.listen()
    try:
        lock = take(place)
    except BlockingIOError:
        return BUSY
    with lock:
        (place / END).unlink(missing_ok=True)
        mend(place / EVENTS)
        end = _told(place)
        stopping.ignore()
        write_json(place / END, end)
    return int(end["code"])


def take(place: Path) -> IO[str]:
    """Hold a run for this process, and write down which one it is. Raises BlockingIOError where another has it."""
    file = (place / LOCK).open("a+")
    for attempt in range(TRIES):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if attempt == TRIES - 1:
                file.close()
                raise
            time.sleep(PAUSE)
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def at_work(place: Path) -> int | None:
    """Return the number of the process that is at work on a run, None where there is none."""
    try:
        with (place / LOCK).open() as file, contextlib.suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return None
        return int((place / LOCK).read_text() or 0) or None
    except (FileNotFoundError, ValueError):
        return None


def _told(place: Path) -> dict[str, Any]:
    """Do the stage and return how it ended: its code, and its line where it failed."""
    try:
        return _done(place)
    except EasyCompressError as error:
        _show(error.__cause__ if isinstance(error, Crashed) else None)
        return {"code": error.exit_code, "line": str(error), "field": field_of(str(error))}
    except (Exception, KeyboardInterrupt, SystemExit) as error:  # noqa: BLE001 - a page must be told of all of them
        if stopping.asked() or isinstance(error, KeyboardInterrupt):  # libraries turn it into errors of their own
            return {"code": STOPPED, "line": "stopped"}
        _show(error)
        return _unforeseen(error)


def _unforeseen(error: BaseException) -> dict[str, Any]:
    if is_exhausted(error):
        line = f"out of memory ({one_line(error)}); close other programs, or use less data"
        return {"code": 2, "line": line}
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return {"code": 2, "line": f"{where}{error.strerror or error}; check the path and the space on the disk"}
    return {"code": BUG, "line": f"internal error: {type(error).__name__}: {one_line(error)}"}


def _done(place: Path) -> dict[str, Any]:
    run = Run.model_validate(read_json(place / RUN))
    progress = Journalist(place / EVENTS)
    from easycompress.web import stages  # noqa: PLC0415 - imports torch: seconds in which a stop may come

    if run.stage == "compress":
        return stages.carry_out(run, place, progress)
    made, name = (stages.look, LOOK) if run.stage == "look" else (stages.make_plan, PLAN)
    write_json(place / name, made(run, progress))
    return {"code": 0, "line": ""}


def _show(error: BaseException | None) -> None:
    """Write a traceback where the page shows it: what to mend is the user's own."""
    if error is not None:
        traceback.print_exception(error, file=sys.stderr)


def run() -> NoReturn:
    """Be the process of one job."""
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # what a library's thread still does must not keep the next run waiting


if __name__ == "__main__":
    run()
