from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Literal

import nets
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from easycompress.core.inputs import Bundle
from easycompress.core.progress import Silent
from easycompress.core.task import Split
from easycompress.training import fit as training
from easycompress.training.checkpoint import load_tensors, save_tensors
from easycompress.training.fit import History, Hooks, Schedule, fit
from easycompress.training.terms import Labels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from easycompress.core.inputs import Inputs
    from easycompress.training.terms import Term

HARD = Labels(functional.cross_entropy)
SMALL = Schedule(epochs=3, lr=0.05, batch=64, samples=256)


class Dropped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 3)
        self.norm = nn.BatchNorm2d(6)
        self.drop = nn.Dropout(0.3)
        self.output = nn.Linear(6, nets.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.drop(torch.relu(self.norm(self.conv(x))).mean((2, 3))))


class Watched:
    """An evaluation that follows a script and remembers the weights that it saw."""

    def __init__(self, scores: Iterable[float]) -> None:
        self.scores = list(scores)
        self.seen: list[dict[str, Tensor]] = []

    def __call__(self, model: nn.Module) -> float:
        assert not model.training
        self.seen.append(nets.state(model))
        return self.scores[len(self.seen) - 1]


class Stopped(Exception):
    """A kill."""


def noisy(inputs: Tensor) -> Tensor:
    return inputs + 0.1 * torch.randn_like(inputs)


def run(
    model: nn.Module,
    hooks: Hooks,
    schedule: Schedule = SMALL,
    term: Term = HARD,
    checkpoint: Path | None = None,
    split: Split | None = None,
) -> History:
    return fit(model, split or nets.digits().train, term, schedule, nets.SPEED, hooks, checkpoint)


def test_it_learns() -> None:
    model = nets.make(nets.BatchNormed)
    before = nets.accuracy(model)
    history = run(model, Hooks(nets.accuracy), Schedule(epochs=6, lr=0.1, batch=32))
    assert before < 30
    assert nets.accuracy(model) == history.best > 90
    assert history.epochs[-1]["loss"] < 0.5 * history.epochs[0]["loss"]
    assert history.best_epoch == max(range(6), key=lambda epoch: history.epochs[epoch]["quality"])


def test_the_best_epoch_is_kept_when_later_ones_are_worse() -> None:
    model, watched = nets.make(nets.LeNet), Watched([10, 50, 30, 20])
    history = run(model, Hooks(watched), Schedule(epochs=4, lr=0.05, batch=64, samples=128))
    assert (history.best_epoch, history.best, len(history.epochs)) == (1, 50, 4)
    assert nets.same_state(model.state_dict(), watched.seen[1])
    assert not nets.same_state(watched.seen[1], watched.seen[3])
    assert not model.training


def test_the_epoch_that_reaches_the_target_ends_training_and_is_kept() -> None:
    model, watched = nets.make(nets.LeNet), Watched([10, 50, 99, 99])
    history = run(model, Hooks(watched, enough=lambda score: score >= 50), Schedule(epochs=4, lr=0.05, samples=128))
    assert len(history.epochs) == 2
    assert nets.same_state(model.state_dict(), watched.seen[1])


def test_the_first_of_equal_epochs_is_kept() -> None:
    model, watched = nets.make(nets.LeNet), Watched([40, 40, 40])
    history = run(model, Hooks(watched))
    assert history.best_epoch == 0
    assert nets.same_state(model.state_dict(), watched.seen[0])


@pytest.mark.parametrize(("start", "kept"), [(20.0, None), (19.0, 1), (-math.inf, 1)])
def test_training_must_beat_the_weights_as_they_come(start: float, kept: int | None) -> None:
    model, watched = nets.make(nets.LeNet), Watched([10, 20, 15])
    before = nets.state(model)
    history = run(model, Hooks(watched, start=start))
    assert (history.best_epoch, history.best) == ((-1, start) if kept is None else (kept, 20))
    assert nets.same_state(model.state_dict(), before if kept is None else watched.seen[kept])


def test_where_nobody_asks_the_last_epoch_is_kept() -> None:
    watched, model, unasked = Watched([30, 20, 10]), nets.make(nets.LeNet), nets.make(nets.LeNet)
    run(model, Hooks(watched))
    history = run(unasked, Hooks(None))
    assert history.best_epoch == 2
    assert all(math.isnan(row["quality"]) and row["loss"] > 0 for row in history.epochs)
    assert nets.same_state(unasked.state_dict(), watched.seen[2])


def test_what_nobody_asks_about_is_resumed_all_the_same(tmp_path: Path) -> None:
    through, stopped = nets.make(nets.LeNet), nets.make(nets.LeNet)
    run(through, Hooks(None))
    run(stopped, Hooks(None, out_of_time=lambda _: True), checkpoint=tmp_path / "last")
    assert not nets.same_state(stopped.state_dict(), through.state_dict())
    again = nets.make(nets.LeNet, seed=5)
    tensors, meta = load_tensors(tmp_path / "last") or ({}, {})
    save_tensors(tmp_path / "last", tensors, meta | {"done": False})
    run(again, Hooks(None), checkpoint=tmp_path / "last")
    assert nets.same_state(again.state_dict(), through.state_dict())


@pytest.mark.parametrize("shape", ["flat", "cycle"])
def test_after_each_step_the_rate_is_told(shape: Literal["flat", "cycle"]) -> None:
    rates: list[float] = []
    schedule = Schedule(epochs=3, lr=0.05, batch=64, samples=256, shape=shape)
    run(nets.make(nets.LeNet), Hooks(None, after_step=rates.append), schedule)
    assert len(rates) == 3 * 4
    if shape == "flat":
        assert rates == [0.05] * 12
    else:
        assert rates[0] < rates[-1] < max(rates) <= 0.05


def test_what_happens_after_a_step_is_the_next_one_s_start() -> None:
    model = nets.make(nets.LeNet)

    def clamp(_rate: float) -> None:
        with torch.no_grad():
            model.fc2.weight.zero_()

    run(model, Hooks(None, after_step=clamp))
    assert not model.fc2.weight.any()
    assert model.fc2.bias.any()


def test_time_ends_training() -> None:
    seconds: list[float] = []

    def late(last: float) -> bool:
        seconds.append(last)
        return len(seconds) == 2

    history = run(nets.make(nets.LeNet), Hooks(Watched([1, 2, 3]), out_of_time=late))
    assert len(history.epochs) == 2
    assert all(second > 0 for second in seconds)
    assert [row["seconds"] for row in history.epochs] == seconds


@pytest.mark.parametrize(("optimizer", "momentum"), [("sgd", 0.0), ("sgd", 0.9), ("adamw", 0.9)])
@pytest.mark.parametrize("augment", [None, noisy])
@pytest.mark.parametrize("channels_last", [False, True])
def test_resuming_gives_the_weights_of_an_uninterrupted_run(
    tmp_path: Path,
    optimizer: Literal["sgd", "adamw"],
    momentum: float,
    augment: Callable[[Tensor], Tensor] | None,
    channels_last: bool,  # noqa: FBT001 - a case
) -> None:
    lr = 0.05 if optimizer == "sgd" else 0.005
    schedule = Schedule(4, lr, batch=64, samples=200, optimizer=optimizer, momentum=momentum, seed=5)
    speed = nets.SPEED.model_copy(update={"channels_last": channels_last})
    split = nets.digits().train
    whole, halves = nets.make(Dropped), nets.make(Dropped)
    scores = [10.0, 40.0, 30.0, 20.0]
    expected = fit(whole, split, HARD, schedule, speed, Hooks(Watched(scores), augment=augment), None)
    file = tmp_path / "training.checkpoint"

    class Killed(Watched):
        def __call__(self, model: nn.Module) -> float:
            if len(self.seen) == 2:
                raise Stopped
            return super().__call__(model)

    with pytest.raises(Stopped):
        fit(halves, split, HARD, schedule, speed, Hooks(Killed(scores), augment=augment), file)
    torch.manual_seed(99)  # another process
    fresh, last = nets.make(Dropped), Watched(scores[2:])
    history = fit(fresh, split, HARD, schedule, speed, Hooks(last, augment=augment), file)
    assert nets.same_state(fresh.state_dict(), whole.state_dict())
    assert [row["loss"] for row in history.epochs] == [row["loss"] for row in expected.epochs]
    assert (history.best, history.best_epoch) == (40.0, 1)
    final = Watched([*scores, 50.0])
    fit(nets.make(Dropped), split, HARD, schedule, speed, Hooks(final, augment=augment), None)
    assert nets.same_state(last.seen[1], final.seen[3])  # not only the best epoch: the last one too


def test_adamw_makes_the_steps_that_torch_documents() -> None:
    """p <- p - rate (m / (sqrt(v) + eps) + decay p): at the first step the gradient's size doesn't matter."""
    model = nets.make(nets.Mlp)
    before = nets.state(model)
    schedule = Schedule(1, 0.01, shape="flat", optimizer="adamw", batch=900, weight_decay=0.1)
    run(model, Hooks(None), schedule, split=nets.digits().train)
    change = before["output.bias"] * (1 - 0.01 * 0.1) - model.get_parameter("output.bias").detach()
    torch.testing.assert_close(change.abs(), torch.full_like(change, 0.01), rtol=1e-3, atol=0)


def test_training_takes_inputs_of_several_tensors() -> None:
    data = Bundle((torch.randint(nets.WORDS, (64, 4)), torch.randn(64, 6)))
    split = Split(data, data.tensors[0][:, 0] % nets.CLASSES)
    model = nets.make(nets.Pair)
    seen: list[Inputs] = []

    def term(outputs: Tensor, targets: Tensor | None, inputs: Inputs, places: Tensor) -> Tensor:
        seen.append(inputs)
        return HARD(outputs, targets, inputs, places)

    history = run(model, Hooks(None), Schedule(30, 0.01, optimizer="adamw", batch=32), term=term, split=split)
    assert history.epochs[-1]["loss"] < history.epochs[0]["loss"] / 2
    assert all(isinstance(batch, Bundle) and batch.tensors[0].dtype == torch.int64 for batch in seen)


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    file = tmp_path / "training.checkpoint"
    model = nets.make(nets.LeNet)
    run(model, Hooks(Watched([10, 60]), enough=lambda score: score >= 50), checkpoint=file)
    again = nets.make(nets.LeNet, seed=3)
    history = run(again, Hooks(Watched([])), checkpoint=file)
    assert len(history.epochs) == 2
    assert nets.same_state(again.state_dict(), model.state_dict())


@pytest.mark.parametrize("kept", [0, 3, 200, -1])
def test_a_truncated_checkpoint_is_ignored(tmp_path: Path, kept: int) -> None:
    file = tmp_path / "training.checkpoint"
    whole = nets.make(nets.LeNet)
    run(whole, Hooks(Watched([1, 2, 3])), checkpoint=file)
    file.write_bytes(file.read_bytes()[:kept])
    model = nets.make(nets.LeNet)
    history = run(model, Hooks(Watched([1, 2, 3])), checkpoint=file)
    assert len(history.epochs) == 3
    assert nets.same_state(model.state_dict(), whole.state_dict())


class Broken:
    """The labels' loss, not a number from one call to another."""

    def __init__(self, begin: int, end: int) -> None:
        self.begin, self.end, self.calls = begin, end, 0

    def __call__(self, outputs: Tensor, targets: Tensor | None, inputs: Tensor, places: Tensor) -> Tensor:
        self.calls += 1
        loss = HARD(outputs, targets, inputs, places)
        return loss * math.nan if self.begin < self.calls <= self.end else loss


class Heard(Silent):
    def __init__(self) -> None:
        self.facts: list[str] = []

    def say(self, text: str) -> None:
        self.facts.append(text)


def test_a_loss_that_is_not_a_number_rolls_back_and_ends() -> None:
    model, watched, heard = nets.make(nets.LeNet), Watched([10, 20, 30]), Heard()
    history = run(model, Hooks(watched, progress=heard), term=Broken(4, 10**6))  # 4 steps an epoch
    assert len(history.epochs) == 1
    assert nets.same_state(model.state_dict(), watched.seen[0])
    assert len(heard.facts) == training.ROLLBACKS + 1
    assert heard.facts[0] == "training: the loss has diverged; back to the best epoch, rate / 10"


def test_a_loss_that_recovers_goes_on() -> None:
    model, watched = nets.make(nets.LeNet), Watched([10, 20, 30])
    history = run(model, Hooks(watched), term=Broken(4, 5))
    assert [row["quality"] for row in history.epochs] == [10, 20, 30]
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())
    assert nets.same_state(model.state_dict(), watched.seen[2])


def test_never_a_number_leaves_the_model_as_it_was() -> None:
    model = nets.make(nets.LeNet)
    before = nets.state(model)
    history = run(model, Hooks(Watched([])), term=Broken(0, 10**6))
    assert history.epochs == []
    assert nets.same_state(model.state_dict(), before)


def test_rolling_back_costs_time_too() -> None:
    term = Broken(0, 10**6)
    run(nets.make(nets.LeNet), Hooks(Watched([]), out_of_time=lambda _: True), term=term)
    assert term.calls == 4  # one epoch, not three


@pytest.mark.parametrize("epochs", [1, 2, 5, 40])
def test_the_rate_rises_to_its_peak_and_falls_to_nothing(epochs: int) -> None:
    schedule = Schedule(epochs=epochs, lr=0.2)
    state = training._Run(nets.make(nets.Mlp), nets.digits().train, HARD, schedule, nets.SPEED, Hooks(nets.accuracy))

    def rate(share: float) -> float:
        state._set_rate(share * epochs)
        return float(state.optimizer.param_groups[0]["lr"])

    rates = [rate(share / 200) for share in range(200)]
    peak = max(range(200), key=rates.__getitem__)
    assert max(rates) == pytest.approx(0.2, rel=1e-3)
    assert peak / 200 == pytest.approx(min(training.WARM_UP, 1 / epochs), abs=0.01)
    assert 0 < rates[0] < 0.01
    assert 0 < rates[-1] < 0.01
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    state.rollbacks = 1
    assert rate(0.5) == pytest.approx(0.1 * rates[100])


class Counted:
    def __init__(self) -> None:
        self.batches: list[Tensor] = []

    def __call__(self, outputs: Tensor, targets: Tensor | None, inputs: Tensor, places: Tensor) -> Tensor:
        assert torch.equal(inputs, nets.digits().train.inputs[places])
        self.batches.append(places)
        return HARD(outputs, targets, inputs, places)


@pytest.mark.parametrize(
    ("samples", "sizes"),
    [(128, [64, 64]), (130, [64, 64, 2]), (129, [64, 65]), (10, [10]), (1, [1])],
)
def test_every_sample_is_seen_once_an_epoch(samples: int, sizes: list[int]) -> None:
    split = nets.digits().train.take(slice(0, samples))
    term = Counted()
    run(nets.make(nets.LeNet), Hooks(Watched([1, 2])), Schedule(2, 0.01, batch=64), term, split=split)
    assert [len(places) for places in term.batches] == 2 * sizes
    first, second = (torch.cat(part) for part in (term.batches[: len(sizes)], term.batches[len(sizes) :]))
    assert first.sort().values.tolist() == second.sort().values.tolist() == list(range(samples))
    if samples > 1:
        assert first.tolist() != second.tolist()


def test_a_limited_epoch_draws_anew() -> None:
    term = Counted()
    run(nets.make(nets.LeNet), Hooks(Watched([1, 2])), Schedule(2, 0.01, batch=32, samples=64), term)
    assert [len(places) for places in term.batches] == [32] * 4
    first, second = set(torch.cat(term.batches[:2]).tolist()), set(torch.cat(term.batches[2:]).tolist())
    assert len(first) == len(second) == 64
    assert first != second


def test_a_lone_last_sample_does_not_break_batch_norm() -> None:
    split = nets.digits().train.take(slice(0, 129))
    history = run(nets.make(nets.BatchNormed), Hooks(nets.accuracy), Schedule(1, 0.01, batch=128), split=split)
    assert len(history.epochs) == 1


def test_augmentation_is_for_training_alone() -> None:
    shapes: list[int] = []

    def augment(inputs: Tensor) -> Tensor:
        shapes.append(len(inputs))
        return inputs.flip(-1)

    seen: list[Tensor] = []

    def term(outputs: Tensor, targets: Tensor | None, inputs: Tensor, places: Tensor) -> Tensor:
        seen.append(inputs.flip(-1) - nets.digits().train.inputs[places])
        return HARD(outputs, targets, inputs, places)

    run(nets.make(nets.LeNet), Hooks(Watched([1, 2, 3]), augment=augment), term=term)
    assert shapes == [64] * 12
    assert all(not difference.any() for difference in seen)


def test_other_seeds_train_otherwise() -> None:
    states = []
    for seed in (0, 1):
        model = nets.make(nets.LeNet)
        run(model, Hooks(Watched([1])), Schedule(1, 0.05, samples=128, seed=seed))
        states.append(model.state_dict())
    assert not nets.same_state(*states)


def test_the_world_stays_as_it_was() -> None:
    model, data = nets.make(Dropped), nets.digits().train
    torch.manual_seed(7)
    numbers, threads, inputs = torch.get_rng_state(), torch.get_num_threads(), data.inputs.clone()
    run(model, Hooks(Watched([1, 2, 3]), augment=noisy))
    assert torch.equal(torch.get_rng_state(), numbers)
    assert torch.get_num_threads() == threads
    assert torch.equal(data.inputs, inputs)


def test_a_frozen_model_learns_and_stays_frozen() -> None:
    model = nets.make(nets.LeNet).requires_grad_(False)  # noqa: FBT003 - torch's own signature
    before = copy.deepcopy(model.state_dict())
    run(model, Hooks(Watched([1, 2, 3])))
    assert not any(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_frozen_layers_of_a_model_that_learns_stay_as_they_are() -> None:
    model = nets.make(nets.LeNet)
    model.get_submodule("conv1").requires_grad_(False)  # noqa: FBT003 - torch's own signature
    before = copy.deepcopy(model.state_dict())
    run(model, Hooks(Watched([1, 2, 3])))
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == set(before) - {"conv1.weight", "conv1.bias"}
