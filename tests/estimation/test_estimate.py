"""estimate() on a tiny net: its answers against what a run comes to, the command, and refusals."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

import easycompress as ec
from easycompress.cli import _run
from easycompress.estimation import bench, questions, run
from easycompress.estimation.words import chance, summary
from tests.tiny import tiny

if TYPE_CHECKING:
    from pathlib import Path

    from easycompress.estimation.outcome import Estimates


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "THOROUGH", bench.Effort(1e9, 1e12, 60))


def asked(**flags: Any) -> Estimates:
    data = tiny()
    return ec.estimate(data.model(), **{**data.splits, "max_drop": "2%", **flags})


def test_what_is_not_trained_is_measured_and_a_run_agrees() -> None:
    said = asked(target="8x", budget="none").targets[0]
    data = tiny()
    report = ec.compress(data.model(), target="8x", max_drop="2%", budget="none", **data.splits).report
    assert said.measured
    assert said.ratio == pytest.approx(report.ratio)
    assert said.drop is not None
    assert said.drop.low <= report.drop.estimate <= said.drop.high
    assert (said.chance > 0.5) == (report.verdict == "met")


def test_what_is_trained_is_extrapolated_from_short_recoveries() -> None:
    found = asked(target="4x", objective="compute", budget="6ep")
    said = found.targets[0]
    assert not said.measured
    assert said.epochs == 3
    assert "distillation" in said.plan
    assert "steps; a first attempt has 36" in said.limit
    assert said.drop is not None
    assert said.drop.low < said.drop.middle < said.drop.high
    assert found.summary == summary(found)
    assert "90 %" in found.summary


def test_a_target_beyond_everything_is_out_of_reach() -> None:
    found = asked(target="100000x", budget="none")
    assert found.targets[0].drop is None
    assert found.targets[0].chance == 0
    assert found.summary.startswith("OUT OF REACH: size 100000x within 2%; no setting of the plan reaches it")


def test_a_table_asks_every_objective(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any) -> None:
    asks = {("size", "onnx"): ("2x", "4x"), ("compute", "onnx"): ("2x",)}
    monkeypatch.setattr(run, "TARGETS", asks)
    monkeypatch.setattr(run, "FLOORS", ("1", "2"))
    monkeypatch.setattr(questions, "HALVINGS", 2)
    path = tiny().write(tmp_path)
    flags = [str(path), "--factory", f"{tmp_path / 'net.py'}:make", "--data", str(tmp_path / "data.npz")]
    assert _run(["estimate", *flags, "--budget", "none", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["schema"] == "easycompress-estimate/1"
    assert [(row["objective"], row["target"]) for row in said["targets"]] == [
        ("size", "2x"), ("size", "4x"), ("compute", "2x"),
    ]  # fmt: skip
    ratios = [row["ratio"]["middle"] for row in said["floors"] if row["objective"] == "size"]
    assert [row["floor"] for row in said["floors"]] == ["1%", "2%"] * 2
    assert ratios == sorted(ratios), "a looser floor buys no less"
    assert ratios[-1] > 4
    assert not [item for item in tmp_path.iterdir() if item.is_dir() and item.name != "__pycache__"], "nothing written"


def test_one_answer_is_one_sentence_on_the_screen(tmp_path: Path, capsys: Any) -> None:
    path = tiny().write(tmp_path)
    flags = [str(path), "--factory", f"{tmp_path / 'net.py'}:make", "--data", str(tmp_path / "data.npz")]
    assert _run(["estimate", *flags, "--target", "max", "--max-drop", "2%", "--budget", "none", "--quiet"]) == 0
    out = capsys.readouterr().out.strip()
    assert out.startswith("within 2% size gets to ")
    assert "\n" not in out


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        ({"objective": "speed"}, "--objective speed: unknown"),
        ({"recipe": "recipe.yaml"}, "--recipe says what to do already"),
        ({"target": "ten"}, "--target ten: not a target"),
    ],
)
def test_refusals_are_one_line(flags: dict[str, Any], text: str) -> None:
    with pytest.raises(ec.BadInput, match=text) as refusal:
        asked(**flags)
    assert "\n" not in str(refusal.value)


def test_without_data_nothing_can_be_predicted() -> None:
    with pytest.raises(ec.BadInput, match="no data given, so no drop can be predicted; add --data"):
        ec.estimate(tiny().model(), target="4x")


def test_chances_near_certainty_are_not_told_apart() -> None:
    assert [chance(value) for value in (0.0, 0.5, 0.995, 1.0)] == ["< 1 %", "50 %", "> 99 %", "> 99 %"]
