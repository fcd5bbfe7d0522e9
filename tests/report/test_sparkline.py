from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from easycompress.report.sparkline import BARS, PLAIN, sparkline

VALUES = st.lists(st.none() | st.floats(allow_nan=True, allow_infinity=True), max_size=200)


def test_the_least_is_lowest_and_the_largest_highest() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8) == BARS
    assert sparkline([-5.0, 10.0, -5.0], 8) == "▁█▁"


def test_equal_values_stand_in_the_middle() -> None:
    assert sparkline([3.5, 3.5], 8) == "▄▄"


def test_what_is_not_there_leaves_a_gap() -> None:
    assert sparkline([1.0, None, math.nan, math.inf, 2.0], 8) == "▁   █"
    assert sparkline([None, math.nan], 8) == sparkline([], 8) == ""


def test_neighbours_share_a_bar_that_shows_their_mean() -> None:
    assert sparkline([0, 2, 4, 6, 13, 15], 3) == "▁▃█"  # 1, 5, 14
    assert sparkline([0, None, None, None, 7, 7], 3) == "▁ █"


@pytest.mark.parametrize("width", [-1, 0])
def test_no_room_is_nothing(width: int) -> None:
    assert sparkline([1, 2], width) == ""


@given(VALUES, st.integers(1, 40), st.booleans())
def test_it_never_exceeds_its_width_or_its_letters(values: list[float | None], width: int, plain: bool) -> None:  # noqa: FBT001 - hypothesis
    line = sparkline(values, width, plain=plain)
    assert len(line) <= min(width, len(values))
    assert set(line) <= {*(PLAIN if plain else BARS), " "}
    assert line.isascii() or not plain
