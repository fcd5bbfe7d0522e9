"""Latency in ONNX Runtime: files timed in alternating blocks, so that drift of the machine hits them alike."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from easycompress.core.inputs import repeated
from easycompress.core.ledger import spending
from easycompress.core.outcome import Latency
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

LONGEST_SECONDS = 30.0
"""A measurement of slow models stops after this long a file, once LEAST_RUNS runs are in."""

LEAST_RUNS = 100


QUANTILES = 21
"""Places of a distribution that a summary keeps: each 5 % from the fastest run to the slowest."""

DIGITS = 6
"""Significant digits of a quantile: the clock has no more."""


@spending("latency")
def time_files(
    paths: list[Path], example: Inputs, batch: int, threads: int, rounds: int | None = None
) -> list[Latency]:
    """Return the latency of each file for one batch of `batch` samples made from `example` (n, ...).

    `rounds` are ROUNDS unless said.
    """
    inputs = repeated(example, batch)
    made: list[list[list[float]]] = [[] for _ in paths]
    start = time.perf_counter()
    for _ in range(rounds or ROUNDS):
        samples: list[list[float]] = [[] for _ in paths]
        for kept, times in zip(made, samples, strict=True):
            kept.append(times)
        runtimes = [Runtime(path, threads) for path in paths]
        feeds = [runtime.feeds(inputs) for runtime in runtimes]
        round_start = time.perf_counter()
        done = 0
        while done <= BLOCKS or time.perf_counter() - round_start < PATIENCE * len(paths):
            for runtime, fed, times in zip(runtimes, feeds, samples, strict=True):
                counted = block(runtime, fed)
                if done:
                    times.extend(counted)
            done += 1
            late = time.perf_counter() - start > LONGEST_SECONDS * len(paths)
            if late and sum(map(len, made[0])) >= LEAST_RUNS:
                return [_summary(kept, batch, threads) for kept in made]
    return [_summary(kept, batch, threads) for kept in made]


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


def _summary(rounds: list[list[float]], batch: int, threads: int) -> Latency:
    """Summarise a file's runs: the median of its rounds' medians, which no single badly placed session can move."""
    medians = [float(np.median(_without_slowest(times))) for times in rounds if times]
    every = [time for times in rounds for time in times]
    low, high = np.percentile(_without_slowest(every), [25, 75])
    return Latency(
        batch=batch,
        median=float(np.median(medians)),
        iqr=float(high - low),
        threads=threads,
        runs=len(every),
        quantiles=tuple(float(f"{ms:.{DIGITS}g}") for ms in np.percentile(every, np.linspace(0, 100, QUANTILES))),
    )


def _without_slowest(times: list[float]) -> np.ndarray[Any, Any]:
    return np.sort(times)[: max(1, int(KEPT * len(times)))]
