from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from easycompress.codes.codebook import Codebook
from easycompress.core.errors import BadInput
from easycompress.lc.projections.entropy import EntropyConstrained, Levels, code_length, design, histogram

if TYPE_CHECKING:
    from collections.abc import Sequence


def weights(count: int = 3000, seed: int = 0) -> Tensor:
    """Return weights with tails, as trained ones have."""
    generator = torch.Generator().manual_seed(seed)
    return 0.1 * torch.randn(count, generator=generator) * torch.exp(0.5 * torch.randn(count, generator=generator))


def project(projection: EntropyConstrained, *tensors: Tensor, mu: float = 1.0) -> list[Codebook]:
    codes = projection.project(tensors, mu)
    assert [code.shape for code in codes] == [tuple(t.shape) for t in tensors]
    found = [code for code in codes if isinstance(code, Codebook)]
    assert len(found) == len(codes)
    for code in found:
        assert 0.0 in code.entries.tolist()
        assert len(code.entries) == len(code.entries.unique()) <= 255
        assert code.indices.numel() == 0 or int(code.indices.max()) < len(code.entries)
        assert code.dense().is_contiguous()
    return found


def distance(tensors: Sequence[Tensor], codes: Sequence[Codebook]) -> float:
    return sum(float(((w.double() - c.dense().double()) ** 2).sum()) for w, c in zip(tensors, codes, strict=True))


def index_bits(places: Tensor) -> float:
    """Return the ideal code length of indices under their own frequencies, counted one by one."""
    n = places.numel()
    counts = [int((places == value).sum()) for value in places.unique()]
    return sum(-count * math.log2(count / n) for count in counts)


def uniform(w: Tensor, bits: float) -> float:
    """Return the least distance of nearest-level uniform quantizers through zero within `bits` bits."""
    best = math.inf
    for step in torch.logspace(-2, 0.3, 150).tolist():
        places = torch.round(w / step)
        if index_bits(places) + 32 * len(places.unique()) <= bits:
            best = min(best, float(((w - places * step).double() ** 2).sum()))
    return best


@given(st.integers(1, 400), st.integers(0, 2**31), st.sampled_from([0.3, 0.7, 1.0, 2.0, 4.0, 9.0, 40.0]))
@settings(max_examples=60, deadline=None)
def test_the_length_with_all_levels_is_within_the_budget(count: int, seed: int, bits: float) -> None:
    w = weights(count, seed)
    code = project(EntropyConstrained(bits_per_weight=bits), w)[0]
    length = index_bits(code.indices) + 32 * len(code.entries)
    assert code_length(code) == pytest.approx(length, rel=1e-9)
    assert length <= bits * count * (1 + 1e-9) or code.entries.tolist() == [0.0]


@pytest.mark.parametrize("bits", [0.2, 0.5, 1.0, 2.0, 3.0])
def test_it_uses_its_budget_and_beats_the_uniform_quantizer_there(bits: float) -> None:
    w = weights(10_000)
    code = project(EntropyConstrained(bits_per_weight=bits), w)[0]
    assert 0.99 * bits * len(w) - 32 <= code_length(code) <= bits * len(w)  # a level comes or goes whole
    assert distance([w], [code]) <= uniform(w, bits * len(w))
    if bits <= 1:
        assert distance([w], [code]) < 0.95 * uniform(w, bits * len(w))


@pytest.mark.parametrize("bits", [0.5, 1.5])
def test_no_random_feasible_point_is_better(bits: float) -> None:
    w = weights(2000)
    generator = np.random.default_rng(0)
    best = project(EntropyConstrained(bits_per_weight=bits), w)[0]
    feasible = 0
    for _ in range(300):
        levels = np.unique(
            np.append(generator.normal(size=generator.integers(1, 12)) * generator.uniform(0.05, 0.6), 0)
        )
        shares = generator.dirichlet(np.ones(len(levels))) + 1e-6
        slope = float(w.var()) * 10 ** generator.uniform(-2, 0.5)
        costs = (w.numpy()[:, None] - levels) ** 2 - slope * np.log2(shares)
        places = torch.from_numpy(costs.argmin(1))
        if index_bits(places) + 32 * len(places.unique()) > bits * len(w):
            continue
        feasible += 1
        point = torch.stack([w[places == value].mean() for value in range(len(levels))])
        point[torch.from_numpy(levels == 0)] = 0.0
        assert distance([w], [best]) <= float(((w - point[places]).double() ** 2).sum())
    assert feasible > 30


def lagrangian(w: Tensor, places: Tensor, centres: Tensor, slope: float) -> float:
    return float(((w - centres[places]).double() ** 2).sum()) + slope * index_bits(places)


def partitions(count: int) -> list[list[int]]:
    """Return every way to put `count` weights into cells, cell 0 being the one at zero, each once."""
    found: list[list[int]] = [[]]
    for _ in range(count):
        found = [[*cells, cell] for cells in found for cell in range(max([0, *cells]) + 2)]
    return found


def brute_force(w: Tensor, slope: float) -> float:
    """Return the least distance + slope x bits over all partitions, one cell of them at zero."""
    best = math.inf
    for cells in partitions(len(w)):
        places = torch.tensor(cells)
        centres = torch.stack(
            [w[places == c].mean() if c and c in cells else torch.zeros(()) for c in range(max(cells) + 1)]
        )
        best = min(best, lagrangian(w, places, centres, slope))
    return best


def exact(w: Tensor, slope: float) -> float:
    """Return the global optimum in N^2 steps: the best cells are intervals, and each has its own n log2(N / n) bits."""
    x = np.sort(w.double().numpy())
    n = len(x)
    first, second = np.append(0, x.cumsum()), np.append(0, (x * x).cumsum())
    best = np.full((2, n + 1), np.inf)  # without and with the cell at zero
    best[0, 0] = 0
    for end in range(1, n + 1):
        begin = np.arange(end)
        count = end - begin
        energy, bits = second[end] - second[begin], slope * count * np.log2(n / count)
        own, zero = energy - (first[end] - first[begin]) ** 2 / count + bits, energy + bits
        best[0, end] = (best[0, begin] + own).min()
        best[1, end] = min((best[1, begin] + own).min(), (best[0, begin] + zero).min())
    return float(best[:, n].min())


@pytest.mark.parametrize("seed", range(6))
def test_the_exact_optimum_is_that_of_all_partitions(seed: int) -> None:
    w = torch.randn(5, generator=torch.Generator().manual_seed(seed))
    assert exact(w, 0.1) == pytest.approx(brute_force(w, 0.1), rel=1e-5)


@pytest.mark.parametrize(("count", "worst", "mean"), [(20, 0.6, 0.15), (400, 0.04, 0.015), (1500, 0.02, 0.008)])
def test_it_is_a_local_optimum_close_to_the_global_one(count: int, worst: float, mean: float) -> None:
    """The tolerances are what a local optimum may lose: half of the cost on 20 weights, 1 % on 1500."""
    excess = []
    for seed, slope in itertools.product(range(3), (0.03, 0.003, 0.0003)):
        w = weights(count, seed)
        code = project(EntropyConstrained(lam=slope / 2), w)[0]
        found, best = lagrangian(w, code.indices.long(), code.entries, slope), exact(w, slope)
        assert found >= best * (1 - 1e-6)
        excess.append(found / best - 1)
    assert max(excess) <= worst
    assert sum(excess) / len(excess) <= mean


def test_every_weight_has_its_cheapest_level_and_every_level_is_the_mean_of_its_weights() -> None:
    w, slope = weights(20_000), 0.002
    code = project(EntropyConstrained(lam=slope / 2), w)[0]
    places = code.indices.long()
    counts = torch.bincount(places).double()
    for level, value in enumerate(code.entries.tolist()):
        if value and int(counts[level]):
            assert value == pytest.approx(float(w[places == level].double().mean()), rel=1e-5)
    costs = (w.double()[:, None] - code.entries.double()) ** 2 - slope * torch.log2(counts / counts.sum())
    regret = costs.gather(1, places[:, None])[:, 0] - costs.min(1).values
    assert float(regret.sum()) <= 1e-3 * lagrangian(w, places, code.entries, slope)


def test_the_iteration_improves_on_its_uniform_start() -> None:
    w, slope = weights(20_000), 0.004
    hist = histogram(w)
    _, bits, squared = design(hist, slope)
    step = 2.9 * math.sqrt(slope)
    places = torch.round(w / step)
    start = float(((w - places * step).double() ** 2).sum()) + slope * (index_bits(places) + 32 * len(places.unique()))
    assert squared + slope * bits < start


def test_more_bits_are_never_worse() -> None:
    w = weights(5000)
    distances = [
        distance([w], project(EntropyConstrained(bits_per_weight=bits), w)) for bits in (0.1, 0.3, 0.6, 1, 2, 4, 8)
    ]
    assert all(later < earlier for earlier, later in itertools.pairwise(distances))


def test_a_penalty_counts_as_lam_over_mu() -> None:
    w = weights()
    left = project(EntropyConstrained(lam=0.01), w, mu=2.0)[0]
    right = project(EntropyConstrained(lam=0.05), w, mu=10.0)[0]
    assert torch.equal(left.dense(), right.dense())
    lengths = [code_length(project(EntropyConstrained(lam=0.01), w, mu=mu)[0]) for mu in (0.1, 1.0, 10.0, 100.0)]
    assert lengths == sorted(lengths)
    assert lengths[0] < 0.5 * lengths[-1]


def test_tensors_of_one_task_share_the_slope_and_have_levels_of_their_own() -> None:
    a, b = weights(4000, 1), 5 * weights(1000, 2)
    codes = project(EntropyConstrained(bits_per_weight=1.0), a, b)
    assert sum(code_length(code) for code in codes) <= 5000
    assert code_length(codes[1]) / 1000 > 1.5  # bits go where the power is
    assert code_length(codes[0]) / 4000 < 1
    apart = [project(EntropyConstrained(bits_per_weight=1.0), w)[0] for w in (a, b)]
    assert distance([a, b], codes) < 0.9 * distance([a, b], apart)


def test_weights_of_tensors_move_bits_between_them() -> None:
    a, b = weights(4000, 1), weights(4000, 2)
    even = project(EntropyConstrained(bits_per_weight=1.0), a, b)
    moved = project(EntropyConstrained(bits_per_weight=1.0, weights=(10.0, 1.0)), a, b)
    assert code_length(moved[0]) > 1.3 * code_length(even[0])
    assert code_length(moved[1]) < 0.8 * code_length(even[1])
    assert sum(map(code_length, moved)) <= 8000
    scaled = project(EntropyConstrained(lam=0.01, weights=(4.0,)), a)[0]
    assert torch.equal(scaled.dense(), project(EntropyConstrained(lam=0.0025), a)[0].dense())


@pytest.mark.parametrize("bits", [0.7, 2.0, 5.0])
def test_it_is_idempotent_under_its_constraint(bits: float) -> None:
    projection = EntropyConstrained(bits_per_weight=bits)
    tensors = [weights(900, 1).reshape(30, 30), weights(500, 2)]
    once = project(projection, *tensors)
    twice = project(projection, *(code.dense() for code in once))
    for code, again in zip(once, twice, strict=True):
        assert torch.equal(code.dense(), again.dense())


def test_what_is_such_a_code_already_comes_back_as_it_is() -> None:
    w = torch.tensor([-1.0, 0.5, -0.0, 3.0])[torch.arange(1000) % 4].reshape(10, 100)
    exact = project(EntropyConstrained(bits_per_weight=2.2), w)[0]
    assert torch.equal(exact.dense(), w)
    assert sorted(exact.entries.tolist()) == [-1.0, 0.0, 0.5, 3.0]
    assert not torch.equal(project(EntropyConstrained(bits_per_weight=2.1), w)[0].dense(), w)  # 128 bits of levels
    many = torch.arange(-127.0, 128.0).repeat(40)
    assert torch.equal(project(EntropyConstrained(bits_per_weight=9.0), many)[0].dense(), many)
    one_more = torch.arange(1.0, 256.0).repeat(40)  # with zero that makes 256
    assert not torch.equal(project(EntropyConstrained(bits_per_weight=9.0), one_more)[0].dense(), one_more)


@pytest.mark.parametrize("projection", [EntropyConstrained(bits_per_weight=100.0), EntropyConstrained(lam=1e-6)])
@pytest.mark.parametrize(
    "values", [[0.0], [0.0] * 5, [2.5], [2.5] * 7, [-1e-3] * 4, [0.3, -0.3] * 20, [1.0, 1.0, 2.0, 2.0] * 10, [0.0, 4.0]]
)
def test_zeros_ties_and_single_values_are_kept(projection: EntropyConstrained, values: list[float]) -> None:
    w = torch.tensor(values)
    code = project(projection, w)[0]
    wanted = w if float(w.abs().max()) > 0.01 or projection.lam is None else code.dense()
    assert torch.allclose(code.dense(), wanted, rtol=1e-6)
    for value in w.unique():
        assert len(code.dense()[w == value].unique()) == 1  # equal weights, equal codes


def test_without_bits_everything_is_zero() -> None:
    for w in (weights(50), torch.ones(20), torch.cat([weights(2000), torch.tensor([1e4])])):
        code = project(EntropyConstrained(bits_per_weight=0.001), w)[0]
        assert code.entries.tolist() == [0.0]
        assert int(code.dense().count_nonzero()) == 0


def test_empty_tensors_have_empty_codes() -> None:
    for projection in (EntropyConstrained(bits_per_weight=1.0), EntropyConstrained(lam=0.01)):
        assert projection.project([], 1.0) == []
        assert project(projection, torch.zeros(0, 3))[0].dense().shape == (0, 3)
        both = project(projection, torch.zeros(0), weights(500))
        assert sum(map(code_length, both)) <= 500 or projection.lam


def test_weights_far_from_zero_are_told_apart() -> None:
    w = 100 + weights(4000)
    code = project(EntropyConstrained(bits_per_weight=3.0), w)[0]
    assert code_length(code) <= 12_000
    assert distance([w], [code]) < 0.1 * float(((w - w.mean()) ** 2).sum())


def test_binary_weights_do_not_trip_over_a_zero_that_nobody_wants() -> None:
    w = torch.tensor([-1.0, 1.0]).repeat(500) + 0.1 * weights(1000)
    for slope in (0.001, 0.02, 0.05):
        code = project(EntropyConstrained(lam=slope / 2), w)[0]
        assert torch.equal(code.dense() > 0, w > 0)
        used = code.entries[code.indices.long().unique()]
        assert float(used.abs().min()) > 0.5


@given(st.lists(st.floats(-2, 2), min_size=1, max_size=5, unique=True), st.floats(1e-3, 0.3), st.integers(0, 2**31))
@settings(max_examples=80, deadline=None)
def test_thresholds_say_which_level_is_cheapest(found: list[float], slope: float, seed: int) -> None:
    levels = np.array(sorted({0.0, *(round(value, 2) for value in found)}))
    shares = np.random.default_rng(seed).dirichlet(np.ones(len(levels))) + 1e-9
    whole = Levels(levels, shares / shares.sum())
    thresholds = whole.thresholds(slope)
    if not (np.diff(thresholds) >= 0).all():
        return  # levels that nobody would choose are dropped before; zero's own are never crossed
    grid = np.linspace(-3, 3, 601)
    chosen = np.searchsorted(thresholds, grid)
    costs = (grid[:, None] - levels) ** 2 + slope * whole.lengths
    assert np.allclose(costs[np.arange(601), chosen], costs.min(1), atol=1e-9)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_are_refused(bad: float) -> None:
    with pytest.raises(BadInput, match="NaN or infinity"):
        EntropyConstrained(bits_per_weight=1.0).project([weights(), torch.tensor([1.0, bad])], 1.0)


def test_lower_precision_and_other_memory_orders_are_the_same_numbers() -> None:
    projection = EntropyConstrained(bits_per_weight=1.5)
    w = weights(4 * 6 * 9).reshape(4, 6, 3, 3)
    expected = project(projection, w)[0].dense()
    for other in (w.contiguous(memory_format=torch.channels_last), w.flip(0).flip(0), torch.stack([w, w], -1)[..., 0]):
        assert torch.equal(project(projection, other)[0].dense(), expected)
    low = w.bfloat16()
    assert torch.equal(project(projection, low)[0].dense(), project(projection, low.float())[0].dense())
    assert project(projection, low)[0].dense().dtype == torch.float32


def test_equal_inputs_give_equal_codes_whatever_the_start() -> None:
    w, projection = weights(), EntropyConstrained(bits_per_weight=0.8)
    cold = project(projection, w)[0]
    warm = projection.project([w], 1.0, [project(projection, weights(seed=5))[0]])[0]
    assert torch.equal(cold.dense(), warm.dense())


@pytest.mark.parametrize(
    ("settings_", "text"),
    [
        ({}, "entropy-constrained quantization: give either bits_per_weight or lam"),
        (
            {"bits_per_weight": 1.0, "lam": 1.0},
            "entropy-constrained quantization: give either bits_per_weight or lam",
        ),
        ({"bits_per_weight": 0.0}, "entropy-constrained quantization: 0.0 bits a weight or lam: must be above 0"),
        ({"lam": math.nan}, "entropy-constrained quantization: nan bits a weight or lam: must be above 0"),
        (
            {"lam": 1.0, "weights": (1.0, 0.0)},
            "entropy-constrained quantization: weights (1.0, 0.0): must be above 0 and finite",
        ),
    ],
)
def test_settings_out_of_range_are_refused(settings_: dict[str, float], text: str) -> None:
    with pytest.raises(BadInput) as caught:
        EntropyConstrained(**settings_)  # type: ignore[arg-type]  # what a user may write
    assert str(caught.value) == text


def test_settings_that_do_not_fit_the_tensors_are_refused() -> None:
    with pytest.raises(BadInput, match="entropy-constrained quantization: 2 weights for 1 tensors"):
        EntropyConstrained(lam=1.0, weights=(1.0, 2.0)).project([weights()], 1.0)
    with pytest.raises(BadInput, match="mu 0 makes the cost infinite; give a positive mu"):
        EntropyConstrained(lam=1.0).project([weights()], 0.0)
