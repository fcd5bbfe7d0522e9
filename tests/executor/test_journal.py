from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from easycompress.core import stopping
from easycompress.core.errors import BadInput
from easycompress.executor.journal import Journal, check_out, check_same, open_journal, state_of

FINGERPRINT: dict[str, Any] = {"target": "10x", "seed": 0, "data": [1, 2]}


def start(out: Path, *, resume: bool = False, began: float | None = None, **changed: object) -> Journal:
    return open_journal(out, FINGERPRINT | changed, resume=resume, began=time.monotonic() if began is None else began)


def interrupted(out: Path) -> Path:
    journal = start(out)
    journal.once("a", lambda: 1)
    (journal.path("attempt 1.last.checkpoint")).write_bytes(b"half")
    journal.close()
    return out


def finished(out: Path) -> Path:
    interrupted(out)
    journal = start(out, resume=True)
    (out / "report.json").write_text("{}")
    journal.finish()
    journal.close()
    return out


def refusal(out: Path, *, resume: bool = False, force: bool = False) -> str:
    with pytest.raises(BadInput) as error:
        check_out(out, resume=resume, force=force)
    return str(error.value)


def test_once_computes_once(tmp_path: Path) -> None:
    journal = start(tmp_path / "out")
    calls: list[int] = []

    def compute() -> dict[str, Any]:
        calls.append(1)
        return {"pair": (1, 2.5), "none": None}

    first = journal.once("key", compute)
    assert first == {"pair": [1, 2.5], "none": None}  # what a resume would read, already now
    assert journal.once("key", compute) == first
    journal.close()
    assert start(tmp_path / "out", resume=True).once("key", compute) == first
    assert len(calls) == 1


def test_numbers_that_json_lacks_come_back(tmp_path: Path) -> None:
    journal = start(tmp_path / "out")
    journal.once("drop", lambda: [math.inf, math.nan])
    journal.close()
    infinite, not_a_number = start(tmp_path / "out", resume=True).once("drop", list)
    assert infinite == math.inf
    assert math.isnan(not_a_number)


def test_what_failed_is_not_journalled(tmp_path: Path) -> None:
    journal = start(tmp_path / "out")
    with pytest.raises(ZeroDivisionError):
        journal.once("key", lambda: 1 // 0)
    assert journal.once("key", lambda: "again") == "again"


def test_time_is_carried_over(tmp_path: Path) -> None:
    journal = start(tmp_path / "out", began=time.monotonic() - 100)
    assert journal.elapsed() == pytest.approx(100, abs=1)
    journal.save()
    journal.close()
    resumed = start(tmp_path / "out", resume=True, began=time.monotonic() - 7)
    assert resumed.elapsed() == pytest.approx(107, abs=1)


def test_a_clock_that_begins_anew_or_jumps_counts_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = start(tmp_path / "out", began=time.monotonic() - 100)
    journal.save()
    journal.close()
    monkeypatch.setattr(time, "monotonic", lambda: 5.0)  # after a reboot
    for wall in (0.0, 4e9):
        monkeypatch.setattr(time, "time", lambda wall=wall: wall)
        resumed = start(tmp_path / "out", resume=True, began=2.0)
        assert resumed.elapsed() == pytest.approx(103, abs=1)
        resumed.close()


def test_ctrl_c_that_a_library_lost_ends_the_run_at_the_next_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = start(tmp_path / "out")
    monkeypatch.setattr(stopping, "_asked", [2])
    with pytest.raises(KeyboardInterrupt):
        journal.once("attempt 1: result", dict)
    assert "attempt 1" not in (tmp_path / "out" / "journal" / "journal.json").read_text()


def test_states(tmp_path: Path) -> None:
    assert state_of(tmp_path / "nothing") == "missing"
    assert state_of(tmp_path) == "empty"
    assert state_of(interrupted(tmp_path / "a")) == "interrupted"
    assert state_of(finished(tmp_path / "b")) == "finished"
    (tmp_path / "file").write_text("")
    assert state_of(tmp_path / "file") == "foreign"


@pytest.mark.parametrize("name", ["model.onnx.data", "model.pt2", "model.ecz", "pretrained/config.json"])
def test_a_result_of_any_kind_may_be_replaced(tmp_path: Path, name: str) -> None:
    out = finished(tmp_path / "out")
    (out / name).parent.mkdir(exist_ok=True)
    (out / name).write_text("of the last run")
    assert state_of(out) == "finished"
    check_out(out, resume=False, force=False)
    start(out).close()
    assert {path.name for path in out.iterdir()} == {"journal"}


@pytest.mark.parametrize("names", [["notes.txt"], ["model.onnx"], ["model.onnx", "report.json"], [".hidden"]])
def test_files_without_a_journal_are_somebody_else_s(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).write_text("mine")
    assert state_of(tmp_path) == "foreign"


@pytest.mark.parametrize("make", [interrupted, finished])
def test_one_strange_file_makes_a_folder_foreign(tmp_path: Path, make: Any) -> None:
    (make(tmp_path / "out") / "thesis.tex").write_text("mine")
    assert state_of(tmp_path / "out") == "foreign"


@pytest.mark.parametrize(("make", "state"), [(interrupted, "interrupted"), (finished, "finished")])
def test_a_file_that_a_kill_left_half_written_is_ours(tmp_path: Path, make: Any, state: str) -> None:
    out = make(tmp_path / "out")
    (out / ".report.json.4711.tmp").write_text("{")
    assert state_of(out) == state
    start(out, resume=True).finish()
    assert {path.name for path in out.iterdir()} <= {"journal", "report.json"}


def test_a_kill_before_the_first_entry_leaves_a_folder_that_is_free(tmp_path: Path) -> None:
    (tmp_path / "out" / "journal").mkdir(parents=True)
    (tmp_path / "out" / "journal" / "lock").touch()
    (tmp_path / "out" / "journal" / ".journal.json.4711.tmp").write_text("{")
    assert state_of(tmp_path / "out") == "empty"
    start(tmp_path / "out").close()
    assert state_of(tmp_path / "out") == "interrupted"


def test_a_kill_while_an_old_result_is_replaced_leaves_a_folder_that_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = finished(tmp_path / "out")
    (out / "model.onnx").write_bytes(b"old")

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            start(out)
    assert state_of(out) == "empty"
    assert start(out, resume=True).entries == {}
    assert not (out / "model.onnx").exists()


def test_check_out(tmp_path: Path) -> None:
    check_out(tmp_path / "nothing", resume=False, force=False)
    check_out(tmp_path / "nothing", resume=True, force=False)
    check_out(finished(tmp_path / "b"), resume=False, force=False)
    out = interrupted(tmp_path / "a")
    before = sorted((path, path.stat().st_mtime_ns) for path in out.rglob("*"))
    assert refusal(out) == (
        f"{out}: an interrupted run is in there; go on with --resume, start anew with --force, or use -o"
    )
    check_out(out, resume=True, force=False)
    check_out(out, resume=False, force=True)
    assert sorted((path, path.stat().st_mtime_ns) for path in out.rglob("*")) == before


@pytest.mark.parametrize(("resume", "force"), [(False, False), (True, False), (False, True), (True, True)])
def test_what_belongs_to_others_is_refused_whatever_is_said(
    tmp_path: Path,
    resume: bool,  # noqa: FBT001 - a case
    force: bool,  # noqa: FBT001 - a case
) -> None:
    for name in ("d", "b", "c", "a"):
        (tmp_path / name).write_text("")
    choose = "easycompress writes only into a folder of its own: choose another with -o"
    assert refusal(tmp_path, resume=resume, force=force) == f"{tmp_path}: holds other files (a, b, c); {choose}"
    assert refusal(tmp_path / "a", resume=resume, force=force) == f"{tmp_path / 'a'}: is a file; {choose}"


def test_our_names_alone_are_no_run(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_text("")
    assert "holds other files (no journal of a run)" in refusal(tmp_path)


def test_another_fingerprint_is_refused(tmp_path: Path) -> None:
    out = interrupted(tmp_path / "out")
    before = (out / "journal" / "journal.json").read_bytes()
    with pytest.raises(BadInput) as error:
        start(out, resume=True, target="5x", data=[1, 3])
    assert str(error.value) == f"{out}: --resume with another data, target than the run began with; use another -o"
    assert (out / "journal" / "journal.json").read_bytes() == before
    assert check_same(out, {"seed": 0})["state"] == "running"


@pytest.mark.parametrize("text", ["{", "[]", '{"state": "finished"}', '{"schema": "easycompress-journal/99"}'])
def test_a_journal_that_can_t_be_read_needs_force(tmp_path: Path, text: str) -> None:
    out = interrupted(tmp_path / "out")
    (out / "journal" / "journal.json").write_text(text)
    assert state_of(out) == "interrupted"
    with pytest.raises(BadInput, match=r"journal\.json: not "):
        start(out, resume=True)
    start(out).close()
    assert json.loads((out / "journal" / "journal.json").read_text())["entries"] == {}


def test_a_new_run_empties_the_folder(tmp_path: Path) -> None:
    out = finished(tmp_path / "out")
    (out / "model.onnx").write_bytes(b"old")
    journal = start(out)
    assert journal.entries == {}
    assert {path.name for path in out.iterdir()} == {"journal"}
    assert {path.name for path in journal.folder.iterdir()} == {"journal.json", "lock"}


def test_force_starts_an_interrupted_run_anew(tmp_path: Path) -> None:
    journal = start(interrupted(tmp_path / "out"))
    assert journal.entries == {}
    assert not journal.path("attempt 1.last.checkpoint").exists()


@pytest.mark.parametrize("resume", [False, True])
def test_a_second_run_is_refused_and_harms_nothing(tmp_path: Path, resume: bool) -> None:  # noqa: FBT001 - a case
    out = tmp_path / "out"
    journal = start(out)
    journal.once("a", lambda: 1)
    journal.path("attempt 1.onnx").write_bytes(b"precious")
    code = (
        "import sys, pathlib; from easycompress.executor.journal import open_journal; "
        f"open_journal(pathlib.Path(sys.argv[1]), {FINGERPRINT!r}, resume={resume}, began=0.0)"
    )
    second = subprocess.run([sys.executable, "-c", code, str(out)], capture_output=True, text=True, check=False)
    wanted = f"BadInput: {out}: another easycompress is working in there; wait for it or use another -o"
    assert second.stderr.splitlines()[-1].endswith(wanted)
    assert journal.path("attempt 1.onnx").read_bytes() == b"precious"
    assert json.loads(journal.path("journal.json").read_text())["entries"] == {"a": 1}
    journal.close()
    start(out, resume=True).close()


def test_finish_keeps_what_a_reader_needs(tmp_path: Path) -> None:
    out = finished(tmp_path / "out")
    assert {path.name for path in (out / "journal").iterdir()} == {"journal.json", "lock"}
    data = json.loads((out / "journal" / "journal.json").read_text())
    assert (data["state"], data["entries"], data["fingerprint"]) == ("finished", {"a": 1}, FINGERPRINT)


def test_a_refused_run_leaves_nothing(tmp_path: Path) -> None:
    journal = start(tmp_path / "out")
    journal.once("plan", dict)
    journal.path("probe.onnx").write_bytes(b"")
    journal.discard()
    journal.close()
    assert not (tmp_path / "out").exists()
    (tmp_path / "made").mkdir()
    journal = start(tmp_path / "made")
    journal.discard()
    assert state_of(tmp_path / "made") == "empty"  # the folder was the user's


def test_files_of_the_result_keep_the_journal_that_says_whose_they_are(tmp_path: Path) -> None:
    journal = start(tmp_path / "out")
    (tmp_path / "out" / "model.onnx").write_bytes(b"before the disk was full")
    journal.discard()
    journal.close()
    assert state_of(tmp_path / "out") == "interrupted"
    check_out(tmp_path / "out", resume=True, force=False)


@pytest.mark.parametrize("work", ["result", "checkpoint", "parts"])
def test_work_outlives_a_refusal(tmp_path: Path, work: str) -> None:
    journal = start(tmp_path / "out")
    if work == "result":
        journal.once("attempt 1: result", dict)
    elif work == "parts":
        journal.put("parts of a batch", 2)
    else:
        journal.path("attempt 1.last.checkpoint").write_bytes(b"")
    journal.discard()
    assert state_of(tmp_path / "out") == "interrupted"


def test_a_place_that_can_t_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match=r"can't be created \(Not a directory\); choose another folder with -o"):
        start(tmp_path / "file" / "out")
