from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from easycompress.codes.codebook import Codebook
from easycompress.core.errors import BadInput
from easycompress.lc.projections import scalar
from easycompress.lc.projections.quantized import (
    CHUNK,
    AdaptiveQuantization,
    Binarization,
    FixedCodebook,
    Table,
    Ternarization,
    nearest,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from easycompress.lc.projections.base import Projection

    Floats = NDArray[np.float64]

values = st.integers(-64, 64).map(lambda n: n / 16)
vectors = st.lists(values, min_size=1, max_size=7).map(torch.tensor)
wild = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=40).map(torch.tensor)
UNSCALED = (Binarization(scaled=False), Ternarization(scaled=False))
SCALED = (Binarization(), Ternarization())
FREE = tuple(AdaptiveQuantization(k) for k in (1, 2, 3, 16, 256))
FIXED = (FixedCodebook((-1.5, 0.25, 0.5)), FixedCodebook.powers_of_two(3), FixedCodebook.fixed_point(4, 2))
EVERY = (*UNSCALED, *SCALED, *FREE, *FIXED)
TAILS = ("normal", "student", "cauchy", "mixture", "clusters", "offset", "sparse", "outliers", "uniform")


def codes(projection: Projection, *tensors: Tensor) -> list[Codebook]:
    found = projection.project(tensors, 1.0)
    assert [code.shape for code in found] == [tuple(t.shape) for t in tensors]
    books = [code for code in found if isinstance(code, Codebook)]
    assert len(books) == len(found)
    assert all(book.indices.dtype == torch.uint8 and book.entries.dtype == torch.float32 for book in books)
    return books


def dense(projection: Projection, *tensors: Tensor) -> Tensor:
    return torch.cat([code.dense().flatten() for code in codes(projection, *tensors)]).double()


def distance(w: Tensor, t: Tensor) -> float:
    return float((w.double().flatten() - t.double().flatten()).square().sum())


def spread(w: Tensor) -> float:
    return distance(w, w.double().mean().expand(w.shape)) if len(w) else 0.0


def heavy(name: str, count: int) -> Tensor:
    rng = np.random.default_rng(7)
    bulk = rng.normal(size=count)
    made: dict[str, Floats] = {
        "normal": 0.05 * bulk,
        "student": 0.05 * rng.standard_t(3, size=count),
        "cauchy": rng.standard_cauchy(size=count),
        "mixture": np.where(rng.random(count) < 0.9, 0.01 * bulk, 0.3 * bulk),
        "clusters": rng.choice(rng.normal(size=40), count) + 1e-3 * bulk,
        "offset": 1 + 0.01 * bulk,
        "sparse": np.where(rng.random(count) < 0.8, 0.0, rng.laplace(size=count)),
        "outliers": np.concatenate([bulk[2:], [-1e6, 1e9]]),
        "uniform": rng.random(count),
    }
    return torch.from_numpy(made[name].astype(np.float32))


def distinct(w: Tensor) -> tuple[Tensor, Tensor]:
    """Values and counts, float64."""
    points, counts = np.unique(w.double().numpy(), return_counts=True)
    return torch.from_numpy(points), torch.from_numpy(counts).double()


def within(points: Tensor, counts: Tensor) -> float:
    """The distortion of a cell."""
    return float((counts * (points - (counts * points).sum() / counts.sum()) ** 2).sum())


def exact_distortion(w: Tensor, k: int) -> float:
    """The textbook dynamic programme over all distinct values, O(k n^2), with no monotonicity used."""
    points, counts = distinct(w)
    points = points - points.median()
    sums = [torch.cat([torch.zeros(1).double(), torch.cumsum(counts * points**p, 0)]) for p in range(3)]
    n, s, q = (x[None, :] - x[:, None] for x in sums)
    cost = torch.where(n > 0, q - s**2 / n, torch.inf)
    best = cost[0]
    for _ in range(min(k, len(points)) - 1):
        best = (best[:, None] + cost).min(0).values
    return float(best[-1])


# --- adaptive quantization -------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(vectors, st.integers(1, 8))
def test_adaptive_is_the_best_of_all_partitions(w: Tensor, k: int) -> None:
    ordered = w.sort().values
    best = min(
        sum(spread(part) for part in torch.tensor_split(ordered, list(cuts)))
        for cuts in itertools.combinations_with_replacement(range(len(w) + 1), k - 1)
    )
    assert distance(w, dense(AdaptiveQuantization(k), w)) == pytest.approx(best, abs=1e-9)


@pytest.mark.parametrize("k", [2, 5, 16])
@pytest.mark.parametrize("name", TAILS)
def test_adaptive_is_within_a_thousandth_of_the_textbook_programme(name: str, k: int) -> None:
    w = heavy(name, 1200)
    assert distance(w, dense(AdaptiveQuantization(k), w)) <= exact_distortion(w, k) * 1.001


@pytest.mark.parametrize("name", ["mixture", "outliers", "uniform"])
def test_adaptive_is_within_a_thousandth_at_256_entries(name: str) -> None:
    # The reference is the product's programme on the distinct values themselves, which the next test compares with the
    # textbook's; 4000 values are more than the bins.
    w = heavy(name, 4000)
    points, counts = distinct(w)
    assert len(points) > scalar.MOST_BINS
    cells = scalar.best_cells(counts.numpy(), (points - points.median()).numpy(), 256)
    exact = sum(within(points[a:b], counts[a:b]) for a, b in itertools.pairwise(cells.tolist()))
    assert distance(w, dense(AdaptiveQuantization(256), w)) <= exact * 1.001


@pytest.mark.parametrize("k", [1, 2, 7, 40, 255, 256, 300])
@pytest.mark.parametrize("name", ["student", "clusters", "sparse"])
def test_the_programme_is_the_textbook_one(name: str, k: int) -> None:
    w = heavy(name, 300)
    points, counts = distinct(w)
    k = min(k, len(points))
    cells = scalar.best_cells(counts.numpy(), points.numpy(), k)
    assert len(cells) == k + 1
    assert (np.diff(cells) > 0).all()
    total = sum(within(points[a:b], counts[a:b]) for a, b in itertools.pairwise(cells.tolist()))
    assert total == pytest.approx(exact_distortion(w, k), rel=1e-9, abs=1e-9)


# Not "sparse": among its zeros several poor cells have one mean, and Lloyd's iteration rightly stops at once.
@pytest.mark.parametrize("name", [name for name in TAILS if name != "sparse"])
def test_each_polishing_step_improves_poor_cells(name: str) -> None:
    ordered = scalar.Sorted.of(heavy(name, 2000))
    points = torch.from_numpy(ordered.values).double()

    def total(cells: NDArray[np.int64]) -> float:
        return sum(spread(points[a:b]) for a, b in itertools.pairwise(cells.tolist()))

    poor = np.linspace(0, 2000, 11).astype(np.int64)
    moved, settled = scalar.refine(ordered, poor), scalar.polish(ordered, poor)
    assert (np.diff(moved) > 0).all()
    assert total(moved) < total(poor)
    assert total(settled) < total(poor)
    assert total(scalar.refine(ordered, settled)) <= total(settled) * (1 + 1e-12)


def test_entries_are_the_means_of_what_they_stand_for() -> None:
    w = heavy("normal", 20_000)
    (code,) = codes(AdaptiveQuantization(4), w)
    for index, entry in enumerate(code.entries.tolist()):
        assert entry == pytest.approx(float(w[code.indices == index].double().mean()), rel=1e-6)


def test_the_polish_ends_where_every_value_is_in_the_cell_of_its_nearest_mean() -> None:
    ordered = scalar.Sorted.of(heavy("student", 2000))
    cells = scalar.polish(ordered, np.array([0, 900, 1500, 2000]))
    means = np.array([ordered.values[a:b].astype(np.float64).mean() for a, b in itertools.pairwise(cells)])
    assert np.abs(ordered.values[:, None] - means).argmin(1).tolist() == np.repeat(range(3), np.diff(cells)).tolist()


@pytest.mark.parametrize("name", TAILS)
def test_adaptive_entries_are_ascending_and_distinct_and_in_use(name: str) -> None:
    (code,) = codes(AdaptiveQuantization(64), heavy(name, 3000))
    assert len(code.entries) <= 64
    assert (code.entries.diff() > 0).all()
    assert (code.indices.long().flatten().bincount(minlength=len(code.entries)) > 0).all()


@settings(deadline=None)
@given(wild)
def test_adaptive_keeps_few_distinct_values_as_they_are(w: Tensor) -> None:
    (code,) = codes(AdaptiveQuantization(40), w)
    assert torch.equal(code.dense(), w)
    assert torch.equal(code.entries, distinct(w)[0].float())


@settings(deadline=None)
@given(wild, st.integers(1, 8))
def test_adaptive_survives_any_float(w: Tensor, k: int) -> None:
    (code,) = codes(AdaptiveQuantization(k), w)
    assert 1 <= len(code.entries) <= k
    rounding = max(float(w.abs().max()) * 2.0**-24, 2.0**-150)  # the mean of two neighbouring floats isn't one
    assert distance(w, code.dense()) <= spread(w) * (1 + 1e-6) + len(w) * rounding**2
    assert torch.equal(code.dense(), dense(AdaptiveQuantization(k), code.dense()).float())


def test_a_huge_outlier_takes_one_entry_and_leaves_the_rest_alone() -> None:
    bulk = heavy("normal", 2000)
    (code,) = codes(AdaptiveQuantization(9), torch.cat([torch.tensor([-1e30]), bulk]))
    assert float(code.entries[0]) == pytest.approx(-1e30)
    assert distance(bulk, code.dense()[1:]) <= exact_distortion(bulk, 8) * 1.001


def test_adaptive_is_the_same_warm_as_cold() -> None:
    w = heavy("student", 5000)
    cold = AdaptiveQuantization(4).project([w], 1.0)
    poor = [Codebook(torch.zeros(5000, dtype=torch.uint8), torch.tensor([9.0]))]
    for warm in (cold, poor):
        (again,) = AdaptiveQuantization(4).project([w], 2.0, warm)
        assert torch.equal(again.dense(), cold[0].dense())


@pytest.mark.parametrize("k", [0, -1, 257])
def test_adaptive_says_which_k_it_was_given(k: int) -> None:
    with pytest.raises(BadInput, match=f"a codebook has 1 to 256 entries, not k = {k}$"):
        AdaptiveQuantization(k)


# --- binarization and ternarization ----------------------------------------------------------------------------------


def best_of_patterns(w: Tensor, signs: tuple[int, ...], *, scaled: bool) -> float:
    """The least distance over every z in signs^N, each with its own best c >= 0."""
    best = float("inf")
    for pattern in itertools.product(signs, repeat=len(w)):
        z = torch.tensor(pattern).double()
        c = max(0.0, float((w.double() @ z) / (z @ z).clamp(min=1))) if scaled else 1.0
        best = min(best, distance(w, c * z))
    return best


@settings(deadline=None)
@given(vectors, st.booleans())
def test_binarization_is_the_best_of_all_sign_patterns(w: Tensor, scaled: bool) -> None:  # noqa: FBT001 - drawn
    result = dense(Binarization(scaled), w)
    assert len(set(result.abs().tolist())) == 1
    assert distance(w, result) == pytest.approx(best_of_patterns(w, (-1, 1), scaled=scaled), abs=1e-5)


@settings(deadline=None)
@given(vectors.filter(lambda w: len(w) < 6), st.booleans())
def test_ternarization_is_the_best_of_all_patterns(w: Tensor, scaled: bool) -> None:  # noqa: FBT001 - drawn
    result = dense(Ternarization(scaled), w)
    assert len(set(result.abs().tolist())) <= 2
    assert distance(w, result) == pytest.approx(best_of_patterns(w, (-1, 0, 1), scaled=scaled), abs=1e-5)


def test_ternarization_of_many_weights_finds_the_support_across_chunks() -> None:
    w = torch.linspace(-1, 1, 3 * CHUNK + 5)
    (code,) = codes(Ternarization(), w)
    sums = w.abs().double().sort(descending=True).values.cumsum(0)
    support = int((sums**2 / torch.arange(1, len(w) + 1)).argmax()) + 1
    assert support == pytest.approx(2 * CHUNK, abs=5)
    scale = float(sums[support - 1]) / support
    assert code.entries.tolist() == pytest.approx([-scale, 0, scale])
    assert int((code.indices != 1).sum()) == pytest.approx(support, abs=2)


def test_zero_is_positive_in_two_values_and_ties_are_zero_in_three() -> None:
    w = torch.tensor([0.0, -0.0, 0.5, -0.5, 2.0])
    assert dense(Binarization(scaled=False), w).tolist() == [1, 1, 1, -1, 1]
    assert dense(Ternarization(scaled=False), w).tolist() == [0, 0, 0, 0, 1]
    assert codes(Binarization(), w)[0].entries.tolist() == pytest.approx([-0.6, 0.6])


@pytest.mark.parametrize("projection", SCALED, ids=repr)
def test_weights_that_are_all_zero_get_the_one_entry_zero(projection: Projection) -> None:
    (code,) = codes(projection, torch.zeros(2, 3))
    assert code.entries.tolist() == [0.0]
    assert torch.equal(code.dense(), torch.zeros(2, 3))


# --- fixed codebooks -------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(vectors, st.lists(values, min_size=1, max_size=9))
def test_fixed_takes_the_nearest_entry_and_of_two_the_lower(w: Tensor, entries: list[float]) -> None:
    (code,) = codes(FixedCodebook(tuple(entries)), w)
    assert code.entries.tolist() == sorted(set(entries))
    for value, chosen in zip(w.tolist(), code.dense().tolist(), strict=True):
        assert chosen == min(sorted(entries), key=lambda entry: abs(value - entry))


def test_powers_of_two_and_fixed_point() -> None:
    assert FixedCodebook.powers_of_two(0).entries == (-1, 0, 1)
    assert FixedCodebook.powers_of_two(2).entries == (-1, -0.5, -0.25, 0, 0.25, 0.5, 1)
    assert len(FixedCodebook.powers_of_two(126).entries) == 255
    assert FixedCodebook.fixed_point(1, 0).entries == (-1, 0)
    assert FixedCodebook.fixed_point(3, 1).entries == (-2, -1.5, -1, -0.5, 0, 0.5, 1, 1.5)
    assert len(FixedCodebook.fixed_point(8, 7).entries) == 256
    assert FixedCodebook((1.0, -0.0, 0.0)) == FixedCodebook((0.0, 1.0))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: FixedCodebook(()), "1 to 256 different entries, not 0"),
        (lambda: FixedCodebook(tuple(range(257))), "1 to 256 different entries, not 257"),
        (lambda: FixedCodebook((0.0, float("nan"))), "finite float32 numbers, not .0.0, nan."),
        (lambda: FixedCodebook((1e39,)), r"finite float32 numbers, not .1e\+39"),
        (lambda: FixedCodebook.powers_of_two(-1), "C from 0 to 126, not C = -1"),
        (lambda: FixedCodebook.powers_of_two(127), "C from 0 to 126, not C = 127"),
        (lambda: FixedCodebook.fixed_point(9, 0), "1 to 8 bits, not 9"),
        (lambda: FixedCodebook.fixed_point(0, 0), "1 to 8 bits, not 0"),
        (lambda: FixedCodebook.fixed_point(8, 200), "-118 to 118, not 200"),
    ],
)
def test_fixed_codebooks_that_can_not_be(make: Callable[[], FixedCodebook], text: str) -> None:
    with pytest.raises(BadInput, match=text):
        make()


# --- the nearest entry of many weights -------------------------------------------------------------------------------


def plainly(w: Tensor, entries: Tensor) -> Tensor:
    """How many middles between neighbours each value is above, in float64: distances to 3e38 would all be equal."""
    return (w.double()[:, None] > (entries[1:].double() + entries[:-1].double()) / 2).sum(1).to(torch.uint8)


def hard_values(entries: Tensor) -> Tensor:
    """Entries, the middles between them, their neighbouring floats, zeros and extremes."""
    middle = ((entries[1:].double() + entries[:-1].double()) / 2).float()
    special = torch.tensor([0.0, -0.0, 3e38, -3e38, 1e-40, -1e-40])
    base = torch.cat([entries, middle, special])
    limit = torch.tensor(torch.inf)
    near = torch.cat([base, torch.nextafter(base, limit), torch.nextafter(base, -limit)])
    return near[torch.isfinite(near)]


@pytest.mark.parametrize(
    "entries",
    [
        [0.5],
        [-1.0, 1.0],
        [-1.0, 0.0, 1.0],
        [-3.0, -0.75, -0.7499, 1e-30, 2e-30, 0.2, 0.20001, 0.20002, 4.0],
        [-(2.0**-i) for i in range(20)] + [0.0] + [2.0**-i for i in range(20)],
        [1 + i / 2**14 for i in range(200)],  # too many in one bin of the table
        torch.linspace(-1, 1, 256).tolist(),
    ],
    ids=len,
)
def test_the_table_agrees_with_plain_distances(entries: list[float]) -> None:
    book = torch.tensor(sorted(entries))
    hard = hard_values(book)
    w = torch.cat([hard, 2 * torch.rand(CHUNK + 1) - 1])
    expected = plainly(w, book)
    assert torch.equal(nearest(w, book), expected)
    assert torch.equal(nearest(hard, book), expected[: len(hard)])  # few values: the binary search


def test_crowded_limits_have_no_table() -> None:
    assert Table.of(np.float32(1) + np.arange(200, dtype=np.float32) / np.float32(2**20)) is None
    assert Table.of(torch.linspace(-1, 1, 255).numpy()) is not None


# --- what all of them share ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("projection", EVERY, ids=repr)
@settings(deadline=None)
@given(w=vectors)
def test_projecting_twice_changes_nothing(projection: Projection, w: Tensor) -> None:
    once = dense(projection, w)
    assert torch.equal(dense(projection, once.float()), once)


@pytest.mark.parametrize("projection", EVERY, ids=repr)
def test_no_worse_than_random_feasible_points(projection: Projection) -> None:
    w = heavy("student", 200)
    (code,) = codes(projection, w)
    least = distance(w, code.dense())
    generator = torch.Generator().manual_seed(1)
    for _ in range(50):
        scale = 1 + 0.2 * float(torch.randn(1, generator=generator))
        free = any(projection is one for one in (*SCALED, *FREE))
        entries = code.entries * scale if free else code.entries
        moved = (code.indices + (torch.rand(200, generator=generator) < 0.02)) % len(entries)
        assert least <= distance(w, entries[moved.long()]) + 1e-9


@pytest.mark.parametrize("projection", EVERY, ids=repr)
def test_joint_is_the_projection_of_all_values_as_one_vector(projection: Projection) -> None:
    parts = (torch.randn(3, 4, 2), torch.zeros(0, 5), torch.randn(7), torch.randn(()))
    found = codes(projection, *parts)
    assert torch.equal(dense(projection, *parts), dense(projection, torch.cat([p.flatten() for p in parts])))
    assert all(torch.equal(code.entries, found[0].entries) for code in found)


@pytest.mark.parametrize("projection", EVERY, ids=repr)
def test_precisions_and_strides(projection: Projection) -> None:
    w = torch.randn(6, 8)
    half = w.bfloat16()
    assert torch.equal(dense(projection, half), dense(projection, half.float()))
    assert torch.equal(codes(projection, w.T)[0].dense(), codes(projection, w.T.contiguous())[0].dense())
    leaf = w.clone().requires_grad_()
    assert not codes(projection, leaf)[0].dense().requires_grad
    assert torch.equal(leaf, w)


@pytest.mark.parametrize("projection", EVERY, ids=repr)
def test_empty_single_and_bad_tensors(projection: Projection) -> None:
    assert projection.view == "vector"
    assert projection.project([], 1.0) == []
    (empty,) = codes(projection, torch.zeros(0, 3))
    assert empty.dense().shape == (0, 3)
    assert len(empty.entries) >= 1
    single = torch.tensor([0.75])
    assert distance(single, dense(projection, single)) <= 0.25**2 + 1e-12
    for bad in (float("nan"), float("inf")):
        with pytest.raises(BadInput, match="NaN or infinity"):
            projection.project([torch.tensor([1.0, bad])], 1.0)


@pytest.mark.parametrize("projection", EVERY, ids=repr)
def test_equal_weights_give_equal_codes(projection: Projection) -> None:
    w = torch.randn(CHUNK + 100)
    first, second = codes(projection, w)[0], codes(projection, w.clone())[0]
    assert torch.equal(first.entries, second.entries)
    assert torch.equal(first.indices, second.indices)
