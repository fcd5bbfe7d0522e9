"""What the table of searched settings counts as further, and what it concludes."""

from __future__ import annotations

from typing import Any

from benchmarks.markdown import NOT_RUN
from benchmarks.search import ROWS, key
from benchmarks.search_page import Pair, conclusion, lines


def run(ratio: float, drop: float = 0.1, verdict: str = "target-missed", seconds: float = 10.0) -> dict[str, Any]:
    return {
        "settings": {"target": "10x", "objective": "size"}, "verdict": verdict, "ratio": ratio, "drop": drop,
        "processor_seconds": seconds, "epochs": 9, "tuning": {"trials": [1, 2], "used": True, "spent": 4},
    }  # fmt: skip


def test_a_larger_ratio_is_further_but_not_beyond_the_target() -> None:
    assert Pair(run(5), run(6)).outcome == 1
    assert Pair(run(6), run(5)).outcome == -1
    assert Pair(run(10.1), run(12)).outcome == 0
    assert Pair(run(10.1, 0.3), run(12, 0.1)).outcome == 1
    assert Pair(run(10.1, 0.1), run(10.1, 0.14)).outcome == 0
    assert Pair(run(5), run(9, verdict="floor-missed")).outcome == -1


def test_a_search_pays_only_in_equal_time() -> None:
    ahead, costly = Pair(run(5), run(6)), Pair(run(5), run(6, seconds=20.0))
    assert conclusion([ahead, ahead, Pair(run(6), run(5))]).endswith("it did, on these.")
    assert "further in 1, as far in 0, less far in 0, with 2.00 times the processor time" in conclusion([costly])
    assert conclusion([costly]).endswith("it stays off by default.")
    assert conclusion([]).startswith("Nothing was run both ways yet")


def test_rows_that_were_not_run_both_ways_are_said_to_be_not_run() -> None:
    row = ROWS[0]
    held = {key(row, "defaults", 0): run(5), key(row, "search", 0): run(6), key(ROWS[1], "search", 0): run(6)}
    text = "\n".join(lines(held))
    assert text.count(NOT_RUN) == len(ROWS) - 1
    assert "| 5.00x | 0.10 | 0 | 13 | 10 | 6.00x | 0.10 | 0 | 13 | 10 | 2 | 1 of 1 | 1 / 0 / 0 |" in text
