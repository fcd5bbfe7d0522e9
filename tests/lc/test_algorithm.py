from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from easycompress.core.errors import BadInput
from easycompress.lc.algorithm import FEASIBLE, MOMENTUM_GAIN, Loop, Pull, Watch, codes, learning_compression
from easycompress.lc.cstep import c_step
from easycompress.lc.projections.pruned import ConstraintL0, PenaltyL0
from easycompress.lc.projections.quantized import AdaptiveQuantization, FixedCodebook
from easycompress.lc.schedule import Method, Penalty, spread
from easycompress.lc.tasks import each, parse_tasks

if TYPE_CHECKING:
    from collections.abc import Callable

N = 8
METHODS: tuple[Method, ...] = ("augmented-lagrangian", "quadratic-penalty")


class Regression:
    """Linear regression, L(w) = |X w - y|^2 / 2, whose L step has a closed form."""

    def __init__(self, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.x = torch.randn(40, N, generator=generator)
        self.x[:, 1] = self.x[:, 0] + 0.5 * self.x[:, 1]  # correlated inputs: rounding the optimum isn't the optimum
        true = torch.tensor([1.0, -1.0, 1.0, 1.0, -1.0, 1.0, -1.0, -1.0]) + 0.4 * torch.randn(N, generator=generator)
        self.y = self.x @ true + 0.1 * torch.randn(40, generator=generator)
        self.model = nn.Linear(N, 1, bias=False)
        self.solve(torch.zeros(N), 0.0)

    def loss(self, w: Tensor) -> float:
        return float(((self.x @ w.flatten() - self.y) ** 2).sum()) / 2

    def solve(self, target: Tensor, mu: float) -> None:
        """Put argmin L(w) + mu/2 |w - target|^2 into the model."""
        matrix = self.x.T.double() @ self.x.double() + mu * torch.eye(N, dtype=torch.float64)
        right = self.x.T.double() @ self.y.double() + mu * target.double().flatten()
        with torch.no_grad():
            self.model.weight.copy_(torch.linalg.solve(matrix, right)[None])

    def l_step(self, model: nn.Module, _step: int, pull: Pull) -> float:
        assert model is self.model
        self.solve(pull.targets[0], pull.mu)
        return self.loss(self.model.weight.detach())

    def run(self, projection: Any, penalty: Penalty, watch: Watch | None = None) -> tuple[Loop, float]:
        tasks = parse_tasks(self.model, {"weight": projection})
        loop = learning_compression(self.model, tasks, penalty, self.l_step, watch)
        return loop, self.loss(self.model.weight.detach())

    def best_two_values(self) -> float:
        """Return the least loss under a 2-entry codebook: for each assignment the entries by least squares."""
        best = math.inf
        for signs in itertools.product((0.0, 1.0), repeat=N):
            z = torch.tensor(signs)
            design = torch.stack([self.x @ z, self.x @ (1 - z)], 1)
            entries = torch.linalg.pinv(design.double()) @ self.y.double()
            best = min(best, float(((design.double() @ entries - self.y) ** 2).sum()) / 2)
        return best


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("seed", range(4))
def test_it_reaches_the_constrained_optimum_of_a_two_entry_codebook(method: Method, seed: int) -> None:
    problem = Regression(seed)
    direct = Regression(seed).run(AdaptiveQuantization(2), Penalty(1, 1, 0))[1]
    loop, reached = problem.run(AdaptiveQuantization(2), Penalty(0.5, 1.1, 150, method))
    best = problem.best_two_values()
    assert best <= reached * (1 + 1e-6)
    assert direct > 1.02 * best
    assert reached - best <= 0.05 * (direct - best)
    assert loop.rows[-1]["relative"] <= FEASIBLE
    assert loop.step == len(loop.rows) < 150  # it ends as soon as that is so
    assert all(row["relative"] > FEASIBLE for row in loop.rows[:-1])


def test_the_multipliers_make_it_feasible_at_a_lower_penalty() -> None:
    last = {m: Regression().run(AdaptiveQuantization(2), Penalty(0.5, 1.1, 150, m))[0].rows[-1]["mu"] for m in METHODS}
    assert last["augmented-lagrangian"] < 0.5 * last["quadratic-penalty"]


@pytest.mark.parametrize("method", METHODS)
def test_multipliers_follow_the_papers_update(method: Method) -> None:
    problem, seen = Regression(), []
    penalty = Penalty(1.0, 1.5, 4, method)

    def l_step(model: nn.Module, step: int, pull: Pull) -> float:
        seen.append((pull.targets[0].clone(), pull.mu))
        return problem.l_step(model, step, pull)

    tasks = parse_tasks(problem.model, {"weight": FixedCodebook((-1.0, 1.0))})
    w = {"weight": problem.model.weight}
    theta, beta, expected = c_step(tasks, w, 1.0), torch.zeros(1, N), []
    for step in range(4):  # figure 2 and appendix A, word for word
        mu = 1.5**step
        expected.append((theta.codes[0][0].dense() + beta / mu, mu))
        problem.solve(expected[-1][0], mu)
        learned = problem.model.weight.detach().clone()
        theta = c_step(tasks, {"weight": learned - beta / mu}, mu, theta)
        if method == "augmented-lagrangian":
            beta = beta - mu * (learned - theta.codes[0][0].dense())
    problem.solve(torch.zeros(N), 0.0)
    loop = learning_compression(problem.model, tasks, penalty, l_step)
    assert [mu for _, mu in seen] == [mu for _, mu in expected]
    for (target, _), (wanted, _) in zip(seen, expected, strict=True):
        assert torch.allclose(target, wanted, atol=1e-6)
    assert torch.allclose(loop.beta["weight"], beta, atol=1e-5)


def test_afterwards_the_model_holds_exactly_what_the_codes_say() -> None:
    for penalty in (Penalty(1, 1.2, 0), Penalty(1, 1.2, 3), Penalty(0.5, 1.1, 150)):
        problem = Regression()
        loop, _ = problem.run(AdaptiveQuantization(2), penalty)
        code = codes(parse_tasks(problem.model, {"weight": AdaptiveQuantization(2)}), loop)["weight"]
        assert torch.equal(problem.model.weight.detach(), code.dense())
        assert len(problem.model.weight.detach().unique()) == 2


def test_no_steps_are_direct_compression_with_the_first_mu_for_penalties() -> None:
    problem = Regression()
    reference = problem.model.weight.detach().clone()
    loop, _ = problem.run(PenaltyL0(0.5), Penalty(2.0, 1.5, 0))
    assert (loop.step, loop.rows) == (0, [])
    expected = PenaltyL0(0.5).project([reference], 2.0)[0].dense()
    assert torch.equal(problem.model.weight.detach(), expected)
    assert 0 < int(expected.count_nonzero()) < N  # mu = 0 would leave nothing


def test_a_step_records_what_happened_and_evaluates_the_compressed_net() -> None:
    problem, saved = Regression(), []

    def evaluate(model: nn.Module) -> float:
        assert len(model.get_parameter("weight").detach().unique()) == 2
        return problem.loss(model.get_parameter("weight").detach())

    def save(loop: Loop) -> None:
        saved.append((loop.step, problem.model.weight.detach().clone()))

    loop, _ = problem.run(AdaptiveQuantization(2), Penalty(0.5, 2.0, 3), Watch(evaluate, save))
    assert [step for step, _ in saved] == [1, 2, 3]
    for row, (_, weight) in zip(loop.rows, saved, strict=True):
        assert len(weight.unique()) == N  # the net itself goes on with its own weights
        assert row["quality"] > row["loss"]
        assert row["relative"] == pytest.approx(row["distance"] / float(weight.norm()), rel=1e-5)
        assert row["l_seconds"] >= 0 <= row["c_seconds"]
    assert [row["mu"] for row in loop.rows] == [0.5, 1.0, 2.0]
    assert loop.rows[0]["distance"] > loop.rows[-1]["distance"]


def test_the_caller_may_end_it() -> None:
    loop, _ = Regression().run(
        AdaptiveQuantization(2), Penalty(0.5, 1.1, 50), Watch(done=lambda state: state.step == 2)
    )
    assert loop.step == 2


def test_a_loop_that_had_ended_is_not_gone_on_with() -> None:
    problem = Regression()
    loop, reached = problem.run(AdaptiveQuantization(2), Penalty(0.5, 1.1, 150))
    steps = loop.step
    tasks = parse_tasks(problem.model, {"weight": AdaptiveQuantization(2)})
    again = learning_compression(problem.model, tasks, Penalty(0.5, 1.1, 150), problem.l_step, loop=loop)
    assert again.step == steps < 150
    assert problem.loss(problem.model.weight.detach()) == reached


def test_weights_of_zero_are_as_far_as_they_are_from_a_code_without_zero() -> None:
    model = nn.Linear(3, 2, bias=False)
    nn.init.zeros_(model.weight)
    tasks = parse_tasks(model, {"weight": FixedCodebook((-1.0, 1.0))})
    loop = learning_compression(model, tasks, Penalty(1, 1, 3), lambda *_: 0.0)
    assert loop.step == 3
    assert math.isinf(loop.rows[0]["relative"])


def test_several_parameters_and_joint_tasks_keep_a_multiplier_each() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 4))
    names = ("0.weight", "1.weight")
    tasks = parse_tasks(model, {**each(names, AdaptiveQuantization(2)), names: ConstraintL0(6)})

    def drift(net: nn.Module, step: int, pull: Pull) -> float:
        with torch.no_grad():
            for value in net.parameters():
                value.add_(0.1 * torch.randn(value.shape, generator=torch.Generator().manual_seed(step)))
        pull(0.1)
        return 0.0

    loop = learning_compression(model, tasks, Penalty(0.3, 1.5, 6), drift)
    assert {name: value.shape for name, value in loop.beta.items()} == {"0.weight": (5, 6), "1.weight": (4, 5)}
    assert all(float(value.abs().max()) > 0 for value in loop.beta.values())
    assert loop.rows[-1]["relative"] < loop.rows[0]["relative"]


@pytest.mark.parametrize("lay", [lambda t: t, lambda t: t.to(memory_format=torch.channels_last)])
@pytest.mark.parametrize("mu", [1e-4, 0.3, 1e6])
def test_the_pull_goes_to_the_weighted_mean_with_the_target(lay: Callable[[Tensor], Tensor], mu: float) -> None:
    generator = torch.Generator().manual_seed(0)
    convolution, linear = nn.Conv2d(5, 4, 3), nn.Linear(3, 2)
    convolution.weight.data = lay(convolution.weight.data)
    w = {"convolution": convolution.weight, "linear": linear.weight}
    targets = {name: torch.randn(value.shape, generator=generator) for name, value in w.items()}
    before = {name: value.detach().clone() for name, value in w.items()}
    strides = convolution.weight.stride()
    pull = Pull(w, dict(targets), mu)
    a = MOMENTUM_GAIN * 0.02 * mu
    for _ in range(2):
        pull(0.02)
        before = {name: (value + a * targets[name]) / (1 + a) for name, value in before.items()}
        for name, value in w.items():
            assert torch.allclose(value.detach(), before[name], rtol=1e-5, atol=1e-6)
            assert value.grad is None
    assert convolution.weight.stride() == strides
    assert MOMENTUM_GAIN == 10


def test_the_pull_follows_weights_that_training_lays_out_anew() -> None:
    convolution = nn.Conv2d(5, 4, 3)
    target = torch.zeros(4, 5, 3, 3)
    pull = Pull({"w": convolution.weight}, {"w": target}, 1e30)
    convolution.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it
    pull(0.1)
    assert int(convolution.weight.count_nonzero()) == 0


def test_a_schedule_is_geometric() -> None:
    assert [Penalty(2.0, 1.5, 3)(step) for step in range(3)] == [2.0, 3.0, 4.5]
    made = spread(1e-3, 1.0, 4)
    assert [made(step) for step in range(4)] == pytest.approx([1e-3, 1e-2, 1e-1, 1.0])
    assert spread(1e-3, 1.0, 1)(0) == 1e-3
    assert spread(1e-3, 1.0, 0) == Penalty(1e-3, 1.0, 0)
    assert spread(0.5, 0.5, 4, "quadratic-penalty") == Penalty(0.5, 1.0, 4, "quadratic-penalty")


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Penalty(0.0, 1.1, 3), "lc: mu 0: must be above 0 and finite"),
        (lambda: Penalty(-1.0, 1.1, 3), "lc: mu -1: must be above 0 and finite"),
        (lambda: Penalty(math.nan, 1.1, 3), "lc: mu nan: must be above 0 and finite"),
        (lambda: Penalty(math.inf, 1.1, 3), "lc: mu inf: must be above 0 and finite"),
        (lambda: Penalty(1.0, 0.9, 3), "lc: growth 0.9: mu must not fall; give at least 1"),
        (lambda: Penalty(1.0, math.nan, 3), "lc: growth nan: mu must not fall; give at least 1"),
        (lambda: Penalty(1.0, 1.1, -1), "lc: -1 steps: must be 0 (direct compression) or more"),
        (lambda: Penalty(1.0, 10.0, 40), "lc: mu 1 x 10^39 is above 1e+30; lower the growth"),
        (
            lambda: Penalty(1.0, 1.1, 3, "augmented"),  # type: ignore[arg-type]  # what a user may write
            "lc: no method 'augmented'; there are augmented-lagrangian, quadratic-penalty",
        ),
        (lambda: spread(0.0, 1.0, 5), "lc: mu from 0 to 1: must be above 0 and not fall"),
        (lambda: spread(1.0, 0.5, 5), "lc: mu from 1 to 0.5: must be above 0 and not fall"),
        (lambda: spread(-1.0, 1.0, 5), "lc: mu from -1 to 1: must be above 0 and not fall"),
    ],
)
def test_a_schedule_out_of_range_is_refused(make: Callable[[], Penalty], text: str) -> None:
    with pytest.raises(BadInput) as caught:
        make()
    assert str(caught.value) == text
