from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import pytest

from easycompress.core.goal import parse_budget
from easycompress.executor.clock import LATE, LEAST_STEPS, LONGEST_STEPS, MOST_EPOCHS, Allowance, Clock

if TYPE_CHECKING:
    from easycompress.executor.journal import Journal

SAMPLES, BATCH = 1000, 100  # ten steps an epoch


@dataclass
class Watch:
    """A journal that knows the time and nothing else."""

    seconds: float = 0.0

    def elapsed(self) -> float:
        return self.seconds


def make(budget: str, seconds: float = 0.0, reserve: float = 0.0) -> Clock:
    return Clock(parse_budget(budget), cast("Journal", Watch(seconds)), reserve)


def allow(clock: Clock, share: float = 1.0, step: float = 0.1, evaluation: float = 0.0) -> Allowance:
    return clock.allow(share, step, evaluation, SAMPLES, BATCH)


def test_time_left_is_what_is_neither_spent_nor_spoken_for() -> None:
    clock = make("100s", seconds=30, reserve=10)
    assert clock.left() == 60
    clock.finished_in(5)
    assert clock.left() == 55
    clock.finished_in(3)  # the longest counts
    assert clock.left() == 55
    assert make("100s", seconds=95, reserve=10).left() == 0


def test_time_pays_for_whole_epochs_until_a_deadline() -> None:
    assert allow(make("100s", seconds=20), share=0.5) == Allowance(epochs=40, deadline=20 + LATE * 40)


def test_evaluation_is_paid_for_too() -> None:
    assert allow(make("100s"), evaluation=1.0).epochs == 50


def test_less_than_an_epoch_buys_part_of_one() -> None:
    allowance = allow(make("100s"), step=20.0, evaluation=0.0)
    assert allowance.epochs == 0  # five steps teach nothing
    allowance = make("100s").allow(1.0, 1.0, 10.0, 10_000, BATCH)
    assert (allowance.epochs, allowance.samples) == (1, 90 * BATCH)


def test_the_least_number_of_steps_is_exact() -> None:
    for seconds, epochs in ((LEAST_STEPS, 1), (LEAST_STEPS - 1, 0)):
        assert make(f"{seconds}s").allow(1.0, 1.0, 0.0, 10**6, BATCH).epochs == epochs


def test_no_time_left_allows_nothing() -> None:
    assert allow(make("100s", seconds=200)) == Allowance(epochs=0)


@pytest.mark.parametrize(("samples", "most"), [(10 * BATCH, MOST_EPOCHS), (1000 * BATCH, LONGEST_STEPS // 1000)])
def test_more_epochs_than_help_are_not_bought(samples: int, most: int) -> None:
    assert make("100h").allow(1.0, 0.001, 0.0, samples, BATCH).epochs == most
    assert make("100000ep").allow(1.0, 0.0, 0.0, samples, BATCH).epochs == most


@pytest.mark.parametrize(
    ("budget", "used", "share", "epochs"),
    [
        ("10ep", 0, 0.6, 6),
        ("10ep", 6, 0.5, 2),
        ("3ep", 0, 0.6, 1),
        ("1ep", 0, 0.6, 1),  # a share of a little is still one epoch
        ("3ep", 2, 0.2, 1),
        ("3ep", 3, 0.2, 0),
        ("3ep", 0, 1.0, 3),
    ],
)
def test_epochs(budget: str, used: int, share: float, epochs: int) -> None:
    clock = make(budget)
    clock.epochs_used = used
    assert clock.left() == float(budget.removesuffix("ep")) - used
    assert allow(clock, share, step=0.0) == Allowance(epochs=epochs)


def test_no_epoch_is_spent_twice() -> None:
    clock = make("7ep")
    for share in (0.6, 0.5, 0.2, 0.25, 0.33, 0.5, 1.0):
        clock.epochs_used += allow(clock, share, step=0.0).epochs
    assert clock.epochs_used == 7


@pytest.mark.parametrize("budget", ["none", "0"])
def test_no_training(budget: str) -> None:
    clock = make(budget)
    assert clock.left() == 0
    assert allow(clock) == Allowance(epochs=0)


@pytest.mark.parametrize("budget", ["10min", "10ep"])
def test_no_training_without_samples(budget: str) -> None:
    assert make(budget).allow(1.0, 0.1, 0.1, 0, BATCH) == Allowance(epochs=0)


def test_an_epoch_is_late_when_it_would_end_past_the_deadline() -> None:
    clock = make("100s", seconds=50)
    assert not clock.late(Allowance(epochs=9, deadline=60), 10)
    assert clock.late(Allowance(epochs=9, deadline=60), 10.1)
    assert not clock.late(Allowance(epochs=9), 1e9)
