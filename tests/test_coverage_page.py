"""The committed table of coverage: whole, without a failure, and the page that is made of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.coverage import RESULTS
from benchmarks.coverage_page import STAGES, page, summary
from benchmarks.coverage_rows import names

HOME = Path(__file__).parents[1]


def rows() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = json.loads((HOME / RESULTS).read_text(encoding="utf-8"))
    return found


def test_the_committed_page_is_fresh() -> None:
    assert (HOME / "docs" / "coverage.md").read_text(encoding="utf-8") == page(list(rows().values()))


def test_every_model_is_there_and_none_fails() -> None:
    results = rows()
    assert results.keys() == set(names())
    for name, result in results.items():
        stages = result["stages"]
        passed = all(stages.get(stage) == "ok" for stage in STAGES)
        assert passed or any(str(said).startswith(("explained", "skipped")) for said in stages.values()), name
        assert result["seconds"] < 60 + result["params"] / 1e6, name


def test_failures_are_counted() -> None:
    made = [
        {"stages": dict.fromkeys(STAGES, "ok")},
        {"stages": {"pruned": "skipped: over 300 million"}},
        {"stages": {"pruned": "ok", "runs": "shapes differ"}},
    ]
    assert summary(made) == "1 of 3 work, 1 explained or skipped, 1 fail"
