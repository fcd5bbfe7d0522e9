"""How many cores other processes take from what is timed: what a latency rests on."""

from __future__ import annotations

import os
import time
from pathlib import Path

STAT = Path("/proc/stat")
"""Linux's count of what every processor did since the machine began; other systems have none."""

WORKING = (0, 1, 2, 5, 6, 7)
"""Columns of that count that are work: user, nice, system, interrupts of both kinds, what a hypervisor took away."""

NOTICED = 0.2
"""Cores that other processes may take before a time is said to be disturbed."""


class Others:
    """Watches from its making on."""

    def __init__(self) -> None:
        self._begin, self._before = time.perf_counter(), _seconds()

    def taken(self, threads: int) -> float | None:
        """Return how many cores other processes took since then from a model that runs on `threads`, on average.

        What keeps only those busy that the threads leave free takes none. None where the system doesn't tell.
        """
        passed, now = time.perf_counter() - self._begin, _seconds()
        if self._before is None or now is None or passed <= 0:
            return None
        free = max(0, len(_usable()) - threads)
        return round(max(0.0, (now - self._before) / passed - free), 2)


def _usable() -> list[int]:
    """Return the numbers of the processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _seconds() -> float | None:
    """Return the processor seconds of all other processes on these processors since the machine began."""
    try:
        lines = STAT.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    usable = {f"cpu{number}" for number in _usable()}
    ticks = [list(map(int, line.split()[1:])) for line in lines if line.split()[0] in usable]
    if not ticks:
        return None
    own = os.times()
    work = sum(row[column] for row in ticks for column in WORKING if column < len(row))
    return work / os.sysconf("SC_CLK_TCK") - own.user - own.system
