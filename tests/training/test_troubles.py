"""Training that runs out of memory or out of numbers goes on with less, says so, and ends clearly."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import nets
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from easycompress.core.errors import BadInput
from easycompress.core.memory import is_exhausted, shrinking
from easycompress.training.fit import ROLLBACKS, History, Hooks, Schedule, fit
from easycompress.training.terms import Labels
from easycompress.training.troubles import Troubles

if TYPE_CHECKING:
    from pathlib import Path

HARD = Labels(functional.cross_entropy)
SMALL = Schedule(epochs=3, lr=0.05, batch=64, samples=256)


class Tight:
    """The labels' loss, in a memory of `room` samples from the call number `begin` on."""

    def __init__(self, room: int, begin: int = 0) -> None:
        self.room, self.begin, self.sizes = room, begin, list[int]()

    def __call__(self, outputs: Tensor, targets: Tensor | None, inputs: Tensor, places: Tensor) -> Tensor:
        self.sizes.append(len(places))
        if len(self.sizes) > self.begin and len(places) > self.room:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory")
        return HARD(outputs, targets, inputs, places)


def run(
    model: nn.Module, term: Tight, troubles: Troubles | None = None, checkpoint: Path | None = None
) -> tuple[History, Troubles]:
    troubles = troubles or Troubles()
    hooks = Hooks(nets.accuracy, troubles=troubles)
    return fit(model, nets.digits().train, term, SMALL, nets.SPEED, hooks, checkpoint), troubles


def test_batches_are_halved_until_they_fit_and_teach_the_same() -> None:
    whole, tight = nets.make(nets.Mlp), nets.make(nets.Mlp)
    told: list[int] = []
    plain, _ = run(whole, Tight(64))
    history, troubles = run(tight, term := Tight(20), Troubles(keep=told.append))
    assert told == [2, 4]
    assert term.sizes == [64, 32] + [16] * 48  # 3 epochs of 4 batches in 4 parts
    assert troubles.told() == "; memory was short: batches in 4 parts"
    assert [row["loss"] for row in history.epochs] == pytest.approx([row["loss"] for row in plain.epochs], rel=1e-4)
    for name, value in tight.state_dict().items():
        torch.testing.assert_close(value, whole.state_dict()[name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("net", [nets.Mlp, nets.LeNet])
def test_the_epoch_in_which_memory_ran_out_begins_anew_as_a_resume_would(net: type[nn.Module], tmp_path: Path) -> None:
    model, resumed = nets.make(net), nets.make(net)
    run(model, Tight(32, begin=6), checkpoint=tmp_path / "a")  # in the middle of the second epoch

    class Stopped(Exception):
        pass

    def stop(parts: int) -> None:
        assert parts == 2
        raise Stopped

    with pytest.raises(Stopped):
        run(resumed, Tight(32, begin=6), Troubles(keep=stop), tmp_path / "b")
    again = nets.make(net, seed=9)
    run(again, Tight(64), Troubles(parts=2), tmp_path / "b")
    assert nets.same_state(again.state_dict(), model.state_dict())


def test_without_a_saved_epoch_it_goes_back_to_the_best_one() -> None:
    model = nets.make(nets.Mlp)
    history, troubles = run(model, Tight(32, begin=6))
    assert len(history.epochs) == 3
    assert troubles.parts == 2


def test_no_room_for_anything_is_told_in_one_line() -> None:
    with pytest.raises(BadInput) as caught:
        run(nets.make(nets.Mlp), Tight(0))
    assert str(caught.value) == (
        "training: out of memory, a batch in 64 parts included; close other programs or use a larger machine: the same "
        "command with --resume goes on"
    )


def test_batch_norm_gets_two_samples_at_least() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Linear(8, nets.CLASSES))
    with pytest.raises(BadInput, match="a batch in 32 parts included"):
        run(model, term := Tight(1))
    assert min(term.sizes) == 2


@pytest.mark.parametrize(
    ("error", "exhausted"),
    [
        (MemoryError(), True),
        (RuntimeError("CUDA out of memory. Tried to allocate"), True),
        (RuntimeError("std::bad_alloc"), True),
        (RuntimeError("Resource temporarily unavailable"), True),
        (BlockingIOError(11, "Resource temporarily unavailable"), False),
        (OSError(12, "Cannot allocate memory"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (KeyboardInterrupt(), False),
    ],
)
def test_what_says_that_there_is_no_memory(error: BaseException, *, exhausted: bool) -> None:
    assert is_exhausted(error) is exhausted


def test_shrinking_halves_down_to_one() -> None:
    sizes: list[int] = []

    def compute(size: int) -> int:
        sizes.append(size)
        if size > 2:
            raise MemoryError
        return size

    assert shrinking(9, compute) == 2
    assert sizes == [9, 4, 2]
    with pytest.raises(ZeroDivisionError):
        shrinking(4, lambda _: 1 // 0)


def test_weights_that_are_no_numbers_are_taken_back_though_the_loss_was_one() -> None:
    model = nets.make(nets.Mlp)
    seen: list[float] = []

    def ruin(_rate: float) -> None:
        seen.append(_rate)
        if len(seen) == 8:  # the last step of the second epoch
            with torch.no_grad():
                next(iter(model.parameters())).fill_(math.nan)

    troubles = Troubles()
    history = fit(
        model, nets.digits().train, HARD, SMALL, nets.SPEED, Hooks(None, after_step=ruin, troubles=troubles), None
    )
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())
    assert len(history.epochs) == 3
    assert troubles.told() == "; the loss diverged once: back to the best epoch at a tenth of the rate"


def test_a_training_that_is_given_up_is_told_too() -> None:
    def never(outputs: Tensor, targets: Tensor | None, inputs: Tensor, places: Tensor) -> Tensor:
        return HARD(outputs, targets, inputs, places) * math.nan

    troubles = Troubles()
    fit(nets.make(nets.Mlp), nets.digits().train, never, SMALL, nets.SPEED, Hooks(None, troubles=troubles), None)
    assert troubles.diverged == ROLLBACKS + 1
    assert troubles.told() == (
        "; the loss diverged 3 times: back to the best epoch at a tenth of the rate, and training was given up"
    )
