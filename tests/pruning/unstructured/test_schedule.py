from __future__ import annotations

import itertools

import pytest

from easycompress.pruning.unstructured.schedule import course, kept_after
from easycompress.pruning.unstructured.settings import LEAST_KEPT, UnstructuredPruning, kept_at


def test_the_shares_are_those_of_section_3_2_1() -> None:
    """Sparsity (i / k)^(1 / c) S: with k = 4, c = 2 and S = 0.8 it is 0.4, 0.566, 0.693, 0.8."""
    assert kept_after(4, 0.2, 2.0) == pytest.approx((0.6, 1 - 0.8 * 0.5**0.5, 1 - 0.8 * 0.75**0.5, 0.2))
    assert kept_after(4, 0.2, 1.0) == pytest.approx((0.8, 0.6, 0.4, 0.2))
    assert kept_after(1, 0.2, 3.0) == (0.2,)


def test_later_rounds_remove_less() -> None:
    shares = (1.0, *kept_after(10, 0.01, 3.0))
    removed = [before - after for before, after in itertools.pairwise(shares)]
    assert removed == sorted(removed, reverse=True)
    assert shares[-1] == 0.01


@pytest.mark.parametrize("epochs", [0, 1, 2, 3, 7, 10, 40, 200])
@pytest.mark.parametrize("samples", [1, 50, 900, 50_000])
@pytest.mark.parametrize("rounds", [1, 2, 10, 31])
@pytest.mark.parametrize("penalised", [True, False])
def test_a_course_spends_no_more_epochs_than_there_are(
    epochs: int, samples: int, rounds: int, *, penalised: bool
) -> None:
    plan = course(epochs, samples, rounds, penalised=penalised)
    between = (plan.rounds - 1) * plan.each * plan.samples / samples
    assert plan.before + between + plan.after <= epochs + (plan.rounds if samples < plan.rounds else 0)
    assert min(plan.before, plan.each, plan.after) >= 0
    assert plan.after >= 1 or epochs == 0
    if not penalised:
        assert plan.before == 0


def test_the_penalty_gets_a_share_of_its_own() -> None:
    assert course(40, 900, 10, penalised=True).before == 8
    assert course(40, 900, 10, penalised=True).each == 2


def test_strength_is_a_logarithmic_scale() -> None:
    assert kept_at(0.0) == 1.0
    assert kept_at(1.0) == LEAST_KEPT
    assert kept_at(0.5) == pytest.approx(LEAST_KEPT**0.5)
    assert UnstructuredPruning().amount(2 / 3) == "99.00% of the weights"
    assert UnstructuredPruning().at(0.0) is None


def test_the_penalty_is_the_usual_one_unless_given() -> None:
    assert UnstructuredPruning(penalty=1.0).weight_of_penalty() == 0
    assert UnstructuredPruning(regularization="l1", penalty=0.25).weight_of_penalty() == 0.25
    assert UnstructuredPruning(regularization="l2").weight_of_penalty() > 0
