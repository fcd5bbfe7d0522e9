"""The terminal's words, its columns, and the one sentence that every face repeats."""

from __future__ import annotations

import io
import math
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from easycompress.artifact.rows import TensorRow
from easycompress.core.errors import BadInput
from easycompress.core.goal import Objective, parse_target
from easycompress.core.outcome import Drop, Latency, Report, Verdict
from easycompress.core.plan import Action, Decision, Plan
from easycompress.core.profile import LayerProfile, ModelProfile
from easycompress.metrics import METRICS
from easycompress.report import units
from easycompress.report.columns import Column, table, wrapped
from easycompress.report.reading import compared, disturbed_words, goal_words, read
from easycompress.report.sentence import sentence
from easycompress.report.terminal import MOST_LAYERS, Screen, Terminal

if TYPE_CHECKING:
    from easycompress.report.brief import Brief


def screen(width: int = 80, *, tty: bool = True) -> Console:
    """A console that writes into memory; without colours, so that texts can be compared."""
    return Console(
        file=io.StringIO(), width=width, force_terminal=tty, no_color=True, color_system=None, legacy_windows=False
    )


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def verdict(**changes: Any) -> str:
    objective: Objective = changes.pop("objective", "size")
    drop = {"estimate": 0.12, "upper_95": 0.35, "n": 5000, "worse": 14, "better": 8, "certified": True}
    given: dict[str, Any] = {
        "before": 1_725_832.0,
        "after": 167_552.0,
        "ratio": 10.3003,
        "allowed": 1.0,
        "verdict": "met",
        "percent": True,
    }
    drop |= {key: changes.pop(key) for key in list(changes) if key in Drop.model_fields}
    target = parse_target(changes.pop("target", "10x"), objective)
    return sentence(objective=objective, target=target, drop=Drop.model_validate(drop), **(given | changes))


@pytest.mark.parametrize("result", ["met", "target-missed", "floor-missed"])
def test_an_estimate_is_called_one(result: str) -> None:
    energy = {"objective": "energy", "before": 2.0, "after": 1.0, "ratio": 2.0, "verdict": result}
    assert "2 mJ -> 1 mJ, estimated" in verdict(estimated=True, **energy)
    assert "estimated" not in verdict(**energy)


class Settings(Action):
    kind: str = "structured-pruning"
    strategy: str = "global"


@pytest.mark.parametrize(
    ("got", "expected"),
    [
        (units.size(812), "812 B"),
        (units.size(167_552), "168 KB"),
        (units.size(999_600), "1.00 MB"),
        (units.size(1_725_832), "1.73 MB"),
        (units.milliseconds(0.058), "0.0580 ms"),
        (units.milliseconds(1200), "1.20 s"),
        (units.macs(40_123_000), "40.1 MMACs"),
        (units.energy(0.79), "0.790 mJ"),
        (units.energy(4100), "4.10 J"),
        (units.quality(99.184, percent=True), "99.18 %"),
        (units.quality(3.21444, percent=False), "3.214"),
        (units.quality(math.nan, percent=True), "n/a"),
        (units.quality(None, percent=False), "n/a"),
        (units.ratio(10.3), "10.3x"),
        (units.ratio(9.996), "9.99x"),
        (units.ratio(10.0), "10.0x"),
        (units.ratio(4), "4.00x"),
        (units.ratio(0.98), "0.980x"),
        (units.ratio(1030.9), "1 030x"),
        (units.drop(0.42, percent=True), "0.42 points"),
        (units.drop(-0.1, percent=True), "better by 0.10 points"),
        (units.drop(0.00421, percent=False), "0.00421"),
        (units.number(1.23e-7), "1.23e-07"),
        (units.number(0), "0"),
        (units.seconds(0.42), "0.420 s"),
        (units.seconds(12), "12.0 s"),
        (units.seconds(59.97), "1 min 00 s"),
        (units.seconds(185), "3 min 05 s"),
        (units.seconds(4320), "1 h 12 min"),
        (units.count(1_725_832), "1 725 832"),
        (units.settings({"kind": "x", "strength": 0.45, "epochs": None, "steps": 3}), "strength 0.45, steps 3"),
    ],
)
def test_numbers_for_people(got: str, expected: str) -> None:
    assert got == expected


def test_two_qualities_that_differ_never_read_alike() -> None:
    assert units.apart(1.004, 1.0, percent=True) == ("1.004", "1.000")
    assert units.apart(0.42, 1.0, percent=True) == ("0.42", "1.00")
    assert units.apart(1.0, 1.0, percent=True) == ("1.00", "1.00")


def test_sentence_when_met() -> None:
    assert verdict() == (
        "MET: 10.3x smaller (1 725 832 -> 167 552 bytes), drop 0.12 points (floor 1.00), "
        "at most 0.35 with 95 % confidence on 5 000 samples"
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"verdict": "target-missed", "target": "1000x", "ratio": 24.1, "after": 71_611.0, "why": "8 bits are left"},
            (
                "TARGET MISSED: the most within the floor is 24.1x of 1000x; 1 725 832 -> 71 611 bytes, "
                "drop 0.12 points (floor 1.00), at most 0.35 with 95 % confidence on 5 000 samples; 8 bits are left"
            ),
        ),
        (
            {"verdict": "target-missed", "target": "95%"},
            (
                "TARGET MISSED: the most within the floor is 10.3x of 20.0x (95%); 1 725 832 -> 167 552 bytes, "
                "drop 0.12 points (floor 1.00), at most 0.35 with 95 % confidence on 5 000 samples"
            ),
        ),
        (
            {"verdict": "target-missed", "target": "50KB"},
            (
                "TARGET MISSED: the most within the floor is 10.3x: 168 KB instead of 50KB; "
                "1 725 832 -> 167 552 bytes, drop 0.12 points (floor 1.00), "
                "at most 0.35 with 95 % confidence on 5 000 samples"
            ),
        ),
        (
            {"verdict": "floor-missed", "estimate": 1.004, "upper_95": 1.9},
            (
                "FLOOR MISSED: drop 1.004 points (floor 1.000), at most 1.90 with 95 % confidence on 5 000 samples; "
                "10.3x smaller (1 725 832 -> 167 552 bytes)"
            ),
        ),
        (
            {"verdict": "undecided", "upper_95": 1.35, "n": 1000, "needed": 4200},
            (
                "UNDECIDED: 10.3x smaller (1 725 832 -> 167 552 bytes), drop 0.12 points (floor 1.00), "
                "but at most 1.35 with 95 % confidence on 1 000 samples; about 4 200 samples would decide"
            ),
        ),
        (
            {"verdict": "undecided", "upper_95": None, "n": 1000, "worse": 3, "better": 1, "target": "20x"},
            (
                "UNDECIDED: 10.3x smaller (1 725 832 -> 167 552 bytes), 10.3x of 20x, drop 0.12 points (floor 1.00), "
                "but without a bound (only 4 changed) on 1 000 samples; more samples would give one"
            ),
        ),
        (
            {"verdict": "undecided", "upper_95": 1.35},
            (
                "UNDECIDED: 10.3x smaller (1 725 832 -> 167 552 bytes), drop 0.12 points (floor 1.00), "
                "but at most 1.35 with 95 % confidence on 5 000 samples; "
                "no number of samples would decide: allow a larger drop or ask for less"
            ),
        ),
        (
            {"estimate": -0.1, "upper_95": -0.02, "target": "max"},
            (
                "MET: 10.3x smaller (1 725 832 -> 167 552 bytes), the most within the floor, better by 0.10 points "
                "(floor 1.00), better by at least 0.02 with 95 % confidence on 5 000 samples"
            ),
        ),
        (
            {"objective": "latency", "before": 5.6, "after": 1.4, "ratio": 4.0, "target": "2ms"},
            (
                "MET: 4.00x faster (5.60 ms -> 1.40 ms) for 2ms, drop 0.12 points (floor 1.00), "
                "at most 0.35 with 95 % confidence on 5 000 samples"
            ),
        ),
        (
            {"after": 1_725_832.0, "ratio": 1.0, "target": "2MB"},
            "MET: nothing was compressed, the original's 1.73 MB already meet the target 2MB",
        ),
        (
            {"after": 1_725_832.0, "ratio": 1.0, "target": "max", "verdict": "target-missed"},
            "TARGET MISSED: nothing within the floor improves on the original's 1.73 MB",
        ),
    ],
)
def test_sentence_of_other_ends(changes: dict[str, Any], expected: str) -> None:
    assert verdict(**changes) == expected


def test_a_ratio_below_one_is_not_called_smaller() -> None:
    assert "1.25x larger" in verdict(after=2_157_290.0, ratio=0.8, verdict="floor-missed")


def test_sentence_is_one_line_whatever_the_reason() -> None:
    assert "\n" not in verdict(verdict="target-missed", why="first\n  second")
    assert verdict(verdict="target-missed", why="first\n  second").endswith("; first second")


@pytest.mark.parametrize("label", ["met", "target-missed", "floor-missed", "undecided"])
def test_closing_ends_with_the_verdict(report: Report, label: Verdict) -> None:
    console = screen(tty=False)
    summary = report.summary.replace("MET", label.upper())
    Terminal(console=console).closing(report.model_copy(update={"verdict": label, "summary": summary}))
    lines = written(console).splitlines()
    assert lines[-1] == summary
    assert any(line.startswith("bytes") and line.split()[-1] == "10.3x" for line in lines)
    assert any(line.startswith("energy (estimated)") for line in lines)
    assert any(line.startswith("latency, batch 64, 2 threads") for line in lines)


def test_quiet_leaves_the_verdict_alone(report: Report) -> None:
    console = screen(tty=False)
    with Terminal(quiet=True, console=console) as terminal:
        terminal.say("baseline measured")
        terminal.now("pruning")
        terminal.closing(report)
    assert written(console) == report.summary + "\n"


def test_progress_without_a_tty_tells_what_begins_and_what_is_finished() -> None:
    console = screen(tty=False)
    with Terminal(console=console) as terminal:
        terminal.now("measuring the original")
        terminal.say("kept [bold]models/a.pt2[/bold] :smile: " + "long " * 30)
        terminal.now("attempt 1: structured-pruning (strength 0.5)")
        for epoch in range(1, 4):
            terminal.now(f"distillation (soft): epoch {epoch}/3, loss 0.1")
        terminal.say("attempt 1: 3.00x: rejected")
        terminal.now("attempt 2: structured-pruning\n (strength 0.25)")
        terminal.now("distillation (soft): epoch 1/3, loss 0.2")
    assert written(console).splitlines() == [
        "kept [bold]models/a.pt2[/bold] :smile: " + "long " * 30,
        "attempt 1: structured-pruning (strength 0.5)",
        "distillation (soft): epoch 1/3, loss 0.1",
        "attempt 1: 3.00x: rejected",
        "attempt 2: structured-pruning (strength 0.25)",
        "distillation (soft): epoch 1/3, loss 0.2",
    ]


def test_a_pipe_gets_nothing_before_the_first_fact() -> None:
    console = screen(tty=False)
    with Terminal(console=console) as terminal:
        terminal.now("measuring the original")
        terminal.now("attempt 1: static-int8")
    assert written(console) == "", "a refusal is to be the only line"


def test_quiet_progress_is_silent_in_a_pipe_too() -> None:
    console = screen(tty=False)
    with Terminal(quiet=True, console=console) as terminal:
        terminal.now("attempt 1: static-int8")
    assert written(console) == ""


def test_progress_on_a_tty_is_one_line_that_is_replaced_and_taken_away() -> None:
    console = screen()
    with Terminal(console=console) as terminal:
        terminal.now("trying strength 0.5")
        terminal.say("strength 0.5 is within the floor")
        terminal.now("trying strength 0.75 " + "x" * 200)
    text = written(console)
    assert "strength 0.5 is within the floor" in text
    assert "trying strength 0.5" in text
    assert "x" * 80 not in text
    assert "\x1b[?25h" in text, "the cursor comes back"


def test_a_reader_that_leaves_does_not_end_the_run() -> None:
    code = (
        "import os, sys\n"
        "from easycompress.report.terminal import Terminal\n"
        "reading, writing = os.pipe()\n"
        "os.close(reading)\n"
        "os.dup2(writing, 1)\n"
        "terminal = Terminal()\n"
        "terminal.say('one')\n"
        "terminal.say('two')\n"
        "os.write(2, b'went on')\n"
        "os._exit(0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "went on")


def test_a_screen_without_the_letters_does_not_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    Terminal(console=Screen()).say("drop ≤ 1")
    sys.stdout.flush()
    assert raw.getvalue() == b"drop ? 1\n"


@pytest.mark.parametrize("width", [80, 120])
def test_plan_view_fits_and_says_everything(
    width: int, profile: ModelProfile, decisions: tuple[Decision, ...], report: Report, brief: Brief
) -> None:
    console = screen(width)
    notes = tuple(report.plan["notes"])
    Terminal(console=console).plan_view(Plan(steps=(Settings(),), decisions=decisions, notes=notes), profile, brief)
    text = written(console)
    assert max(map(len, text.splitlines())) <= width
    flat = " ".join(text.split())
    for decision in decisions:
        assert f"{decision.rule} {decision.question} -> {decision.answer} {decision.evidence}" in flat
    assert "1 structured-pruning (strategy global)" in flat
    assert all(note in flat for note in (*brief.notes, *notes))
    assert "linear 94.1 % 17.7 %" in flat
    assert "conv2 Conv2d 25 050 5.8 % 1.60 MMACs 69.8 %" in flat


def test_plan_view_begins_with_the_task(profile: ModelProfile, brief: Brief) -> None:
    console = screen()
    Terminal(console=console).plan_view(Plan(steps=(), decisions=()), profile, brief)
    assert written(console).splitlines()[1:12] == [
        "Task",
        "             Asked                  Given",
        "-" * 73,
        "size         10x smaller            1 725 832 -> 172 583 bytes",
        "accuracy     at most 1 point lower  99.14 % on select, floor 98.14 %",
        "budget       20min                  about 31 epochs of the original model",
        "backend      cpu                    latency at batch 1, 2 threads",
        "train                               50 000 samples",
        "calibration                         1 024 samples of train",
        "select                              5 000 samples",
        "report                              10 000 samples",
    ]


def test_plan_view_shows_what_is_tried_first(profile: ModelProfile, brief: Brief) -> None:
    console = screen(tty=False)
    quick = Plan(steps=(Settings(),), decisions=(), quick=(Settings(strategy="linear"),))
    Terminal(quiet=True, console=console).plan_view(quick, profile, brief)
    assert written(console) == (
        "\nSteps tried first, without training\n1     structured-pruning (strategy linear)\n"
        "\nSteps\n1     structured-pruning (strategy global)\n"
    )


def test_plan_view_sums_what_it_leaves_out(brief: Brief) -> None:
    layers = tuple(
        LayerProfile(name=f"encoder.layer.{i}.attention.self.query", type="Linear", family="linear", params=i, macs=i)
        for i in range(1, 21)
    )
    profile = ModelProfile(
        architecture="transformer",
        layers=layers,
        params=210,
        macs=210,
        has_batch_norm=False,
        input_shape=(8,),
        outputs=2,
    )
    console = screen(60)
    Terminal(console=console).plan_view(Plan(steps=(), decisions=()), profile, brief)
    lines = written(console).splitlines()
    assert max(map(len, lines)) <= 60
    assert f"{20 - MOST_LAYERS} smaller ones" in written(console)
    assert sum("self.query" in line for line in lines) == MOST_LAYERS
    assert any("none: nothing would be changed" in line for line in lines)


def test_quiet_plan_is_its_steps(profile: ModelProfile, brief: Brief) -> None:
    console = screen(tty=False)
    plan = Plan(steps=(Settings(),), decisions=(), notes=("a note",))
    Terminal(quiet=True, console=console).plan_view(plan, profile, brief)
    assert written(console) == "\nSteps\n1     structured-pruning (strategy global)\n"


def test_inspect_view_states_totals_and_overhead() -> None:
    rows = [
        TensorRow(
            "bert.encoder.layer.11.attention.self.query.weight", "codebook 1 bit + sparse", (768, 768), 1.24, 91_423
        ),
        TensorRow("scale", "dense", (), 32.0, 4),
    ]
    console = screen(80)
    Terminal(console=console).inspect_view(rows, 100_000)
    lines = written(console).splitlines()
    assert max(map(len, lines)) <= 80
    assert any("self.query.weight" in line and line.endswith("768x768         1.24  91 423") for line in lines)
    assert lines[-3].split() == ["total", "2", "tensors", "589", "825", "1.24", "91", "427"]
    assert lines[-1] == "file 100 000 bytes, overhead 8 573 bytes (8.6 %): graph and header"
    piped = screen(80, tty=False)
    Terminal(console=piped).inspect_view(rows, 100_000)
    assert rows[0].name in written(piped)


def test_inspect_view_of_an_empty_file() -> None:
    console = screen()
    Terminal(console=console).inspect_view([], 0)
    assert "overhead 0 bytes (n/a)" in written(console)


def test_columns_cut_names_and_never_numbers() -> None:
    columns = (Column("Name", cut="start"), Column("Bytes", right=True))
    text = table(columns, [("abcdefghijklmnopqrstuvwxyz", "1 234 567")], 24).plain.splitlines()
    assert text[2] == "...qrstuvwxyz  1 234 567"
    narrow = table(columns, [("abcdefghijklmnopqrstuvwxyz", "1 234 567")], 5).plain.splitlines()
    assert narrow[2] == "...vwxyz  1 234 567"


def test_wrapping_keeps_thousands_together() -> None:
    assert wrapped("on 5 000 samples", 10) == "on 5 000\nsamples"
    assert wrapped("on five 5 000 samples", 9) == "on five\n5 000\nsamples"


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ({}, "10x smaller, accuracy at most 1 point lower"),
        ({"target": "90%", "max_drop": "0.5"}, "90% smaller, accuracy at most 0.5 points lower"),
        (
            {"target": "max", "max_drop": "1%rel"},
            "as much smaller as the floor permits, accuracy at most 1% of the original's lower",
        ),
        ({"target": "120KB", "max_drop": None, "min_quality": "98%"}, "at most 120KB, accuracy at least 98%"),
        (
            {"objective": "latency", "target": "2x", "certify": True},
            "2x less time, accuracy at most 1 point lower, at 95 % confidence",
        ),
        ({"metric": "mse", "max_drop": "0.02"}, "10x smaller, mse at most 0.02 higher"),
    ],
)
def test_the_goal_in_words(report: Report, request_: dict[str, Any], expected: str) -> None:
    level = report.drop.model_copy(update={"estimate": 0.0})
    metric = METRICS[request_.get("metric", "accuracy")]
    facts = {"name": metric.name, "percent": metric.percent, "higher_is_better": metric.higher_is_better}
    profile = report.profile | {"metric": facts}
    asked = report.model_copy(update={"request": report.request | request_, "drop": level, "profile": profile})
    assert goal_words(read(asked)) == expected


def test_the_report_says_which_way_is_better(report: Report) -> None:
    reading = read(report)
    assert (reading.higher_is_better, reading.allowed, reading.before, reading.after) == (True, 1.0, 1_725_832, 167_552)
    facts = {"name": "task.py:error", "percent": False, "higher_is_better": False}
    request = report.request | {"metric": "task.py:error", "max_drop": "0.5"}
    lower = read(report.model_copy(update={"request": request, "profile": report.profile | {"metric": facts}}))
    assert not lower.higher_is_better


def test_a_report_that_is_silent_on_its_metric_is_refused(report: Report) -> None:
    profile = {key: value for key, value in report.profile.items() if key != "metric"}
    with pytest.raises(BadInput) as caught:
        read(report.model_copy(update={"profile": profile}))
    assert str(caught.value) == (
        "report.json: its profile has no metric, so an earlier version wrote it; compress anew"
    )


def test_each_objective_has_its_numbers(report: Report) -> None:
    def values(**request: Any) -> tuple[float, float]:
        reading = read(report.model_copy(update={"request": report.request | request}))
        return reading.before, reading.after

    assert values(objective="latency", batch=64) == (5.61, 1.18)
    assert values(objective="latency", batch=3) == (0.0581, 0.0322)
    assert values(objective="compute") == (2_293_000, 1_110_200)
    assert values(objective="energy") == (1.43, 0.79)


def test_a_gain_in_quality_is_called_better(report: Report) -> None:
    gain = report.model_copy(update={"drop": report.drop.model_copy(update={"estimate": -0.1})})
    assert compared(gain, read(report))[0].change == "better by 0.10"


def latencies(*taken: float | None) -> tuple[Latency, ...]:
    return tuple(
        Latency(batch=batch, median=1.0, iqr=0.1, threads=2, runs=60, taken=cores)
        for batch, cores in enumerate(taken, 1)
    )


@pytest.mark.parametrize("taken", [(), (None,), (0.0, 0.2)])
def test_nothing_is_said_of_a_quiet_machine(taken: tuple[float | None, ...]) -> None:
    assert disturbed_words(latencies(*taken)) == ""


def test_what_was_taken_while_latency_was_measured_is_told_once(report: Report) -> None:
    final = report.final.model_copy(update={"latency_ms": latencies(0.1, 0.94, None)})
    told = disturbed_words(final.latency_ms)
    assert told == (
        "while latency was measured other processes took 0.9 cores from the model's 2 threads: on a quiet machine it "
        "may come out otherwise"
    )
    for summary in (report.summary, f"{report.summary}; {told}"):
        console = screen(tty=False)
        Terminal(console=console).closing(report.model_copy(update={"final": final, "summary": summary}))
        assert written(console).count(told) == 1
