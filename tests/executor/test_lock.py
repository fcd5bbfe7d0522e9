"""One process at a time in a folder; a lock leaves nothing behind."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from easycompress.core.errors import BadInput
from easycompress.executor.journal import check_out, open_journal, state_of, tidy
from easycompress.executor.lock import hold, is_held

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BUSY = "another easycompress is working in there; wait for it or use another -o"


@pytest.fixture
def owned(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A folder that another process has locked, and that process: it begins a journal and waits."""
    out = tmp_path / "out"
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        _journal = open_journal(out, {"seed": 0}, resume=False, began=0.0)
        os.write(writing, b"x")
        signal.pause()
        os._exit(0)
    os.read(reading, 1)
    yield out, pid
    os.kill(pid, signal.SIGKILL)
    if os.waitpid(pid, os.WNOHANG)[0] == 0:
        os.waitpid(pid, 0)


@pytest.mark.parametrize(("resume", "force"), [(False, False), (True, False), (False, True)])
def test_a_run_at_work_is_told_before_anything_is_read(
    owned: tuple[Path, int],
    resume: bool,  # noqa: FBT001 - a case
    force: bool,  # noqa: FBT001 - a case
) -> None:
    out, _ = owned
    with pytest.raises(BadInput) as caught:
        check_out(out, resume=resume, force=force)
    assert str(caught.value) == f"{out}: {BUSY}"
    with pytest.raises(BadInput, match=BUSY):
        hold(out)


def test_a_killed_run_s_lock_is_free(tmp_path: Path) -> None:
    out = tmp_path / "out"
    pid = os.fork()
    if pid == 0:
        hold(out)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    assert (out / "journal" / "lock").exists()
    assert not is_held(out)
    assert state_of(out) == "empty"
    hold(out).release()


def test_a_lock_leaves_nothing_where_nothing_was_written(tmp_path: Path) -> None:
    hold(tmp_path / "new" / "out").release()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    hold(tmp_path / "mine").release()
    assert list((tmp_path / "mine").iterdir()) == []
    lock = hold(tmp_path / "mine")
    (tmp_path / "mine" / "journal" / "journal.json").write_text("{}")
    lock.release()
    lock.release()  # once more changes nothing
    assert (tmp_path / "mine" / "journal" / "lock").exists()


def test_whoever_only_looks_is_in_nobody_s_way(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert not is_held(out)
    lock = hold(out)
    assert is_held(out)
    lock._file.close()
    assert not is_held(out)
    before = (out / "journal" / "lock").stat().st_mtime_ns
    assert not is_held(out)
    assert (out / "journal" / "lock").stat().st_mtime_ns == before


def test_a_run_killed_at_its_very_end_is_tidied(tmp_path: Path) -> None:
    out = tmp_path / "out"
    journal = open_journal(out, {}, resume=False, began=0.0)
    journal.finish()
    journal.close()
    (out / "journal" / "attempt 1.onnx").write_bytes(b"left")
    (out / ".report.json.17.tmp").write_bytes(b"left")
    assert state_of(out) == "finished"
    tidy(out)
    assert sorted(path.name for path in out.rglob("*")) == ["journal", "journal.json", "lock"]
