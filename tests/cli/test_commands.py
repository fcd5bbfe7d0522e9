"""What the commands show: people read the text, machines the JSON."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from easycompress import cli
from easycompress.selection.explain import rules

if TYPE_CHECKING:
    from conftest import Run

MAIN = [sys.executable, "-c", "from easycompress.cli import main; main()"]
INPUTS = ("m.pt", "--factory", "net.py:make", "--data", "d.npz")
GOAL = ("--target", "1.5x", "--max-drop", "5%", "--budget", "none")

HELP_SECONDS = 0.7


def files(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if "__pycache__" not in p.parts}


# ---------------------------------------------------------------- help


def test_help_lists_the_commands(run: Run) -> None:
    ran = run("--help")
    assert (ran.code, ran.err) == (0, "")
    for command in ("compress", "plan", "explain", "inspect", "unpack", "demo"):
        assert f"\n  {command} " in ran.out
    assert run().out == ran.out  # a bare `easycompress` helps too


@pytest.mark.parametrize("command", ["compress", "plan"])
def test_help_of_a_command_lists_its_flags(run: Run, command: str) -> None:
    ran = run(command, "--help")
    assert ran.code == 0
    flags = (
        "--factory --data --mean --std --augment --metric --loss --objective --target --max-drop --min-quality "
        "--format --budget --backend --batch --threads --certify --seed --trust-pickle --force --recipe --quiet --json"
    )
    for flag in flags.split():
        assert flag in ran.out
    assert ("--resume" in ran.out) == ("--out" in ran.out) == (command == "compress")


def test_help_is_quick() -> None:
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        done = subprocess.run([*MAIN, "--help"], capture_output=True, check=True)
        seconds.append(time.perf_counter() - start)
        assert b"compress" in done.stdout
    assert min(seconds) < HELP_SECONDS


def test_help_imports_no_torch() -> None:
    code = (
        "import sys; from easycompress.cli import _run; assert _run(['--help']) == 0; "
        "sys.exit(any(name in sys.modules for name in ('torch', 'numpy', 'onnx', 'sklearn', 'scipy')))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


# ---------------------------------------------------------------- explain


def test_explain_lists_every_rule(run: Run) -> None:
    ran = run("explain")
    assert ran.code == 0
    assert [line.split()[0] for line in ran.out.splitlines()] == list(rules())
    for start in "SPDQ":
        assert f"\n{start}1 " in f"\n{ran.out}"


@pytest.mark.parametrize("rule", ["P1", "p1", "S1", "D1", "Q1"])
def test_explain_a_rule(run: Run, rule: str) -> None:
    ran = run("explain", rule)
    assert ran.code == 0
    lines = ran.out.splitlines()
    assert lines[0].startswith(f"{rule.upper()} (")
    assert [line.split()[0] for line in lines[1:5]] == ["question", "threshold", "source", "code"]
    path, _, number = lines[4].split()[1].rpartition(":")
    source = Path(cli.__file__).parents[1] / path
    assert source.is_file()
    assert "def " in "".join(source.read_text().splitlines()[int(number) - 1 : int(number) + 1])
    assert all(" -> " in line for line in lines[5:])
    assert len(lines) >= 7  # a rule has at least two answers


# ---------------------------------------------------------------- inspect


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    weight = helper.make_tensor("weight", TensorProto.FLOAT, (4, 3), [float(i) for i in range(12)])
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "weight"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("n", 4))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ("n", 3))],
        [weight],
    )
    path = tmp_path / "tiny.onnx"
    onnx.save(helper.make_model(graph), str(path))
    return path


def test_inspect(run: Run, tiny: Path) -> None:
    ran = run("inspect", str(tiny))
    assert (ran.code, ran.err) == (0, "")
    row = next(line for line in ran.out.splitlines() if line.startswith("weight"))
    assert row.split() == ["weight", "float32", "4x3", "32.00", "48"]
    size = tiny.stat().st_size
    share = f"{100 * (size - 48) / size:.1f} %"
    assert ran.out.endswith(f"file {size} bytes, overhead {size - 48} bytes ({share}): graph and header\n")


def test_inspect_as_json(run: Run, tiny: Path) -> None:
    ran = run("inspect", str(tiny), "--json")
    assert json.loads(ran.out) == {
        "tensors": [{"name": "weight", "form": "float32", "shape": [4, 3], "bits_per_weight": 32.0, "bytes": 48}],
        "file_bytes": tiny.stat().st_size,
        "overhead_bytes": tiny.stat().st_size - 48,
    }


@pytest.mark.parametrize("content", [b"", b"hello", b"\x80\x02 not onnx", bytes(range(256))])
def test_inspect_what_is_no_onnx(run: Run, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.onnx"
    path.write_bytes(content)
    ran = run("inspect", str(path))
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"easycompress: {path}: not a readable ONNX file")
    assert ran.err.count("\n") == 1


def test_inspect_what_is_not_there(run: Run, tmp_path: Path) -> None:
    assert run("inspect", str(tmp_path / "none.onnx")).err == (
        f"easycompress: {tmp_path}/none.onnx: can't be read (No such file or directory)\n"
    )
    assert run("inspect", str(tmp_path)).err == f"easycompress: {tmp_path}: can't be read (Is a directory)\n"


# ---------------------------------------------------------------- plan


def test_plan_shows_what_was_asked_and_writes_nothing(folder: Path, run: Run) -> None:
    before = files(folder)
    ran = run("plan", *INPUTS, *GOAL)
    assert (ran.code, ran.err) == (0, "")
    assert files(folder) == before
    for part in ("Task", "Model", "Decisions", "Steps", "Notes"):
        assert f"\n{part}\n" in ran.out
    for rule in ("S1", "P1", "D1", "Q1"):
        assert f"\n{rule}  " in ran.out
    assert "\n1     structured-pruning (strategy " in ran.out


def test_plan_as_json(folder: Path, run: Run) -> None:
    (folder / "net.py").write_text((folder / "net.py").read_text() + "\nprint('hello from net.py')\n")
    ran = run("plan", *INPUTS, *GOAL, "--json")
    assert ran.code == 0
    content = json.loads(ran.out)
    assert list(content) == [
        "request", "goal", "metric", "baseline", "resources", "data", "profile", "quick", "steps", "lesser", "last",
        "decisions", "notes",
    ]  # fmt: skip
    assert content["request"]["data"] == "d.npz"
    assert content["goal"] | {"allowed_drop": None} == {
        "objective": "size", "target": "1.5x", "ratio_needed": 1.5, "floor": "5%", "allowed_drop": None,
        "format": "onnx", "certify": False,
    }  # fmt: skip
    assert content["goal"]["allowed_drop"] == 5.0
    assert content["baseline"]["quality"] == 100.0
    assert content["resources"]["budget"] == "none"
    assert content["resources"]["epochs_affordable"] == 0.0
    assert content["data"] == {"train": 120, "calibration": 120, "select": 120, "report": 120}
    assert content["notes"][0] == "select is the validation split (120 samples), report is the test split (120)"
    assert content["profile"]["architecture"] == "cnn"
    assert content["profile"]["input_shape"] == [1, 8, 8]
    assert content["steps"][0]["kind"] == "structured-pruning"
    assert all(set(d) == {"rule", "question", "answer", "evidence"} for d in content["decisions"])
    assert "hello from net.py" in ran.err  # what the user's own code prints must not spoil the JSON


def test_plan_begins_with_the_goal_the_means_and_the_data(folder: Path, run: Run) -> None:
    (folder / "easycompress.toml").write_text('factory = "net.py:make"\ndata = "d.npz"\nbudget = "30ep"\n')
    ran = run("plan", "m.pt", "--target", "1.5x", "--max-drop", "5%", "--threads", "1", "--seed", "3")
    assert (ran.code, ran.err) == (0, "")
    rows = {line.split()[0]: line.split(maxsplit=1)[1] for line in ran.out.splitlines()[4:12]}
    assert ran.out.startswith("\nTask\n")
    assert list(rows) == ["size", "accuracy", "budget", "backend", "train", "calibration", "select", "report"]
    assert rows["size"].startswith("1.5x smaller ")
    assert " -> " in rows["size"]
    assert rows["accuracy"].split("  ")[0] == "at most 5 points lower"
    assert rows["accuracy"].endswith("100.00 % on select, floor 95.00 %")
    assert rows["budget"].split(maxsplit=1) == ["30ep", "30 epochs over all attempts"]
    assert rows["backend"].split(maxsplit=1) == ["cpu", "latency at batch 1, 1 thread"]
    assert rows["train"] == rows["select"] == rows["report"] == "120 samples"
    assert rows["calibration"] == "120 samples of train"


def test_samples_that_splits_share_are_told(folder: Path, run: Run) -> None:
    arrays = dict(np.load(folder / "d.npz"))
    arrays["x_val"][:2] = arrays["x_train"][6:8]
    np.savez(folder / "d.npz", **arrays)
    ran = run("plan", *INPUTS, *GOAL)
    assert ran.code == 0
    notes = ran.out.partition("\nNotes\n")[2]
    assert "-     2 of the 120 select samples are also in train (the same inputs, byte for byte); nothing was" in notes


def test_quiet_plan_is_its_steps(folder: Path, run: Run) -> None:
    ran = run("plan", *INPUTS, *GOAL, "--quiet")
    assert ran.code == 0
    assert "Decisions" not in ran.out
    assert "structured-pruning" in ran.out
    assert (folder / "m.pt").is_file()


def test_the_word_for_word_command_of_a_folder_with_settings(folder: Path, run: Run) -> None:
    (folder / "easycompress.toml").write_text('factory = "net.py:make"\ndata = "d.npz"\nbudget = "none"\n')
    ran = run("plan", "m.pt", "--objective", "size", "--target", "10x", "--max-drop", "1%", "--quiet")
    assert (ran.code, ran.err) == (0, "")


# ---------------------------------------------------------------- compress


def test_compress_as_json(folder: Path, run: Run) -> None:
    (folder / "net.py").write_text((folder / "net.py").read_text() + "\nprint('hello from net.py')\n")
    ran = run("compress", *INPUTS, *GOAL, "--json")
    assert ran.code == 0
    report = json.loads(ran.out)
    out = folder / "m-easycompress"  # the default: beside the model
    assert report == json.loads((out / "report.json").read_text())
    assert report["verdict"] == "met"
    assert report["ratio"] >= 1.5
    assert report["final"]["size_bytes"] == (out / "model.onnx").stat().st_size
    assert (out / "report.html").is_file()
    assert (out / "recipe.yaml").is_file()
    assert "hello from net.py" in ran.err


def test_compress_quietly_prints_the_verdict_alone(folder: Path, run: Run) -> None:
    ran = run("compress", *INPUTS, *GOAL, "--quiet", "-o", "out")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.count("\n") == 1
    assert ran.out.startswith("MET: ")
    assert (folder / "out" / "model.onnx").is_file()


def test_compress_tells_people_what_it_did(folder: Path, run: Run) -> None:
    (folder / "out").mkdir()  # an empty folder may be used
    ran = run("compress", *INPUTS, *GOAL, "-o", "out")
    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert lines[0].startswith("original: 100.00 % on select, ")
    assert lines[1].startswith("writing untrained candidates")
    assert "Result" in lines
    assert lines[-2].startswith("MET: ")
    assert lines[-1] == "written to out; out/report.html tells all of it"


def test_a_log_says_what_is_tried_when_it_begins_and_not_epoch_by_epoch(folder: Path, run: Run) -> None:
    goal = ("--target", "1.5x", "--max-drop", "5%", "--budget", "6ep", "-o", "out")
    (folder / "prune.yaml").write_text(
        "steps: [{kind: structured-pruning, strength: 0.3}, {kind: distillation, mode: budget}, {kind: static-int8}]\n"
    )
    ran = run("compress", *INPUTS, *goal, "--recipe", "prune.yaml")
    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    begins = [line for line in lines if line.startswith("attempt 1: ")]
    assert len(begins) == 2, "one line when it begins, one when it has ended"
    assert "strength 0.3" in begins[0]
    assert begins[1].endswith(": kept")
    epochs = [line for line in lines if "epoch " in line and line.startswith("distillation")]
    assert len(epochs) == 1
    assert lines.index(begins[0]) < lines.index(epochs[0]) < lines.index(begins[1])
    assert lines.count("measuring the result on the report split") == 1


def test_a_target_out_of_reach_is_exit_1_and_still_delivers(folder: Path, run: Run) -> None:
    (folder / "one.yaml").write_text("steps: [{kind: static-int8}]\n")  # one attempt instead of a search
    ran = run("compress", *INPUTS, *GOAL, "--target", "1000x", "--recipe", "one.yaml", "--quiet", "-o", "out")
    assert ran.code == 1
    assert not ran.out.startswith("MET")
    assert ran.out.count("\n") == 1
    assert json.loads((folder / "out" / "report.json").read_text())["verdict"] == "target-missed"
    assert (folder / "out" / "model.onnx").is_file()


def test_a_trusted_pickle_needs_no_factory(folder: Path, run: Run) -> None:
    torch.save(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), folder / "m.pt")
    ran = run("plan", "m.pt", "--trust-pickle", "--data", "d.npz", *GOAL, "--quiet", "--force")
    assert (ran.code, ran.err) == (0, "")


# ---------------------------------------------------------------- a real process


def test_real_process_from_another_folder(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (folder / "easycompress.toml").write_text('factory = "net.py:make"\ndata = "d.npz"\nbudget = "none"\n')
    done = subprocess.run(
        [*MAIN, "compress", str(folder / "m.pt"), "--target", "1x", "--max-drop", "5%", "--quiet"],
        cwd=elsewhere,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
        env={"OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin", "PYTHONIOENCODING": "ascii"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("MET: ")
    assert done.stdout.count("\n") == 1
    assert (folder / "m-easycompress" / "model.onnx").is_file()
    assert not list(elsewhere.iterdir())


def test_a_screen_without_the_signs_gets_a_substitute(monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO()
    screen = io.TextIOWrapper(buffer, encoding="ascii", errors="strict")
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setattr(sys, "argv", ["easycompress", "explain"])
    text = {"S1": ("strategy", _Question("Größe ≤ 1?"))}
    monkeypatch.setattr("easycompress.selection.explain.rules", lambda: text)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    screen.flush()
    assert buffer.getvalue() == b"S1  strategy: Gr??e ? 1?\n"


class _Question:
    def __init__(self, question: str) -> None:
        self.question: Any = question
