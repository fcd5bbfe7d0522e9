from __future__ import annotations

import pytest

from easycompress.report.timing import blended, clock, left_words


@pytest.mark.parametrize(
    ("seconds", "text"), [(-3, "0:00"), (7.9, "0:07"), (725, "12:05"), (3725, "1:02:05"), (36000, "10:00:00")]
)
def test_a_stopwatch(seconds: float, text: str) -> None:
    assert clock(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "at_most", "text"),
    [
        (180, 700, "about 3 min left, at most 12 min"),
        (33, 41, "about 35 s left, at most 45 s"),
        (58, None, "about 1 min left"),
        (4, 300, "a few seconds left"),
        (-4, 300, "a few seconds left"),
        (-11, 300, "at most 5 min left"),
        (-11, None, ""),
        (None, 3700, "at most 1 h 02 min left"),
        (7300, 7300, "about 2 h 02 min left, at most 2 h 02 min"),
        (None, 0, ""),
        (None, None, ""),
    ],
)
def test_what_is_left(seconds: float | None, at_most: float | None, text: str) -> None:
    assert left_words(seconds, at_most) == text


def test_a_small_correction_is_followed_slowly_and_a_large_one_at_once() -> None:
    assert 100 < (blended(100, 110, 0) or 0) < 105
    assert blended(100, 200, 0) == 200
    assert blended(100, 20, 0) == 20
    assert blended(None, 7, 0) == 7
    assert blended(100, None, 0) is None
