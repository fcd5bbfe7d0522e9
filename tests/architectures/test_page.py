"""The committed matrix: whole, without a fault, and the page that is made of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from architectures.nets import KINDS

from benchmarks.architectures import OBJECTIVES, RESULTS
from benchmarks.architectures_page import page, summary
from easycompress.techniques import TECHNIQUES

PAGE = Path(__file__).parents[2] / "docs" / "architectures.md"


def table() -> dict[str, dict[str, dict[str, Any]]]:
    found: dict[str, dict[str, dict[str, Any]]] = json.loads(RESULTS.read_text(encoding="utf-8"))
    return found


def test_the_committed_page_is_fresh() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(table())


def test_every_cell_is_there_and_none_is_wrong() -> None:
    results = table()
    assert results.keys() == KINDS.keys()
    for kind, row in results.items():
        assert row.keys() == {*(technique.name for technique in TECHNIQUES), "plan"}, kind
        assert {entry["state"] for entry in row.values()} <= {"works", "refused"}, kind
        assert all("\n" not in entry["reason"] for entry in row.values())
        assert all(row["plan"][objective] for objective in OBJECTIVES)


def test_faults_and_refusals_are_told_apart() -> None:
    made: dict[str, dict[str, dict[str, Any]]] = {
        "net": {
            "lc": {"state": "works", "reason": "", "ratio": 4.26},
            "float16": {"state": "refused", "reason": "no weights"},
            "static-int8": {"state": "wrong", "reason": "file and module are 3 apart", "ratio": 2.0},
            "plan": {"state": "works", "reason": "", "size": "lc", "latency": "a | b", "compute": "none"},
        }
    }
    text = page(made)
    assert summary(made) == "1 refused, 2 works, 1 wrong"
    assert "| architecture | float16 | lc | static-int8 |" in text
    assert "| net | a | 4.3x | **wrong** b |" in text
    assert "- **a**: no weights\n- **b**: file and module are 3 apart" in text
    assert "| net | lc | a \\| b | none |" in text
