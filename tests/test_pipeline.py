"""The whole way, on a tiny task: what was asked, what the files are, what the report says of them."""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pytest
import yaml
from tiny import Tiny, tiny

from easycompress import Result, compress, load
from easycompress.artifact.container import ecz_rows, read_ecz
from easycompress.artifact.inspection import inspect_onnx
from easycompress.artifact.onnx_export import export
from easycompress.artifact.slim import slim
from easycompress.artifact.write import unpacked
from easycompress.executor import search
from easycompress.executor.clock import Clock
from easycompress.measure import latency

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

TOP_LEVEL = [
    "schema", "request", "environment", "profile", "decisions", "plan", "steps", "baseline", "final", "ratio", "drop",
    "target_met", "drop_met", "verdict", "summary", "artifacts",
]  # fmt: skip

ARTIFACTS = {"model.onnx", "model.safetensors", "record.json", "recipe.yaml", "predictions.npz", "report.html"}


@dataclass
class Heard:
    """Everything that was told, in order."""

    facts: list[str] = field(default_factory=list)
    all: list[str] = field(default_factory=list)

    def say(self, text: str) -> None:
        self.facts.append(text)
        self.all.append(text)

    def now(self, text: str) -> None:
        self.all.append(text)


@dataclass(frozen=True)
class Run:
    """One finished run and its report as written."""

    result: Result
    report: dict[str, Any]
    heard: Heard

    @property
    def out(self) -> Path:
        return self.result.out

    @property
    def recipe(self) -> list[dict[str, Any]]:
        steps: list[dict[str, Any]] = yaml.safe_load((self.out / "recipe.yaml").read_text())["steps"]
        return steps

    @property
    def kinds(self) -> list[str]:
        return [step["kind"] for step in self.recipe]

    @property
    def epochs(self) -> int:
        return sum(step["epochs"] for step in self.report["steps"])


@pytest.fixture(scope="module", autouse=True)
def _short_measurements() -> Iterator[None]:
    """Time files briefly, and try three candidates where the most is sought: no test here looks at how good it gets."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latency, "PATIENCE", 0.0)
        patch.setattr(latency, "ROUNDS", 1)
        patch.setattr(search, "MOST_ATTEMPTS", 3)
        yield


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tiny, Path]:
    folder = tmp_path_factory.mktemp("task")
    return tiny(), tiny().write(folder)


@pytest.fixture(scope="module")
def run(task: tuple[Tiny, Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Run]:
    """Compress the tiny net's files; the same flags run once."""
    path = task[1]

    @functools.cache
    def compressed(**flags: Any) -> Run:
        heard, out = Heard(), tmp_path_factory.mktemp("runs") / "out"
        settings = {"objective": "size", "max_drop": "2%", "budget": "10ep", "threads": 1, **flags}
        result = compress(
            path, factory=f"{path.parent}/net.py:make", data=str(path.parent / "data.npz"), out=out, progress=heard,
            **settings,
        )  # fmt: skip
        return Run(result, json.loads((out / "report.json").read_text()), heard)

    return compressed


@pytest.fixture(scope="module")
def eightfold(run: Callable[..., Run]) -> Run:
    return run(target="8x")


def answers(path: Path, inputs: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found: np.ndarray[Any, Any] = session.run(None, {session.get_inputs()[0].name: inputs})[0].argmax(1)
    return found


def test_the_target_is_met(eightfold: Run) -> None:
    assert eightfold.result.exit_code == 0
    report = eightfold.report
    assert (report["verdict"], report["target_met"], report["drop_met"]) == ("met", True, True)
    assert report["summary"].startswith("MET: 8.")


def test_a_byte_is_a_byte_on_disk(eightfold: Run, run: Callable[..., Run]) -> None:
    original = (run(target="1MB").out / "model.onnx").stat().st_size
    final = (eightfold.out / "model.onnx").stat().st_size
    assert eightfold.report["baseline"]["size_bytes"] == original
    assert eightfold.report["final"]["size_bytes"] == final
    assert eightfold.report["ratio"] == original / final >= 8


def test_combined_steps_do_not_overshoot(eightfold: Run) -> None:
    assert eightfold.report["ratio"] < 9
    assert eightfold.kinds == ["structured-pruning", "distillation", "static-int8"]


def test_the_drop_is_what_an_onlooker_measures(
    eightfold: Run, run: Callable[..., Run], task: tuple[Tiny, Path]
) -> None:
    inputs, targets = (tensor.numpy() for tensor in task[0].splits["test"])
    before = answers(run(target="1MB").out / "model.onnx", inputs) == targets
    after = answers(eightfold.out / "model.onnx", inputs) == targets
    drop, report = eightfold.report["drop"], eightfold.report
    assert report["baseline"]["quality"] == pytest.approx(100 * before.mean())
    assert report["final"]["quality"] == pytest.approx(100 * after.mean())
    assert drop["estimate"] == pytest.approx(100 * (before.mean() - after.mean()), abs=1e-9)
    assert (drop["worse"], drop["better"], drop["n"]) == ((before & ~after).sum(), (after & ~before).sum(), 2000)
    assert drop["estimate"] <= 2
    assert drop["estimate"] < drop["upper_95"]
    predictions = np.load(eightfold.out / "predictions.npz")
    assert ((predictions["before"] == targets) == before).all()
    assert ((predictions["after"] == targets) == after).all()


def test_the_report_has_the_keys_of_the_contract(eightfold: Run) -> None:
    report = eightfold.report
    assert list(report) == TOP_LEVEL
    for name in ("baseline", "final"):
        assert {"quality", "size_bytes", "params", "macs", "latency_ms", "energy_mj"} <= report[name].keys()
        assert {"batch", "median", "iqr", "threads"} <= report[name]["latency_ms"][0].keys()
        assert report[name]["energy_mj"].keys() == {"value", "source"}
    assert {"estimate", "upper_95", "n", "worse", "better", "certified"} <= report["drop"].keys()
    for step in report["steps"]:
        assert step.keys() - {"curve"} == {
            "action", "settings", "before", "after", "verdict", "seconds", "epochs", "reason",
        }  # fmt: skip
    for decision in report["decisions"]:
        assert decision.keys() == {"rule", "question", "answer", "evidence"}
    assert report["request"]["target"] == "8x"


def test_the_files_are_those_that_were_signed(eightfold: Run) -> None:
    artifacts = {entry["path"]: entry for entry in eightfold.report["artifacts"]}
    assert artifacts.keys() == ARTIFACTS
    for name, entry in artifacts.items():
        data = (eightfold.out / name).read_bytes()
        assert entry == {"path": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    assert {path.name for path in eightfold.out.iterdir()} == {*ARTIFACTS, "report.json", "journal"}


def test_the_file_keeps_the_module_s_interface(eightfold: Run, run: Callable[..., Run]) -> None:
    shapes = []
    for path in (run(target="1MB").out, eightfold.out):
        graph = onnx.load(str(path / "model.onnx")).graph
        sides = [[(v.name, v.type.tensor_type.elem_type) for v in values] for values in (graph.input, graph.output)]
        shapes.append(sides)
        onnxruntime_answers = answers(path / "model.onnx", np.zeros((3, 1, 8, 8), np.float32))
        assert onnxruntime_answers.shape == (3,)
    assert shapes[0] == shapes[1]


def test_the_steps_tell_the_story(eightfold: Run) -> None:
    steps = eightfold.report["steps"]
    assert [step["action"] for step in steps] == ["search", "structured-pruning", "distillation", "static-int8"]
    assert all(step["verdict"] == "kept" for step in steps)
    assert steps[1]["before"]["ratio"] == 1.0
    for earlier, later in itertools.pairwise(steps[1:]):
        assert later["before"] == earlier["after"]
    assert steps[-1]["after"]["objective"] == eightfold.report["final"]["size_bytes"]
    assert 0 < eightfold.epochs <= 10


def test_back_into_pytorch(eightfold: Run, task: tuple[Tiny, Path]) -> None:
    inputs, _ = task[0].splits["test"]
    model = load(eightfold.out, task[0].model)
    same = (model(inputs).argmax(1).numpy() == answers(eightfold.out / "model.onnx", inputs.numpy())).mean()
    assert same > 0.97  # the file's activations are integers, the module's are not
    assert sum(p.numel() for p in model.parameters()) < sum(p.numel() for p in task[0].model().parameters()) / 2


def test_a_target_already_met_changes_nothing(run: Callable[..., Run], task: tuple[Tiny, Path]) -> None:
    done = run(target="1MB")
    assert done.result.exit_code == 0
    report = done.report
    assert (report["ratio"], report["verdict"], report["steps"]) == (1.0, "met", [])
    assert report["drop"]["worse"] == report["drop"]["better"] == 0
    assert report["baseline"]["size_bytes"] == report["final"]["size_bytes"]
    assert "nothing was compressed" in report["summary"]
    assert done.recipe == []
    plain = slim(export(task[0].model(), task[0].splits["test"][0][:2])).SerializeToString()
    assert (done.out / "model.onnx").read_bytes() == plain
    restored = load(done.out, task[0].model).state_dict()
    assert all((restored[name] == value).all() for name, value in task[0].state.items())


def test_what_arithmetic_rules_out_is_said_first_and_the_best_is_delivered(run: Callable[..., Run]) -> None:
    done = run(target="1000x", budget="3ep")
    assert done.result.exit_code == 1
    report = done.report
    assert (report["verdict"], report["target_met"], report["drop_met"]) == ("target-missed", False, True)
    assert "the strongest setting of this plan gives a file of" in report["summary"]
    announced = next(i for i, text in enumerate(done.heard.all) if "1000x is out of reach" in text)
    assert not any("attempt" in text or "epoch" in text for text in done.heard.all[:announced])
    assert report["ratio"] > 8
    kept = [step for step in report["steps"] if step["verdict"] == "kept"]
    assert kept[-1]["after"]["ratio"] == pytest.approx(report["ratio"])
    assert "is within 2.00" in kept[-1]["reason"]


def test_epochs_are_counted_over_all_attempts(run: Callable[..., Run]) -> None:
    done = run(target="1000x", budget="3ep")
    assert len({step["reason"] for step in done.report["steps"]} - {"search"}) > 1
    assert 1 <= done.epochs <= 3


def test_the_most_within_the_floor(run: Callable[..., Run], eightfold: Run) -> None:
    done = run(target="max")
    assert done.result.exit_code == 0
    assert done.report["verdict"] == "met"
    assert done.report["ratio"] > eightfold.report["ratio"]
    accepted = [s["after"]["ratio"] for s in done.report["steps"] if "is within" in s["reason"]]
    assert done.report["ratio"] == pytest.approx(max(accepted))


def test_no_budget_trains_nothing(run: Callable[..., Run]) -> None:
    done = run(target="6x", budget="none")
    assert done.epochs == 0
    assert "distillation" not in done.kinds
    assert not any("epoch" in text for text in done.heard.all)
    assert done.result.exit_code == (0 if done.report["ratio"] >= 6 else 1)


def test_what_int8_reaches_alone_is_not_pruned(run: Callable[..., Run], task: tuple[Tiny, Path]) -> None:
    done = run(target="3x")
    assert done.result.exit_code == 0
    assert done.kinds == ["static-int8"]
    assert 3 <= done.report["ratio"] <= 4
    assert done.report["final"]["macs"] == done.report["baseline"]["macs"]
    assert load(done.out, task[0].model)(task[0].splits["test"][0][:5]).shape == (5, 6)


def test_certified(run: Callable[..., Run]) -> None:
    done = run(target="3x", certify=True)
    assert done.result.exit_code == 0
    drop = done.report["drop"]
    assert drop["certified"]
    assert drop["upper_95"] <= 2
    assert "samples certify it and report has 2000" in done.report["steps"][-1]["reason"]


def test_what_the_data_can_t_decide_says_how_many_samples_would(run: Callable[..., Run]) -> None:
    done = run(target="3x", certify=True, max_drop="0.1%")
    assert done.result.exit_code == 4
    drop = done.report["drop"]
    assert done.report["verdict"] == "undecided"
    assert not drop["certified"]
    assert drop["needed"] > 2000
    assert f"about {drop['needed']:,} samples would decide".replace(",", " ") in done.report["summary"]


def test_where_nothing_was_to_be_done_there_is_nothing_to_certify(run: Callable[..., Run]) -> None:
    assert run(target="1MB", certify=True, max_drop="0.1%").result.exit_code == 0


@pytest.fixture(scope="module")
def packed(run: Callable[..., Run]) -> Run:
    return run(target="12x", format="packed", budget="none")


def test_a_packed_file_counts_against_the_original_s_onnx(packed: Run, run: Callable[..., Run]) -> None:
    assert packed.result.exit_code == 0
    assert packed.kinds == ["entropy-quantization"]
    assert packed.epochs == 0
    original = (run(target="1MB").out / "model.onnx").stat().st_size
    final = (packed.out / "model.ecz").stat().st_size
    assert packed.report["baseline"]["size_bytes"] == original
    assert packed.report["final"]["size_bytes"] == final
    assert 12 <= packed.report["ratio"] == original / final < 14
    assert packed.report["final"]["params"] == packed.report["baseline"]["params"]
    assert packed.report["final"]["macs"] == packed.report["baseline"]["macs"]
    assert {entry["path"] for entry in packed.report["artifacts"]} == ARTIFACTS | {"model.ecz"}


CODES_LOSE = {"entropy": 0.5, "prune": 0.25}


@pytest.mark.parametrize(("target", "asked"), [("12x", 0), ("90x", 1)])
def test_which_codes_to_train_is_found_out_once_it_matters(
    run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, target: str, asked: int
) -> None:
    tried = []
    monkeypatch.setattr("easycompress.planning.losses", lambda *_, **__: tried.append(1) or CODES_LOSE)
    done = run(target=target, format="packed", budget="2ep")
    assert len(tried) == asked
    (rule,) = [decision for decision in done.report["decisions"] if decision["rule"] == "L6"]
    (step,) = done.report["plan"]["steps"]
    assert [rule["answer"], step["scheme"]] == [("entropy", "prune")[asked]] * 2
    untried = "not tried: that follows where quantization without training misses the target"
    assert rule["evidence"] == ("loss: entropy 0.5, prune 0.25" if asked else untried)
    assert ("lc" in [step["action"] for step in done.report["steps"]]) == bool(asked)


def test_what_is_packed_unpacks_to_the_very_model(packed: Run, task: tuple[Tiny, Path], tmp_path: Path) -> None:
    inputs, targets = (tensor.numpy() for tensor in task[0].splits["test"])
    (tmp_path / "m.onnx").write_bytes(
        unpacked(*read_ecz(packed.out / "model.ecz")).SerializeToString(deterministic=True)
    )
    assert (tmp_path / "m.onnx").read_bytes() == (packed.out / "model.onnx").read_bytes()
    found = answers(tmp_path / "m.onnx", inputs)
    assert (found == np.load(packed.out / "predictions.npz")["after"]).all()
    assert packed.report["final"]["quality"] == pytest.approx(100 * (found == targets).mean())


def test_a_packed_model_comes_back_with_the_file_s_weights(packed: Run, task: tuple[Tiny, Path]) -> None:
    _, codes = read_ecz(packed.out / "model.ecz")
    state = load(packed.out, task[0].model).state_dict()
    record = json.loads((packed.out / "record.json").read_text())
    assert record["schema"] == "easycompress-record/2"
    assert {entry["form"] for entry in record["codes"].values()} == {"codebook", "affine-int8"}
    stored = {name: code.code if code.form == "scaled" else code for name, code in codes.items()}  # type: ignore[attr-defined]
    assert {"0.weight", "4.weight", "8.weight", "10.weight"} <= stored.keys()
    assert all((state[name] == code.dense()).all() for name, code in stored.items())
    inputs, _ = task[0].splits["test"]
    same = load(packed.out, task[0].model)(inputs).argmax(1).numpy() == answers(
        packed.out / "model.onnx", inputs.numpy()
    )
    assert same.mean() > 0.995  # the file's batch norm is rounded to float16
    assert all((packed.result.model.state_dict()[name] == value).all() for name, value in state.items())


def test_a_packed_run_repeats_its_verdict(packed: Run, task: tuple[Tiny, Path]) -> None:
    path = task[1]
    before = {file.name: file.read_bytes() for file in packed.out.iterdir() if file.is_file()}
    again = compress(
        path, factory=f"{path.parent}/net.py:make", data=str(path.parent / "data.npz"), out=packed.out, resume=True,
        objective="size", max_drop="2%", budget="none", threads=1, target="12x", format="packed",
    )  # fmt: skip
    assert (again.exit_code, again.report.ratio) == (0, packed.report["ratio"])
    assert {file.name: file.read_bytes() for file in packed.out.iterdir() if file.is_file()} == before


def test_a_packed_target_out_of_reach_is_missed_with_the_best_there_is(run: Callable[..., Run]) -> None:
    done = run(target="500x", format="packed", budget="none")
    assert done.result.exit_code == 1
    assert (done.report["verdict"], done.report["drop_met"]) == ("target-missed", True)
    assert done.report["ratio"] == done.report["baseline"]["size_bytes"] / (done.out / "model.ecz").stat().st_size > 12


def test_a_packed_target_already_met_changes_nothing(run: Callable[..., Run]) -> None:
    done = run(target="1MB", format="packed")
    assert (done.result.exit_code, done.report["ratio"], done.recipe) == (0, 1.0, [])
    plain = (run(target="1MB").out / "model.onnx").read_bytes()
    assert (done.out / "model.onnx").read_bytes() == plain
    skeleton, codes = read_ecz(done.out / "model.ecz")
    assert (skeleton.SerializeToString(deterministic=True), codes) == (plain, {})


def test_compute(run: Callable[..., Run]) -> None:
    done = run(objective="compute", target="3x")
    assert done.result.exit_code == 0
    report = done.report
    assert report["ratio"] == report["baseline"]["macs"] / report["final"]["macs"]
    assert 3 <= report["ratio"] < 4
    assert "static-int8" not in done.kinds
    assert report["baseline"]["macs"] == 24 * 9 * 64 + 32 * 24 * 9 * 16 + 512 * 48 + 48 * 6


@pytest.mark.parametrize(("objective", "told"), [("latency", 1), ("size", 0)])
def test_a_verdict_on_latency_says_what_others_took(
    objective: str, told: int, run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latency.Others, "taken", lambda *_: 0.94)
    done = run(objective=objective, target="1.01x", budget="none", max_drop="3%")
    assert {entry["taken"] for entry in done.report["final"]["latency_ms"]} == {0.94}
    assert done.report["summary"].count("other processes took 0.9 cores from the model's 1 thread") == told


def test_latency_is_timed_and_widths_suit_the_processor(
    run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Which of channels and ranks is faster is tried on timed copies: the clock would have a say in the plan.
    found = ({"channels": 1.5, "ranks": 1.5}, {"channels": 0.0, "ranks": 1.0})
    monkeypatch.setattr("easycompress.planning.structure_speeds", lambda *_, **__: found)
    done = run(objective="latency", target="1.5x", batch=4)
    report = done.report
    assert done.result.exit_code in (0, 1)
    assert [entry["batch"] for entry in report["final"]["latency_ms"]] == [1, 4]
    for name in ("baseline", "final"):
        for entry in report[name]["latency_ms"]:
            assert (entry["threads"], entry["runs"] >= 100) == (1, True)
            assert entry["median"] > 0
    before, after = (report[name]["latency_ms"][1]["median"] for name in ("baseline", "final"))
    assert report["ratio"] == (pytest.approx(before / after) if done.recipe else 1.0)
    planned = [step for step in report["plan"]["steps"] if step["kind"] == "structured-pruning"]
    assert [step["round_to"] for step in planned] == [16]
    record = json.loads((done.out / "record.json").read_text())["records"]
    for entry in record:
        for width in entry["record"].get("widths", {}).values():
            assert width % 16 == 0 or width == 24


def test_a_recipe_repeats_the_run(eightfold: Run, run: Callable[..., Run]) -> None:
    again = run(target="8x", recipe=str(eightfold.out / "recipe.yaml"))
    assert again.result.exit_code == 0
    assert again.recipe == eightfold.recipe
    assert again.report["decisions"] == []
    assert (again.out / "model.onnx").read_bytes() == (eightfold.out / "model.onnx").read_bytes()
    assert again.report["drop"] == eightfold.report["drop"]


def test_a_run_is_repeatable(eightfold: Run, run: Callable[..., Run]) -> None:
    again = run(target="8x", max_drop="2.0%")  # the same in other words, so that it really runs
    assert again.recipe == eightfold.recipe
    assert (again.out / "model.onnx").read_bytes() == (eightfold.out / "model.onnx").read_bytes()


def test_time_is_kept_to(run: Callable[..., Run]) -> None:
    done = run(target="1000x", budget="40s", max_drop="0.2%")
    assert done.report["environment"]["seconds"] < 40 * 1.1 + 60
    assert done.epochs > 0


def test_the_clock_knows_what_finishing_takes(run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> None:
    noted: list[float] = []
    monkeypatch.setattr(Clock, "finished_in", lambda _, seconds: noted.append(seconds))
    run(target="3x", max_drop="1.9%")
    assert len(noted) >= 2
    assert all(0.01 < seconds < 60 for seconds in noted)


def owned_bytes(report: dict[str, Any], side: str) -> int:
    return sum(layer[side]["bytes"] for layer in report["profile"]["changes"]["layers"] if layer[side])


def test_layers_are_told_before_and_after(eightfold: Run) -> None:
    layers = {layer["name"]: layer for layer in eightfold.report["profile"]["changes"]["layers"]}
    assert list(layers) == ["0", "4", "8", "10"], "batch norms are in neither file"
    for side, measured in (("before", "baseline"), ("after", "final")):
        rows = [layer[side] for layer in layers.values()]
        assert sum(row["macs"] for row in rows) == eightfold.report[measured]["macs"]
        assert sum(row["params"] for row in rows) == eightfold.report[measured]["params"]
        for row in rows:
            assert row["bits"] == pytest.approx(8 * row["bytes"] / row["params"], abs=1e-3)
    assert layers["0"]["before"] == {
        "outputs": 24, "rank": None, "params": 240, "macs": 13824, "bytes": 960, "bits": 32.0, "form": "float32",
    }  # fmt: skip
    assert layers["8"]["after"]["outputs"] < 48
    assert layers["8"]["after"]["form"] == "affine int8, per channel"
    assert layers["10"]["after"]["outputs"] == 6


@pytest.mark.parametrize("name", ["model.onnx", "model.ecz"])
def test_the_layers_and_the_rest_are_the_whole_file(name: str, eightfold: Run, packed: Run) -> None:
    run = eightfold if name == "model.onnx" else packed
    path = run.out / name
    rows = inspect_onnx(path) if name == "model.onnx" else ecz_rows(path)
    weights = [row.bytes for row in rows if row.shape and row.form != "int64"]
    rest = run.report["final"]["size_bytes"] - owned_bytes(run.report, "after")
    assert path.stat().st_size == owned_bytes(run.report, "after") + rest
    assert owned_bytes(run.report, "after") == sum(weights)
    assert 0 < rest < 3000, "operators, names, shapes and ranges"


def test_the_course_is_of_written_files(eightfold: Run, packed: Run) -> None:
    course = eightfold.report["profile"]["changes"]["course"]
    assert [step["action"] for step in course] == ["original", *eightfold.kinds]
    sizes = [step["size_bytes"] for step in course]
    assert sizes[0] == eightfold.report["baseline"]["size_bytes"]
    assert sizes[-1] == eightfold.report["final"]["size_bytes"]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[1] == sizes[2] > 3 * sizes[3], "distillation changes no byte, int8 divides by nearly four"
    assert all(step["latency"] > 0 for step in course)
    assert course[1]["latency"] == course[2]["latency"], "distillation changes no operator, so no time"
    assert course[0]["latency"] == eightfold.report["baseline"]["latency_ms"][0]["median"]
    assert course[-1]["latency"] == eightfold.report["final"]["latency_ms"][0]["median"]
    short = packed.report["profile"]["changes"]["course"]
    assert [step["size_bytes"] for step in short] == [packed.report[m]["size_bytes"] for m in ("baseline", "final")]


def test_an_original_that_stays_has_a_course_of_one(run: Callable[..., Run]) -> None:
    changes = run(target="1MB").report["profile"]["changes"]
    assert [step["action"] for step in changes["course"]] == ["original"]
    assert all(layer["before"] == layer["after"] for layer in changes["layers"])
