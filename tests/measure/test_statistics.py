from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtri

from easycompress.core.errors import BadInput
from easycompress.core.task import Metric
from easycompress.measure.statistics import (
    MIN_CHANGED,
    bootstrap_upper,
    certain,
    paired_drop,
    paired_error,
    samples_needed,
    standard_error,
    tango_upper,
    within,
)

if TYPE_CHECKING:
    from torch import Tensor

Z = float(ndtri(0.95))


def unused(outputs: Tensor, targets: Tensor) -> np.ndarray:
    raise NotImplementedError


ACCURACY = Metric("accuracy", unused, scale=100.0, percent=True, binary=True)
MSE = Metric("mse", unused, higher_is_better=False)
F1 = Metric("f1", unused, scale=100.0, percent=True)


@st.composite
def tables(draw: st.DrawFn) -> tuple[int, int, int]:
    n = draw(st.integers(1, 20_000))
    worse = draw(st.integers(0, n))
    return worse, draw(st.integers(0, n - worse)), n


def outcomes(worse: int, better: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    before, after = np.ones(n), np.ones(n)
    after[:worse] = 0
    before[worse : worse + better] = 0
    return before, after


@pytest.mark.parametrize(
    ("worse", "better", "n", "upper"),
    [
        (5, 3, 1000, 0.007595450650),  # an independent implementation of the same interval
        (0, 4, 100, -0.012603570385),
        (40, 0, 100, 0.482190493566),
        (300, 250, 10_000, 0.008875242417),
        (100, 0, 100, 1.0),
        (1, 0, 1, 1.0),
        (0, 100, 100, -(100 - Z**2) / (100 + Z**2)),  # solved by hand: the restricted variance is 1 - d^2
        (0, 0, 100, Z**2 / (100 + Z**2)),
        (0, 0, 1, Z**2 / (1 + Z**2)),
    ],
)
def test_tango_known_values(worse: int, better: int, n: int, upper: float) -> None:
    assert tango_upper(worse, better, n) == pytest.approx(upper, abs=1e-11)


@given(tables())
def test_tango_bound_solves_the_score_equation(table: tuple[int, int, int]) -> None:
    worse, better, n = table
    upper = tango_upper(worse, better, n)
    assert (worse - better) / n - 1e-12 <= upper <= 1
    if worse < n:
        q_b = -worse - better + (2 * n - worse + better) * upper
        q = (math.sqrt(max(0.0, q_b**2 + 8 * n * better * upper * (1 - upper))) - q_b) / (4 * n)
        spread = math.sqrt(max(0.0, n * (2 * q + upper * (1 - upper))))
        assert n * upper - (worse - better) == pytest.approx(Z * spread, rel=1e-4, abs=1e-4)


@given(tables())
def test_tango_grows_with_each_sample_that_got_worse(table: tuple[int, int, int]) -> None:
    worse, better, n = table
    if worse + better < n:
        assert tango_upper(worse + 1, better, n) >= tango_upper(worse, better, n) - 1e-12
    assert tango_upper(worse, better, n, confidence=0.99) >= tango_upper(worse, better, n, confidence=0.9) - 1e-12


@given(tables(), st.integers(2, 9))
def test_tango_margin_shrinks_with_more_samples(table: tuple[int, int, int], times: int) -> None:
    worse, better, n = table
    assert tango_upper(worse * times, better * times, n * times) <= tango_upper(worse, better, n) + 1e-12


@given(st.integers(1, 5000), st.integers(0, 5000))
def test_tango_as_many_better_as_worse_is_above_zero(flips: int, same: int) -> None:
    assert 0 < tango_upper(flips, flips, 2 * flips + same) < 1


@pytest.mark.parametrize("counts", [(1, 0, 0), (-1, 0, 5), (0, -1, 5), (3, 3, 5)])
def test_impossible_counts_are_refused(counts: tuple[int, int, int]) -> None:
    for function in (tango_upper, standard_error):
        with pytest.raises(ValueError, match="not counts of a paired comparison"):
            function(*counts)
    with pytest.raises(ValueError, match="not counts of a paired comparison"):
        samples_needed(*counts, 0.01)


@pytest.mark.parametrize(
    ("n", "worse", "better", "wald_misses"), [(30, 0.1, 0.0, 0.15), (50, 0.04, 0.01, 0.12), (100, 0.03, 0.01, 0.08)]
)
def test_coverage_at_the_boundary(n: int, worse: float, better: float, wald_misses: float) -> None:
    """A bound is wrong when it lies below the true drop: at most 5 % of the time, where Wald's is far worse."""
    draws = np.random.default_rng(0).multinomial(n, [worse, better, 1 - worse - better], size=20_000)[:, :2]
    tables_seen, times = np.unique(draws, axis=0, return_counts=True)
    counts = [(int(a), int(b)) for a, b in tables_seen]
    true_drop = worse - better - 1e-12
    tango = np.array([tango_upper(a, b, n) < true_drop for a, b in counts])
    wald = np.array([(a - b) / n + Z * standard_error(a, b, n) < true_drop for a, b in counts])
    assert times[tango].sum() / times.sum() <= 0.055
    assert times[wald].sum() / times.sum() > wald_misses


@given(tables(), st.floats(0.001, 0.2))
def test_samples_needed_is_the_smallest_that_do(table: tuple[int, int, int], allowed: float) -> None:
    worse, better, n = table
    needed = samples_needed(worse, better, n, allowed)
    if (worse - better) / n >= allowed:
        assert needed is None
        return
    if needed is None:  # closer to the floor than rounding can tell
        assert allowed - (worse - better) / n < 1e-9
        return
    rates = worse / n, better / n
    assert tango_upper(rates[0] * needed, rates[1] * needed, needed) <= allowed + 1e-9
    if needed > 1:
        fewer = needed - 1
        assert tango_upper(rates[0] * fewer, rates[1] * fewer, fewer) > allowed - 1e-9


def test_samples_needed_known_cases() -> None:
    assert samples_needed(25, 25, 1000, 0.01) == 1400  # a thousand samples can't certify one point at 5 % flips
    assert samples_needed(0, 0, 100, 0.01) == math.ceil(Z**2 * 0.99 / 0.01)
    assert samples_needed(2, 1, 100, 0.01) is None
    assert samples_needed(0, 100, 100, 2.0) == 1


def test_standard_error_is_that_of_the_differences() -> None:
    before, after = outcomes(7, 4, 50)
    assert standard_error(7, 4, 50) == pytest.approx((before - after).std() / math.sqrt(50))
    assert standard_error(0, 0, 50) == 0
    assert paired_error(before, after, ACCURACY) == pytest.approx(100 * standard_error(7, 4, 50))


def test_binary_drop_is_in_percent_points() -> None:
    before, after = outcomes(12, 7, 1000)
    drop = paired_drop(before, after, ACCURACY, allowed=1.0)
    assert drop.estimate == pytest.approx(0.5)
    assert (drop.n, drop.worse, drop.better) == (1000, 12, 7)
    assert drop.upper_95 == pytest.approx(100 * tango_upper(12, 7, 1000))
    assert not drop.certified
    least = samples_needed(12, 7, 1000, 0.01)
    assert least is not None
    assert drop.needed is not None
    assert least <= drop.needed <= 1.1 * least  # the exact test may ask for a few more
    assert certain(round(0.012 * drop.needed), round(0.007 * drop.needed), drop.needed, 0.01)
    assert paired_drop(before, after, ACCURACY, allowed=2.0).certified


def test_binary_gain_is_a_negative_drop() -> None:
    drop = paired_drop(*outcomes(0, 40, 1000), ACCURACY, allowed=0.0)
    assert drop.estimate == pytest.approx(-4.0)
    assert drop.certified
    assert drop.upper_95 is not None
    assert drop.upper_95 < 0


def test_unchanged_binary_scores_still_have_a_bound() -> None:
    drop = paired_drop(*outcomes(0, 0, 100), ACCURACY, allowed=1.0)
    assert drop.estimate == 0
    assert drop.upper_95 == pytest.approx(2.634, abs=1e-3)
    assert drop.needed is not None
    assert 0.99**drop.needed < 0.05 < 0.99 ** (drop.needed / 1.05)  # none worse among so many, at a true drop of 0.01


def test_lower_is_better_turns_the_sign() -> None:
    before = np.linspace(0, 1, 200)
    drop = paired_drop(before, before + 0.1, MSE, allowed=0.2)
    assert drop.estimate == pytest.approx(0.1)
    assert (drop.worse, drop.better) == (200, 0)
    assert drop.certified
    assert drop.upper_95 == pytest.approx(0.1)


def test_bootstrap_agrees_with_the_normal_bound_on_many_samples() -> None:
    generator = np.random.default_rng(1)
    before = generator.normal(0.8, 0.1, 4000)
    after = before - generator.normal(0.01, 0.05, 4000)
    drop = paired_drop(before, after, F1, allowed=1.5)
    error = paired_error(before, after, F1)
    assert error == pytest.approx(100 * 0.05 / math.sqrt(4000), rel=0.05)
    assert drop.upper_95 == pytest.approx(drop.estimate + Z * error, abs=0.02)
    assert drop == paired_drop(before, after, F1, allowed=1.5)
    assert drop.needed is not None
    scaled_error = error * math.sqrt(4000 / drop.needed)
    assert drop.estimate + Z * scaled_error == pytest.approx(1.5, abs=1e-3)


@pytest.mark.parametrize(("changed", "decided"), [(MIN_CHANGED - 1, False), (MIN_CHANGED, True)])
def test_bootstrap_is_undecided_with_few_changed_samples(changed: int, decided: bool) -> None:  # noqa: FBT001 - a case
    before, after = np.ones(500), np.ones(500)
    after[:changed] = 0.9
    upper = bootstrap_upper(before, after, higher_is_better=True, seed=0)
    assert (upper is not None) is decided
    drop = paired_drop(before, after, F1, allowed=5.0)
    assert drop.certified is decided
    assert drop.needed == math.ceil(500 * MIN_CHANGED / changed)


@settings(max_examples=30)
@given(st.integers(0, 10_000))
def test_bootstrap_bound_is_not_below_the_estimate(seed: int) -> None:
    generator = np.random.default_rng(seed)
    before, after = generator.normal(size=60), generator.normal(size=60)
    upper = bootstrap_upper(before, after, higher_is_better=True, seed=seed, resamples=200)
    assert upper is not None
    assert upper >= (before - after).mean()


def test_no_number_helps_when_the_estimate_misses() -> None:
    before = np.linspace(1, 2, 100)
    assert paired_drop(before, before - 0.5, F1, allowed=50.0).needed is None
    assert paired_drop(before, before, F1, allowed=50.0).needed is None


def test_scores_that_are_no_numbers_are_infinitely_worse() -> None:
    before, after = np.ones(100), np.full(100, np.nan)
    drop = paired_drop(before, after, MSE, allowed=1.0)
    assert drop.estimate == math.inf
    assert drop.worse == 100
    assert drop.upper_95 is None
    assert drop.needed is None
    assert not drop.certified
    assert paired_error(before, after, MSE) == math.inf


def test_scores_must_pair_up() -> None:
    text = r"metric f1: scores of shapes \(3,\) before and \(2,\) after; it must return one score a sample"
    with pytest.raises(BadInput, match=text):
        paired_drop(np.ones(3), np.ones(2), F1, 1.0)
    for shape in [(0,), (2, 2)]:
        with pytest.raises(BadInput, match="one score a sample"):
            paired_drop(np.ones(shape), np.ones(shape), F1, 1.0)


def test_within_forgives_rounding_only() -> None:
    assert within(98.43 - 97.43, 1.0)
    assert within(0.1 + 0.2, 0.3)
    assert within(1e-17, 0.0)
    assert not within(1.000001, 1.0)
    assert not within(1.01e-8, 1e-8)
    assert not within(math.nan, 1.0)
