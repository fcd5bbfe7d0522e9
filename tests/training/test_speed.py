from __future__ import annotations

import nets
import pytest
import torch

from easycompress.training import speed as speeds
from easycompress.training.speed import Speed, tune


@pytest.mark.parametrize("net", [nets.Mlp, nets.BatchNormed])
def test_tuning_tells_how_long_a_step_takes_and_changes_nothing(net: type[torch.nn.Module]) -> None:
    model = nets.make(net)
    before, threads = nets.state(model), torch.get_num_threads()
    torch.manual_seed(3)
    numbers = torch.get_rng_state()
    speed = tune(model, nets.digits().train, 64)
    assert 0 < speed.step_seconds < 5
    assert 1 <= speed.threads <= threads
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), numbers)
    assert nets.same_state(model.state_dict(), before)
    assert not model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_net_without_convolutions_is_not_tried_channels_last(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[Speed] = []

    def timed(_model: torch.nn.Module, _split: object, _batch: int, speed: Speed) -> float:
        tried.append(speed)
        return 1.0

    monkeypatch.setattr(speeds, "_seconds_per_step", timed)
    tune(nets.make(nets.Mlp), nets.digits().train, 64)
    assert not any(speed.channels_last for speed in tried)
    tune(nets.make(nets.LeNet), nets.digits().train, 64)
    assert any(speed.channels_last for speed in tried)


@pytest.mark.parametrize(("seconds", "chosen"), [(0.5, True), (0.95, False)])
@pytest.mark.parametrize("has", [True, False])
def test_linear_layers_train_in_bfloat16_where_that_is_clearly_faster(
    monkeypatch: pytest.MonkeyPatch,
    has: bool,  # noqa: FBT001 - a case
    seconds: float,
    chosen: bool,  # noqa: FBT001 - a case
) -> None:
    monkeypatch.setattr(speeds, "has_bfloat16", lambda: has)
    monkeypatch.setattr(speeds, "_seconds_per_step", lambda _m, _i, _b, s: seconds if s.bfloat16 else 1.0)
    speed = tune(nets.make(nets.Mlp), nets.digits().train, 64)
    assert speed.bfloat16 is (has and chosen)
    assert not speed.channels_last


@pytest.mark.parametrize(("seconds", "chosen"), [(0.5, True), (0.95, False), (1.5, False)])
def test_a_setting_must_be_clearly_faster(
    monkeypatch: pytest.MonkeyPatch,
    seconds: float,
    chosen: bool,  # noqa: FBT001 - a case
) -> None:
    monkeypatch.setattr(speeds, "has_bfloat16", lambda: False)
    monkeypatch.setattr(speeds, "_seconds_per_step", lambda _m, _i, _b, s: seconds if s.channels_last else 1.0)
    speed = tune(nets.make(nets.LeNet), nets.digits().train, 64)
    assert speed.channels_last is chosen
    assert speed.step_seconds == (seconds if chosen else 1.0)


def test_one_setting_alone() -> None:
    only = Speed(threads=1, channels_last=True, bfloat16=False, step_seconds=99.0)
    speed = tune(nets.make(nets.LeNet), nets.digits().train, 64, only=only)
    assert 0 < speed.step_seconds < 5
    assert speed.model_copy(update={"step_seconds": 99.0}) == only


def test_threads_are_given_back_whatever_happens() -> None:
    before = torch.get_num_threads()
    speed = Speed(threads=before + 1, channels_last=False, bfloat16=False, step_seconds=0.0)
    inside = 0

    def work() -> None:
        nonlocal inside
        with speed.applied():
            inside = torch.get_num_threads()
            raise ValueError

    with pytest.raises(ValueError, match=r"^$"):
        work()
    assert inside == before + 1
    assert torch.get_num_threads() == before


def test_a_frozen_model_can_be_timed() -> None:
    model = nets.make(nets.LeNet).requires_grad_(False)  # noqa: FBT003 - torch's own signature
    assert tune(model, nets.digits().train, 8).step_seconds > 0
    assert not any(parameter.requires_grad for parameter in model.parameters())
