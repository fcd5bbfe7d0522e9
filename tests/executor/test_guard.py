from __future__ import annotations

import dataclasses
import math

import pytest

from easycompress.core.goal import Floor
from easycompress.core.outcome import Drop
from easycompress.executor.guard import COMFORT_SHARE, comfortable, judge

ONE_POINT = Floor(kind="points", value=1.0, text="1%")
ONE_PERCENT_RELATIVE = Floor(kind="relative", value=0.01, text="1%rel")
LEVEL = Floor(kind="level", value=98.0, text="98%")
NONE = Floor(kind="points", value=0.0, text="0%")


def make(estimate: float, needed: int | None = None) -> Drop:
    return Drop(estimate=estimate, upper_95=None, n=1000, worse=0, better=0, certified=False, needed=needed)


@pytest.mark.parametrize(
    ("floor", "baseline", "estimate", "error", "accepted"),
    [
        (ONE_POINT, 99.0, 0.42, 0.12, True),
        (ONE_POINT, 99.0, 0.95, 0.12, False),
        (ONE_POINT, 99.0, 1.2, 0.0, False),
        (ONE_POINT, 99.0, 1.0, 0.0, True),
        (ONE_POINT, 99.0, 0.7, 0.3, True),
        (ONE_POINT, 99.0, 98.43 - 97.43, 0.0, True),  # 1.0000000000000142
        (ONE_POINT, 99.0, 1.00001, 0.0, False),
        (ONE_POINT, 99.0, 0.0, 0.0, True),
        (ONE_POINT, 99.0, -2.0, 0.5, True),
        (ONE_PERCENT_RELATIVE, 50.0, 0.4, 0.1, True),
        (ONE_PERCENT_RELATIVE, 50.0, 0.6, 0.0, False),
        (LEVEL, 98.43, 0.43, 0.0, True),
        (LEVEL, 98.43, 0.44, 0.0, False),
        (LEVEL, 97.0, -0.5, 0.1, False),  # the baseline itself lies a point below the level
        (LEVEL, 97.0, -1.2, 0.1, True),
        (NONE, 99.0, 0.0, 0.0, True),
        (NONE, 99.0, 0.0, 0.1, False),
        (NONE, 99.0, -0.1, 0.1, True),
    ],
)
def test_the_table(floor: Floor, baseline: float, estimate: float, error: float, accepted: bool) -> None:  # noqa: FBT001 - a case
    allowed = floor.allowed_drop(baseline)
    assert judge(make(estimate), allowed, error=error, certify=False, report_size=10).accepted is accepted


def test_reasons_carry_the_numbers() -> None:
    good = judge(make(0.42), 1.0, error=0.12, certify=False, report_size=10)
    assert good.reason == "drop 0.42 + 0.12 (one standard error) is within 1.00"
    bad = judge(make(0.95), 1.0, error=0.12, certify=False, report_size=10)
    assert bad.reason == "drop 0.95 + 0.12 (one standard error) exceeds 1.00"


def test_reasons_show_the_digit_that_decides() -> None:
    assert judge(make(1.0004), 1.0, error=0.0, certify=False, report_size=10).reason == (
        "drop 1.0004 + 0.0000 (one standard error) exceeds 1.0000"
    )
    assert judge(make(0.0001), 0.0005, error=0.0001, certify=False, report_size=10).reason == (
        "drop 0.00010 + 0.00010 (one standard error) is within 0.00050"
    )


@pytest.mark.parametrize(
    ("needed", "report", "accepted", "ending"),
    [
        (800, 800, True, "; 800 samples certify it and report has 800"),
        (801, 800, False, ", but to certify it takes 801 samples at these flip rates and report has 800"),
        (None, 800, False, ", but no number of samples would certify it"),
    ],
)
def test_certify(needed: int | None, report: int, accepted: bool, ending: str) -> None:  # noqa: FBT001 - a case
    judgement = judge(make(0.42, needed), 1.0, error=0.12, certify=True, report_size=report)
    assert judgement.accepted is accepted
    assert judgement.reason == "drop 0.42 + 0.12 (one standard error) is within 1.00" + ending


def test_certify_is_never_laxer() -> None:
    assert not judge(make(0.95, 10), 1.0, error=0.12, certify=True, report_size=10**6).accepted


@pytest.mark.parametrize("estimate", [math.inf, math.nan])
def test_a_model_gone_to_nan_is_rejected(estimate: float) -> None:
    judgement = judge(make(estimate), 1.0, error=math.inf, certify=False, report_size=10)
    assert not judgement.accepted
    assert judgement.reason == "the compressed model gives scores that are not finite numbers"


def test_judgement_is_frozen() -> None:
    judgement = judge(make(0.0), 1.0, error=0.0, certify=False, report_size=10)
    with pytest.raises(dataclasses.FrozenInstanceError):
        judgement.accepted = False  # type: ignore[misc]


@pytest.mark.parametrize(
    ("estimate", "error", "allowed", "stop"),
    [
        (0.2, 0.1, 1.0, True),
        (COMFORT_SHARE, 0.1, 1.0, True),
        (0.26, 0.0, 1.0, False),
        (0.2, 0.41, 1.0, False),
        (0.2, 0.4, 1.0, True),
        (-0.5, 0.1, 1.0, True),
        (0.0, 0.0, 0.0, True),
        (0.0, 0.1, 0.0, False),
        (-1.0, 0.1, -1.0, False),
        (math.nan, 0.1, 1.0, False),
    ],
)
def test_comfortable(estimate: float, error: float, allowed: float, stop: bool) -> None:  # noqa: FBT001 - a case
    assert comfortable(make(estimate), error, allowed) is stop
