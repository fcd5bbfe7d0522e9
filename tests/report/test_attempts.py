"""The table of attempts at every width and height."""

from __future__ import annotations

from typing import Any

import pytest
from rich.cells import cell_len

from easycompress.core.progress import AttemptBegun, AttemptDone
from easycompress.report.attempts import Table, attempt_words, columns_for, counted, table

WHAT = "structured-pruning (strategy linear, saves params, strength 0.6665), distillation, static-int8"


def done(number: int, **changes: Any) -> AttemptDone:
    given: dict[str, Any] = {
        "what": WHAT, "objective": 112_775.0, "ratio": 10.0709, "quality": 99.443, "drop": -0.279, "error": 0.279,
        "accepted": number % 2 == 1, "reason": "", "epochs": 23, "seconds": 125.0,
    }  # fmt: skip
    return AttemptDone(number=number, **(given | changes))


RUNNING = (AttemptBegun(number=4, what=WHAT, epochs=100), 33, 65.0)
THREE = [done(1), done(2, ratio=1030.0, quality=1234.56, drop=0.4, error=None), done(3, quality=0.8812, drop=-0.0123)]


def made(width: int, most: int | None = None, *, plain: bool = False) -> Table:
    found = table(THREE, RUNNING, width, most, plain=plain)
    assert found is not None
    return found


def test_it_says_what_came_of_each_attempt() -> None:
    found = made(79)
    assert found.head.split() == ["#", "attempt", "ratio", "quality", "drop", "verdict", "epochs", "time"]
    lines = [line for line, _ in found.lines]
    assert lines[0].endswith("10.0x    99.44   -0.28 ± 0.28  kept          23     2:05")
    assert lines[0].startswith(" 1  pruning 0.666")
    assert "1 030x    1 235           0.40  rejected" in lines[1]
    assert "0.8812   -0.01 ± 0.28" in lines[2], "as many decimals as there is room for"
    assert lines[3].endswith("running   33/100     1:05")
    assert [accepted for _, accepted in found.lines] == [True, False, True, None]


@pytest.mark.parametrize("width", [*range(24, 100), 160])
def test_every_line_is_as_wide_as_the_screen_and_no_wider(width: int) -> None:
    found = made(width)
    assert {cell_len(line) for line in (found.head, *[line for line, _ in found.lines])} == {width}
    assert "10.0x" in found.lines[0][0], "the ratio is the last to go"


def test_columns_hold_still_whatever_the_rows_say() -> None:
    few, many = table(THREE[:1], None, 100), table(THREE, RUNNING, 100)
    assert few is not None
    assert many is not None
    assert few.head == many.head


def test_a_narrow_screen_does_without_the_lesser_columns() -> None:
    assert list(columns_for(70)) == ["#", "attempt", "ratio", "quality", "drop", "verdict", "time"]
    assert list(columns_for(61)) == ["#", "attempt", "ratio", "quality", "drop", "verdict"]
    assert {"#", "attempt", "ratio", "verdict"} <= set(columns_for(40))
    assert columns_for(10) == {}
    assert table(THREE, RUNNING, 10) is None


@pytest.mark.parametrize("most", [1, 2, 3])
def test_old_attempts_collapse_where_the_screen_is_low(most: int) -> None:
    lines = [line for line, _ in made(79, most).lines]
    assert len(lines) == most
    assert lines[-1].startswith(" 4  pruning")
    if most > 1:
        hidden = 5 - most
        assert lines[0].startswith(f"{hidden} earlier: {(hidden + 1) // 2} kept, the best 10.0x")


def test_nothing_to_show_or_no_room_is_no_table() -> None:
    assert table([], None, 80) is None
    assert table(THREE, None, 80, 0) is None


def test_a_screen_of_ascii() -> None:
    found = made(79, plain=True)
    assert "".join([found.head, *[line for line, _ in found.lines]]).isascii()
    assert "-0.28 +- 0.28" in found.lines[0][0]


def test_words_tell_attempts_apart() -> None:
    assert attempt_words(WHAT, 20) == "pruning 0.666, distill, int8"
    assert attempt_words(WHAT, 60) == "structured-pruning 0.666, distillation, static-int8"
    assert attempt_words("weight-only (bits 4, block 32), lc", 20) == "weights, lc"


def test_one_line_counts_them() -> None:
    assert counted(THREE) == "attempts: 3, 2 kept, 1 rejected; 69 epochs in 6 min 15 s"
    assert counted([done(1, epochs=0, seconds=2.5)]) == "attempts: 1, 1 kept; 2.5 s"
    assert counted([]) == ""
