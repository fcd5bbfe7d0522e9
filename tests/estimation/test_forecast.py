"""The executor on paper: budgets as the clock gives them, and searches over attempts that are drawn."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from easycompress.core.goal import parse_budget
from easycompress.distillation.settings import Distillation
from easycompress.estimation.bench import Point, Seen
from easycompress.estimation.chain import Chain
from easycompress.estimation.forecast import Forecast, Road, forecast, interval
from easycompress.estimation.purse import Purse, purse_of
from easycompress.executor.clock import LONGEST_STEPS, Clock
from easycompress.executor.dial import Dial
from easycompress.lc.settings import EntropyQuantization
from easycompress.metrics import METRICS
from easycompress.pruning.settings import StructuredPruning

STEPS_AN_EPOCH = 100
SAMPLES = 4000


def chain(*, budget: str = "none", trains: bool = False, points: dict[float, tuple[Seen, ...]]) -> Chain:
    """A chain whose ratio is 1 + 19 x strength, with what was seen at some strengths."""
    made = cast("Any", object.__new__(Chain))
    actions = (StructuredPruning(strength=None), Distillation()) if trains else (EntropyQuantization(),)
    data = SimpleNamespace(select=range(SAMPLES), report=range(SAMPLES), train=range(128 * STEPS_AN_EPOCH))
    full = SimpleNamespace(
        task=SimpleNamespace(metric=METRICS["accuracy"], data=data), budget=parse_budget(budget), reserve=10.0
    )
    made.bench = SimpleNamespace(full=full, whole=True, steps_an_epoch=STEPS_AN_EPOCH, evaluation_seconds=0.0)
    made.dial = Dial(actions)
    made.points = {place: Point(place, 1 + 19 * place, looks) for place, looks in points.items()}
    made._ratios = {place: 1 + 19 * place for place in (0.0, 0.25, 0.5, 0.75, 1.0)}
    return cast("Chain", made)


def seen(steps: int, drop: float, error: float = 0.02) -> Seen:
    return Seen(steps, drop, error, churn=0.002, n=SAMPLES, seconds=1 + 0.02 * steps)


def ask(road: Road, needed: float, allowed: float = 1.0, seed: int = 0) -> Forecast:
    return forecast([road], needed, allowed, certify=False, seed=seed)


def test_what_is_measured_and_within_the_floor_is_met() -> None:
    made = chain(points={0.5: (seen(0, 0.3),)})
    said = ask(Road(made, purse_of(made, 0.0), 0.5), 10.5)
    assert said.met > 0.99
    assert said.drop is not None
    assert said.drop.low < 0.3 < said.drop.high
    assert said.drop.high - said.drop.low < 0.5


def test_what_breaks_the_floor_is_not_met_and_its_drop_is_still_told() -> None:
    made = chain(points={0.5: (seen(0, 3.0),)})
    said = ask(Road(made, purse_of(made, 0.0), 0.5), 10.5)
    assert said.met == 0
    assert said.drop is not None
    assert said.drop.middle == pytest.approx(3.0, abs=0.1)
    assert said.ratios.max() < 10.5


def test_strengths_that_a_run_would_not_tell_apart_share_what_was_seen() -> None:
    made = chain(points={0.5: (seen(0, 0.3),)})
    said = ask(Road(made, purse_of(made, 0.0), 0.5 + 1 / 200), 10.5)
    assert said.met > 0.99
    assert said.drop is not None
    assert said.drop.middle == pytest.approx(0.3, abs=0.05)
    assert made.known(0.5 + 1 / 20) is None


def test_a_target_out_of_reach_has_no_drop() -> None:
    made = chain(points={0.5: (seen(0, 0.3),)})
    said = ask(Road(made, purse_of(made, 0.0), None), 100.0)
    assert said.drop is None
    assert said.met == 0


def test_training_brings_a_ruin_within_the_floor_and_a_longer_one_further() -> None:
    points = {0.5: (seen(0, 20.0), seen(50, 4.0, 0.1), seen(500, 1.5, 0.1))}
    chances = []
    for budget in ("20ep", "100ep"):
        made = chain(budget=budget, trains=True, points=points)
        said = ask(Road(made, purse_of(made, 0.0), 0.5), 10.5)
        chances.append(said.met)
    assert 0 < chances[0] < chances[1]
    untrained = chain(budget="none", trains=True, points={0.5: (seen(0, 20.0),)})
    assert ask(Road(untrained, purse_of(untrained, 0.0), 0.5), 10.5).met == 0


def test_the_most_within_a_floor_grows_with_the_floor() -> None:
    points = {0.25: (seen(0, 0.1),), 0.5: (seen(0, 0.8),), 0.75: (seen(0, 4.0),), 1.0: (seen(0, 30.0),)}
    made = chain(points=points)
    road = Road(made, purse_of(made, 0.0), None)
    strict, loose = (interval(ask(road, math.inf, allowed).ratios) for allowed in (0.3, 2.0))
    assert strict.middle < loose.middle
    assert 5.0 < strict.low <= strict.high < 11.0


def test_the_quick_chain_goes_first_and_the_better_one_is_delivered() -> None:
    quick = chain(points={0.5: (seen(0, 5.0),)})
    trained = chain(budget="60ep", trains=True, points={0.5: (seen(0, 9.0), seen(50, 1.0, 0.05), seen(500, 0.2, 0.05))})
    roads = [Road(made, purse_of(made, 0.0), 0.5) for made in (quick, trained)]
    alone = forecast(roads[:1], 10.5, 1.0, certify=False, seed=0)
    both = forecast(roads, 10.5, 1.0, certify=False, seed=0)
    assert alone.met == 0
    assert both.met > 0.9


def test_a_strength_that_was_interpolated_counts_as_the_target_that_it_stands_for() -> None:
    made = chain(points={0.5: (seen(0, 0.3),)})
    assert made.between(0.5) < 11.0
    assert ask(Road(made, purse_of(made, 0.0), 0.5), 11.0).met > 0.99


def test_what_trains_nothing_goes_on_though_epochs_are_the_budget() -> None:
    points = {place: (seen(0, drop),) for place, drop in ((0.25, 0.1), (0.5, 0.3), (0.75, 0.6), (1.0, 0.7))}
    made = chain(budget="10ep", points=points)
    assert interval(ask(Road(made, purse_of(made, 0.0), None), math.inf).ratios).low > 15


def test_a_certificate_is_harder_to_get() -> None:
    made = chain(points={0.5: (seen(0, 0.9, 0.05),)})
    road = Road(made, purse_of(made, 0.0), 0.5)
    plain, certified = (forecast([road], 10.5, 1.0, certify=certify, seed=0).met for certify in (False, True))
    assert certified < plain


def test_the_same_seed_says_the_same() -> None:
    made = chain(points={0.5: (seen(0, 0.9),)})
    road = Road(made, purse_of(made, 0.0), 0.5)
    assert np.array_equal(ask(road, 10.5).drops, ask(road, 10.5).drops)
    assert not np.array_equal(ask(road, 10.5).drops, ask(road, 10.5, seed=1).drops)


@pytest.mark.parametrize("share", [1 / 7, 0.5, 0.6, 1.0])
@pytest.mark.parametrize("epochs", [1, 3, 20, 200])
def test_a_purse_gives_what_the_clock_gives(share: float, epochs: int) -> None:
    clock = Clock(parse_budget(f"{epochs}ep"), cast("Any", None), 0.0)
    allowance = clock.allow(share, 0.0, 0.0, 128 * STEPS_AN_EPOCH, 128)
    made = chain(budget=f"{epochs}ep", trains=True, points={})
    purse = purse_of(made, 0.0)
    assert purse.allow(share, purse.total) == allowance.epochs * STEPS_AN_EPOCH


def test_a_time_budget_pays_for_the_steps_that_it_has_seconds_for() -> None:
    points = {0.5: (seen(0, 9.0), seen(50, 1.0), seen(150, 0.5))}
    purse = purse_of(chain(budget="90s", trains=True, points=points), 20.0)
    assert purse.total == pytest.approx((90 - 10 - 20) / 0.02)
    assert purse_of(chain(budget="90s", trains=True, points={}), 0.0).first == LONGEST_STEPS
    assert Purse(1000.0, 8000, 100).allow(0.01, 1000.0) == 0, "too few steps to teach anything"
