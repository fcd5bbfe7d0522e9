"""The scaling page: exponents are slopes, one process stands beside two, what wasn't run is said."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.markdown import NOT_RUN
from benchmarks.scaling_page import draw, exponent, fitted, lines
from benchmarks.scaling_rows import LAUNCHES, NETS, QUICK, SERIES, WORKERS, key


def row(seconds: float, peak: float = 1.0, **changes: Any) -> dict[str, Any]:
    return {
        "seconds": seconds, "cpu_seconds": seconds, "peak_bytes": peak * 1e9, "verdict": "met", "ratio": 10.0,
        "drop": 0.1, "load": [0.5, 1.0], "parameters": 1000, "exit": 0, "spent": {}, **changes,
    }  # fmt: skip


def test_what_was_not_run_is_said() -> None:
    text = "\n".join(lines({}))
    assert text.count(f"| {NOT_RUN} |") == len(NETS) + len(WORKERS) + len(LAUNCHES)


def test_exponents_are_slopes_in_logarithms() -> None:
    assert exponent([1, 10, 100], [7, 3, 30]) == pytest.approx(1)
    assert fitted([1, 10, 100], [2, 8, 32]) == pytest.approx(0.602, abs=1e-3)


def test_a_series_says_its_exponents() -> None:
    held = {key("samples", net): row(10 * 2.0**place, 1 + 3.0**place) for place, net in enumerate(SERIES["samples"])}
    text = "\n".join(lines(held))
    assert "Exponent of the seconds: 0.30 between the two largest rows, 0.30 over all. Of the memory: 0.51." in text


def test_memory_that_hardly_grows_has_no_exponent() -> None:
    held = {key("layers", net): row(10.0, 1 + place / 1000) for place, net in enumerate(SERIES["layers"])}
    assert "The memory grows too little to tell." in "\n".join(lines(held))


def test_two_processes_stand_beside_one_and_a_failure_is_said() -> None:
    one, two = WORKERS
    text = "\n".join(
        lines({one: row(30), two: row(20), next(iter(LAUNCHES)): row(1, exit=2, message=["no such file"])})
    )
    assert "1.50x as fast" in text
    assert "failed: no such file" in text


def test_the_picture_is_the_same_for_the_same_numbers() -> None:
    held = {key("layers", net): row(5.0, 1.0) for net in SERIES["layers"]}
    assert draw(held) == draw(held)
    assert len(draw(held)) < 40_000


def test_quick_leaves_out_the_largest() -> None:
    assert key("layers", SERIES["layers"][-1]) not in QUICK
    assert set(WORKERS) <= set(QUICK)
