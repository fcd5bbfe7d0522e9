"""The paired drop between two models scored on the same samples, and how sure it is.

Proportions (accuracy, agreement): Tango's score interval for a paired difference of proportions (T. Tango, Equivalence
test and confidence interval for the difference in proportions for the paired-sample design, Statistics in Medicine 17,
1998), and where few samples changed an exact test besides. Every other metric: the paired bootstrap. All are one-sided:
only "how bad can it be" matters.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from scipy.special import ndtri

from easycompress.core.errors import BadInput
from easycompress.core.outcome import Drop
from easycompress.measure.exact import exact_p_value
from easycompress.measure.resampling import (
    BOOTSTRAP_SEED,
    CHUNK,
    CONFIDENCE,
    MIN_CHANGED,
    RESAMPLES,
    influences,
    upper_of,
    whole_drop,
    whole_upper,
)

if TYPE_CHECKING:
    from easycompress.core.task import Metric

Scores: TypeAlias = "np.ndarray[Any, Any]"

TOLERANCE = 1e-9
"""Relative slack of a comparison with the floor, far below any real difference: a drop of exactly 1.0 meets 1.0."""

FEW = 200
"""Changed samples up to which the exact test has a say: beyond, Tango's approximation errs by less than 0.1 %."""

GROWTH = 1.03
"""From one number of samples that is tried to the next."""

_ABSOLUTE_TOLERANCE = 1e-12  # for floors at or near 0, where relative slack is none
_HALVINGS = 60  # of an interval no longer than 2: down to the spacing of floats


def within(value: float, allowed: float) -> bool:
    """Return whether `value` <= `allowed`, rounding errors forgiven; never for NaN."""
    return value <= allowed or math.isclose(value, allowed, rel_tol=TOLERANCE, abs_tol=_ABSOLUTE_TOLERANCE)


def _variance(drop: float, worse: float, better: float) -> float:
    """Return n x the variance of the estimate if the true drop were `drop`; `worse` and `better` are rates.

    It is 2q + drop (1 - drop), with q the maximum-likelihood probability of a change for the better under that
    restriction: the larger root of 2 q^2 + b q + c = 0.
    """
    b = -worse - better + (2 - worse + better) * drop
    c = -better * drop * (1 - drop)
    root = math.sqrt(max(0.0, b * b - 8 * c))
    # The textbook form cancels for b > 0, which is the usual case of few changes and a large drop.
    q = -2 * c / (b + root) if b > 0 else (root - b) / 4
    return max(0.0, 2 * q + drop * (1 - drop))


def _check_counts(worse: float, better: float, n: float) -> None:
    if n < 1 or worse < 0 or better < 0 or worse + better > n:
        raise ValueError(f"{worse} worse and {better} better of {n} samples: not counts of a paired comparison")


def tango_upper(worse: float, better: float, n: float, confidence: float = CONFIDENCE) -> float:
    """Return the one-sided upper limit of the paired difference of proportions (worse - better) / n, in [-1, 1].

    It is the largest drop that a score test at `confidence` does not reject: the root d of
    (worse - better - n d) = -z sqrt(n x variance(d)). Without any change it is z^2 / (n + z^2).
    Expected counts may be fractions. Raises ValueError for impossible counts.
    """
    _check_counts(worse, better, n)
    z = float(ndtri(confidence))
    rates = worse / n, better / n
    estimate = rates[0] - rates[1]
    low, high = estimate, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if (middle - estimate) * math.sqrt(n) < z * math.sqrt(_variance(middle, *rates)):
            low = middle
        else:
            high = middle
    return high


def samples_needed(worse: int, better: int, n: int, allowed: float, confidence: float = CONFIDENCE) -> int | None:
    """Return the smallest number of samples whose Tango bound is <= `allowed` (a proportion) at the same flip rates.

    None when the estimate itself is not below `allowed`: no number helps. Closed form, because at fixed rates the
    score grows with the square root of n and nothing else. Raises ValueError for impossible counts.
    """
    _check_counts(worse, better, n)
    rates = worse / n, better / n
    gap = min(allowed, 1.0) - (rates[0] - rates[1])
    if gap <= _ABSOLUTE_TOLERANCE:
        return None
    z = float(ndtri(confidence))
    return max(1, math.ceil(z * z * _variance(min(allowed, 1.0), *rates) / gap**2 - TOLERANCE))


def certain(worse: int, better: int, n: int, allowed: float) -> bool:
    """Return whether the drop of proportions is at most `allowed`, wrong at most 5 % of the time.

    Tango's bound must say so, and up to FEW changed samples the exact test too.
    """
    if not within(tango_upper(worse, better, n), allowed):
        return False
    return worse + better > FEW or exact_p_value(worse, better, n, min(allowed, 1.0)) <= 1 - CONFIDENCE


def certain_samples(worse: int, better: int, n: int, allowed: float) -> int | None:
    """Return about how many samples would make it certain at the same flip rates; None when no number does.

    At most `n` exactly where `n` made it certain.
    """
    needed = samples_needed(worse, better, n, allowed)
    if needed is None:
        return None
    while (worse + better) * needed <= FEW * n:
        if certain(round(worse * needed / n), round(better * needed / n), needed, allowed):
            break
        needed = math.ceil(needed * GROWTH)
    return min(needed, n) if certain(worse, better, n, allowed) else max(needed, n + 1)


def standard_error(worse: int, better: int, n: int) -> float:
    """Return the standard error of the paired difference of proportions (worse - better) / n."""
    _check_counts(worse, better, n)
    return math.sqrt(max(0.0, (worse + better) / n - ((worse - better) / n) ** 2) / n)


def bootstrap_upper(
    before: Scores,
    after: Scores,
    *,
    higher_is_better: bool,
    seed: int,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> float | None:
    """Return the one-sided upper limit of the mean drop, positive = worse, in the unit of the scores (N,).

    Paired bootstrap: whole samples are drawn, so what the two models share cancels; see resampling.upper_of. None
    (undecided) with fewer than MIN_CHANGED changed samples, or with scores that are not finite.
    """
    drops = _drops(before, after, higher_is_better=higher_is_better)
    changed = int(np.count_nonzero(drops))
    if changed < MIN_CHANGED or not np.isfinite(drops).all():
        return None
    generator = np.random.default_rng(seed)
    n = len(drops)
    rows = max(1, CHUNK // n)
    means = np.concatenate(
        [
            drops[generator.integers(n, size=(min(rows, resamples - start), n))].mean(axis=1)
            for start in range(0, resamples, rows)
        ]
    )
    return upper_of(means, drops, float(drops.mean()), changed, n, confidence)


def paired_error(before: Scores, after: Scores, metric: Metric) -> float:
    """Return the standard error of the drop in the metric's unit; infinite where a score is no finite number."""
    return _error(_contributions(before, after, metric))


def paired_drop(before: Scores, after: Scores, metric: Metric, allowed: float) -> Drop:
    """Return the paired drop of scores before and after, (N,) or (N, K), in the metric's unit, positive = worse.

    `certified` says whether the 95 % upper bound is at most `allowed` (metric's unit). A result with scores that are
    not finite has an infinite drop. Raises BadInput when the scores do not pair up.
    """
    if before.shape != after.shape or before.ndim != (1 if metric.is_mean else 2) or not len(before):
        raise BadInput(
            f"metric {metric.name}: scores of shapes {before.shape} before and {after.shape} after; "
            "it must return one score a sample, shape (N,)"
        )
    drops = _contributions(before, after, metric)
    changed = (before != after) if metric.is_mean else (before != after).any(axis=1)
    n, worse, better = len(drops), int((changed & (drops > 0)).sum()), int((changed & (drops < 0)).sum())
    upper: float | None
    if metric.binary:
        estimate = metric.scale * (worse - better) / n
        upper = metric.scale * tango_upper(worse, better, n)
        needed = certain_samples(worse, better, n, allowed / metric.scale)
    else:
        estimate, upper = _estimate(before, after, drops, metric)
        needed = _needed(estimate, _error(drops), n, worse + better, allowed)
    certified = upper is not None and within(upper, allowed)
    if metric.binary:
        certified = certain(worse, better, n, allowed / metric.scale)
    return Drop(estimate=estimate, upper_95=upper, n=n, worse=worse, better=better, certified=certified, needed=needed)


def _contributions(before: Scores, after: Scores, metric: Metric) -> Scores:
    """Return each sample's part in the drop, (N,), in the metric's unit, positive = worse."""
    if metric.is_mean:
        return metric.scale * _drops(before, after, higher_is_better=metric.higher_is_better)
    return influences(before, after, metric)


def _estimate(before: Scores, after: Scores, drops: Scores, metric: Metric) -> tuple[float, float | None]:
    """Return the drop and its upper bound by the bootstrap, None where that is undecided."""
    if not metric.is_mean:
        return whole_drop(before, after, metric), whole_upper(before, after, metric)
    bound = bootstrap_upper(before, after, higher_is_better=metric.higher_is_better, seed=BOOTSTRAP_SEED)
    return float(drops.mean()), None if bound is None else metric.scale * bound


def _error(drops: Scores) -> float:
    return float(drops.std()) / math.sqrt(len(drops)) if np.isfinite(drops).all() else math.inf


def _drops(before: Scores, after: Scores, *, higher_is_better: bool) -> Scores:
    """Return (N,) float64 drops, positive = worse. What is no number after compression is infinitely worse."""
    with np.errstate(invalid="ignore"):  # inf - inf: handled on the next line
        change = np.asarray(before, dtype=np.float64) - np.asarray(after, dtype=np.float64)
    drops = change if higher_is_better else -change
    return np.where(np.isnan(drops), np.inf, drops)


def _needed(estimate: float, error: float, n: int, changed: int, allowed: float) -> int | None:
    """Return the samples at which a normal bound would meet `allowed` and MIN_CHANGED samples would have changed."""
    gap = allowed - estimate
    if not changed or not math.isfinite(error) or gap <= _ABSOLUTE_TOLERANCE:
        return None
    z = float(ndtri(CONFIDENCE))
    return max(math.ceil(n * (z * error / gap) ** 2 - TOLERANCE), math.ceil(n * MIN_CHANGED / changed), 1)
