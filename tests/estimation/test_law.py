"""What short recoveries say of long ones."""

from __future__ import annotations

import math

import numpy as np
import pytest

from easycompress.estimation.bench import Point, Seen, error_of
from easycompress.estimation.law import SLOPE, SLOPE_DEVIATION, draw, slope_of
from easycompress.measure.statistics import paired_drop
from easycompress.metrics import METRICS

COUNT = 4000


def seen(steps: int, drop: float, error: float = 0.01) -> Seen:
    return Seen(steps, drop, error, churn=0.01, n=1000, seconds=1.0 + 0.01 * steps)


def point(*looks: Seen) -> Point:
    return Point(0.5, 10.0, (seen(0, 20.0), *looks))


def generator() -> np.random.Generator:
    return np.random.default_rng(0)


def test_untrained_damage_is_what_was_measured_with_its_noise() -> None:
    law = draw([Point(0.5, 10.0, (seen(0, 0.4, 0.1),))], COUNT, generator())[0]
    damage = law.damage(0)
    assert damage.mean() == pytest.approx(0.4, abs=0.01)
    assert damage.std() == pytest.approx(0.1, rel=0.05)


def test_damage_falls_as_a_power_of_the_steps() -> None:
    law = draw([point(seen(100, 4.0))], COUNT, generator())[0]
    assert np.median(law.damage(100)) == pytest.approx(4.0, rel=0.02)
    assert np.median(law.damage(10_000)) == pytest.approx(4.0 * 100**-SLOPE, rel=0.1)


def test_the_farther_it_is_extrapolated_the_less_is_known() -> None:
    law = draw([point(seen(100, 4.0))], COUNT, generator())[0]
    spread = [float(np.log(np.abs(law.damage(steps))).std()) for steps in (100, 1000, 10_000)]
    assert spread[0] < spread[1] < spread[2]


def test_two_recoveries_correct_the_power_that_other_models_showed() -> None:
    alone, width = slope_of(point(seen(100, 4.0)))
    assert (alone, width) == (SLOPE, SLOPE_DEVIATION)
    quick, surer = slope_of(point(seen(50, 8.0), seen(500, 0.8)))
    slow, _ = slope_of(point(seen(50, 8.0), seen(500, 8.0)))
    assert slow < SLOPE < quick < 1.0
    assert surer < SLOPE_DEVIATION


def test_a_drop_that_noise_hides_may_be_none_and_tells_little_of_the_slope() -> None:
    hidden = point(seen(50, 0.1, 0.1), seen(500, -0.2, 0.1))
    damage = draw([hidden], COUNT, generator())[0].damage(500)
    assert damage.mean() == pytest.approx(-0.2, abs=0.01)
    mean, width = slope_of(hidden)
    assert mean == pytest.approx(SLOPE, abs=0.1)
    assert width == pytest.approx(SLOPE_DEVIATION, rel=0.1)


def test_a_step_costs_what_the_longer_recovery_took_more() -> None:
    assert point(seen(100, 4.0), seen(300, 2.0)).step_seconds == pytest.approx(0.01)
    assert Point(0.5, 10.0, (seen(0, 1.0),)).step_seconds == 0


def test_the_error_of_a_drop_is_that_of_its_changed_samples() -> None:
    before, after = np.ones(400), np.ones(400)
    after[:8] = 0
    metric = METRICS["accuracy"]
    assert error_of(paired_drop(before, after, metric, 1.0), metric) == pytest.approx(
        100 * math.sqrt((0.02 - 0.0004) / 400)
    )
    assert error_of(paired_drop(before, before, metric, 1.0), metric) > 0  # no change seen is no proof of none
