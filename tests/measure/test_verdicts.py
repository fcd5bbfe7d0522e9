"""How often a certified verdict is wrong where it is the hardest: the true drop is the floor itself."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.verdicts import RESULTS, proportions, rows
from benchmarks.verdicts_page import page
from easycompress.core.task import Metric
from easycompress.measure.exact import exact_p_value
from easycompress.measure.statistics import certain, certain_samples, paired_drop, samples_needed

ACCURACY = Metric("accuracy", lambda outputs, _: outputs.numpy(), scale=100.0, percent=True, binary=True)
SCORE = Metric("score", lambda outputs, _: outputs.numpy(), scale=100.0, percent=True)

OF_ACCURACY, OF_OTHERS = 5.5, 6.0
"""Percent of the verdicts that may be wrong."""


@pytest.mark.parametrize(("n", "floor", "better"), [(300, 0.02, 0.0), (300, 0.003, 0.01), (268, 0.01, 0.0)])
def test_certificates_of_accuracy_are_wrong_as_seldom_as_they_say(n: int, floor: float, better: float) -> None:
    wrong = proportions(n, floor, better)
    assert wrong["easycompress"] <= OF_ACCURACY
    assert wrong["tango"] > OF_ACCURACY  # so that this is a case in which the exact test is what helps
    assert wrong["wald"] > wrong["tango"]


def test_drawn_samples_give_the_enumerated_share() -> None:
    generator = np.random.default_rng(0)
    n, floor, better, draws = 300, 0.02, 0.01, 2000
    wrong = 0
    for _ in range(draws):
        worse, gained, _ = generator.multinomial(n, [floor + better, better, 1 - floor - 2 * better])
        before, after = np.ones(n), np.ones(n)
        after[:worse], before[worse : worse + gained] = 0, 0
        wrong += paired_drop(before, after, ACCURACY, allowed=100 * floor).certified
    share = 100 * wrong / draws
    assert share <= OF_ACCURACY
    assert share == pytest.approx(proportions(n, floor, better)["easycompress"], abs=1.5)


def test_certificates_of_other_metrics_are_wrong_as_seldom_as_they_say() -> None:
    generator = np.random.default_rng(0)
    n, draws, share, worse = 600, 600, 0.08, 0.8
    floor = 100 * (2 * worse - 1) * share * 0.5
    wrong = undecided = 0
    for _ in range(draws):
        signs = np.where(generator.random(n) < worse, -1.0, 1.0)
        after = (generator.random(n) < share) * signs * generator.random(n)
        drop = paired_drop(np.zeros(n), after, SCORE, allowed=floor)
        assert (drop.upper_95 is None) == (drop.worse + drop.better < 30)
        wrong += drop.certified
        undecided += drop.upper_95 is None
    assert 0.5 <= 100 * wrong / (draws - undecided) <= OF_OTHERS


@settings(max_examples=60)
@given(st.integers(1, 3000), st.integers(0, 40), st.integers(0, 40), st.sampled_from([0.0, 0.003, 0.01, 0.03, 0.1]))
def test_exact_probabilities_are_probabilities_and_agree_with_counting(
    n: int, worse: int, better: int, floor: float
) -> None:
    if worse + better > n:
        return
    probability = exact_p_value(worse, better, n, floor)
    assert 0 < probability <= 1
    if worse < n - better:
        assert exact_p_value(worse + 1, better, n, floor) >= probability - 1e-3  # one more is never better
    if not worse and not better and floor:
        assert probability >= (1 - floor) ** n


@settings(max_examples=60)
@given(st.integers(20, 3000), st.integers(0, 30), st.integers(0, 30), st.sampled_from([0.003, 0.01, 0.03]))
def test_the_samples_needed_say_what_is_certain(n: int, worse: int, better: int, floor: float) -> None:
    if worse + better > n:
        return
    needed = certain_samples(worse, better, n, floor)
    assert (needed is None) == (samples_needed(worse, better, n, floor) is None)
    assert certain(worse, better, n, floor) == (needed is not None and needed <= n)


def test_no_bound_certifies_what_nothing_changed_in_too_few_samples() -> None:
    assert not certain(0, 0, 268, 0.01)  # Tango's bound alone says yes, and is wrong 6.8 % of the time
    assert certain(0, 0, 300, 0.01)


def test_the_committed_table_is_whole_and_keeps_what_is_promised() -> None:
    held = json.loads(RESULTS.read_text())
    assert held.keys() == rows().keys()
    assert max(row["easycompress"] for name, row in held.items() if name.startswith("accuracy")) <= OF_ACCURACY
    bounded = [row["wrong"] for name, row in held.items() if name.split()[1] in ("equal", "uniform", "exponential")]
    assert max(bounded) <= OF_OTHERS
    assert (Path(__file__).parents[2] / "docs" / "verdicts.md").read_text(encoding="utf-8") == page(held)
