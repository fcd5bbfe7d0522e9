from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from easycompress.codes.composed import Additive
from easycompress.lc import cstep
from easycompress.lc.cstep import Theta, by_parameter, c_step, components, dense
from easycompress.lc.projections.entropy import EntropyConstrained
from easycompress.lc.projections.lowrank import LowRankAt
from easycompress.lc.projections.pruned import ConstraintL0, ConstraintL1, PenaltyL0, PenaltyL1
from easycompress.lc.projections.quantized import AdaptiveQuantization, Binarization, FixedCodebook, Ternarization
from easycompress.lc.tasks import Task, each, parse_tasks

if TYPE_CHECKING:
    from collections.abc import Sequence

TWO, ONE_PERCENT = AdaptiveQuantization(2), ConstraintL0(share=0.01)
SIZES = {"a": (40, 30), "b": (25, 8)}


class Bag(nn.Module):
    """Parameters a and b, heavy-tailed as trained ones are."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        for name, size in SIZES.items():
            scale = torch.exp(torch.randn(size, generator=generator))
            self.register_parameter(name, nn.Parameter(0.1 * scale * torch.randn(size, generator=generator)))


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in model.named_parameters()}


def distance(tasks: Sequence[Task], w: dict[str, Tensor], theta: Theta) -> float:
    made = dense(tasks, theta)
    return float(sum(((w[name] - value) ** 2).sum() for name, value in made.items()))


def solved(tasks: dict[Any, Any], seed: int = 0, warm: Theta | None = None) -> tuple[float, Theta]:
    model = Bag(seed)
    parsed = parse_tasks(model, tasks)
    theta = c_step(parsed, weights(model), 1.0, warm)
    return distance(parsed, weights(model), theta), theta


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        (["a", "b"], [[0], [1]]),
        (["a", "a"], [[0, 1]]),
        (["a", "b", "ab"], [[0, 1, 2]]),
        (["ab", "c", "bd", "e", "de"], [[1], [0, 2, 3, 4]]),
        ([], []),
    ],
)
def test_tasks_that_share_parameters_directly_or_by_others_are_one_component(
    named: list[str], expected: list[list[int]]
) -> None:
    assert components([Task(tuple(names), TWO) for names in named]) == expected


def test_a_lone_task_is_its_projection() -> None:
    w = weights(Bag())
    for projection in (TWO, ConstraintL0(7), PenaltyL1(0.1), EntropyConstrained(lam=0.01), Binarization()):
        tasks = (Task(("a", "b"), projection), Task(("c",), LowRankAt(2)))
        theta = c_step(tasks, w | {"c": w["a"]}, 3.0)
        for code, expected in zip(theta.codes[0], projection.project([w["a"], w["b"]], 3.0), strict=True):
            assert torch.equal(code.dense(), expected.dense())
        assert torch.equal(theta.codes[1][0].dense(), LowRankAt(2).project([w["a"]], 3.0)[0].dense())
        assert theta.rounds == 1


def test_a_codebook_a_layer_and_one_sparse_correction_over_all_is_better_than_either_alone() -> None:
    quantized, _ = solved(each(SIZES, TWO))
    pruned, _ = solved({tuple(SIZES): ONE_PERCENT})
    both, theta = solved({**each(SIZES, TWO), tuple(SIZES): ONE_PERCENT})
    assert both < 0.9 * min(quantized, pruned)
    assert [len(codes) for codes in theta.codes] == [1, 1, 2]
    corrections = sum(int(code.dense().count_nonzero()) for code in theta.codes[2])
    assert corrections == round(0.01 * (1200 + 200))
    assert not torch.equal(theta.codes[0][0].arrays()["entries"], theta.codes[1][0].arrays()["entries"])


@pytest.mark.parametrize(("seed", "share"), [(0, 0.01), (1, 0.05), (2, 0.02)])
def test_alternation_of_q_and_p_falls_settles_and_is_as_good_as_30_rounds(
    seed: int, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = {**each(SIZES, TWO), tuple(SIZES): ConstraintL0(share=share)}
    settled, theta = solved(tasks, seed)
    assert theta.rounds < 12
    monkeypatch.setattr(cstep, "SETTLED", -1e9)
    distances = []
    for rounds in (1, 2, 4, 30):
        monkeypatch.setattr(cstep, "MOST_ROUNDS", rounds)
        found, theta = solved(tasks, seed)
        assert theta.rounds == rounds
        distances.append(found)
    for earlier, later in itertools.pairwise(distances):
        assert later <= earlier * (1 + 1e-5)
    assert settled <= distances[-1] * (1 + 1e-3)


def test_a_warm_start_is_no_worse_and_takes_fewer_rounds() -> None:
    tasks = {**each(SIZES, AdaptiveQuantization(4)), tuple(SIZES): ConstraintL0(share=0.05)}
    cold, theta = solved(tasks)
    warm, again = solved(tasks, warm=theta)
    assert warm <= cold * (1 + 1e-6)
    assert again.rounds <= 2 < theta.rounds
    parsed, moved = parse_tasks(Bag(), tasks), Bag()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in moved.parameters():
            value.add_(0.003 * torch.randn(value.shape, generator=generator))
    fresh = c_step(parsed, weights(moved), 1.0)
    near = c_step(parsed, weights(moved), 1.0, theta)
    assert near.rounds <= fresh.rounds
    assert distance(parsed, weights(moved), near) <= 1.01 * distance(parsed, weights(moved), fresh)
    assert distance(parsed, weights(moved), near) < distance(parsed, weights(moved), theta)


def test_three_parts_are_better_than_two() -> None:
    two = [AdaptiveQuantization(2), LowRankAt(2)]
    both, _ = solved(each(SIZES, two))
    all_three, theta = solved({**each(SIZES, two), tuple(SIZES): ConstraintL0(share=0.02)})
    assert all_three < 0.9 * both
    parsed = parse_tasks(Bag(), {**each(SIZES, two), tuple(SIZES): ConstraintL0(share=0.02)})
    codes = by_parameter(parsed, theta)
    for name, code in codes.items():
        assert isinstance(code, Additive)
        assert [part.form for part in code.parts] == ["codebook", "low-rank", "sparse"]
        assert torch.equal(dense(parsed, theta)[name], code.dense())
        assert code.shape == SIZES[name]


def test_a_parameter_of_one_task_has_that_task_s_code() -> None:
    parsed = parse_tasks(Bag(), {"a": TWO, "b": [TWO, ConstraintL0(3)]})
    theta = c_step(parsed, weights(Bag()), 1.0)
    codes = by_parameter(parsed, theta)
    assert codes["a"] is theta.codes[0][0]
    assert isinstance(codes["b"], Additive)
    assert codes["b"].parts == (theta.codes[1][0], theta.codes[2][0])


def best_of_all(w: Tensor, entries: Sequence[float], kappa: int) -> float:
    """Return the least sum of (w - q - s)^2 over all supports of s and all q."""
    levels = torch.tensor(list(itertools.product(entries, repeat=len(w))))
    errors = ((w - levels) ** 2).double()
    return float(torch.sort(errors, 1).values[:, : max(len(w) - kappa, 0)].sum(1).min())


CODEBOOKS = {
    Binarization(scaled=False): (-1.0, 1.0),
    Ternarization(scaled=False): (-1.0, 0.0, 1.0),
    FixedCodebook((0.25, 2.0)): (0.25, 2.0),
}


@pytest.mark.parametrize("quantization", CODEBOOKS)
@given(vector=st.lists(st.integers(-48, 48), min_size=1, max_size=6), kappa=st.integers(0, 4), other=st.booleans())
@settings(max_examples=40, deadline=None)
def test_theorem_4_1_a_fixed_codebook_and_l0_are_solved_exactly_in_one_round(
    quantization: Any,
    vector: list[int],
    kappa: int,
    other: bool,  # noqa: FBT001 - a case
) -> None:
    w = {"w": torch.tensor(vector) / 16}  # sixteenths: corrections are float16 numbers
    tasks = [Task(("w",), quantization), Task(("w",), ConstraintL0(kappa))]
    tasks = tasks[::-1] if other else tasks  # whichever is named first
    best = best_of_all(w["w"], CODEBOOKS[quantization], kappa)
    cold = c_step(tasks, w, 1.0)
    assert cold.rounds == 1
    assert distance(tasks, w, cold) == pytest.approx(best, abs=1e-6)
    elsewhere = c_step(tasks, {"w": torch.linspace(-3, 3, len(vector)).flip(0)}, 1.0)
    warm = c_step(tasks, w, 1.0, elsewhere)  # from any start
    assert distance(tasks, w, warm) == pytest.approx(best, abs=1e-6)


@pytest.mark.parametrize("pruning", [ConstraintL1(1.5), PenaltyL0(0.02), PenaltyL1(0.05)])
def test_the_other_prunings_over_a_fixed_codebook_are_exact_too(pruning: Any) -> None:
    w = {"w": torch.tensor([1.5, -0.25, 0.75, -2.0, 0.125])}
    tasks = [Task(("w",), Binarization(scaled=False)), Task(("w",), pruning)]

    def cost(part: Tensor, rest: float) -> float:
        if isinstance(pruning, ConstraintL1):
            return rest
        return rest + 2 * pruning.lam * float(
            part.count_nonzero() if isinstance(pruning, PenaltyL0) else part.abs().sum()
        )

    theta = c_step(tasks, w, 1.0)
    found = cost(theta.codes[1][0].dense(), distance(tasks, w, theta))
    for signs in itertools.product((-1.0, 1.0), repeat=5):
        q = torch.tensor(signs)
        part = pruning.project([w["w"] - q], 1.0)[0].dense()
        assert found <= cost(part, float(((w["w"] - q - part) ** 2).sum())) + 1e-6
    assert theta.rounds == 1


def test_weights_in_another_memory_order_or_precision_give_the_same_codes() -> None:
    generator = torch.Generator().manual_seed(0)
    w = torch.randn(6, 4, 3, 3, generator=generator).bfloat16()
    tasks = [Task(("w",), TWO), Task(("w",), ConstraintL0(9))]
    plain = c_step(tasks, {"w": w.float()}, 1.0)
    for other in (w, w.float().contiguous(memory_format=torch.channels_last), nn.Parameter(w.float())):
        again = c_step(tasks, {"w": other}, 1.0)
        assert torch.equal(dense(tasks, again)["w"], dense(tasks, plain)["w"])


def test_the_weights_given_are_not_changed() -> None:
    model = Bag()
    before = {name: value.clone() for name, value in weights(model).items()}
    parsed = parse_tasks(model, {**each(SIZES, TWO), tuple(SIZES): ONE_PERCENT})
    theta = c_step(parsed, weights(model), 1.0)
    c_step(parsed, weights(model), 1.0, theta)
    assert all(torch.equal(value, before[name]) for name, value in weights(model).items())
