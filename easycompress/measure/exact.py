"""An exact test behind the score interval: where few samples changed, counts are too coarse for its approximation.

At the boundary Tango's bound is wrong up to 6.8 % of the time, not 5 % (268 samples, none changed, a floor of 1 %).
The exact unconditional test takes the largest probability of a result at least as good over the rates that a sample
changes for the better with (Barnard), here over a 99.99 % confidence interval of that rate, whose 0.01 % is added to
the probability (R. L. Berger and D. D. Boos, P values maximized over a confidence set for the nuisance parameter,
Journal of the American Statistical Association 89, 1994).
"""

from __future__ import annotations

import functools
import math
from typing import Any, TypeAlias

import numpy as np
from scipy.special import bdtr, bdtrik, betaincinv, gammaln

Numbers: TypeAlias = "np.ndarray[Any, Any]"

LEFT_OUT = 0.0001
"""Probability that the rate of changes for the better lies outside of the interval that is looked at."""

RATES = 48
"""Rates within it that are tried."""

NEGLIGIBLE = 1e-7
"""Probability of the counts that are not enumerated; it is added to the result."""

SLACK = 1e-9
"""Scores that differ by less are ties."""


@functools.lru_cache(maxsize=4096)
def exact_p_value(worse: int, better: int, n: int, allowed: float) -> float:
    """Return the probability of a result at least as good as this one if the true drop were `allowed`, a proportion.

    `worse` and `better` of `n` samples changed. "As good" is meant by Tango's score. It is an upper limit: the largest
    over the rates of changes for the better that the result leaves open.
    """
    if abs(allowed) >= 1:
        return 1.0 if allowed < 0 else 0.0
    low = float(betaincinv(better, n - better + 1, LEFT_OUT / 2)) if better else 0.0
    high = float(betaincinv(better + 1, n - better, 1 - LEFT_OUT / 2)) if better < n else 1.0
    high = min(max(high, -allowed), (1 - allowed) / 2)  # all three chances stay at least 0
    rates = np.linspace(min(max(low, -allowed), high), high, RATES)
    most_worse = _most(n, allowed + high) + 1
    most_better = _most(n, high) + 1
    counts_worse, counts_better = np.meshgrid(np.arange(most_worse + 1), np.arange(most_better + 1), indexing="ij")
    counts_same = n - counts_worse - counts_better
    possible = counts_same >= 0
    score = _score(counts_worse / n, counts_better / n, n, allowed)
    good = possible & (score >= _score(np.array(worse / n), np.array(better / n), n, allowed) - SLACK)
    worses, betters, sames = (counts[good] for counts in (counts_worse, counts_better, counts_same))
    ways = math.lgamma(n + 1) - gammaln(worses + 1) - gammaln(betters + 1) - gammaln(sames + 1)
    most = 0.0
    for rate in rates:
        with np.errstate(divide="ignore", invalid="ignore"):
            logarithms = (
                ways
                + np.where(worses > 0, worses * np.log(rate + allowed), 0.0)
                + np.where(betters > 0, betters * np.log(rate), 0.0)
                + np.where(sames > 0, sames * np.log(1 - 2 * rate - allowed), 0.0)
            )
        most = max(most, float(np.exp(logarithms).sum()))
    return min(1.0, most + LEFT_OUT + NEGLIGIBLE)


def _most(n: int, rate: float) -> int:
    """Return the count of `n` trials that is surpassed with a probability of at most NEGLIGIBLE / 2."""
    likely = 1 - NEGLIGIBLE / 2
    count = math.ceil(bdtrik(likely, n, rate)) if 0 < rate < 1 else round(n * rate)
    return count - 1 if count and bdtr(count - 1, n, rate) >= likely else count


def _score(worse: Numbers, better: Numbers, n: int, drop: float) -> Numbers:
    """Return how many standard errors the estimate lies below `drop`, if that were the true drop; rates (...)."""
    b = -worse - better + (2 - worse + better) * drop
    c = -better * drop * (1 - drop)
    root = np.sqrt(np.maximum(0.0, b * b - 8 * c))
    with np.errstate(divide="ignore", invalid="ignore"):
        chance = np.where(b > 0, -2 * c / (b + root), (root - b) / 4)
        variance = np.maximum(0.0, 2 * chance + drop * (1 - drop))
        score: Numbers = (drop - (worse - better)) * math.sqrt(n) / np.sqrt(variance)
    return score
