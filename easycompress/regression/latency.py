"""How much slower one file is than another: a ratio from one run, never an absolute time, with its noise.

A round opens both files anew and times them in alternating blocks; its ratio is the median over pairs of neighbouring
blocks. Rounds are independent, where the system puts a session's threads included, so the bounds of their median are
order statistics (a sign test inverted), which no outlier moves and no normal distribution is assumed for. While the
bounds hold the limit between them, further rounds are added.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import binom

from easycompress.artifact.external import data_of
from easycompress.core.files import sha256
from easycompress.core.inputs import repeated
from easycompress.measure import latency
from easycompress.measure.runtime import Runtime
from easycompress.regression.outcome import Check, fine, worse
from easycompress.report import units

if TYPE_CHECKING:
    from pathlib import Path

    from easycompress.core.inputs import Inputs

LATENCY = "latency"

ERROR = 0.005
"""Chance that the true median lies below the lower bound, and that it lies above the upper one, at each look. There are
up to ten looks, so all together a limit that is met exactly is called broken in under 5 %."""

ROUNDS, MORE = 8, 4
"""Rounds before the first look, and between two: of 8, all must lie beyond the limit (chance 1 in 256)."""

SECONDS = 40.0
"""After so long no further round begins, once there are ROUNDS."""

MOST_ROUNDS = 44

ROUND_SECONDS = 0.3
"""Counted time of a round: small models are noisy, and cheap to time longer."""

LEAST_PAIRS = 2
"""Pairs of blocks in a round; the first one is thrown away."""

SLOW_MS, SLOW_BLOCK = 50.0, 5
"""Of models that take longer a block is shorter: noise of a tenth of a millisecond is nothing to them."""


@dataclass(frozen=True)
class Ratio:
    """Time of a candidate / time of a reference: the median of `rounds`, and its one-sided 99.5 % bounds."""

    value: float
    low: float
    high: float
    rounds: int

    def settles(self, limit: float) -> bool:
        """Tell whether the limit lies outside of the bounds."""
        return self.low > limit or self.high <= limit


def time_ratio(reference: Path, candidate: Path, example: Inputs, batch: int, threads: int, limit: float) -> Ratio:
    """Return how much slower the candidate is, for a batch of `batch` samples made from `example` (n, ...).

    It is timed until it is clear on which side of `limit` it lies, or time is up.
    """
    inputs = repeated(example, batch)
    begin = time.perf_counter()
    ratios: list[float] = []
    while True:
        for _ in range(MORE if ratios else ROUNDS):
            ratios.append(one_round(reference, candidate, inputs, threads, swapped=len(ratios) % 2 == 1))
        found = bounds(ratios)
        late = time.perf_counter() - begin > SECONDS or len(ratios) >= MOST_ROUNDS
        if found.settles(limit) or late:
            return found


def bounds(ratios: list[float]) -> Ratio:
    """Return the median of independent ratios and its bounds: the k-th smallest and largest, by the binomial."""
    count, ordered = len(ratios), sorted(ratios)
    beyond = int(binom.ppf(ERROR, count, 0.5))
    if binom.cdf(beyond, count, 0.5) > ERROR:
        beyond -= 1
    if beyond < 0:
        return Ratio(float(np.median(ordered)), 0.0, float("inf"), count)
    return Ratio(float(np.median(ordered)), ordered[beyond], ordered[-1 - beyond], count)


def one_round(reference: Path, candidate: Path, inputs: Inputs, threads: int, *, swapped: bool) -> float:
    """Return the ratio of fresh sessions. `swapped`: the candidate is opened, and runs, first."""
    paths = (candidate, reference) if swapped else (reference, candidate)
    runtimes = [Runtime(path, threads) for path in paths]
    feeds = [runtime.feeds(inputs) for runtime in runtimes]
    trial = latency.block(runtimes[0], feeds[0], 1, 1)
    counts = (1, SLOW_BLOCK) if trial[0] > SLOW_MS else (latency.WARM_UP, latency.BLOCK)
    found: list[float] = []
    begin = time.perf_counter()
    while len(found) < LEAST_PAIRS or time.perf_counter() - begin < ROUND_SECONDS:
        first, second = (
            np.median(latency.block(runtime, fed, *counts)) for runtime, fed in zip(runtimes, feeds, strict=True)
        )
        found.append(float(first / second if swapped else second / first))
    return float(np.median(found[1:]))


def check_latency(reference: Path, candidate: Path, example: Inputs, batch: int, threads: int, limit: float) -> Check:
    """Compare times in one run. A regression only where the ratio's lower bound lies beyond the limit."""
    allowed = f"{limit:g}x"
    if sha256(reference) == sha256(candidate) and not data_of(candidate).exists():
        reason = "the same file as the reference, byte for byte: not timed"
        return Check(LATENCY, limit >= 1, "1.000x", allowed, reason)
    found = time_ratio(reference, candidate, example, batch, threads, limit)
    measured = f"{found.value:.3f}x ({found.low:.3f} to {found.high:.3f})"
    where = f"batch {batch}, {units.threads(threads)}, {found.rounds} rounds"
    reason = f"{found.value:.3f}x the reference's time, {found.low:.3f} to {found.high:.3f} with 99 % confidence"
    if found.low > limit:
        return worse(LATENCY, measured, allowed, f"{reason} (allowed {limit:g}x; {where})")
    if not found.settles(limit):
        reason += f": too noisy to tell from {limit:g}x, which doesn't count as a regression"
    return fine(LATENCY, measured, allowed, f"{reason} ({where})")
