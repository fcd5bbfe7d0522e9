"""How much time is left: arithmetic on what was measured."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import pytest

from easycompress.core.goal import parse_budget
from easycompress.core.progress import EpochDone, Event, TimeLeft
from easycompress.executor.clock import Allowance, Clock
from easycompress.executor.pace import Pacer, Running, Standing, of_budget, seconds_left

if TYPE_CHECKING:
    from easycompress.executor.journal import Journal


def epoch(
    number: int, epochs: int = 10, label: str = "distillation", seconds: float = 2.0, samples: int = 100
) -> EpochDone:
    return EpochDone(label=label, epoch=number, epochs=epochs, seconds=seconds, samples=samples)


def test_it_is_training_finishing_and_the_last_measurement() -> None:
    assert seconds_left(Standing(60, 5, 0, reserve=10), None) == 75


def test_attempts_and_seeds_that_are_expected_count() -> None:
    assert seconds_left(Standing(60, 5, 2, attempt=100, reserve=10), None) == 275
    assert seconds_left(Standing(60, 5, 0, reserve=10, spent=35, seeds=2), None) == 65 + 2 * (35 + 65) + 10


@pytest.mark.parametrize(
    "standing", [Standing(None, 5, 0), Standing(60, 5, None), Standing(60, 5, 1)], ids=["pace", "open end", "attempt"]
)
def test_without_a_basis_there_is_no_number(standing: Standing) -> None:
    assert seconds_left(standing, 1000) is None


def test_it_is_within_what_the_budget_permits_and_never_negative() -> None:
    assert seconds_left(Standing(60, 5, 0, reserve=10), 20) == 20
    assert seconds_left(Standing(-60, 5, 0), 20) == 0


def test_a_budget_says_nothing_of_the_last_measurement() -> None:
    assert of_budget(30, 10) == 30
    assert of_budget(9, 10) is None


def test_the_pace_is_the_mean_of_a_part_from_end_to_end() -> None:
    run = Running(0, 1000)
    assert run.training(0) is None
    run.take(epoch(1), 2.0)
    assert run.training(2) == 9 * 2.0
    run.take(epoch(2), 6.0)  # two seconds in the epoch, two more for saving it
    assert run.training(6) == 8 * 3.0
    run.take(epoch(1, 8, "qat", 5.0), 11.0)
    assert run.training(11) == 7 * 5.0, "what distillation left, because it was good enough, isn't done any more"


def test_what_was_done_before_a_resume_counts() -> None:
    run = Running(0, 1000)
    run.take(epoch(8), 2.0)
    assert run.training(2) == 2 * 2.0


def test_training_is_cut_off_at_its_deadline() -> None:
    run = Running(0, 1000, pace=1.0, deadline=30)
    assert run.training(10) == 20
    assert run.training(40) == 0


def test_finishing_is_counted_down_once_training_is_over() -> None:
    run = Running(0, 1000)
    assert run.finishing(50, 8) == 8
    run.ended = 60
    assert (run.training(63), run.finishing(63, 8), run.finishing(90, 8)) == (0, 5, 0)
    assert Running(50, 0).finishing(53, 8) == 5, "without training it is all there is"


@dataclass
class Watch:
    """A journal that knows the time and nothing else, and a listener."""

    seconds: float = 0.0
    told: list[Event] = field(default_factory=list)

    def elapsed(self) -> float:
        return self.seconds

    def say(self, text: str) -> None: ...

    def now(self, text: str) -> None: ...

    def event(self, event: Event) -> None:
        self.told.append(event)


def pacer(budget: str, reserve: float = 0.0) -> tuple[Pacer, Watch]:
    watch = Watch()
    clock = Clock(parse_budget(budget), cast("Journal", watch), reserve, finishing=4.0)
    clock.expect(0)
    return Pacer(watch, clock, 100), watch


def test_an_attempt_of_a_time_budget() -> None:
    pace, watch = pacer("100s", reserve=10)
    pace.begin(Allowance(epochs=10, deadline=60), epoch_seconds=3.0)
    assert watch.told == [TimeLeft(seconds=30 + 4 + 10, at_most=100)]
    watch.seconds = 2
    pace.event(epoch(1))
    assert watch.told[1:] == [epoch(1), TimeLeft(seconds=18 + 4 + 10, at_most=98)]
    watch.seconds = 20
    pace.training_ended()
    assert watch.told[-1] == TimeLeft(seconds=4 + 10, at_most=80)
    watch.seconds = 23
    pace.end(23)
    assert watch.told[-1] == TimeLeft(seconds=None, at_most=77), "it is open whether another one follows"


def test_attempts_that_follow_are_expected_to_take_what_earlier_ones_took() -> None:
    pace, watch = pacer("1000s")
    pace.end(50)
    pace.clock.expect(2)
    pace.begin(Allowance(epochs=5), epoch_seconds=2.0)
    assert watch.told[-1] == TimeLeft(seconds=10 + 4 + 2 * 50, at_most=1000)
    pace.clock.open_end = True
    pace.clock.expect(0)
    pace.tell()
    assert watch.told[-1] == TimeLeft(seconds=None, at_most=1000), "another chain of actions may follow"


def test_epochs_bound_the_time_at_the_pace_of_now() -> None:
    pace, watch = pacer("30ep")
    pace.begin(Allowance(epochs=18), epoch_seconds=0.0)
    assert watch.told[-1] == TimeLeft(seconds=None, at_most=None), "no pace was measured"
    watch.seconds = 2
    pace.event(epoch(1, 18))
    assert watch.told[-1] == TimeLeft(seconds=17 * 2 + 4, at_most=29 * 2 + 4)


def test_no_training_is_only_finishing() -> None:
    pace, watch = pacer("none")
    pace.begin(Allowance(epochs=0), epoch_seconds=0.0)
    assert watch.told[-1] == TimeLeft(seconds=4, at_most=None)
