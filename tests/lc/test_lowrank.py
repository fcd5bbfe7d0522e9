from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from easycompress.codes.lowrank import LowRank, to_matrix
from easycompress.core.errors import BadInput
from easycompress.lc.projections.lowrank import LARGE, LowRankAt, RankSelection

if TYPE_CHECKING:
    from easycompress.codes.lowrank import Layout
    from easycompress.lc.projections.lowrank import Cost

HALF = 2**-9
"""Relative error of a product of two float16 factors, with room for both roundings."""

shapes = st.sampled_from([(1, 1), (1, 6), (5, 1), (4, 7), (7, 4), (5, 5), (2, 3, 4), (4, 2, 3, 3), (2, 5, 3, 2)])
layouts: st.SearchStrategy[Layout] = st.sampled_from(["scheme-1", "scheme-2"])


def weight(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def one(projection: LowRankAt | RankSelection, tensor: Tensor, mu: float = 1.0) -> LowRank:
    (code,) = projection.project([tensor], mu)
    assert isinstance(code, LowRank)
    assert code.shape == tuple(tensor.shape)
    assert code.left.dtype == code.right.dtype == torch.float16
    return code


def norm(tensor: Tensor) -> float:
    return float(torch.linalg.vector_norm(tensor.double()))


def tail(tensor: Tensor, rank: int, layout: Layout = "scheme-1") -> float:
    singular = torch.linalg.svdvals(to_matrix(tensor.float(), layout).double())
    return float(singular[rank:].square().sum())


@given(shapes, layouts, st.integers(0, 8), st.integers(0, 2**31))
@settings(max_examples=80, deadline=None)
def test_the_distance_is_that_of_eckart_and_young(shape: tuple[int, ...], layout: Layout, rank: int, seed: int) -> None:
    w = weight(shape, seed)
    code = one(LowRankAt(rank, layout), w)
    assert code.layout == layout
    assert code.rank == min(rank, *to_matrix(w, layout).shape)
    assert norm(w - code.dense()) <= math.sqrt(tail(w, rank, layout)) + HALF * norm(w)


@given(st.integers(0, 4), st.integers(0, 2**31))
@settings(deadline=None)
def test_no_random_matrix_of_that_rank_is_nearer(rank: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    w = torch.randn(5, 6, generator=generator)
    code = one(LowRankAt(rank), w)
    for step in (0.01, 0.1, 1.0):
        left = code.left.float() + step * torch.randn(5, rank, generator=generator)
        right = code.right.float() + step * torch.randn(rank, 6, generator=generator)
        assert norm(w - code.dense()) <= norm(w - left @ right) + HALF * norm(w)


@pytest.mark.parametrize("large", [LARGE, 1])  # all vectors, and the leading ones alone
@pytest.mark.parametrize("shape", [(40, 300), (300, 40), (64, 64)])
def test_float16_costs_under_a_millionth_of_the_distortion(
    shape: tuple[int, int], large: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("easycompress.lc.projections.lowrank.LARGE", large)
    w = 0.02 * weight(shape, 7)
    distortion = norm(w - one(LowRankAt(4), w).dense()) ** 2
    assert distortion == pytest.approx(tail(w, 4), rel=1e-6)


def test_rank_zero_is_the_zero_matrix() -> None:
    code = one(LowRankAt(0), weight((3, 4), 0))
    assert code.rank == 0
    assert code.bits() == 0
    assert torch.equal(code.dense(), torch.zeros(3, 4))


@pytest.mark.parametrize("rank", [4, 5, 10**9])
def test_full_rank_and_beyond_keep_everything(rank: int) -> None:
    w = weight((4, 6), 1)
    code = one(LowRankAt(rank), w)
    assert code.rank == 4
    assert norm(w - code.dense()) <= HALF * norm(w)


@pytest.mark.parametrize("projection", [LowRankAt(3), RankSelection(0.3)])
def test_a_result_is_its_own_projection_up_to_float16(projection: LowRankAt | RankSelection) -> None:
    once = one(projection, weight((12, 9), 2))
    again = one(projection, once.dense())
    assert again.rank == once.rank
    assert 0 < once.rank < 9
    assert norm(again.dense() - once.dense()) <= HALF * norm(once.dense())


@pytest.mark.parametrize("scale", [1e-8, 1e-4, 1.0, 1e4])
def test_factors_are_balanced_so_that_float16_holds_them(scale: float) -> None:
    w = scale * weight((6, 50), 3)
    code = one(LowRankAt(2), w)
    sides = code.left.float().norm(dim=0), code.right.float().norm(dim=1)
    assert torch.allclose(*sides, rtol=1e-2)
    assert norm(w - code.dense()) <= math.sqrt(tail(w, 2)) + HALF * norm(w)


@pytest.mark.parametrize("projection", [LowRankAt(2), RankSelection(1e-30)])
def test_a_value_that_float16_factors_cannot_hold_is_refused(projection: LowRankAt | RankSelection) -> None:
    with pytest.raises(BadInput, match=r"shape \(2, 2\) has singular values that float16 factors can't hold"):
        projection.project([torch.full((2, 2), 1e12)], 1.0)


def test_zero_rank_deficient_and_single_value_matrices() -> None:
    for projection in (LowRankAt(2), RankSelection(1e-3)):
        assert torch.equal(one(projection, torch.zeros(3, 4)).dense(), torch.zeros(3, 4))
        assert norm(one(projection, torch.full((8, 8), 0.5)).dense() - 0.5) <= 8 * HALF
    u, v = weight((9, 1), 4), weight((1, 7), 5)
    assert norm(one(LowRankAt(4), u @ v).dense() - u @ v) <= HALF * norm(u @ v)


@pytest.mark.parametrize("large", [LARGE, 1])
def test_equal_singular_values_are_still_the_least_distance(large: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("easycompress.lc.projections.lowrank.LARGE", large)
    result = one(LowRankAt(2), torch.eye(64)).dense()
    assert norm(torch.eye(64) - result) == pytest.approx(math.sqrt(62), rel=1e-3)
    assert torch.equal(one(LowRankAt(2), torch.zeros(64, 64)).dense(), torch.zeros(64, 64))


@pytest.mark.parametrize("projection", [LowRankAt(2), RankSelection(0.1)])
def test_empty_tensors_and_no_tensors(projection: LowRankAt | RankSelection) -> None:
    for shape in ((0, 3), (3, 0), (0, 0), (0, 2, 3, 3), (2, 0, 3, 3)):
        assert one(projection, torch.zeros(shape)).dense().shape == shape
    assert projection.project([], 1.0) == []
    assert projection.view == "matrix"


@pytest.mark.parametrize("projection", [LowRankAt(2), RankSelection(0.1)])
def test_what_has_no_matrix_or_no_numbers_is_refused(projection: LowRankAt | RankSelection) -> None:
    with pytest.raises(BadInput, match=r"shape \(5,\) has no matrix view.*2 dimensions"):
        projection.project([torch.ones(2, 2), torch.ones(5)], 1.0)
    for bad in (math.nan, math.inf):
        with pytest.raises(BadInput, match="NaN or infinity"):
            projection.project([torch.tensor([[1.0, bad]])], 1.0)


@pytest.mark.parametrize("projection", [LowRankAt(2, "scheme-2"), RankSelection(0.05, layout="scheme-2")])
def test_layout_and_precision_of_the_input_do_not_matter(projection: LowRankAt | RankSelection) -> None:
    w = weight((4, 3, 3, 2), 6).bfloat16()
    before, expected = w.clone(), one(projection, w.float()).dense()
    assert torch.equal(one(projection, w).dense(), expected)
    assert torch.equal(one(projection, w.float().contiguous(memory_format=torch.channels_last)).dense(), expected)
    assert torch.equal(w, before)


def test_tensors_are_compressed_one_by_one() -> None:
    tensors = [weight((4, 6), 8), weight((3, 2, 3, 3), 9)]
    for projection in (LowRankAt(2), RankSelection(0.2)):
        for code, tensor in zip(projection.project(tensors, 1.0), tensors, strict=True):
            assert torch.equal(code.dense(), one(projection, tensor).dense())


@given(shapes, layouts, st.floats(0.001, 20), st.sampled_from([0.5, 3.0]), st.integers(0, 2**31), st.integers(1, 3))
@settings(max_examples=80, deadline=None)
def test_rank_selection_is_the_least_objective_of_all_ranks(
    shape: tuple[int, ...], layout: Layout, lam: float, mu: float, seed: int, times: int
) -> None:
    w = weight(shape, seed)
    m, n = to_matrix(w, layout).shape
    cost: Cost = "storage" if times == 1 else "flops"
    code = one(RankSelection(lam, cost, layout, (times,)), w, mu)
    objectives = [2 * lam / mu * times * r * (m + n) + tail(w, r, layout) for r in range(min(m, n) + 1)]
    best = min(range(len(objectives)), key=objectives.__getitem__)
    if best * (m + n) >= m * n:
        assert code.rank == min(m, n)
    else:
        assert objectives[code.rank] == pytest.approx(objectives[best], rel=1e-6)
    assert norm(w - code.dense()) <= math.sqrt(tail(w, code.rank, layout)) + HALF * norm(w)


def test_rank_selection_goes_from_the_whole_matrix_to_nothing_as_lam_grows() -> None:
    w = weight((20, 30), 10)
    ranks = [one(RankSelection(lam), w).rank for lam in (0.0, 0.01, 0.3, 0.5, 0.8, 1e6)]
    assert ranks == sorted(ranks, reverse=True)
    assert (ranks[0], ranks[-1]) == (20, 0)
    assert any(0 < rank < 12 for rank in ranks)  # 12 x 50 = 20 x 30: from there on the matrix itself is smaller
    assert not any(12 <= rank < 20 for rank in ranks)


def test_rank_selection_finds_the_rank_that_is_there() -> None:
    w = weight((30, 3), 11) @ weight((3, 40), 12)
    for lam in (0.0, 1e-6, 1e-3):
        assert one(RankSelection(lam), w).rank == 3


def test_flops_weigh_each_tensor_by_its_applications() -> None:
    w = weight((20, 30), 13)
    once, often = RankSelection(0.5, "flops", applications=(1, 4)).project([w, w], 1.0)
    assert isinstance(once, LowRank)
    assert isinstance(often, LowRank)
    assert once.rank == one(RankSelection(0.5), w).rank
    assert often.rank == one(RankSelection(2.0), w).rank < once.rank
    with pytest.raises(BadInput, match=r"one for each of the 1 tensors; got 2"):
        RankSelection(0.5, "flops", applications=(1, 4)).project([w], 1.0)


@pytest.mark.parametrize("mu", [0.0, -2.0, math.nan])
def test_rank_selection_refuses_a_mu_that_is_not_positive(mu: float) -> None:
    with pytest.raises(BadInput, match=rf"RankSelection is a penalty and needs mu > 0.*got mu={mu}"):
        RankSelection(0.1).project([torch.ones(2, 2)], mu)
    assert one(LowRankAt(1), torch.ones(2, 2), mu).rank == 1


def test_settings_out_of_range_are_refused_with_rule_and_value() -> None:
    with pytest.raises(BadInput, match=r"rank >= 0; got -1"):
        LowRankAt(-1)
    wrong: Layout = "scheme-3"  # type: ignore[assignment]
    with pytest.raises(BadInput, match="layout scheme-1 or scheme-2; got 'scheme-3'"):
        LowRankAt(1, wrong)
    with pytest.raises(BadInput, match=r"RankSelection needs a finite lam >= 0.*got -0.5"):
        RankSelection(-0.5)
    dear: Cost = "time"  # type: ignore[assignment]
    with pytest.raises(BadInput, match="cost storage or flops; got 'time'"):
        RankSelection(0.5, dear)
    for applications in ((), (0,), (3, -1)):
        with pytest.raises(BadInput, match="applications >= 1, one or one a tensor; got"):
            RankSelection(0.5, "flops", applications=applications)
    with pytest.raises(BadInput, match=r"for cost 'flops' alone; got \(7,\) with 'storage'"):
        RankSelection(0.5, applications=(7,))
