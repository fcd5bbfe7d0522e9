from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from easycompress.measure import others
from easycompress.measure.others import Others

if TYPE_CHECKING:
    from pathlib import Path

TICKS = 100


class Machine:
    """A machine of a number of processors, whose time passes when told to."""

    def __init__(self, path: Path, cores: int, patch: pytest.MonkeyPatch) -> None:
        self.path, self.now, self.own = path, 0.0, 0.0
        self.rows = [[0] * 10 for _ in range(cores + 1)]  # one more, which this process may not use
        self.write()
        patch.setattr(others, "STAT", path)
        patch.setattr(others, "_usable", lambda: list(range(cores)))
        patch.setattr(os, "sysconf", lambda _: TICKS)
        patch.setattr(os, "times", lambda: os.times_result((self.own, 0.0, 9.0, 9.0, 9.0)))
        patch.setattr(time, "perf_counter", lambda: self.now)

    def write(self) -> None:
        lines = [f"cpu{number} {' '.join(map(str, row))}" for number, row in enumerate(self.rows)]
        self.path.write_text("\n".join(["cpu  1 2 3 4", *lines, "intr 7 8"]), encoding="ascii")

    def work(self, core: int, column: int, seconds: float) -> None:
        self.rows[core][column] += int(seconds * TICKS)
        self.write()


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path / "stat", 2, monkeypatch)


def test_all_work_but_one_s_own_was_taken(machine: Machine) -> None:
    watch = Others()
    machine.now += 10
    for column, seconds in {0: 4, 1: 1, 2: 1, 3: 50, 4: 50, 5: 1, 6: 1, 7: 2}.items():  # 3 and 4: idle
        machine.work(column % 2, column, seconds)
    machine.own += 3
    assert watch.taken(2) == 0.7


@pytest.mark.parametrize(("threads", "taken"), [(1, 0.0), (2, 0.9), (4, 0.9)])
def test_what_keeps_a_free_processor_busy_takes_nothing(machine: Machine, threads: int, taken: float) -> None:
    watch = Others()
    machine.now += 10
    machine.work(0, 0, 9)
    assert watch.taken(threads) == taken


def test_a_processor_that_may_not_be_used_does_not_count(machine: Machine) -> None:
    watch = Others()
    machine.now += 10
    machine.work(2, 0, 9)
    assert watch.taken(2) == 0.0


def test_it_is_never_less_than_none(machine: Machine) -> None:
    watch = Others()
    machine.now += 10
    machine.own += 1  # the two counts are not of the same moment
    assert watch.taken(2) == 0.0


def test_where_the_system_does_not_tell_nothing_is_said(machine: Machine) -> None:
    machine.path.unlink()
    watch = Others()
    machine.now += 10
    assert watch.taken(2) is None
    machine.write()
    assert Others().taken(2) is None, "no time has passed"
    watch = Others()
    machine.path.write_text("cpu 1 2 3 4\n", encoding="ascii")
    machine.now += 10
    assert watch.taken(2) is None


@pytest.mark.skipif(not others.STAT.exists(), reason="this system doesn't tell")
def test_a_process_that_works_beside_is_seen() -> None:
    busy = "import time\nend = time.time() + 30\nwhile time.time() < end: pass"
    with subprocess.Popen([sys.executable, "-c", busy]) as process:
        try:
            time.sleep(0.5)
            watch = Others()
            time.sleep(1.0)
            seen = watch.taken(len(others._usable()))
        finally:
            process.kill()
    assert seen is not None
    assert seen > 0.3
