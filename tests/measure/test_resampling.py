"""The drop of a metric that is no mean: its error is the spread over data sets, and it agrees with what is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from easycompress.core.errors import BadInput
from easycompress.core.task import Metric
from easycompress.measure.resampling import MIN_CHANGED, influences, whole_drop, whole_upper
from easycompress.measure.statistics import paired_drop, paired_error
from easycompress.metrics.classes import f1
from easycompress.metrics.values import spearman


def unused(outputs: object, targets: object) -> np.ndarray:
    raise NotImplementedError


F1 = Metric("f1", unused, scale=100.0, percent=True, of_means=f1)
RATIO = Metric("ratio", unused, higher_is_better=False, of_means=lambda means: means[..., 0] / means[..., 1])
RANKS = Metric("ranks", unused, of_rows=spearman)


def counted(truth: np.ndarray, guess: np.ndarray) -> np.ndarray:
    """Rows of a classifier of two: right, found and there of each."""
    classes = np.arange(2)
    there, found = truth[:, None] == classes, guess[:, None] == classes
    return np.concatenate([there & found, found, there], 1).astype(float)


def classified(generator: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    truth = (generator.random(n) < 0.3).astype(int)
    before = np.where(generator.random(n) < 0.1, 1 - truth, truth)
    after = np.where(generator.random(n) < 0.08, 1 - before, before)
    return counted(truth, before), counted(truth, after)


def ratios(generator: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    length = generator.integers(3, 30, n).astype(float)
    before = length * generator.gamma(4.0, 0.5, n)
    return np.stack([before, length], 1), np.stack([before + length * generator.normal(0.1, 0.4, n), length], 1)


def ranked(generator: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    truth = generator.normal(size=n)
    before = truth + 0.4 * generator.normal(size=n)
    after = before + 0.4 * generator.normal(size=n)
    return np.stack([before, truth], 1), np.stack([after, truth], 1)


@pytest.mark.parametrize(
    ("metric", "draw", "sets"), [(F1, classified, 1500), (RATIO, ratios, 1500), (RANKS, ranked, 600)]
)
def test_the_error_is_the_spread_over_many_data_sets(metric: Metric, draw: object, sets: int) -> None:
    generator = np.random.default_rng(0)
    n = 400
    pairs = [draw(generator, n) for _ in range(sets)]  # type: ignore[operator] # one of the functions above
    spread = np.std([whole_drop(before, after, metric) for before, after in pairs])
    errors = [paired_error(before, after, metric) for before, after in pairs[:80]]
    assert np.mean(errors) == pytest.approx(spread, rel=0.1)


@pytest.mark.parametrize(("metric", "draw"), [(F1, classified), (RATIO, ratios)])
def test_a_function_of_the_means_is_the_same_function_of_the_rows(metric: Metric, draw: object) -> None:
    before, after = draw(np.random.default_rng(3), 500)  # type: ignore[operator] # one of the functions above
    means = metric.of_means
    assert means is not None
    rows = replace(metric, of_means=None, of_rows=lambda rows: float(means(rows.mean(axis=0))))
    by_means, by_rows = (paired_drop(before, after, each, 5.0) for each in (metric, rows))
    assert by_rows.estimate == pytest.approx(by_means.estimate)
    assert by_means.upper_95 is not None
    assert by_rows.upper_95 is not None
    error = paired_error(before, after, metric)
    assert paired_error(before, after, rows) == pytest.approx(error, rel=0.25)  # from forty groups
    assert by_rows.upper_95 - by_rows.estimate == pytest.approx(by_means.upper_95 - by_means.estimate, rel=0.25)
    assert 1.645 * error < by_means.upper_95 - by_means.estimate < 1.3 * 1.645 * error  # widened: few samples changed


@pytest.mark.parametrize("higher", [True, False])
def test_a_mean_as_a_function_of_means_is_a_mean(higher: bool) -> None:  # noqa: FBT001 - a case
    generator = np.random.default_rng(1)
    before = generator.normal(0.8, 0.1, 600)
    after = before - generator.normal(0.01, 0.05, 600)
    plain = Metric("m", unused, scale=100.0, percent=True, higher_is_better=higher)
    whole = replace(plain, of_means=lambda means: means[..., 0])
    first = paired_drop(before, after, plain, 5.0)
    second = paired_drop(before[:, None], after[:, None], whole, 5.0)
    assert second.estimate == pytest.approx(first.estimate)
    assert paired_error(before[:, None], after[:, None], whole) == pytest.approx(paired_error(before, after, plain))
    assert first.upper_95 is not None
    assert second.upper_95 == pytest.approx(first.upper_95, abs=0.05)
    assert second.certified == first.certified


@pytest.mark.parametrize(("changed", "decided"), [(MIN_CHANGED - 1, False), (MIN_CHANGED, True)])
def test_few_changed_samples_decide_nothing(changed: int, decided: bool) -> None:  # noqa: FBT001 - a case
    before, _ = classified(np.random.default_rng(2), 500)
    after = before.copy()
    after[:changed, :4] = after[:changed, [1, 0, 3, 2]]
    assert ((before != after).any(1)).sum() == changed
    assert (whole_upper(before, after, F1) is not None) is decided


def test_a_draw_that_tells_nothing_is_left_out() -> None:
    def lifted(rows: np.ndarray) -> float:
        if rows[:, 1].sum() < 2:
            raise BadInput("--metric own.py:f: it raised ValueError: one class; mend it")
        return float(rows[:, 0].mean())

    metric = Metric("own.py:f", unused, of_rows=lifted)
    generator = np.random.default_rng(4)
    before = np.stack([generator.random(80), np.arange(80) < 3], 1)
    after = before - [[0.1, 0.0]]
    drop = paired_drop(before, after, metric, 1.0)
    assert drop.estimate == pytest.approx(0.1)
    assert drop.upper_95 == pytest.approx(0.1)
    assert np.isfinite(influences(before, after, metric)).all()
    with pytest.raises(BadInput, match="one class"):
        metric.quality(before[3:])
