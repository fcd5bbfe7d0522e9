"""The thesis's matrix: its cells against their baselines, and what stands for a run."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest

from benchmarks.easycompress_thesis import command, told
from benchmarks.easycompress_thesis_page import SHARES, equals, lines
from benchmarks.easycompress_thesis_rows import PRINTED, QUICK, Printed, rows
from benchmarks.markdown import NOT_RUN


def found(**changes: object) -> dict[str, object]:
    times = {"baseline": 0.5, "final": 0.25}
    report = {
        "verdict": "met", "ratio": 10.5, "drop": {"estimate": 0.4, "upper_95": 0.6, "n": 10000}, "summary": "MET",
        **{
            name: {"quality": 99.0, "size_bytes": 2100, "macs": 40, "latency_ms": [{"batch": 1, "median": ms}]}
            for name, ms in times.items()
        },
        "steps": [{"action": "search", "verdict": "kept", "epochs": 0},
                  {"action": "lc", "verdict": "kept", "epochs": 7},
                  {"action": "static-int8", "verdict": "reverted", "epochs": 1}],
    }  # fmt: skip
    report["final"]["size_bytes"] = 200  # type: ignore[index]
    return told(report) | {"exit": 0, "seconds": 61.4, "load": [1.2, 2.6]} | changes


def test_names_are_unique_and_quick_is_a_part() -> None:
    names = [row.name for row in rows()]
    assert len(set(names)) == len(names)
    assert set(QUICK) < set(names)


def test_a_cell_is_computed_where_it_is_its_baseline_times_the_target() -> None:
    assert equals(Printed(8, "ResNet-50", 98.7, 98.9, 67.7, 33.9), 0.5)
    assert not equals(Printed(12, "VGG-16", 98.9, 96.8, 6.7, 0.6), 0.1)
    other = [
        (cell.table, cell.model, share)
        for (_, objective), targets in PRINTED.items()
        for share, cells in zip(SHARES[objective], targets, strict=True)
        for cell in cells
        if not equals(cell, share)
    ]
    assert other == [(12, "ResNet-50", 0.1), (12, "VGG-16", 0.1)]


def test_the_page_says_what_was_not_run() -> None:
    assert sum(line.count(NOT_RUN) for line in lines({})) == len(rows())


def test_a_row_shows_what_was_reached_not_what_was_asked() -> None:
    line = next(line for line in lines({"lenet5 size 10x -1": found()}) if "10.50x" in line)
    assert line.startswith(
        "| lenet5 | MNIST | bytes 10x | 1 | **10.50x** (MACs 1.00x, time 2.00x) | 0.40 (0.60) | met | lc |"
    )
    assert "table 8, points lost: ResNet-50 -0.2" in line


def test_a_run_that_failed_says_so() -> None:
    failed = {"exit": 3, "message": ["lenet5: can't"], "seconds": 2.0, "load": [0.0, 0.1]}
    line = next(line for line in lines({"lenet5 size 10x -1": failed}) if "exit 3" in line)
    assert "lenet5: can't" in line


@pytest.mark.parametrize(
    "name", ["resnet20 latency 4x -1", "lenet5 pruning + int8 2x -99", "lenet5 size packed 100x -1"]
)
def test_the_command_is_the_goal(name: str, tmp_path: Path) -> None:
    row = next(row for row in rows() if row.name == name)
    line = command(row, Namespace(zoo=Path("zoo"), data=Path("data")), tmp_path / "out")
    assert line[line.index("--target") + 1] == row.target
    assert line[line.index("--max-drop") + 1] == f"{row.floor}%"
    assert line[line.index("--format") + 1] == ("packed" if "packed" in name else "onnx")
    if row.steps:
        assert "static-int8" in Path(line[line.index("--recipe") + 1]).read_text(encoding="utf-8")
    else:
        assert "--recipe" not in line
