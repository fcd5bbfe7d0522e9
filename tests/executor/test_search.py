from __future__ import annotations

import math
from dataclasses import dataclass, field

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from easycompress.executor.search import (
    AIM,
    BETTER,
    CLOSE_ENOUGH,
    FIRST_SHARE,
    MOST_ATTEMPTS,
    NARROWEST,
    PLACED,
    RESOLUTION,
    SECOND_SHARE,
    _between,
    gentler,
    least_strength,
    search,
)


@dataclass(frozen=True)
class Curve:
    """Ratio over strength: grows from `start` to `start` x `growth`, smoothly or in stairs, bent by `bend`."""

    start: float
    growth: float
    bend: float
    stairs: int

    def __call__(self, strength: float) -> float:
        place = math.floor(strength * self.stairs) / self.stairs if self.stairs else strength
        return self.start * self.growth ** (place**self.bend)


curves = st.builds(Curve, st.floats(1, 4), st.floats(1, 100), st.floats(0.3, 3), st.sampled_from([0, 5, 16, 64, 1000]))


@dataclass
class Probe:
    """Counts what is asked of a curve."""

    curve: Curve
    asked: list[float] = field(default_factory=list)

    def __call__(self, strength: float) -> float:
        assert 0 <= strength <= 1
        self.asked.append(strength)
        return self.curve(strength)


@given(curves, st.floats(1.01, 300))
def test_least_strength_reaches_the_target_and_hardly_more(curve: Curve, needed: float) -> None:
    least = least_strength(curve, needed)
    if curve(1.0) < needed and curve(0.0) < needed:
        assert least is None
        return
    assert least is not None
    assert curve(least) >= needed
    assert least == 0 or curve(least) <= CLOSE_ENOUGH * needed or curve(max(least - RESOLUTION, 0.0)) < needed


@given(curves, st.floats(1.01, 300))
def test_no_pruning_where_none_is_needed(curve: Curve, needed: float) -> None:
    assert (least_strength(curve, needed) == 0) == (curve(0.0) >= needed)


@given(curves, st.floats(1.01, 300))
def test_probing_is_cheap(curve: Curve, needed: float) -> None:
    """Where interpolation is slow every second step halves."""
    probe = Probe(curve)
    least_strength(probe, needed)
    assert len(probe.asked) <= 2 + 2 * math.ceil(math.log2(1 / RESOLUTION))


@given(st.floats(1, 4), st.floats(1.1, 100), st.floats(1.01, 300))
def test_where_the_ratio_grows_geometrically_one_step_is_enough(start: float, growth: float, needed: float) -> None:
    probe = Probe(Curve(start, growth, 1, 0))
    least = least_strength(probe, needed)
    crossing = math.log(max(needed / start, 1)) / math.log(growth)  # which `least`, on a grid, may exceed
    assert least is None or not 0.1 < crossing <= 0.9 or len(probe.asked) <= 3


def test_the_most_has_no_least_strength() -> None:
    assert least_strength(Curve(1, 50, 1, 0), math.inf) is None


def test_out_of_time_the_least_found_so_far_is_returned() -> None:
    curve = Curve(1, 16, 1, 0)
    assert least_strength(curve, 2.0, lambda: False) == 1.0
    uneven = Probe(Curve(1, 16, 3, 0))
    turns = iter([True, True, False])
    least = least_strength(uneven, 2.0, lambda: next(turns))
    assert len(uneven.asked) == 4
    assert least == min(strength for strength in uneven.asked if uneven.curve(strength) >= 2.0)


@dataclass(frozen=True)
class Result:
    ratio: float
    accepted: bool


@dataclass
class World:
    """Attempts on a curve: the floor breaks above `limit`, above `stubborn` already unless one insists."""

    curve: Curve
    limit: float
    stubborn: float = 1.0
    patience: int = 10**6
    log: list[tuple[float, float, bool]] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)

    def attempt(self, strength: float, share: float, *, insist: bool = False) -> Result:
        assert 0 <= strength <= 1
        self.log.append((strength, share, insist))
        accepted = strength <= self.limit and (insist or strength <= self.stubborn)
        self.results.append(Result(self.curve(strength), accepted))
        return self.results[-1]

    def may_go_on(self) -> bool:
        return len(self.log) < self.patience

    def used(self, result: Result) -> float:
        """Return the share of the permitted drop: it grows with the squared logarithm of the ratio, to 1 at `limit`."""
        return (math.log(result.ratio) / math.log(self.curve(self.limit))) ** 2


worlds = st.builds(
    World, curves, st.floats(-0.1, 1.1), st.floats(0, 1), st.sampled_from([0, 1, 2, 3, 5, 100]), st.builds(list),
    st.builds(list),
)  # fmt: skip
targets = st.one_of(st.none(), st.floats(0, 1))


@given(worlds, targets, st.booleans())
def test_the_best_is_the_accepted_attempt_with_the_largest_ratio(
    world: World,
    least: float | None,
    may_insist: bool,  # noqa: FBT001 - drawn
) -> None:
    outcome = search(least, world.attempt, world.curve, world.may_go_on, may_insist=lambda _: may_insist)
    assert [attempt for _, attempt in outcome.tried] == world.results
    accepted = [result.ratio for result in world.results if result.accepted and result.ratio > 1]
    if accepted:
        assert outcome.best is not None
        assert outcome.best.accepted
        assert outcome.best.ratio == max(accepted)
    else:
        assert outcome.best is None


@given(worlds, targets)
def test_attempts_are_few(world: World, least: float | None) -> None:
    outcome = search(least, world.attempt, world.curve, world.may_go_on)
    assert len(outcome.tried) <= MOST_ATTEMPTS
    assert all(0 < share <= 1 for _, share, _ in world.log)


@given(worlds, st.floats(0, 1))
def test_the_least_strength_goes_first_and_insists_once(world: World, least: float) -> None:
    search(least, world.attempt, world.curve, world.may_go_on)
    assert world.log[0] == (least, FIRST_SHARE, False)
    assert [entry for entry in world.log if entry[2]] in ([], [(least, SECOND_SHARE, True)])
    if world.results[0].accepted:
        assert len(world.log) == 1
    elif least > 0 and world.patience > 1:
        assert world.log[1][2]


@given(worlds, targets)
def test_nothing_stronger_than_the_least_is_ever_tried(world: World, least: float | None) -> None:
    search(least, world.attempt, world.curve, world.may_go_on)
    assert max(strength for strength, _, _ in [*world.log, (0.0, 0.0, False)]) <= (1.0 if least is None else least)


@given(worlds, targets)
def test_what_gains_nothing_is_not_trained(world: World, least: float | None) -> None:
    search(least, world.attempt, world.curve, world.may_go_on)
    best = 1.0
    for place, ((strength, _, insist), result) in enumerate(zip(world.log, world.results, strict=True)):
        if not insist and (place > 0 or least is None):
            assert world.curve(strength) > BETTER * best, f"attempt {place}"
        if result.accepted:
            best = max(best, result.ratio)


@given(worlds, targets)
def test_without_time_nothing_follows_the_attempt_that_is_owed(world: World, least: float | None) -> None:
    world.patience = 0
    search(least, world.attempt, world.curve, world.may_go_on)
    accepted = bool(world.results) and world.results[0].accepted
    if least is None or least == 0 or accepted:
        assert len(world.log) <= 1
    else:
        assert [strength for strength, _, _ in world.log] in ([least], [least, 0.0])


def test_without_training_nothing_is_tried_twice() -> None:
    world = World(Curve(2, 20, 1, 0), limit=0.2)
    search(0.6, world.attempt, world.curve, world.may_go_on, may_insist=lambda _: False)
    strengths = [strength for strength, _, _ in world.log]
    assert len(strengths) == len(set(strengths)) > 2
    assert not any(insist for _, _, insist in world.log)


def test_insisting_can_save_the_target() -> None:
    world = World(Curve(2, 20, 1, 0), limit=1.0, stubborn=0.2)
    outcome = search(0.6, world.attempt, world.curve, world.may_go_on)
    assert [entry[2] for entry in world.log] == [False, True]
    assert outcome.best == Result(world.curve(0.6), accepted=True)


def test_the_most_within_the_floor_is_closed_in_on() -> None:
    world = World(Curve(3.6, 20, 1, 0), limit=0.37)
    outcome = search(None, world.attempt, world.curve, world.may_go_on)
    strongest = max(strength for (strength, _, _), r in zip(world.log, world.results, strict=True) if r.accepted)
    assert world.log[0][0] == 0.0
    assert len(world.log) == MOST_ATTEMPTS
    assert 0.37 - 1 / 32 <= strongest <= 0.37
    assert outcome.best is not None
    assert outcome.best.ratio == world.curve(strongest)


@given(curves, st.floats(0.05, 0.95), st.sampled_from([None, 1.0]))
def test_what_attempts_use_up_says_where_the_next_one_is(curve: Curve, limit: float, least: float | None) -> None:
    """As good as halving at least: what the drop is likely to be is known, and no more than that."""
    assume(curve(limit) > 1.05)
    world = World(curve, limit)
    outcome = search(least, world.attempt, curve, world.may_go_on, used=world.used, may_insist=lambda _: False)
    tried = [strength for strength, _ in outcome.tried]
    assert len(tried) == len(set(tried)) <= MOST_ATTEMPTS
    if len(tried) == MOST_ATTEMPTS:
        assert outcome.best is not None
        assert outcome.best.ratio >= curve(limit) ** 0.5


def test_two_attempts_are_enough_where_the_drop_is_as_supposed() -> None:
    world = World(Curve(1, 64, 1, 0), limit=0.3)
    outcome = search(1.0, world.attempt, world.curve, world.may_go_on, used=world.used, may_insist=lambda _: False)
    (_, first), (strength, second), *_ = outcome.tried
    assert not first.accepted
    assert second.accepted
    assert strength == pytest.approx(0.3 * math.sqrt(AIM), abs=0.01)


@given(curves, st.floats(0.1, 0.9))
def test_between_two_strengths_the_ratio_is_aimed_at(curve: Curve, share: float) -> None:
    found = _between(curve, 0.0, 1.0, share)
    assert NARROWEST / 2 <= found <= 1 - NARROWEST / 2
    if not curve.stairs and curve.bend == 1 and curve.growth > 1.01:
        assert found == pytest.approx(share, abs=0.02)


@pytest.mark.parametrize("curve", [Curve(1, 50, 3, 0), Curve(1, 50, 0.5, 0), Curve(2, 20, 2, 64)])
def test_few_files_show_where_that_is(curve: Curve) -> None:
    probe = Probe(curve)
    found = _between(probe, 0.0, 1.0, 0.5)
    assert len(probe.asked) <= 2 + PLACED
    assert abs(math.log(curve(found) / curve.start) / math.log(curve.growth) - 0.5) <= NARROWEST


@given(curves, st.floats(0.1, 0.9))
def test_where_no_file_may_be_written_for_it_the_share_is_of_the_strength(curve: Curve, share: float) -> None:
    probe = Probe(curve)
    assert _between(probe, 0.25, 0.75, share, lambda: False) == 0.25 + share * 0.5
    assert probe.asked == []


@pytest.mark.parametrize("permitted", range(1, PLACED))
def test_each_file_that_places_an_attempt_is_asked_for(permitted: int) -> None:
    probe, left = Probe(Curve(1, 50, 3, 0)), iter([True] * permitted + [False] * 9)
    found = _between(probe, 0.0, 1.0, 0.5, lambda: next(left))
    assert len(probe.asked) == 2 + permitted - 1
    assert NARROWEST / 2 <= found <= 1 - NARROWEST / 2


def test_what_comes_near_below_the_target_goes_on_too() -> None:
    world = World(Curve(1, 20, 1, 0), limit=0.6, stubborn=0.3)
    outcome = search(None, world.attempt, world.curve, world.may_go_on, may_further=lambda _: True)
    assert world.log[0][0] == 0.5
    assert world.log[1] == (0.5, SECOND_SHARE, True)
    assert outcome.best is not None
    assert outcome.best.ratio >= world.curve(0.5)
    assert len(world.log) <= MOST_ATTEMPTS
    plain = World(Curve(1, 20, 1, 0), limit=0.6, stubborn=0.3)
    search(None, plain.attempt, plain.curve, plain.may_go_on)
    assert not any(insist for _, _, insist in plain.log)


def test_where_most_strengths_gain_nothing_few_files_are_written() -> None:
    probe = Probe(Curve(1, 20, 60, 0))  # nothing below strength 0.95
    world = World(probe.curve, limit=1.0)
    outcome = search(None, world.attempt, probe, world.may_go_on)
    first = probe.asked.index(outcome.tried[0][0])
    assert len(set(probe.asked[: first + 1])) <= 12


def test_alone_or_not_the_target_is_tried_first() -> None:
    world = World(Curve(2, 20, 1, 0), limit=0.2)
    outcome = search(0.6, world.attempt, world.curve, world.may_go_on, may_insist=lambda _: False, alone=False)
    assert [strength for strength, _ in outcome.tried] == [0.6]
    assert outcome.best is None


def test_a_search_begins_where_it_is_told_and_stays_below_what_is_too_much() -> None:
    world = World(Curve(1, 20, 1, 0), limit=0.5)
    outcome = search(None, world.attempt, world.curve, world.may_go_on, begin=(0.4, 0.7))
    strengths = [strength for strength, _ in outcome.tried]
    assert strengths[0] == 0.4
    assert max(strengths) < 0.7
    assert outcome.best is not None
    assert outcome.best.ratio > world.curve(0.45)


@given(st.floats(1.1, 100), st.floats(0.0, 50))
def test_a_gentler_ratio_is_between_none_and_what_was_missed(ratio: float, share: float) -> None:
    assert 1 < gentler(ratio, share) < ratio
    assert gentler(ratio, 50.0) <= gentler(ratio, 2.0)
    assert gentler(ratio, 4 * AIM) == pytest.approx(math.sqrt(ratio))


def test_a_plan_that_gains_nothing_without_pruning_is_not_attempted_there() -> None:
    world = World(Curve(1, 20, 1, 0), limit=0.5)
    search(None, world.attempt, world.curve, world.may_go_on)
    assert world.log[0][0] > 0


def test_where_the_gentlest_breaks_the_floor_there_is_nothing_to_search() -> None:
    world = World(Curve(3.6, 20, 1, 0), limit=-1)
    assert search(0.5, world.attempt, world.curve, world.may_go_on).best is None
    assert [strength for strength, _, _ in world.log] == [0.5, 0.5, 0.0]


@dataclass(frozen=True)
class Short:
    """An attempt whose file is larger than the probe promised."""

    ratio: float
    accepted: bool = True


def _short(share: float, *, up_to: float = 99.0, may_go_on: bool = True, needed: float = 8.0) -> list[float]:
    """Return the strengths tried where files reach only a share of what the probe `4 ** (2 s)` promises."""
    tried: list[float] = []

    def attempt(strength: float, budget: float, *, insist: bool = False) -> Short:
        assert 0 < budget < 1
        assert not insist
        tried.append(strength)
        return Short(share * 16**strength, 16**strength <= up_to)

    least = least_strength(lambda s: 16**s, 8.0)
    outcome = search(least, attempt, lambda s: 16**s, lambda: may_go_on, may_insist=lambda _: False, needed=needed)
    reached = [16**s * share for s in tried]
    assert outcome.best is not None
    assert outcome.best.ratio == max(ratio for ratio, s in zip(reached, tried, strict=True) if 16**s <= up_to)
    return tried


def test_a_file_that_falls_short_of_the_target_is_made_smaller() -> None:
    tried = _short(0.93)
    assert len(tried) == 2
    assert 0.93 * 16 ** tried[-1] >= 8


def test_one_that_reaches_it_is_the_last() -> None:
    assert len(_short(1.0)) == 1


def test_where_the_smaller_one_breaks_the_floor_the_first_one_stays() -> None:
    assert len(_short(0.93, up_to=8.3)) == 2


def test_without_time_or_a_target_nothing_is_aimed_anew() -> None:
    assert len(_short(0.93, may_go_on=False)) == 1
    assert len(_short(0.93, needed=math.inf)) == 1


def test_where_the_strongest_falls_short_too_nothing_is_tried_twice() -> None:
    assert len(_short(0.4)) == 1
