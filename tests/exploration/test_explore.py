"""The whole way: points, kept and taken up again, files, and a point that becomes a result."""

from __future__ import annotations

import csv
import io
import json
import sys
import types
from typing import TYPE_CHECKING, Any

import onnx
import pytest
import torch
from explored import Heard, points_of

from easycompress import BadInput, explore
from easycompress.artifact.container import read_ecz
from easycompress.core.request import Request
from easycompress.executor.workshop import Workshop
from easycompress.exploration import crew
from easycompress.exploration.cluster import hired
from easycompress.exploration.plan import Point
from easycompress.exploration.points import Bench
from easycompress.techniques import parse_action

if TYPE_CHECKING:
    from pathlib import Path

    from explored import Explored

    from easycompress.core.plan import Action
    from easycompress.exploration.points import Row


def numbers(rows: Any) -> list[dict[str, Any]]:
    """Rows without how long they took."""
    return [row.model_dump(exclude={"seconds"}) for row in sorted(rows, key=lambda row: row.key)]


def test_every_point_is_measured_from_its_files(explored: Explored) -> None:
    out, rows = explored.found.out, explored.found.rows
    assert {(row.curve, row.label) for row in rows} == {
        ("quantize", "k=8"), ("quantize", "k=2"), ("int8", "static int8"), ("structured", "50% of channels")
    }  # fmt: skip
    for row in rows:
        folder = out / "points" / row.key / "journal"
        assert row.size_bytes == (folder / "attempt 1.onnx").stat().st_size
        assert row.packed_bytes == (folder / "attempt 1.ecz").stat().st_size
        assert row.drop is not None
        assert row.drop.estimate == pytest.approx(explored.found.original.quality - row.quality)
        assert row.epochs == (0 if row.curve == "int8" else 1)
        assert row.loss is not None
    by_label = {row.label: row for row in rows}
    assert by_label["k=2"].size_bytes < by_label["k=8"].size_bytes < explored.found.original.size_bytes
    assert by_label["50% of channels"].macs < explored.found.original.macs == by_label["k=2"].macs
    assert by_label["k=2"].papers["rho_storage_formula"] > by_label["k=8"].papers["rho_storage_formula"] > 8


def test_ratios_are_those_of_bytes(explored: Explored) -> None:
    for each in explored.found.standings:
        assert each.ratios["size"] == explored.found.original.size_bytes / each.row.size_bytes
        assert each.ratios["packed"] == explored.found.original.size_bytes / each.row.packed_bytes


@pytest.mark.usefixtures("nothing_is_made")
def test_finished_points_are_not_measured_again(explored: Explored) -> None:
    heard = Heard()
    assert numbers(explored.again(progress=heard).rows) == numbers(explored.found.rows)
    assert "4 points are known already" in heard.facts


def test_other_epochs_are_other_points_but_of_what_is_not_trained(explored: Explored, tmp_path: Path) -> None:
    begun = explored.again(epochs=2, out=tmp_path / "out", budget="none")
    assert [row.label for row in begun.rows] == ["static int8"]
    assert begun.missing == 0  # what learns was not asked for
    assert points_of(tmp_path / "out") == [row.key for row in explored.found.rows if row.curve == "int8"]


def test_the_report_split_is_no_part_of_a_point(explored: Explored) -> None:
    inputs, targets = explored.task.splits["test"]
    spoilt = (torch.zeros_like(inputs), targets)
    assert numbers(explored.again(test=spoilt).rows) == numbers(explored.found.rows)


def test_a_point_that_fails_is_a_row_and_is_tried_again(
    explored: Explored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no luck")

    with monkeypatch.context() as patch:
        patch.setattr(Workshop, "_attempt", fail)
        broken = explored.again(out=tmp_path / "out", curves="int8")
    assert [(row.measured, row.reason) for row in broken.rows] == [(False, "RuntimeError: no luck")]
    assert "no luck" in (tmp_path / "out" / "curves.json").read_text()
    assert broken.standings == ()
    mended = explored.again(out=tmp_path / "out", curves="int8")
    assert [row.measured for row in mended.rows] == [True]


def test_a_stopped_run_goes_on(explored: Explored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    began: list[str] = []
    measure = Bench.measure

    def stopping(bench: Bench, point: Any, key: str) -> Any:
        if len(began) == 1:
            raise KeyboardInterrupt
        began.append(key)
        return measure(bench, point, key)

    with monkeypatch.context() as patch:
        patch.setattr(Bench, "measure", stopping)
        with pytest.raises(KeyboardInterrupt):
            explored.again(out=tmp_path / "out", curves=["int8", "quantize"])
    assert points_of(tmp_path / "out") == began
    heard = Heard()
    explored.again(out=tmp_path / "out", curves=["int8"], progress=heard)
    assert "1 points are known already" in heard.facts


def test_time_that_is_over_leaves_points_out(explored: Explored, tmp_path: Path) -> None:
    heard = Heard()
    found = explored.again(out=tmp_path / "out", budget="0.001s", progress=heard)
    assert (found.missing, found.rows) == (4, ())
    assert any("4 of 4 points are missing" in fact for fact in heard.facts)


def test_another_process_comes_to_the_same(explored: Explored, tmp_path: Path) -> None:
    known = next(row for row in explored.found.rows if row.label == "k=2")
    splits = tuple(explored.task.splits[name] for name in ("train", "validation", "test"))
    request = Request(model="tiny", target="max", max_drop="0", budget="none")
    spec = crew.Spec(explored.task.model(), request, tmp_path, splits, 1, 1, tmp_path)
    made = crew.Processes(spec, 1)
    try:
        made.give((Point("curves", known.curve, known.label, known.level, known.amount, actions_of(known)), known.key))
        assert numbers([made.next()]) == numbers([known])
    finally:
        made.close()


def actions_of(row: Row) -> tuple[Action, ...]:
    return tuple(parse_action(action) for action in row.actions)


def test_a_process_that_dies_costs_its_point(explored: Explored, tmp_path: Path) -> None:
    spec = crew.Spec(explored.task.model(), None, tmp_path, (), 1, 1, tmp_path)  # type: ignore[arg-type]
    with hired(spec, 2, None, None) as made:  # type: ignore[arg-type]  # never asked
        point = Point("curves", "int8", "static int8", 0, 0.0, ())
        made.give((point, "abc"))
        for worker in list(made.busy):  # type: ignore[attr-defined]  # a Processes
            worker.process.kill()
        row = made.next()
    assert not row.measured
    assert "its process ended with -9" in row.reason


# ---------------------------------------------------------------- files


def test_the_csv_has_the_original_and_every_point(explored: Explored) -> None:
    rows = list(csv.DictReader(io.StringIO((explored.found.out / "curves.csv").read_text())))
    assert [row["part"] for row in rows] == ["original"] + ["curves"] * 4
    assert float(rows[0]["ratio_size"]) == 1
    assert [row["label"] for row in rows if row["curve"] == "quantize"] == ["k=8", "k=2"]
    assert {row["key"] for row in rows[1:]} == {row.key for row in explored.found.rows}


def test_the_json_says_what_was_asked_and_found(explored: Explored) -> None:
    data = json.loads((explored.found.out / "curves.json").read_text())
    assert data["schema"] == "easycompress-explore/1"
    assert (data["epochs"], data["floor"]["text"], data["metric"]["name"]) == (1, "5%", "accuracy")
    assert len(data["points"]) == 4
    assert all(point["ratios"]["size"] > 1 for point in data["points"])


# ---------------------------------------------------------------- picking


@pytest.mark.usefixtures("nothing_is_made")
def test_a_picked_point_is_a_result_with_a_verdict(explored: Explored) -> None:
    found = explored.again(pick="best")
    assert found.picked is not None
    report, standing = found.picked.report, found.picked.standing
    data = json.loads((found.picked.out / "report.json").read_text())
    assert (report.verdict, found.exit_code) == ("met", 0)
    assert data["ratio"] == pytest.approx(standing.ratios["size"])
    assert data["steps"][-1]["after"]["objective"] == standing.row.size_bytes
    assert data["drop"]["n"] == 2000  # all of *report*, and only here
    assert "picked from an exploration" in " ".join(data["plan"]["notes"])
    assert (found.picked.out / "model.onnx").stat().st_size == standing.row.size_bytes
    onnx.checker.check_model(onnx.load(str(found.picked.out / "model.onnx")))
    kept = explored.found.standings
    others = [e for e in kept if e.row.drop.estimate + (e.row.error or 0) <= 5]
    assert standing.ratios["size"] == max(each.ratios["size"] for each in others)


@pytest.mark.usefixtures("nothing_is_made")
def test_a_ratio_is_a_target_and_takes_the_best_quality_beyond_it(explored: Explored) -> None:
    found = explored.again(pick="6x", max_drop="40%")
    assert found.picked is not None
    beyond = [each for each in explored.found.standings if each.ratios["size"] >= 6]
    assert found.picked.standing.row.quality == max(each.row.quality for each in beyond)
    assert found.picked.report.request["target"] == "6x"
    assert found.picked.report.target_met


@pytest.mark.usefixtures("nothing_is_made")
def test_a_key_is_taken_whatever_it_costs_and_judged(explored: Explored) -> None:
    worst = max(explored.found.standings, key=lambda each: each.row.drop.estimate)
    found = explored.again(pick=worst.row.key[:8], max_drop="0%", format="packed")
    assert found.picked is not None
    report = found.picked.report
    assert report.ratio == pytest.approx(worst.ratios["packed"])
    assert found.exit_code == (0 if report.drop.estimate <= 0 else 1)
    assert read_ecz(found.picked.out / "model.ecz")


def test_latency_is_a_paired_ratio_that_is_kept(explored: Explored, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def timed(_before: Path, after: Path, *_: object) -> tuple[float, float]:
        asked.append(after.parent.parent.name)
        return 1.0, 2.0

    monkeypatch.setattr("easycompress.exploration.work.latency_ratio", timed)
    found = explored.again(latency=True)
    assert sorted(asked) == sorted(row.key for row in found.rows)
    assert {each.ratios["latency"] for each in found.standings} == {2.0}
    assert len(json.loads((found.out / "latency.json").read_text())) == 4
    explored.again(latency=True)
    assert len(asked) == 4
    (found.out / "latency.json").unlink()


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"curves": "quantise"}, "--curves quantise: no such curve; did you mean quantize?"),
        ({"epochs": 0}, "--epochs 0: every point that learns needs at least 1"),
        ({"workers": 0}, "--workers 0: at least 1"),
        ({"budget": "30ep"}, "--budget 30ep: explore takes a time"),
        ({"pick": "zzz"}, "--pick zzz: no point of that key"),
        ({"pick": "900x"}, "--pick 900x: no point goes that far; the furthest is"),
        ({"pick": "best", "objective": "latency"}, "--pick best: no point has a ratio of latency; add --latency"),
        ({"pick": "best", "objective": "energy"}, "--objective energy: explore measures size, compute and latency"),
        ({"train": None, "validation": None, "test": None}, "explore: no data given"),
        ({"colour": "red"}, "no keyword 'colour'"),
    ],
)
@pytest.mark.usefixtures("nothing_is_made")
def test_senseless_requests_are_one_line(explored: Explored, changes: dict[str, Any], text: str) -> None:
    with pytest.raises(BadInput) as caught:
        explored.again(**changes)
    assert text in str(caught.value)


def test_a_folder_with_other_files_is_refused(explored: Explored, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(BadInput, match=r"holds other files \(thesis.tex\)"):
        explored.again(out=tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "mine"


def test_without_ray_the_line_says_how_to_get_it(
    explored: Explored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(BadInput, match=r'pip install "easycompress\[scale\]"'):
        explored.again(out=tmp_path / "out", ray="local")


class FakeRay(types.ModuleType):
    """Ray in this process: a task is a closure, run when it is asked for. The first measurement is lost."""

    def __init__(self) -> None:
        super().__init__("ray")
        lost, task = type("RayError", (Exception,), {}), type("RayTaskError", (Exception,), {"cause": None})
        self.exceptions = types.SimpleNamespace(RayError=lost, RayTaskError=task)
        self.asked: list[Any] = []
        self.ended = 0

    def init(self, **where: Any) -> None:
        self.asked.append(where)

    def put(self, value: Any) -> Any:
        return value

    def remote(self, **_: Any) -> Any:
        def wrap(cls: Any) -> Any:
            class Handle:
                def __init__(self, *values: Any) -> None:
                    inner = cls(*values)
                    self.measure = types.SimpleNamespace(remote=lambda job: lambda: inner.measure(job))
                    self.ready = types.SimpleNamespace(remote=lambda: inner.ready)

            return types.SimpleNamespace(remote=Handle)

        return wrap

    def wait(self, tasks: list[Any], num_returns: int) -> tuple[list[Any], list[Any]]:
        return tasks[:num_returns], tasks[num_returns:]

    def get(self, task: Any) -> Any:
        self.asked.append("start" if getattr(task, "__name__", "") == "ready" else "task")
        if self.asked[-1] == "task" and self.asked.count("task") == 1:
            raise self.exceptions.RayError("the node is gone")
        return task()

    def shutdown(self) -> None:
        self.ended += 1


def test_ray_measures_the_same_and_a_lost_point_anew(
    explored: Explored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", fake)
    found = explored.again(out=tmp_path / "out", curves="int8,structured", budget="none", ray="head:6379")
    assert numbers(found.rows) == numbers(row for row in explored.found.rows if row.curve == "int8")
    assert fake.asked.count("task") == len(found.rows) + 1
    again = explored.again(out=tmp_path / "out", curves="int8", budget="none", ray="head:6379")
    assert numbers(again.rows) == numbers(row for row in explored.found.rows if row.curve == "int8")
    assert fake.asked[0]["address"] == "head:6379"
    assert fake.ended == 1, "the second time all was known"


def test_a_cluster_that_does_not_answer_is_one_line(
    explored: Explored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeRay()

    def refuse(**_: Any) -> None:
        raise Exception("timed out")  # noqa: TRY002 - as Ray does

    fake.init = refuse  # type: ignore[method-assign]
    monkeypatch.setitem(sys.modules, "ray", fake)
    with pytest.raises(BadInput, match=r"--ray head:1: no cluster answers \(timed out\)"):
        explored.again(out=tmp_path / "out", curves="int8", ray="head:1")


def test_the_command_line_ends_as_the_picked_result_does(
    explored: Explored, capsys: pytest.CaptureFixture[str]
) -> None:
    from easycompress import cli  # noqa: PLC0415 - one use

    assert cli._run(["explore", "net.pt", "--budget", "9ep"]) == 2
    assert "--budget 9ep: explore takes a time" in capsys.readouterr().err
    assert explored.found.exit_code == 0
    assert explore.__module__ == "easycompress.exploration.run"
