"""The committed table of faults: every outcome is the promised one, and the page is made of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.faults import RESULTS
from benchmarks.faults_more import ROWS
from benchmarks.faults_page import page

PAGE = Path(__file__).parents[1] / "docs" / "reliability.md"


def table() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = json.loads(RESULTS.read_text(encoding="utf-8"))
    return found


def test_the_committed_page_is_fresh() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(table())


def test_every_fault_is_there_and_ended_as_promised() -> None:
    results = table()
    assert results.keys() == ROWS.keys()
    assert len(results["kill"]["cases"]) >= 100
    for name, row in results.items():
        assert (row["done"], row["promise"]) == (ROWS[name].done, ROWS[name].promise)
        assert row["cases"], name
        assert [key for key, case in row["cases"].items() if case["wrong"]] == [], name


def test_what_is_wrong_is_told() -> None:
    cases = {
        "size 1": {"share": 0.2, "state": "missing", "ended": "killed", "wrong": []},
        "size 2": {"share": 0.5, "state": "interrupted", "ended": "killed", "wrong": ["another recipe.yaml"]},
        "size 3": {"share": 0.9, "state": "finished", "ended": "killed", "wrong": []},
    }
    text = page({"kill": {"done": "SIGKILL", "promise": "a | b", "cases": cases}})
    assert "**3 cases, 2 as promised, 1 not.**" in text
    told = "3: 1 at its end, 1 before the first entry, 1 in the middle"
    assert f"| kill | SIGKILL | a \\| b | {told} | 2 of 3 |" in text
    assert "- kill, size 2: another recipe.yaml" in text
