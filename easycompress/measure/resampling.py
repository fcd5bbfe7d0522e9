"""The paired drop of a metric that is no mean of one number a sample: F1, perplexity, R2, a rank correlation.

Its bound is the paired percentile bootstrap of the whole metric: samples are drawn, both models' qualities on the draw
computed, their difference taken (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapters 11 and 13). Its
standard error comes from each sample's influence, the infinitesimal jackknife, or where no derivative exists from
leaving groups of samples out.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from scipy.special import stdtrit

from easycompress.core.errors import BadInput

if TYPE_CHECKING:
    from easycompress.core.task import Metric

Scores: TypeAlias = "np.ndarray[Any, Any]"

CONFIDENCE = 0.95
"""Of every bound that easycompress states."""

MIN_CHANGED = 30
"""Below so many changed samples the bootstrap's tail is made of a handful of values: undecided."""

RESAMPLES = 2000
"""Of the bootstrap: the 95 % quantile then rests on 100 resamples."""

BOOTSTRAP_SEED = 0
"""A bound is a function of the scores alone, so that a report can be recomputed."""

WHOLE_RESAMPLES = 400
"""Of a metric that must be computed anew on every draw: 20 of them lie beyond the 95 % quantile."""

GROUPS = 40
"""Groups that are left out in turn where a metric has no derivative."""

CHUNK = 2_000_000
"""Drawn indices held at once."""

SHORTFALL = 0.015
"""How far percentile intervals fall short of their confidence where few samples changed by very unequal amounts.

Their confidence is raised by it up to FEW_CHANGED changed samples, and by less beyond: `python -m benchmarks.verdicts`
prints how often bounds are wrong at the boundary, with 95 % itself 8 to 11 % of the time.
"""

FEW_CHANGED = 50

_STEP = 1e-6  # of a derivative, relative to the mean's own size


def whole_drop(before: Scores, after: Scores, metric: Metric) -> float:
    """Return how much worse `after` is than `before`, rows (N, K), in the metric's unit; infinite without a number."""
    change = metric.quality(before) - metric.quality(after)
    drop = change if metric.higher_is_better else -change
    return math.inf if math.isnan(drop) else drop


def whole_upper(before: Scores, after: Scores, metric: Metric) -> float | None:
    """Return the one-sided 95 % upper limit of that drop; None (undecided) under MIN_CHANGED changed samples."""
    changed = (before != after).any(axis=1)
    estimate = whole_drop(before, after, metric)
    if changed.sum() < MIN_CHANGED or not math.isfinite(estimate):
        return None
    generator = np.random.default_rng(BOOTSTRAP_SEED)
    drops = (
        _by_rows(before, after, metric, generator) if metric.of_rows else _by_means(before, after, metric, generator)
    )
    finite = drops[np.isfinite(drops)]  # a draw may hold one class only, of which some metrics know nothing
    if not len(finite):
        return None
    count = len(before) if metric.of_rows is None else min(GROUPS, len(before))
    return upper_of(finite, influences(before, after, metric), estimate, int(changed.sum()), count)


def upper_of(
    drops: Scores, parts: Scores, estimate: float, changed: int, count: int, confidence: float = CONFIDENCE
) -> float:
    """Return the one-sided upper limit from the resampled `drops` (R,) and each sample's part in the drop (N,).

    It is the largest of three: the percentile; Student's t; and t with the correction for skewness of N. J. Johnson
    (Modified t tests and confidence intervals for asymmetrical populations, Journal of the American Statistical
    Association 73, 1978). A few large losses among many small ones make the first two too small. `changed` samples
    make the degrees of freedom, `count` is how many of the parts are independent.
    """
    level = confidence + SHORTFALL * min(1.0, FEW_CHANGED / changed) * (1 - confidence) / (1 - CONFIDENCE)
    error = float(parts.std()) / math.sqrt(len(parts))
    quantile = float(stdtrit(max(1, changed - 1), level))
    skewness = float((((parts - parts.mean()) / (parts.std() or 1.0)) ** 3).mean())
    skewed = estimate + error * (quantile + skewness * (2 * quantile**2 + 1) / (6 * math.sqrt(count)))
    return max(float(np.quantile(drops, level)), estimate + error * quantile, skewed)


def influences(before: Scores, after: Scores, metric: Metric) -> Scores:
    """Return each sample's influence on the drop, (N,), positive = worse: their spread gives the drop's error.

    Infinite where the drop is no number.
    """
    if not math.isfinite(whole_drop(before, after, metric)):
        return np.full(len(before), math.inf)
    sign = 1.0 if metric.higher_is_better else -1.0
    if metric.of_rows is not None:
        return sign * _left_out(before, after, metric)
    return sign * (_linear(before, metric) - _linear(after, metric))


def _linear(rows: Scores, metric: Metric) -> Scores:
    """Return the first-order contribution of each row to the quality: (row - mean) x the derivative at the mean."""
    assert metric.of_means is not None  # noqa: S101 - what no mean and no function of rows is, is one of means
    means = rows.mean(axis=0)
    steps = _STEP * np.maximum(np.abs(means), _STEP)
    up, down = means + np.diag(steps), means - np.diag(steps)
    with np.errstate(all="ignore"):
        slopes = (metric.of_means(up) - metric.of_means(down)) / (2 * steps)
    influence: Scores = metric.scale * ((rows - means) @ np.nan_to_num(slopes, posinf=0.0, neginf=0.0))
    return influence


def _left_out(before: Scores, after: Scores, metric: Metric) -> Scores:
    """Return (N,) influences from leaving out each of GROUPS groups: the same for all samples of a group."""
    n = len(before)
    count = min(GROUPS, n)
    group = np.arange(n) % count
    whole = metric.quality(before) - metric.quality(after)
    found = np.zeros(n)
    for index in range(count):
        kept = group != index
        if not kept.any():
            continue
        left = _drop_on(before[kept], after[kept], metric)
        left = left if metric.higher_is_better else -left
        # sqrt(count / n) scales the groups' spread to that of single samples: their error is then the jackknife's.
        found[~kept] = (count - 1) * (whole - left) * math.sqrt(n / count)
    return np.where(np.isfinite(found), found, 0.0)


def _by_means(before: Scores, after: Scores, metric: Metric, generator: np.random.Generator) -> Scores:
    """Return the drops on RESAMPLES draws, of a function of the columns' means."""
    assert metric.of_means is not None  # noqa: S101 - as the caller has checked
    n = len(before)
    size = max(1, CHUNK // n)
    parts = []
    for start in range(0, RESAMPLES, size):
        count = min(size, RESAMPLES - start)
        drawn = generator.integers(n, size=(count, n)) + n * np.arange(count)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=count * n).reshape(count, n) / n
        with np.errstate(all="ignore"):
            parts.append(metric.of_means(weights @ before) - metric.of_means(weights @ after))
    drops = metric.scale * np.concatenate(parts)
    return drops if metric.higher_is_better else -drops


def _by_rows(before: Scores, after: Scores, metric: Metric, generator: np.random.Generator) -> Scores:
    """Return the drops on WHOLE_RESAMPLES draws, of a metric that is computed anew on each."""
    n = len(before)
    draws = [generator.integers(n, size=n) for _ in range(WHOLE_RESAMPLES)]
    return np.array([_drop_on(before[draw], after[draw], metric) for draw in draws])


def _drop_on(before: Scores, after: Scores, metric: Metric) -> float:
    """Return the drop on some of the samples, NaN where the metric can't tell it of these: they may lack a class."""
    try:
        return whole_drop(before, after, metric)
    except BadInput:
        return math.nan
