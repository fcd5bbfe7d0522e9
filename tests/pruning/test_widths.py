from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from easycompress.pruning.graph import ChannelGroup
from easycompress.pruning.widths import EIGHTY, SLACK, SPREAD, kept_widths, least_important

if TYPE_CHECKING:
    from random import Random

# few different scores, so that ties are common
scores_of_a_group = st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0, 1.5, 3.0]), min_size=1, max_size=24)
strengths = st.floats(0, 1)


def make(*scores: list[float]) -> list[ChannelGroup]:
    return [ChannelGroup(f"layer{i}", "linear", len(row), torch.tensor(row)) for i, row in enumerate(scores)]


groups_of_a_net = st.lists(scores_of_a_group, min_size=1, max_size=6).map(lambda rows: make(*rows))


@given(groups_of_a_net, st.integers(1, 20))
def test_strength_zero_is_identity(groups: list[ChannelGroup], round_to: int) -> None:
    assert kept_widths(groups, 0.0, round_to) == {group.root: group.width for group in groups}


@settings(max_examples=300)
@given(groups_of_a_net, strengths, strengths, st.integers(1, 8))
def test_a_larger_strength_never_keeps_more(
    groups: list[ChannelGroup], one: float, other: float, round_to: int
) -> None:
    small, large = (kept_widths(groups, strength, round_to) for strength in sorted((one, other)))
    assert all(large[root] <= small[root] for root in small)


def test_a_generous_limit_does_not_give_channels_back() -> None:
    """With limits of the final strength alone, layer1 would lose 1 channel at 0.5 and none at 0.6."""
    groups = make([0.1] * 20, [0.5, 3.0, 3.0, 3.0])
    kept = [kept_widths(groups, strength / 100, 1)["layer1"] for strength in range(101)]
    assert kept == sorted(kept, reverse=True)


@given(groups_of_a_net, strengths, st.integers(1, 20))
def test_widths_are_rounded_and_never_zero(groups: list[ChannelGroup], strength: float, round_to: int) -> None:
    kept = kept_widths(groups, strength, round_to)
    for group in groups:
        width = kept[group.root]
        assert 1 <= width <= group.width
        assert width % round_to == 0 or width == group.width
        assert width >= min(round_to, group.width)


@given(groups_of_a_net, strengths)
def test_no_group_loses_more_than_its_limit(groups: list[ChannelGroup], strength: float) -> None:
    kept = kept_widths(groups, strength, 1)
    for group in groups:
        assert group.width - kept[group.root] <= (SPREAD * strength + SLACK) * group.width + 1e-6


@given(groups_of_a_net, strengths)
def test_no_more_goes_than_was_asked_for(groups: list[ChannelGroup], strength: float) -> None:
    total = sum(group.width for group in groups)
    assert sum(kept_widths(groups, strength, 1).values()) >= total - math.floor(strength * total + 1e-9)


@given(st.integers(40, 200), st.integers(40, 200), strengths)
def test_exactly_what_was_asked_for_goes_from_wide_groups(one: int, other: int, strength: float) -> None:
    groups = make([1.0] * one, [0.5] * other)
    asked = math.floor(strength * (one + other) + 1e-9)
    kept = kept_widths(groups, strength, 1)
    emptied = sum(width == 1 for width in kept.values())  # the last channel of a group always stays
    assert one + other - asked <= sum(kept.values()) <= one + other - asked + emptied


@pytest.mark.parametrize(("strength", "removed"), [(0.25, 1), (0.5, 2), (0.75, 3), (1.0, 3)])
def test_ties_go_in_the_asked_number(strength: float, removed: int) -> None:
    assert kept_widths(make([1.0] * 4), strength, 1) == {"layer0": 4 - removed}


def test_the_least_important_channels_go_first() -> None:
    groups = make([1.0] * 20, [0.2] * 4 + [1.8] * 16)
    assert kept_widths(groups, 0.1, 1) == {"layer0": 20, "layer1": 16}
    assert kept_widths(groups, 0.2, 1) == {"layer0": 16, "layer1": 16}


def test_one_group_does_not_collapse_before_the_rest() -> None:
    kept = kept_widths(make([0.01] * 40, [2.0] * 40), 0.4, 1)
    assert kept == {"layer0": 40 - 26, "layer1": 40 - 6}  # 26 = floor((1.5 x 0.4 + 0.05) x 40), 32 in all


def test_costs_alone_decide_where_they_are_given() -> None:
    groups = make([0.01] * 40, [2.0] * 40)
    costs = [[1.0] * 40, [0.5] * 40]
    assert kept_widths(groups, 0.4, 1, costs) == {"layer0": 40, "layer1": 8}


def test_no_group_is_emptied_while_another_can_give() -> None:
    """Below EIGHTY of all channels the cheap group stops at EIGHTY of its own; beyond, all go on."""
    groups, costs = make([1.0] * 40, [1.0] * 10), [[0.1] * 40, [9.0] * 10]
    for strength in range(101):
        kept = kept_widths(groups, strength / 100, 1, costs)
        lost = {g.root: 1 - kept[g.root] / g.width for g in groups}
        if strength <= 100 * EIGHTY:
            assert max(lost.values()) <= EIGHTY + 1e-9
    assert kept_widths(groups, 1.0, 1, costs) == {"layer0": 1, "layer1": 1}


@settings(max_examples=100)
@given(groups_of_a_net, strengths, strengths, st.randoms(use_true_random=False))
def test_with_costs_a_larger_strength_keeps_no_more_either(
    groups: list[ChannelGroup], one: float, other: float, random: Random
) -> None:
    costs = [sorted(random.choice([0.0, 0.5, 1.0, 2.0]) for _ in range(group.width)) for group in groups]
    small, large = (kept_widths(groups, strength, 1, costs) for strength in sorted((one, other)))
    assert all(large[root] <= small[root] for root in small)
    assert kept_widths(groups, 0.0, 1, costs) == {group.root: group.width for group in groups}


@given(scores_of_a_group, st.data())
def test_least_important_is_exact(scores: list[float], data: st.DataObject) -> None:
    count = data.draw(st.integers(0, len(scores)))
    gone = least_important(torch.tensor(scores), count)
    assert len(gone) == len(set(gone)) == count
    assert gone == sorted(gone)
    rest = [score for place, score in enumerate(scores) if place not in gone]
    assert not gone or not rest or max(scores[place] for place in gone) <= min(rest)


def test_ties_are_broken_by_place() -> None:
    assert least_important(torch.tensor([2.0, 1.0, 1.0, 1.0, 0.0]), 3) == [1, 2, 4]
    assert least_important(torch.ones(5), 0) == []
