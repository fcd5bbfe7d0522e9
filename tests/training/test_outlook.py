"""When training is given up because earlier attempts show where it leads."""

from __future__ import annotations

import math

import pytest

from easycompress.core.ledger import booked, by_kind, spending, spent
from easycompress.training.outlook import Outlook

ROSE = [60.0, 70.0, 75.0, 80.0, 82.0, 84.0, 86.0, 87.0]
"""Half of the way it lacked 10 points of 90, in the end 3: it kept 0.3 of its gap."""


def outlook(*courses: list[float]) -> Outlook:
    made = Outlook(baseline=90.0, allowed=1.0)
    for course in courses:
        made.learn(course)
    return made


@pytest.mark.parametrize(
    ("last", "lost"),
    [
        (82.0, True),  # 8 points short; like the earlier one it would end at 2.4, and with the doubt at 1.2
        (84.0, False),  # 6 points short: 0.9 with the doubt
    ],
)
def test_a_gap_that_earlier_attempts_did_not_close_is_hopeless(last: float, *, lost: bool) -> None:
    assert outlook(ROSE).hopeless([50.0, 60.0, 70.0, last], 8) is lost


def test_the_best_recovery_of_all_attempts_counts() -> None:
    recovered = [50.0, 55.0, 60.0, 65.0, 70.0, 80.0, 88.0, 89.5]
    assert not outlook(ROSE, recovered).hopeless([50.0, 60.0, 70.0, 82.0], 8)


@pytest.mark.parametrize(
    "qualities",
    [
        [10.0, 11.0, 12.0],  # too early
        [10.0] * 8,  # over anyway
        [math.nan] * 4,
    ],
)
def test_nothing_is_concluded_too_early_too_late_or_from_no_number(qualities: list[float]) -> None:
    assert not outlook(ROSE).hopeless(qualities, 8)


def test_without_an_earlier_attempt_nothing_is_known() -> None:
    ruin = [10.0] * 4
    assert not outlook().hopeless(ruin, 8)
    assert not outlook([80.0, 85.0]).hopeless(ruin, 8)
    assert not outlook([math.nan, *ROSE[1:]]).hopeless(ruin, 8)
    assert outlook(ROSE).hopeless(ruin, 8)


def test_an_attempt_that_must_gain_is_never_given_up() -> None:
    made = Outlook(baseline=90.0, allowed=-0.5)
    made.learn(ROSE)
    assert not made.hopeless([10.0] * 4, 8)


def test_every_second_is_booked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.0, 3.0, 7.0, 8.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    with booked():
        with spending("training"), spending("evaluation"):  # from 0 to 1 and 3 to 7; from 1 to 3
            pass
        assert spent() == {"training": 5.0, "evaluation": 2.0}
    assert spent() == {}
    assert by_kind({"training": 5.0, "evaluation": 2.0, "export": 0.01}, 8.0) == {
        "training": 5.0, "evaluation": 2.0, "other": 1.0,
    }  # fmt: skip
