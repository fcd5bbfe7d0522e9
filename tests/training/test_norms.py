from __future__ import annotations

import nets
import pytest
import torch
from torch import Tensor, nn

from easycompress.training.norms import correct, kept, observed, reestimate


def test_statistics_are_those_of_the_inputs() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).train()
    x = 3 + 2 * nets.images(512)
    model[1].running_mean.fill_(100)
    reestimate(model, x)
    seen = model[0](x).detach()
    assert torch.allclose(model[1].running_mean, seen.mean((0, 2, 3)), atol=1e-4)
    assert torch.allclose(model[1].running_var, seen.var((0, 2, 3)), rtol=0.02)
    assert model[1].momentum == 0.1
    assert not any(module.training for module in model.modules())


def test_it_repairs_what_new_weights_broke() -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5))
    x = torch.randn(400, 6, generator=torch.Generator().manual_seed(0))
    reestimate(model, x)
    with torch.no_grad():
        model[0].weight.mul_(10)
        model[0].bias.add_(7)
    broken = model(x)
    reestimate(model, x)
    repaired = model(x)
    assert float(broken.std()) > 3
    assert torch.allclose(repaired.mean(0), torch.zeros(5), atol=1e-2)
    assert torch.allclose(repaired.std(0), torch.ones(5), atol=2e-2)


def test_it_is_the_same_every_time_and_leaves_the_generator_alone() -> None:
    def noisy(x: Tensor) -> Tensor:
        return x + torch.randn_like(x)

    states = []
    for seed in (1, 2):
        model = nets.make(nets.BatchNormed)
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        reestimate(model, nets.images(200), noisy)
        assert torch.equal(torch.get_rng_state(), before)
        states.append(nets.state(model))
    assert nets.same_state(*states)
    plain = nets.make(nets.BatchNormed)
    reestimate(plain, nets.images(200))
    assert not nets.same_state(plain.state_dict(), states[0])


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_samples_change_nothing(count: int) -> None:
    model = nets.make(nets.BatchNormed)
    before = nets.state(model)
    reestimate(model, nets.images(count))
    assert nets.same_state(model.state_dict(), before)


@pytest.mark.parametrize("count", [2, 129, 257])
def test_a_lone_last_sample_does_not_fail(count: int) -> None:
    model = nets.make(nets.BatchNormed)
    reestimate(model, nets.images(count))
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())


def test_a_model_without_norms_is_not_run() -> None:
    model = nets.make(nets.Mlp)
    before = nets.state(model)
    model.forward = None  # type: ignore[assignment]  # calling it would fail
    reestimate(model, nets.images(8))
    assert nets.same_state(nets.state(model), before)


def test_norms_without_statistics_or_that_are_not_called_stay_as_they_are() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.BatchNorm2d(1, momentum=None), nn.BatchNorm2d(1)
            self.free = nn.BatchNorm2d(1, track_running_stats=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.free(self.used(x))

    model = Odd()
    model.unused.running_mean.fill_(3.0)  # type: ignore[union-attr]
    model.unused.running_var.fill_(4.0)  # type: ignore[union-attr]
    reestimate(model, 5 + nets.images(64))
    assert (float(model.unused.running_mean), float(model.unused.running_var)) == (3.0, 4.0)  # type: ignore[arg-type]
    assert float(model.used.running_mean) == pytest.approx(5, abs=0.1)  # type: ignore[arg-type]
    assert model.used.momentum is None


def test_a_correction_moves_statistics_by_what_new_weights_changed() -> None:
    model = nets.make(nets.BatchNormed)
    inputs = nets.images(300)
    norm = next(module for module in model.modules() if isinstance(module, nn.BatchNorm2d))
    norm.running_mean.fill_(3.0)  # of other data than `inputs`
    norm.running_var.fill_(5.0)
    trained, seen = nets.state(model), observed(model, inputs)
    correct(model, seen, inputs)
    assert nets.same_state(nets.state(model), trained)  # no weight changed, and so nothing does

    layer = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    with torch.no_grad():
        layer.weight.mul_(2)
    correct(model, seen, inputs)
    mean, variance = next(iter(seen.values()))
    assert torch.allclose(norm.running_mean, 3 + mean, rtol=1e-4, atol=1e-5)  # twice as large: once more the mean
    assert torch.allclose(norm.running_var, torch.full_like(variance, 5.0 * 4), rtol=1e-4)


def test_a_correction_knows_channels_that_did_not_vary() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)).eval()
    inputs = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        model[0].weight[0] = 0
    seen = observed(model, inputs)
    with torch.no_grad():
        model[0].weight[0] = 1
    correct(model, seen, inputs)
    assert torch.isfinite(model[1].running_var).all()
    assert float(model[1].running_var[0]) > 1


def test_what_was_seen_follows_the_channels_that_stay() -> None:
    model = nets.make(nets.BatchNormed)
    norm = model.get_submodule("features.1")
    assert isinstance(norm, nn.BatchNorm2d)
    norm.running_mean = torch.arange(8.0) / 7
    seen = observed(model, nets.images(64))

    def remove() -> None:
        norm.running_mean, norm.running_var = norm.running_mean[[1, 4, 7]], norm.running_var[[1, 4, 7]]  # type: ignore[index]

    others = nets.state(model.get_submodule("features.5"))
    left = kept(model, seen, remove)
    assert left.keys() == seen.keys()
    assert all(torch.equal(*pair) for pair in zip(left["norm"], seen["norm"], strict=True))
    for now, before in zip(left["features.1"], seen["features.1"], strict=True):
        assert torch.equal(now, before[[1, 4, 7]])
    assert torch.equal(norm.running_mean, torch.tensor([1.0, 4.0, 7.0]) / 7)
    assert nets.same_state(nets.state(model.get_submodule("features.5")), others)


def test_without_batch_norm_nothing_is_observed() -> None:
    assert observed(nn.Linear(4, 2), torch.randn(8, 4)) == {}
