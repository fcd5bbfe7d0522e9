from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from easycompress.codes.sparse import Sparse
from easycompress.core.errors import BadInput
from easycompress.lc.projections.pruned import LARGEST, ConstraintL0, ConstraintL1, PenaltyL0, PenaltyL1

if TYPE_CHECKING:
    from easycompress.lc.projections.base import Projection

# float16 numbers, so that rounding plays no part unless a test wants it to
values = st.integers(-64, 64).map(lambda n: n / 16)
vectors = st.lists(values, min_size=1, max_size=8).map(torch.tensor)
kappas = st.integers(0, 9)
radii = st.integers(0, 40).map(lambda n: n / 4)
lams = st.integers(0, 40).map(lambda n: n / 8)
mus = st.sampled_from([0.5, 1.0, 4.0])
EVERY = (ConstraintL0(3), ConstraintL0(share=0.5), ConstraintL1(2.5), PenaltyL0(0.7), PenaltyL1(0.7))
IDEMPOTENT = EVERY[:-1]


def dense(projection: Projection, *tensors: Tensor, mu: float = 1.0) -> Tensor:
    codes = projection.project(tensors, mu)
    assert all(isinstance(code, Sparse) for code in codes)
    assert [code.shape for code in codes] == [tuple(t.shape) for t in tensors]
    return torch.cat([code.dense().flatten() for code in codes]).double()


def distance(w: Tensor, t: Tensor) -> float:
    return float((w.double().flatten() - t.double().flatten()).square().sum())


@given(vectors, kappas)
def test_l0_is_the_best_of_all_supports(w: Tensor, kappa: int) -> None:
    result = dense(ConstraintL0(kappa), w)
    assert int(result.count_nonzero()) <= kappa
    supports = map(list, itertools.combinations(range(len(w)), min(kappa, len(w))))
    best = min(distance(w, torch.zeros(len(w)).index_put((torch.tensor(s).long(),), w[s])) for s in supports)
    assert distance(w, result) == pytest.approx(best, abs=1e-12)


@given(vectors, kappas, st.integers(0, 2**31))
def test_l0_is_no_worse_than_random_feasible_points(w: Tensor, kappa: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    result = dense(ConstraintL0(kappa), w)
    for _ in range(20):
        point = w + 0.3 * torch.randn(len(w), generator=generator)
        point[torch.randperm(len(w), generator=generator)[kappa:]] = 0
        assert distance(w, result) <= distance(w, point) + 1e-9


@pytest.mark.parametrize("kappa", range(5))
def test_l0_keeps_exactly_kappa_of_equal_weights_the_first_in_order(kappa: int) -> None:
    w = torch.tensor([0.5, -0.5, 0.5, -0.5])
    expected = torch.cat([w[:kappa], torch.zeros(4 - kappa)]).double()
    assert torch.equal(dense(ConstraintL0(kappa), w), expected)


def test_l0_breaks_ties_behind_what_is_larger() -> None:
    w = torch.tensor([1.0, 2.0, -1.0, 3.0, 1.0])
    assert dense(ConstraintL0(3), w).tolist() == [1.0, 2.0, 0.0, 3.0, 0.0]


@given(st.integers(2, 400), st.integers(0, 2**31), st.floats(0, 1), st.sampled_from([2, 5, 10**6]))
@settings(max_examples=60)
def test_l0_keeps_what_a_stable_sort_puts_first(count: int, seed: int, share: float, levels: int) -> None:
    w = torch.randint(-levels, levels + 1, (count,), generator=torch.Generator().manual_seed(seed)).float() / levels
    kappa = round(share * count)
    kept = torch.sort(w.abs(), descending=True, stable=True).indices[:kappa]
    expected = torch.zeros(count).scatter(0, kept, w[kept]).half().double()
    assert torch.equal(dense(ConstraintL0(kappa), w), expected)
    assert torch.equal(dense(ConstraintL0(share=share), w), expected)


def test_l0_keeps_nothing_at_zero_and_everything_at_n_or_beyond() -> None:
    w = torch.tensor([1.0, -2.0, 0.0, 3.0])
    for nothing in (ConstraintL0(0), ConstraintL0(share=0.0)):
        assert dense(nothing, w).tolist() == [0.0] * 4
        assert len(nothing.project([w], 1.0)[0].arrays()["values"]) == 0
    for everything in (ConstraintL0(4), ConstraintL0(10**12), ConstraintL0(share=1.0)):
        assert dense(everything, w).tolist() == w.tolist()


def test_l0_compares_weights_in_float32_and_stores_them_in_float16() -> None:
    w = torch.tensor([1.0, 1.0 + 1e-6, 1.0 - 1e-6])  # one value in float16
    assert dense(ConstraintL0(1), w).tolist() == [0.0, 1.0, 0.0]


@given(vectors, radii)
def test_l1_is_feasible_and_meets_the_optimality_conditions(w: Tensor, radius: float) -> None:
    result = dense(ConstraintL1(radius), w)
    norm, exact = float(result.abs().sum()), float(w.double().abs().sum())
    assert norm <= radius * (1 + 1e-9)
    if exact <= radius:
        assert torch.equal(result, w.double())
        return
    assert norm >= radius * (1 - 2**-10) - 1e-6  # on the surface, up to float16
    moved = w.double() - result
    slack = 2**-9 * float(w.abs().max()) + 1e-6
    # w - t is theta times a subgradient of the norm at t: theta sign(t) where t isn't 0, at most theta elsewhere
    assert (result * w >= 0).all()
    theta = moved[result != 0].abs()
    limit = float(theta.max()) if len(theta) else math.inf
    assert len(theta) == 0 or float(theta.max() - theta.min()) <= slack
    assert (moved[result == 0].abs() <= limit + slack).all()


@given(vectors, radii, st.integers(0, 2**31))
def test_l1_is_no_worse_than_random_feasible_points(w: Tensor, radius: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    result = dense(ConstraintL1(radius), w)
    for _ in range(20):
        point = result + 0.5 * torch.randn(len(w), generator=generator).double()
        point = point * min(1.0, radius / float(point.abs().sum()))
        assert distance(w, result) <= distance(w, point) + 2**-9 * max(1.0, distance(w, torch.zeros_like(w)))


def test_l1_of_many_weights_stays_inside_after_rounding() -> None:
    w = torch.randn(20_000, generator=torch.Generator().manual_seed(1))
    total = float(w.double().abs().sum())
    for radius in (1e-3, 1.0, 100.0, total * 0.5, total * 0.999999, total):
        norm = float(dense(ConstraintL1(radius), w).abs().sum())
        assert radius * (1 - 2**-10) <= norm <= radius * (1 + 1e-9)


def objective(penalty: Projection, w: Tensor, t: Tensor, mu: float) -> float:
    assert isinstance(penalty, PenaltyL0 | PenaltyL1)
    norm = t.count_nonzero() if isinstance(penalty, PenaltyL0) else t.abs().sum()
    return distance(w, t) + 2 * penalty.lam / mu * float(norm)


@given(vectors, lams, mus, st.sampled_from([PenaltyL0, PenaltyL1]))
def test_penalties_reach_the_least_objective_of_a_grid(
    w: Tensor, lam: float, mu: float, kind: type[PenaltyL0 | PenaltyL1]
) -> None:
    penalty = kind(lam)
    result = dense(penalty, w, mu=mu)
    # weights are multiples of 1/16 and lam / mu of 1/32, so every minimiser lies on the grid; the problem separates
    grid = torch.arange(-4 * 32, 4 * 32 + 1).double() / 32
    best = sum(min(objective(penalty, x, g, mu) for g in grid) for x in w)
    assert objective(penalty, w, result, mu) == pytest.approx(best, abs=1e-9)


def test_penalties_have_their_closed_forms() -> None:
    w = torch.tensor([-3.0, -2.0, -1.0, 0.0, 0.5, 2.5])
    assert dense(PenaltyL0(2.0), w, mu=1.0).tolist() == [-3.0, 0.0, 0.0, 0.0, 0.0, 2.5]  # the tie at 2 becomes 0
    assert dense(PenaltyL1(2.0), w, mu=2.0).tolist() == [-2.0, -1.0, 0.0, 0.0, 0.0, 1.5]


@pytest.mark.parametrize("penalty", [PenaltyL0, PenaltyL1])
def test_a_penalty_of_no_weight_changes_nothing_and_of_endless_weight_leaves_nothing(
    penalty: type[PenaltyL0 | PenaltyL1],
) -> None:
    w = torch.tensor([1.0, -2.0, 0.0])
    assert torch.equal(dense(penalty(0.0), w), w.double())
    assert torch.equal(dense(penalty(1e6), w, mu=1e-3), torch.zeros(3).double())


@pytest.mark.parametrize("projection", IDEMPOTENT)
def test_a_result_is_its_own_projection(projection: Projection) -> None:
    w = torch.randn(500, generator=torch.Generator().manual_seed(3))
    once = dense(projection, w)
    assert once.count_nonzero()
    assert torch.equal(dense(projection, once.float()), once)


def test_a_weight_that_float16_rounds_onto_the_l0_threshold_stays_what_it_became() -> None:
    w = torch.tensor([1.0001, 1.001])  # the first is 1 in float16, and the threshold is 1
    once = dense(PenaltyL0(0.5), w)
    assert once.tolist() == [0.0, float(torch.tensor(1.001).half())]
    assert torch.equal(dense(PenaltyL0(0.5), once.float()), once)


@pytest.mark.parametrize("projection", EVERY)
def test_several_tensors_are_pruned_as_their_concatenation(projection: Projection) -> None:
    generator = torch.Generator().manual_seed(4)
    tensors = [torch.randn(shape, generator=generator) * s for shape, s in (((3, 4), 1.0), ((5,), 0.2), ((0, 2), 1.0))]
    joined = torch.cat([t.flatten() for t in tensors])
    assert torch.equal(dense(projection, *tensors), dense(projection, joined))


@pytest.mark.parametrize("projection", EVERY)
def test_layout_and_precision_of_the_input_do_not_matter(projection: Projection) -> None:
    w = torch.randn(6, 4, generator=torch.Generator().manual_seed(5)).bfloat16()
    expected = dense(projection, w.float())
    assert torch.equal(dense(projection, w), expected)
    assert torch.equal(dense(projection, w.float().t().contiguous().t()), expected)
    w.requires_grad_(requires_grad=True)
    assert torch.equal(dense(projection, w), expected)


@pytest.mark.parametrize("projection", EVERY)
def test_a_projection_leaves_its_input_alone(projection: Projection) -> None:
    w = torch.tensor([1.0, -2.0, 1e6, 0.3])
    before = w.clone()
    dense(projection, w)
    assert torch.equal(w, before)


@pytest.mark.parametrize("projection", EVERY)
def test_zero_single_and_empty_inputs(projection: Projection) -> None:
    assert torch.equal(dense(projection, torch.zeros(4)), torch.zeros(4).double())
    assert float(dense(projection, torch.tensor(0.0))) == 0.0
    assert dense(projection, torch.zeros(0, 3)).numel() == 0
    assert projection.project([], 1.0) == []
    assert projection.view == "vector"


@pytest.mark.parametrize("projection", EVERY)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_are_refused(projection: Projection, bad: float) -> None:
    with pytest.raises(BadInput, match="NaN or infinity"):
        projection.project([torch.zeros(3), torch.tensor([1.0, bad])], 1.0)


@pytest.mark.parametrize("projection", [ConstraintL0(3), ConstraintL1(1e9), PenaltyL0(0.1), PenaltyL1(0.1)])
def test_values_beyond_float16_become_its_largest_and_values_below_it_vanish(projection: Projection) -> None:
    w = torch.tensor([1e6, -1e8, 1e-9])
    codes = projection.project([w], 1e9)
    assert codes[0].dense().tolist() == [LARGEST, -LARGEST, 0.0]
    assert len(codes[0].arrays()["values"]) == 2


@pytest.mark.parametrize("penalty", [PenaltyL0(0.1), PenaltyL1(0.1)])
@pytest.mark.parametrize("mu", [0.0, -1.0, math.nan])
def test_a_penalty_refuses_a_mu_that_is_not_positive(penalty: Projection, mu: float) -> None:
    with pytest.raises(BadInput, match=rf"{type(penalty).__name__} is a penalty and needs mu > 0.*got mu={mu}"):
        penalty.project([torch.ones(2)], mu)


def test_constraints_do_not_depend_on_mu() -> None:
    w = torch.tensor([1.0, -3.0, 2.0])
    for projection in (ConstraintL0(2), ConstraintL1(3.0)):
        assert torch.equal(dense(projection, w, mu=0.0), dense(projection, w, mu=7.0))


def test_settings_out_of_range_are_refused_with_rule_and_value() -> None:
    with pytest.raises(BadInput, match=r"either kappa.*or share.*got kappa=None, share=None"):
        ConstraintL0()
    with pytest.raises(BadInput, match=r"either kappa.*or share.*got kappa=3, share=0.5"):
        ConstraintL0(kappa=3, share=0.5)
    with pytest.raises(BadInput, match=r"kappa >= 0.*got -1"):
        ConstraintL0(-1)
    for share in (-0.1, 1.5, math.nan):
        with pytest.raises(BadInput, match=rf"0 <= share <= 1.*got {share}"):
            ConstraintL0(share=share)
    for bad in (-1.0, math.inf, math.nan):
        with pytest.raises(BadInput, match=rf"radius >= 0.*got {bad}"):
            ConstraintL1(bad)
        with pytest.raises(BadInput, match=rf"PenaltyL0 needs a finite lam >= 0.*got {bad}"):
            PenaltyL0(bad)
        with pytest.raises(BadInput, match=rf"PenaltyL1 needs a finite lam >= 0.*got {bad}"):
            PenaltyL1(bad)
