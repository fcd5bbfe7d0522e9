"""Latency in ONNX Runtime: files timed in alternating blocks, so that drift of the machine hits them alike."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from easycompress.core.inputs import repeated
from easycompress.core.ledger import spending
from easycompress.core.outcome import Latency
from easycompress.measure.others import NOTICED, Others
from easycompress.measure.runtime import Runtime

if TYPE_CHECKING:
    from pathlib import Path

    from easycompress.core.inputs import Inputs
    from easycompress.measure.runtime import Feeds

WARM_UP = 5
"""Runs at the start of each block that don't count: caches and threads wake up."""

BLOCK = 20
"""Counted runs a block."""

ROUNDS = 6
"""Times that fresh sessions are made: where the system puts a session's threads stays, and can halve its speed."""

BLOCKS = 5
"""Alternating blocks a file in each round; a first one is thrown away."""

PATIENCE = 0.5
"""Seconds a file in each round that further blocks may take: small models are noisy, and cheap to time longer."""

KEPT = 0.9
"""The slowest tenth of the runs is dropped, as in the papers: other processes, not the model, made them slow."""

CALM = 0.5
"""Share of the laps (one block of every file) that the medians are of: those in which the files together were fastest.

Two virtual processors can share one core for seconds at a time: measured on MiniLM in int8, 2 threads, 4.2 ms and then
7.5 ms of the same session. A lap counts for all files or for none, so that no file is judged in another's bad seconds.
"""

LAP_SECONDS = 1.0
"""A lap that takes longer is divided, into MOST_PARTS at most, so that such seconds seldom begin or end within one."""

MOST_PARTS = 5

LEAST_WARM_UP = 2

LONGEST_SECONDS = 30.0
"""A measurement of slow models stops after this long a file, once LEAST_RUNS runs are in."""

LEAST_RUNS = 100


QUANTILES = 21
"""Places of a distribution that a summary keeps: each 5 % from the fastest run to the slowest."""

DIGITS = 6
"""Significant digits of a quantile: the clock has no more."""


@dataclass(frozen=True)
class Round:
    """The blocks [file][lap][run] of one set of sessions, and how many cores other processes took from them."""

    blocks: list[list[list[float]]]
    taken: float | None = None


@spending("latency")
def time_files(
    paths: list[Path], example: Inputs, batch: int, threads: int, rounds: int | None = None
) -> list[Latency]:
    """Return the latency of each file for one batch of `batch` samples made from `example` (n, ...).

    `rounds` are ROUNDS unless said. Those in which other processes took processors away are made up for by others, half
    as many at most, and the quietest count: which ones is told by the system's count, not by the times.
    """
    inputs = repeated(example, batch)
    wanted = rounds or ROUNDS
    made: list[Round] = []
    start = time.perf_counter()
    while _lack(made, wanted) and not _enough(made, start, len(paths)):
        made.append(_round(paths, inputs, threads, start, sum(_runs(each) for each in made)))
    quietest = sorted(range(len(made)), key=lambda index: made[index].taken or 0.0)[:wanted]
    return _summaries([made[index] for index in sorted(quietest)], batch, threads)


def _lack(made: list[Round], wanted: int) -> bool:
    """Tell whether another round is needed."""
    quiet = sum((each.taken or 0.0) <= NOTICED for each in made)
    return len(made) < wanted or (quiet < wanted and len(made) < wanted + wanted // 2)


def _enough(made: list[Round], start: float, count: int) -> bool:
    """Tell whether so many slow files were timed long enough."""
    late = time.perf_counter() - start > LONGEST_SECONDS * count
    return late and sum(_runs(each) for each in made) >= LEAST_RUNS


def _runs(made: Round) -> int:
    """Return the timed runs of each file."""
    return sum(len(runs) for runs in made.blocks[0])


def _round(paths: list[Path], inputs: Inputs, threads: int, start: float, runs: int) -> Round:
    """Time fresh sessions of every file; `runs` were timed since `start`."""
    others = Others()
    made = Round([[] for _ in paths])
    runtimes = [Runtime(path, threads) for path in paths]
    feeds = [runtime.feeds(inputs) for runtime in runtimes]
    begin = time.perf_counter()
    for runtime, fed in zip(runtimes, feeds, strict=True):
        block(runtime, fed)
    parts = min(max(math.ceil((time.perf_counter() - begin) / LAP_SECONDS), 1), MOST_PARTS)
    laps, late = 0, False
    while not late and (laps < BLOCKS * parts or time.perf_counter() - begin < PATIENCE * len(paths)):
        for runtime, fed, times in zip(runtimes, feeds, made.blocks, strict=True):
            times.append(block(runtime, fed, max(WARM_UP // parts, LEAST_WARM_UP), BLOCK // parts))
        laps += 1
        late = time.perf_counter() - start > LONGEST_SECONDS * len(paths) and runs + _runs(made) >= LEAST_RUNS
    return Round(made.blocks, others.taken(threads))


def block(runtime: Runtime, feeds: Feeds, warm_up: int = WARM_UP, counted: int = BLOCK) -> list[float]:
    """Return the milliseconds of each counted run of one block."""
    times = []
    for run in range(warm_up + counted):
        begin = time.perf_counter()
        runtime.answer(feeds)
        end = time.perf_counter()
        if run >= warm_up:
            times.append((end - begin) * 1e3)
    return times


def _summaries(made: list[Round], batch: int, threads: int) -> list[Latency]:
    """Summarise all files' blocks; what was taken is the average of the rounds."""
    files = [list(blocks) for blocks in zip(*(each.blocks for each in made), strict=True)]
    calm = _calm(files)
    told = [each.taken for each in made if each.taken is not None]
    taken = round(float(np.mean(told)), 2) if told else None
    return [_summary(rounds, calm, batch, threads, taken) for rounds in files]


def _calm(files: list[list[list[list[float]]]]) -> list[list[bool]]:
    """Tell of each round's laps whether they are among the CALM share, by each file's time relative to its median."""
    slowness = []
    for rounds in files:
        medians = [[float(np.median(runs)) for runs in laps] for laps in rounds]
        usual = float(np.median([median for laps in medians for median in laps]))
        slowness.append([[median / usual for median in laps] for laps in medians])
    together = [[sum(lap) for lap in zip(*laps, strict=True)] for laps in zip(*slowness, strict=True)]
    limit = np.quantile([lap for laps in together for lap in laps], CALM)
    return [[lap <= limit for lap in laps] for laps in together]


def _summary(
    rounds: list[list[list[float]]], calm: list[list[bool]], batch: int, threads: int, taken: float | None
) -> Latency:
    """Summarise a file's blocks [round][lap][run]: the median of its rounds' medians, each of the runs of calm laps.

    So no single badly placed session can move it.
    """
    counted = [
        [time for runs, counts in zip(laps, marks, strict=True) if counts for time in runs]
        for laps, marks in zip(rounds, calm, strict=True)
    ]
    medians = [float(np.median(_without_slowest(times))) for times in counted if times]
    low, high = np.percentile(_without_slowest([time for times in counted for time in times]), [25, 75])
    every = [time for laps in rounds for runs in laps for time in runs]
    return Latency(
        batch=batch,
        median=float(np.median(medians)),
        iqr=float(high - low),
        threads=threads,
        runs=len(every),
        taken=taken,
        quantiles=tuple(float(f"{ms:.{DIGITS}g}") for ms in np.percentile(every, np.linspace(0, 100, QUANTILES))),
    )


def _without_slowest(times: list[float]) -> np.ndarray[Any, Any]:
    return np.sort(times)[: max(1, int(KEPT * len(times)))]
