"""The committed predictions: each held to what was reached, the page made of them, and the sentence that users see."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.estimate import RESULTS, read
from benchmarks.estimate_fit import fitted
from benchmarks.estimate_page import all_judged, judge, page, stated
from easycompress.estimation.calibration import CALIBRATION
from easycompress.estimation.law import FITTED_DEVIATION, FITTED_RESIDUAL, LOCAL, SLOPE

HOME = Path(__file__).parents[1]


def held() -> dict[str, Any]:
    return read(HOME / RESULTS)


def test_the_committed_page_and_the_sentence_are_fresh() -> None:
    assert (HOME / "docs" / "estimates.md").read_text(encoding="utf-8") == page(held())
    assert stated(held()) == CALIBRATION


def test_the_constants_are_those_that_were_fitted() -> None:
    found = fitted(held()["fit"])
    assert (found["slope"], found["deviation"], found["local"], found["residual"]) == pytest.approx(
        (SLOPE, FITTED_DEVIATION, LOCAL, FITTED_RESIDUAL), abs=0.011
    )


def test_eight_of_ten_results_lie_within_their_intervals_and_these_are_of_use() -> None:
    rows = all_judged(held())
    assert len(rows) >= 10
    assert sum(row.within for row in rows.values()) >= 0.8 * len(rows)
    assert {name.split()[0] for name in rows} == {"lenet5", "resnet20", "minilm"}
    assert sorted(row.width for row in rows.values() if not row.ratio)[len(rows) // 2] < 1.5, "points"


def test_a_result_outside_its_interval_is_told() -> None:
    name = "lenet5 size 20x, none within 1%"
    said = {"drop": {"low": 0.0, "middle": 0.1, "high": 0.3}, "chance": 0.9, "seconds": 1.0}
    reached = {"at_target": {"drop": 0.4, "split": "report"}, "ratio": 20.5, "verdict": "met", "seconds": 9.0}
    made = {"fit": {}, "predicted": {name: said}, "reached": {name: reached}}
    judged = judge(name, made)
    assert judged is not None
    assert not judged.within
    assert "0 of 1 results of 1 models" in stated(made)
    assert f"| {name} | 0.10 (0.00 to 0.30) | 0.40 | **no** | 90 % | met |" in page(made)
