"""A run that is stopped again and again, by SIGKILL and Ctrl-C, against one that nobody disturbs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from tiny import tiny

from easycompress.cli import _run
from easycompress.executor import limits
from easycompress.executor.journal import state_of
from easycompress.measure import latency
from easycompress.training.checkpoint import load_tensors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PATIENCE = 180.0
"""Seconds after which a moment that is waited for is not coming any more."""

PAUSE = 0.25
"""Seconds that the process sleeps where it is to be stopped."""

DRIVER = """
import sys, time
from easycompress import deliver
from easycompress.executor import limits
from easycompress.lc import run as learning
from easycompress.measure import latency
from easycompress.training import fit

pause = float(sys.argv[1])
limits.MOST_ATTEMPTS = limits.LEAST_ATTEMPTS = 3
latency.PATIENCE, latency.ROUNDS = 0.0, 1
save, measure, save_loop = fit._Run.save, deliver.measure_pair, learning.save_loop

def saved(run, path):
    save(run, path)
    time.sleep(pause)

def measured(*arguments):
    time.sleep(pause)
    return measure(*arguments)

def saved_loop(*arguments):
    save_loop(*arguments)
    time.sleep(pause)

fit._Run.save, deliver.measure_pair, learning.save_loop = saved, measured, saved_loop
from easycompress.cli import _run
sys.exit(_run(sys.argv[2:]))
"""
"""The command line with short measurements, and with pauses that make sure of the moment in which it is stopped."""


def _heed_ctrl_c() -> None:
    """Undo what a shell does to jobs in the background: they, and all that they start, ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@dataclass(frozen=True)
class Task:
    """Where everything lies, and the flags of the run."""

    folder: Path
    goal: tuple[str, ...] = ("--objective", "compute", "--target", "max", "--max-drop", "0.1%", "--budget", "24ep")
    steps: str = "steps: [{kind: structured-pruning}, {kind: distillation}]"

    def flags(self, out: Path, *more: str) -> list[str]:
        net, factory, data = self.folder / "net.safetensors", self.folder / "net.py", self.folder / "data.npz"
        if self.steps:  # those that train long enough to be stopped in the middle
            (self.folder / "recipe.yaml").write_text(self.steps)
            more = ("--recipe", str(self.folder / "recipe.yaml"), *more)
        return [
            "compress", str(net), "--factory", f"{factory}:make", "--data", str(data), "-o", str(out), "--threads", "1",
            *self.goal, *more,
        ]  # fmt: skip

    def stop_at(
        self, out: Path, moment: Callable[[Path], bool], signal_: signal.Signals, *more: str
    ) -> tuple[int, str]:
        """Run until `moment`, send the signal, and return the exit code and what stood on standard error."""
        process = subprocess.Popen(
            [sys.executable, "-c", DRIVER, str(PAUSE), *self.flags(out, *more)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
            preexec_fn=_heed_ctrl_c,  # noqa: PLW1509 - no thread of the parent holds a lock that this would need
        )  # fmt: skip
        until = time.monotonic() + PATIENCE
        while not moment(out):
            assert process.poll() is None, f"it ended first: {process.communicate()}"
            assert time.monotonic() < until, "the moment did not come"
            time.sleep(0.01)
        process.send_signal(signal_)
        _, errors = process.communicate(timeout=PATIENCE)
        return process.returncode, errors


def entries(out: Path) -> dict[str, Any]:
    path = out / "journal" / "journal.json"
    found: dict[str, Any] = json.loads(path.read_text())["entries"] if path.exists() else {}
    return found


def recovering(out: Path) -> bool:
    return (out / "journal" / "attempt 2.1.checkpoint").exists()


def epoch(out: Path, attempt: int) -> int:
    saved = load_tensors(out / "journal" / f"attempt {attempt}.last.checkpoint")
    return 0 if saved is None else int(saved[1]["epoch"])


def delivering(out: Path) -> bool:
    return (out / "predictions.npz").exists() or (out / "model.onnx").exists()


MOMENTS: list[tuple[str, Callable[[Path], bool], signal.Signals]] = [
    ("recovering", recovering, signal.SIGKILL),
    ("training", lambda out: epoch(out, 2) >= 3, signal.SIGINT),
    ("third attempt", lambda out: epoch(out, 3) >= 2, signal.SIGKILL),
    ("delivering", delivering, signal.SIGKILL),
]


@dataclass(frozen=True)
class Story:
    """What happened: the exit code and standard error at each moment, and the folder as it then was."""

    task: Task
    plain: Path
    plain_code: int
    stopped: Path
    stopped_code: int
    events: dict[str, tuple[int, str]]
    half: Path


@pytest.fixture(scope="module", autouse=True)
def _as_the_driver() -> Iterator[None]:
    """Measure as briefly, and try as few candidates, as the driver's process does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "MOST_ATTEMPTS", 3)
        patch.setattr(limits, "LEAST_ATTEMPTS", 3)
        patch.setattr(latency, "PATIENCE", 0.0)
        patch.setattr(latency, "ROUNDS", 1)
        yield


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    folder = tmp_path_factory.mktemp("resume")
    tiny().write(folder)
    task, plain, stopped, half = Task(folder), folder / "plain", folder / "stopped", folder / "half"
    plain_code = _run(task.flags(plain, "--quiet"))
    assert plain_code in (0, 1)
    events = {}
    for name, moment, signal_ in MOMENTS:
        events[name] = task.stop_at(stopped, moment, signal_, *(["--resume"] if events else []))
        assert state_of(stopped) == "interrupted", name
        if name == "training":
            shutil.copytree(stopped, half)
    stopped_code = _run(task.flags(stopped, "--resume", "--quiet"))
    return Story(task, plain, plain_code, stopped, stopped_code, events, half)


def report(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "report.json").read_text())
    return found


def files(out: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(out)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(out.rglob("*"))
        if path.is_file()
    }


def test_the_verdict_is_the_same(story: Story) -> None:
    assert story.stopped_code == story.plain_code
    plain, stopped = report(story.plain), report(story.stopped)
    for key in ("verdict", "target_met", "drop_met", "ratio", "drop", "summary", "decisions"):
        assert stopped[key] == plain[key], key


@pytest.mark.parametrize("name", ["model.onnx", "recipe.yaml", "model.safetensors", "record.json"])
def test_the_files_are_the_same_to_the_byte(story: Story, name: str) -> None:
    assert (story.stopped / name).read_bytes() == (story.plain / name).read_bytes()


def timeless(out: Path) -> list[dict[str, Any]]:
    return [{key: value for key, value in step.items() if key != "seconds"} for step in report(out)["steps"]]


def test_the_steps_are_the_same(story: Story) -> None:
    assert timeless(story.plain) == timeless(story.stopped)
    assert sum(step["epochs"] for step in timeless(story.plain)) <= 24


def test_every_epoch_is_on_the_curve_of_the_step_that_it_belongs_to(story: Story) -> None:
    trained = [step for step in timeless(story.stopped) if step["epochs"]]
    assert {step["action"] for step in trained} == {"structured-pruning", "distillation"}
    for step in trained:
        parts = {"distillation"} if step["action"] == "distillation" else {"recovery 1", "recovery 2"}
        assert {point["part"] for point in step["curve"]} <= parts
        assert len(step["curve"]) == step["epochs"]
        assert all(0 < point["quality"] <= 100 < 1e9 * point["loss"] for point in step["curve"])


def test_the_last_action_of_an_attempt_has_the_standard_error_of_its_drop(story: Story) -> None:
    errors = [step["after"].get("error") for step in timeless(story.plain) if step["action"] == "distillation"]
    assert len(errors) >= 2
    assert all(error is not None and error >= 0 for error in errors)


def test_nothing_is_left_over(story: Story) -> None:
    assert state_of(story.stopped) == "finished"
    assert files(story.stopped).keys() == files(story.plain).keys()


def test_a_kill_is_a_kill(story: Story) -> None:
    killed = [code for name, (code, _) in story.events.items() if name != "training"]
    assert killed == [-signal.SIGKILL] * 3


def test_ctrl_c_exits_130_with_one_line(story: Story) -> None:
    code, errors = story.events["training"]
    assert code == 130
    assert errors.splitlines()[-1] == "easycompress: stopped; the same command with --resume goes on"
    assert "Traceback" not in errors


def test_the_time_of_every_part_is_counted(story: Story) -> None:
    seconds = [report(out)["environment"]["seconds"] for out in (story.plain, story.stopped)]
    assert seconds[1] > seconds[0] + 3  # four more starts, and the pauses


def test_a_finished_run_repeats_its_verdict_without_work(story: Story, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(story.plain)
    assert _run(story.task.flags(story.plain, "--resume")) == story.plain_code
    assert report(story.plain)["summary"][:40] in " ".join(capsys.readouterr().out.split())
    assert files(story.plain) == before


def test_another_goal_is_not_resumed(story: Story, capsys: pytest.CaptureFixture[str]) -> None:
    for out in (story.plain, story.half):
        before = files(out)
        assert _run([*story.task.flags(out, "--resume"), "--target", "5x"]) == 2
        assert capsys.readouterr().err == (
            f"easycompress: {out}: --resume with another target than the run began with; use another -o\n"
        )
        assert {k: v for k, v in files(out).items() if k != "journal/lock"} == {
            k: v for k, v in before.items() if k != "journal/lock"
        }


def test_an_interrupted_run_is_refused_and_left_alone(story: Story, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(story.half)
    assert _run(story.task.flags(story.half)) == 2
    assert capsys.readouterr().err == (
        f"easycompress: {story.half}: an interrupted run is in there; go on with --resume, start anew with --force, "
        "or use -o\n"
    )
    assert files(story.half) == before


def test_force_starts_anew(story: Story, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(story.half, out)
    assert _run([*story.task.flags(out, "--force", "--quiet"), "--target", "1x"]) == 0
    assert state_of(out) == "finished"
    assert report(out)["request"]["target"] == "1x"
    assert not any(key.startswith("attempt") for key in entries(out))


def test_resume_on_nothing_starts(story: Story, tmp_path: Path) -> None:
    out = tmp_path / "new"
    assert _run([*story.task.flags(out, "--resume", "--quiet"), "--target", "1x"]) == 0
    assert report(out)["verdict"] == "met"


PACKED = ("--objective", "size", "--target", "max", "--max-drop", "0.5%", "--budget", "8ep", "--format", "packed")


def quick_is_judged(out: Path) -> bool:
    return "attempt 1: result" in entries(out)


def learning_goes_on(out: Path) -> bool:
    return any((out / "journal").glob("attempt *.lc.checkpoint"))


def test_codes_and_their_training_go_on_where_they_were_stopped(tmp_path: Path) -> None:
    tiny().write(tmp_path)
    task, plain, stopped = Task(tmp_path, PACKED, steps=""), tmp_path / "plain", tmp_path / "stopped"
    code = _run(task.flags(plain, "--quiet"))
    for moment in (quick_is_judged, learning_goes_on, delivering):
        more = ["--resume"] if stopped.exists() else []
        task.stop_at(stopped, moment, signal.SIGKILL, *more)
        assert state_of(stopped) == "interrupted", moment.__name__
    assert _run(task.flags(stopped, "--resume", "--quiet")) == code == 0
    for name in ("model.ecz", "model.onnx", "recipe.yaml", "model.safetensors", "record.json"):
        assert (stopped / name).read_bytes() == (plain / name).read_bytes(), name
    assert report(stopped)["ratio"] == report(plain)["ratio"] > 1
    kinds = {step["action"] for step in report(plain)["steps"]}
    assert {"entropy-quantization", "lc"} <= kinds
    assert timeless(stopped) == timeless(plain)
    curves = [step["curve"] for step in timeless(plain) if step["action"] == "lc" and step["epochs"]]
    assert curves
    for curve in curves:
        steps = [point for point in curve if point["part"] == "L step"]
        assert [point["epoch"] for point in steps] == list(range(1, len(steps) + 1))
        assert all(p["distance"] > 0 < p["mu"] and p["loss"] > 0 and p["quality"] is not None for p in steps)
        assert {point["part"] for point in curve} <= {"L step", "fine-tuning"}
