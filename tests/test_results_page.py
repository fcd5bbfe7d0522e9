"""benchmarks/RESULTS.md is what the JSON files give, and the rivals' tables say who is ahead, and who isn't there."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from benchmarks import rivals
from benchmarks.markdown import NOT_RUN
from benchmarks.results_page import HERE, PAGE, SECTIONS, page
from benchmarks.rivals_field import REASONS, RIVALS, SCRIPTS
from benchmarks.rivals_page import against, asked_too_much, overview
from benchmarks.rivals_run import Settings, code_lines, folder_of, run_rival

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

THEIRS, OURS = "lenet5 | onnxruntime static int8", "lenet5 | easycompress: size max, floor 0.1"
FASTER = "lenet5 | easycompress: latency max, floor 0.1"


def row(size: int = 1000, drop: float = 0.0, ms: float = 1.0, **changes: Any) -> dict[str, Any]:
    return {
        "status": "ok", "file": "model.onnx", "bytes": size, "plain_bytes": 4000, "stripped": size - 10, "drop": drop,
        "upper_95": drop + 0.1, "lines": 9, "seconds": 3.0, "package": "p", "version": "1", "exit": 0, "said": ["bye"],
        "latency": {"others": 0.1, "ms": {"1 threads, batch 1": [2.0, ms], "1 threads, batch 64": [8.0, 4.0]}},
        "kept": ["lc"], "epochs": 7, "verdict": "met", **changes,
    }  # fmt: skip


def line(table: str, *words: str) -> str:
    return next(text for text in table.splitlines() if all(word in text for word in words))


def test_the_committed_page_is_fresh() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(HERE / "results"), "run python -m benchmarks.results_page"


def test_a_benchmark_without_results_is_not_run(tmp_path: Path) -> None:
    assert page(tmp_path).count(NOT_RUN) == len(SECTIONS)


def test_a_row_that_is_missing_failed_or_absent_is_said() -> None:
    failed = row(status="failed", reason="no file; out of luck")
    absent = {"status": "absent", "reason": "nowhere to be had"}
    table = overview({THEIRS: failed, "lenet5 | LC toolkit": absent}, "lenet5")
    assert "failed: no file; out of luck" in line(table, "onnxruntime static int8 |")
    assert "absent: nowhere to be had" in line(table, "LC toolkit")
    assert NOT_RUN in line(table, "NNCF int8")


def test_the_smaller_file_is_ahead_within_a_tenth_of_a_point() -> None:
    assert "**2.00x smaller**" in line(against({THEIRS: row(), OURS: row(500, 0.1)}, "size"), "static int8 |")


def test_a_larger_drop_is_no_match_however_small_the_file() -> None:
    said = line(against({THEIRS: row(), OURS: row(5, 0.13)}, "size"), "static int8 |")
    assert "no match: its drop is 0.03 more than the 0.1 allowed" in said
    assert "smaller" not in said


def test_a_larger_file_is_behind_with_what_our_run_did() -> None:
    said = line(against({THEIRS: row(), OURS: row(1500)}, "size"), "static int8 |")
    assert "1.50x larger (ours: lc, 7 epochs, verdict met)" in said


def test_times_are_compared_as_shares_of_the_float_files() -> None:
    said = line(against({THEIRS: row(ms=1.0), FASTER: row(ms=0.5)}, "latency"), "static int8 |")
    assert "**2.00x faster** (1/1), level (64/1)" in said
    slower = against({THEIRS: row(ms=1.0), FASTER: row(ms=1.5)}, "latency")
    assert "1.50x slower (1/1)" in line(slower, "static int8 |")


def test_a_file_that_the_runtime_cant_run_has_no_latency() -> None:
    table = against({THEIRS: row(file="model.pt2"), FASTER: row()}, "latency")
    assert "| lenet5 | onnxruntime static int8 |" not in table


def test_a_floor_out_of_reach_names_the_exit_code_and_the_file() -> None:
    table = asked_too_much({"lenet5 | NNCF, accuracy control, asked too much": row(exit=0)})
    assert "| drop at most -5 | 0 | model.onnx, 1 000 bytes, drop 0.00 | bye |" in table


def test_lines_of_user_code_leave_out_docstrings_and_comments(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text('"""Words.\n\nMore words.\n"""\n\nimport sys\n# why\nprint(sys)\n')
    assert code_lines(script) == 2


def test_every_rivals_script_is_there() -> None:
    assert all((SCRIPTS / who.script).is_file() if who.script else who.absent for who in RIVALS)


def test_level_is_not_ahead_and_a_known_reason_stands_beside_the_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(REASONS, ("lenet5", "onnxruntime static int8", "latency"), "both are the same int8")
    said = line(against({THEIRS: row(), FASTER: row()}, "latency"), "static int8 |")
    assert "level (1/1), level (64/1) (ours: lc, 7 epochs, verdict met; both are the same int8)" in said


def test_a_time_beside_other_work_is_marked() -> None:
    busy = row(latency={"others": 1.3, "ms": {"1 threads, batch 1": [2.0, 1.0]}})
    assert "2.00x (1/1)†" in line(against({THEIRS: busy}, "latency"), "static int8 |")
    assert "†" not in line(against({THEIRS: row()}, "latency"), "static int8 |")


def test_all_files_of_a_model_are_timed_together_and_size_runs_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = {name: row(latency=None) for name in (THEIRS, FASTER)}
    held[FASTER]["objective"], held[OURS] = "latency", row(objective="size", latency=None)
    for name in held:
        folder = folder_of(name, tmp_path)
        folder.mkdir(parents=True)
        (folder / "model.onnx").touch()
    asked: list[int] = []

    def latency(_: str, __: Path, paths: list[Path]) -> list[dict[str, Any]]:
        asked.append(len(paths))
        return [{"others": 0.0, "ms": {}, "place": place} for place in range(len(paths))]

    monkeypatch.setattr(rivals, "latency", latency)
    monkeypatch.setattr(rivals, "make_task", lambda *_: tmp_path)
    rivals.time_files_of("lenet5", held, argparse.Namespace(out=tmp_path, results=tmp_path / "rivals.json"))
    assert asked == [2]
    assert [held[name]["latency"]["place"] for name in (THEIRS, FASTER)] == [0, 1]
    assert json.loads((tmp_path / "rivals.json").read_text())[OURS]["latency"] is None


def test_a_rival_that_begins_with_anothers_file_waits_for_it(tmp_path: Path) -> None:
    second = next(who for who in RIVALS if who.after)
    assert second.after in {who.name for who in RIVALS}
    found = run_rival(second, Settings("lenet5 | x", "lenet5", tmp_path, tmp_path, "1min", {}))
    assert found["status"] == "absent"
    assert second.after in found["reason"]


def test_nothing_is_compared_with_a_file_that_lost_its_accuracy() -> None:
    said = line(against({THEIRS: row(5, 30.0), OURS: row(500)}, "size"), "static int8 |")
    assert "not compared: its file loses more than 5 points" in said
