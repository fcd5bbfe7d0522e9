"""Energy counters of the machine: measured joules, where it has any that we may read."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from easycompress.core.ledger import spending
from easycompress.core.outcome import Energy
from easycompress.measure.runtime import Runtime

if TYPE_CHECKING:
    from easycompress.core.inputs import Inputs

POWERCAP = Path("/sys/class/powercap")
"""Where Linux shows the processor's running average power limit (RAPL) counters."""

MICRO = 1e-6

BLOCK_SECONDS = 0.25
"""Length of a block of runs: the counters move about every millisecond, so one block is exact to half a percent."""

BLOCKS = 4
"""Alternating blocks a file; a first one is thrown away."""


class Meter(Protocol):
    """A counter of joules."""

    def joules(self) -> float:
        """Return what was used since some fixed moment."""
        ...


@dataclass
class Rapl:
    """The sum of the processor packages' counters, which overflow at a limit of their own.

    They count everything that the packages do: other processes too, and what idling costs.
    """

    domains: tuple[Path, ...]
    _last: dict[Path, int] = field(default_factory=dict)
    _total: float = 0.0

    def joules(self) -> float:
        """Return the joules since the first call."""
        for domain in self.domains:
            now = int((domain / "energy_uj").read_text())
            moved = now - self._last.get(domain, now)
            if moved < 0:
                moved += int((domain / "max_energy_range_uj").read_text())
            self._last[domain] = now
            self._total += moved * MICRO
        return self._total


def find_meter(root: Path = POWERCAP) -> Rapl | None:
    """Return the machine's meter, None where there is none or the system doesn't let us read it."""
    domains = []
    for domain in sorted(root.glob("intel-rapl:*")):
        try:
            if (domain / "name").read_text().startswith("package"):
                int((domain / "energy_uj").read_text())
                domains.append(domain)
        except (OSError, ValueError):
            continue
    return Rapl(tuple(domains)) if domains else None


@spending("latency")
def measure(paths: list[Path], example: Inputs, threads: int, meter: Meter) -> list[Energy]:
    """Return the energy of one inference of one sample for each file, in mJ, from alternating blocks of runs."""
    runtimes = [Runtime(path, threads) for path in paths]
    single = example[:1]
    costs: list[list[float]] = [[] for _ in paths]
    for block in range(BLOCKS + 1):
        for runtime, kept in zip(runtimes, costs, strict=True):
            cost = _block(runtime, single, meter)
            if block:
                kept.append(cost)
    return [Energy(value=float(np.median(kept)), source="measured") for kept in costs]


def _block(runtime: Runtime, single: Inputs, meter: Meter) -> float:
    """Return the millijoules of one run, the mean over a block."""
    runs, begin, before = 0, time.perf_counter(), meter.joules()
    while time.perf_counter() - begin < BLOCK_SECONDS:
        runtime.run(single)
        runs += 1
    return (meter.joules() - before) * 1e3 / runs
