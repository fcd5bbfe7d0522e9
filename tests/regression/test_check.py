"""What `check` lets pass, what it catches, and what it refuses to compare."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from regression.conftest import rewritten

import easycompress as ec
from benchmarks.regression import changed, renamed
from easycompress.artifact.container import read_ecz, write_ecz
from easycompress.measure.runtime import Runtime
from easycompress.regression import run
from easycompress.report import units

if TYPE_CHECKING:
    from pathlib import Path

    from easycompress.regression.outcome import Outcome

NAMES = ["files", "decoding", "size", "MACs", "interface", "quality", "latency"]

UNTIMED: dict[str, Any] = {"max_latency_ratio": "none"}


@pytest.fixture(autouse=True)
def _in_this_process(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare the process that opens a file which nobody vouches for, where no test looks at that."""
    if "opened_apart" not in request.fixturenames:
        monkeypatch.setattr(run, "opens", lambda _: None)


@pytest.fixture
def opened_apart() -> None:
    """Leave it."""


def failed(outcome: Outcome) -> list[str]:
    return [check.name for check in outcome.failures]


def reason(outcome: Outcome, name: str) -> str:
    return next(check.reason for check in outcome.checks if check.name == name)


def constant(graph: onnx.GraphProto, name: str, values: Any) -> str:
    graph.initializer.append(
        numpy_helper.from_array(np.asarray(values), f"test {name}")
    )  # the graph has names of its own
    return f"test {name}"


def reordered(source: Path, target: Path, places: Any) -> Path:
    def change(graph: onnx.GraphProto, output: str) -> None:
        graph.node.append(helper.make_node("Gather", ["answer", constant(graph, "order", places)], [output], axis=1))

    return changed(source, target, change)


def leaning(source: Path, target: Path, lean: float) -> Path:
    def change(graph: onnx.GraphProto, output: str) -> None:
        lot = constant(graph, "lean", np.float32([lean, 0, 0, 0, 0, 0]))
        graph.node.append(helper.make_node("Add", ["answer", lot], [output]))

    return changed(source, target, change)


def test_a_result_is_as_good_as_itself(base: Path) -> None:
    outcome = ec.check(base, baseline=base / "report.json")
    assert [check.name for check in outcome.checks] == NAMES
    assert all(check.passed for check in outcome.checks)
    assert (outcome.passed, outcome.exit_code, outcome.notes) == (True, 0, ())
    assert "model.ecz to the same model" in reason(outcome, "decoding")
    assert "0 of 2000 samples worse, 0 better; 100.0 % of the answers are the baseline's" in reason(outcome, "quality")
    assert "not timed" in reason(outcome, "latency")


@pytest.mark.usefixtures("opened_apart")
def test_the_same_model_in_other_bytes_is_timed_and_passes(base: Path, tmp_path: Path) -> None:
    outcome = ec.check(renamed(base / "model.onnx", tmp_path / "m.onnx"), baseline=base, max_latency_ratio=3)
    assert outcome.passed
    assert "8 rounds" in reason(outcome, "latency")
    assert outcome.verdict.endswith("(not judged: files)")


def test_a_packed_file_alone_is_unpacked_and_compared_as_packed(base: Path, tmp_path: Path) -> None:
    path = shutil.copy(base / "model.ecz", tmp_path)
    outcome = ec.check(path, baseline=base)
    assert outcome.passed
    size = units.count((base / "model.ecz").stat().st_size)
    assert f"{size} bytes, 1.000x" in reason(outcome, "size")
    assert "not timed" in reason(outcome, "latency")  # it unpacks to the very file


def test_another_order_of_the_classes_fails(base: Path, tmp_path: Path) -> None:
    path = reordered(base / "model.onnx", tmp_path / "m.onnx", np.roll(np.arange(6), 1))
    outcome = ec.check(path, baseline=base, **UNTIMED)
    assert failed(outcome) == ["quality"]
    assert outcome.exit_code == 1


def test_another_order_of_the_classes_fails_without_labels(base: Path, data: Path, copy: Path, tmp_path: Path) -> None:
    stored = dict(np.load(copy / "predictions.npz"))
    stored["targets"] = stored["before"]  # the original's own answers, which is what agreement is judged by
    stored["scores_after"] = (stored["after"] == stored["before"]).astype(float)
    np.savez(copy / "predictions.npz", **stored)
    with np.load(data) as known:
        np.savez(tmp_path / "x.npz", **{name: known[name] for name in known if name.startswith("x_")})
    rewritten(
        copy,
        request={"data": str(tmp_path / "x.npz")},
        profile={"metric": {"name": "agreement", "percent": True, "higher_is_better": True}},
        final={"quality": 100 * stored["scores_after"].mean()},
    )
    assert ec.check(base / "model.onnx", baseline=copy).passed
    path = reordered(base / "model.onnx", tmp_path / "m.onnx", np.roll(np.arange(6), 1))
    assert failed(ec.check(path, baseline=copy, **UNTIMED)) == ["quality"]


def test_a_point_worse_fails_and_the_limit_is_the_user_s(base: Path, data: Path, tmp_path: Path) -> None:
    with np.load(data) as known:
        inputs, targets = torch.from_numpy(known["x_test"]), known["y_test"]
    answers = Runtime(base / "model.onnx", 1).run(inputs)
    right = (answers.argmax(1) == targets).mean()
    low, high, drop = 0.0, 16.0, 0.0
    for _ in range(12):
        middle = (low + high) / 2
        now = 100 * (right - ((answers + middle * np.eye(6)[0]).argmax(1) == targets).mean())
        low, high, drop = (low, middle, now) if now >= 1 else (middle, high, drop)
    path = leaning(base / "model.onnx", tmp_path / "m.onnx", high)
    assert 1 <= drop < 1.5
    outcome = ec.check(path, baseline=base, **UNTIMED)
    assert failed(outcome) == ["quality"]
    assert f"drop {drop:.2f} points (allowed 0.50), at most" in reason(outcome, "quality")
    assert ec.check(path, baseline=base, max_drop="3%", **UNTIMED).passed


def test_five_percent_bigger_fails(base: Path, tmp_path: Path) -> None:
    def change(graph: onnx.GraphProto, output: str) -> None:
        ballast = np.random.default_rng(0).normal(size=(base / "model.onnx").stat().st_size // 80).astype(np.float32)
        graph.node.append(helper.make_node("ReduceSum", [constant(graph, "b", ballast * 0)], ["sum"], keepdims=0))
        graph.node.append(helper.make_node("Add", ["answer", "sum"], [output]))

    path = changed(base / "model.onnx", tmp_path / "m.onnx", change)
    assert failed(ec.check(path, baseline=base, **UNTIMED)) == ["size"]
    assert ec.check(path, baseline=base, max_size="1.2x", **UNTIMED).passed


def test_more_operations_fail(base: Path, copy: Path) -> None:
    report = json.loads((copy / "report.json").read_text())
    rewritten(copy, final={"macs": round(report["final"]["macs"] / 1.05)})
    assert failed(ec.check(base, baseline=copy, **UNTIMED)) == ["MACs"]


@pytest.mark.parametrize("name", ["model.onnx", "model.ecz", "model.safetensors"])
def test_a_damaged_byte_fails(name: str, base: Path, copy: Path) -> None:
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(bytes(content))
    outcome = ec.check(copy, baseline=base, **UNTIMED)
    assert failed(outcome)[0] == "files"
    assert reason(outcome, "files") == f"{name} isn't the file of the report: its SHA-256 differs"


def test_a_file_beside_its_report_is_held_to_it(base: Path, copy: Path) -> None:
    renamed(copy / "model.onnx", copy / "model.onnx")
    assert failed(ec.check(copy / "model.onnx", baseline=base, **UNTIMED)) == ["files"]


@pytest.mark.usefixtures("opened_apart")
def test_what_does_not_open_any_more_is_a_regression_of_a_result(base: Path, copy: Path) -> None:
    (copy / "model.onnx").write_bytes((copy / "model.onnx").read_bytes()[:1000])
    outcome = ec.check(copy, baseline=base)
    assert failed(outcome) == ["files", "decoding"]
    assert [check.passed for check in outcome.checks[2:]] == [None] * 5


def test_a_packed_file_of_another_model_fails(base: Path, copy: Path) -> None:
    skeleton, codes = read_ecz(copy / "model.ecz")
    bias = next(t for t in skeleton.graph.initializer if t.name not in codes and t.data_type == onnx.TensorProto.FLOAT)
    bias.raw_data = (numpy_helper.to_array(bias) + 1).astype(np.float32).tobytes()
    write_ecz(copy / "model.ecz", skeleton, codes)
    rewritten(copy)
    outcome = ec.check(copy, baseline=base)
    assert failed(outcome) == ["decoding"]
    assert "model.ecz decodes to another" in reason(outcome, "decoding")


def test_weights_that_are_no_numbers_fail(base: Path, tmp_path: Path) -> None:
    def change(graph: onnx.GraphProto, output: str) -> None:
        graph.node.append(helper.make_node("Add", ["answer", constant(graph, "b", np.float32([np.nan]))], [output]))

    outcome = ec.check(changed(base / "model.onnx", tmp_path / "m.onnx", change), baseline=base)
    assert failed(outcome) == ["decoding"]
    assert reason(outcome, "decoding") == "test b holds values that are no numbers (NaN)"


def test_answers_that_are_no_numbers_fail(base: Path, tmp_path: Path) -> None:
    path = leaning(base / "model.onnx", tmp_path / "m.onnx", float("inf"))
    outcome = ec.check(path, baseline=base, **UNTIMED)
    assert failed(outcome) == ["quality"]
    assert reason(outcome, "quality") == "2000 of the 2000 answers are NaN or infinite"


def test_fewer_classes_fail(base: Path, tmp_path: Path) -> None:
    def change(graph: onnx.GraphProto, output: str) -> None:
        graph.node.append(helper.make_node("Gather", ["answer", constant(graph, "o", np.arange(5))], [output], axis=1))
        graph.output[0].type.tensor_type.shape.dim[1].dim_value = 5

    outcome = ec.check(changed(base / "model.onnx", tmp_path / "m.onnx", change), baseline=base)
    assert failed(outcome) == ["interface"]
    assert "it answers" in reason(outcome, "interface")
    assert reason(outcome, "quality") == "not judged, as interface failed"


def test_another_input_fails(base: Path, tmp_path: Path) -> None:
    proto = onnx.load(str(base / "model.onnx"))
    old = proto.graph.input[0].name
    proto.graph.input[0].name = "pixels"
    for node in proto.graph.node:
        node.input[:] = ["pixels" if name == old else name for name in node.input]
    onnx.save(proto, str(tmp_path / "m.onnx"))
    outcome = ec.check(tmp_path / "m.onnx", baseline=base)
    assert reason(outcome, "interface") == f"it has an input pixels, the baseline {old}"


def test_a_slower_model_fails_by_the_ratio_of_this_run(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from easycompress.regression import latency  # noqa: PLC0415 - a name that is also an argument's

    monkeypatch.setattr(latency, "one_round", lambda *_, **__: 1.2)
    outcome = ec.check(renamed(base / "model.onnx", tmp_path / "m.onnx"), baseline=base)
    assert failed(outcome) == ["latency"]
    assert "1.200x the reference's time" in reason(outcome, "latency")
    assert "(allowed 1.15x; batch 1, 1 thread, 8 rounds)" in reason(outcome, "latency")


def other_data(data: Path, target: Path, change: Any) -> Path:
    with np.load(data) as known:
        arrays = dict(known)
    change(arrays)
    np.savez(target, **arrays)
    return target


def fewer(arrays: dict[str, Any]) -> None:
    arrays["x_test"], arrays["y_test"] = arrays["x_test"][:1000], arrays["y_test"][:1000]


def relabelled(arrays: dict[str, Any]) -> None:
    arrays["y_test"][:7] = (arrays["y_test"][:7] + 1) % 6


def shuffled_within_classes(arrays: dict[str, Any]) -> None:
    for label in range(6):
        places = np.flatnonzero(arrays["y_test"] == label)
        arrays["x_test"][places] = arrays["x_test"][np.roll(places, 1)]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (fewer, "the report split holds 1000 samples, the baseline's 2000"),
        (relabelled, "7 of the 2000 samples have other labels than the baseline's"),
        (shuffled_within_classes, r"(19\d\d|2000) of the 2000 samples are others than the baseline's"),
    ],
)
def test_other_samples_are_refused(change: Any, text: str, base: Path, data: Path, tmp_path: Path) -> None:
    path = other_data(data, tmp_path / "other.npz", change)
    with pytest.raises(ec.BadInput, match=f"{text}; quality can't be compared: give the --data of the baseline"):
        ec.check(base, baseline=base, data=path)


def test_the_last_bits_of_a_sample_may_differ(base: Path, data: Path, tmp_path: Path) -> None:
    def change(arrays: dict[str, Any]) -> None:
        arrays["x_test"] = arrays["x_test"] * np.float32(1 + 1e-5)

    assert ec.check(base, baseline=base, data=other_data(data, tmp_path / "d.npz", change)).passed


def test_splits_handed_over_are_the_samples(base: Path, data: Path) -> None:
    with np.load(data) as known:
        named = (("validation", "val"), ("test", "test"))
        splits: dict[str, Any] = {name: (known[f"x_{short}"], known[f"y_{short}"]) for name, short in named}
    assert ec.check(base, baseline=base, **splits).passed
    with pytest.raises(ec.BadInput, match="--data and splits handed over in Python both give the samples"):
        ec.check(base, baseline=base, data=data, **splits)


def test_without_the_data_a_result_s_stored_answers_count(copy: Path, base: Path, tmp_path: Path) -> None:
    rewritten(copy, request={"data": str(tmp_path / "gone.npz")})
    outcome = ec.check(base, baseline=copy)
    assert outcome.passed
    assert outcome.notes[0].startswith("quality: the answers stored with the result are compared, not new ones")
    with pytest.raises(ec.BadInput, match=r"gone\.npz; the baseline was judged on it: say with --data where it is"):
        ec.check(base / "model.onnx", baseline=copy)


def test_stored_answers_that_are_worse_fail_and_others_are_refused(copy: Path, base: Path, tmp_path: Path) -> None:
    gone = {"data": str(tmp_path / "gone.npz")}
    held_to = tmp_path / "held"
    shutil.copytree(base, held_to)
    rewritten(held_to, request=gone)
    stored = dict(np.load(copy / "predictions.npz"))
    right = np.flatnonzero(stored["scores_after"])[:20]
    stored["scores_after"][right] = 0.0
    np.savez(copy / "predictions.npz", **stored)
    rewritten(copy)
    outcome = ec.check(copy, baseline=held_to)
    assert failed(outcome) == ["quality"]
    assert "20 of 2000 samples worse, 0 better" in reason(outcome, "quality")
    np.savez(copy / "predictions.npz", **stored | {"targets": stored["targets"][::-1]})
    rewritten(copy)
    with pytest.raises(ec.BadInput, match="the result was judged by other labels than the baseline"):
        ec.check(copy, baseline=held_to)


def test_another_runtime_s_part_in_a_drop_is_told(base: Path, copy: Path, tmp_path: Path) -> None:
    stored = dict(np.load(copy / "predictions.npz"))
    wrong = np.flatnonzero(stored["scores_after"] == 0)[:15]
    stored["scores_after"][wrong] = 1.0
    np.savez(copy / "predictions.npz", **stored)
    rewritten(copy, final={"quality": 100 * stored["scores_after"].mean()})
    path = renamed(base / "model.onnx", tmp_path / "m.onnx")
    outcome = ec.check(path, baseline=copy, **UNTIMED)
    assert failed(outcome) == ["quality"]
    assert f"the baseline's own model.onnx scores {len(wrong)} of the 2000 samples otherwise here" in outcome.notes[0]


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        ({"max_size": "2%"}, r"--max-size 2%: not a ratio to the baseline; write 1.02x \(2 % more\), or none"),
        ({"max_macs": "0x"}, "--max-macs 0x: a ratio must be positive"),
        ({"max_latency_ratio": "fast"}, "--max-latency-ratio fast: not a ratio"),
        ({"max_drop": "x"}, "--max-drop x: not a drop"),
        ({"reference": "no.onnx"}, "--reference no.onnx: doesn't exist; give the .onnx file to time against"),
    ],
)
def test_flags_without_sense_are_refused(flags: dict[str, Any], text: str, base: Path) -> None:
    with pytest.raises(ec.BadInput, match=text):
        ec.check(base, baseline=base, **flags)


def test_a_baseline_must_be_whole(base: Path, copy: Path) -> None:
    (copy / "predictions.npz").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(ec.BadInput, match=r"predictions\.npz is a pointer of Git LFS, not the file \(git lfs pull"):
        ec.check(base, baseline=copy)
    (copy / "predictions.npz").unlink()
    with pytest.raises(ec.BadInput, match=r"predictions\.npz is missing; the baseline must be as it was written"):
        ec.check(base, baseline=copy)
    (copy / "model.onnx").unlink()
    with pytest.raises(ec.BadInput, match=r"holds no model\.onnx to time against; give --reference M\.onnx, or"):
        ec.check(base, baseline=copy)
    outcome = ec.check(base, baseline=copy, max_drop="none", **UNTIMED)
    assert outcome.passed
    assert outcome.verdict.endswith("(not judged: quality, latency)")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda report: report.update(schema="other/1"), "not a report of easycompress"),
        (lambda report: report.pop("final"), r"not a whole report \(KeyError: 'final'\)"),
        (lambda report: report["final"].update(macs="many"), r"not a whole report \(macs: "),
        (lambda report: report["artifacts"][0].update(path="../x"), r"lists a file outside of its folder \(\.\./x\)"),
    ],
)
def test_a_baseline_must_be_a_report(change: Any, text: str, base: Path, copy: Path) -> None:
    report = json.loads((copy / "report.json").read_text())
    change(report)
    (copy / "report.json").write_text(json.dumps(report))
    with pytest.raises(ec.BadInput, match=text):
        ec.check(base, baseline=copy)


@pytest.mark.usefixtures("opened_apart")
def test_a_candidate_must_be_a_result_or_a_file(base: Path, tmp_path: Path) -> None:
    give = r"give the folder of a finished result, a model\.onnx or a model\.ecz"
    with pytest.raises(ec.BadInput, match=f"nothing: doesn't exist; {give}"):
        ec.check(tmp_path / "nothing", baseline=base)
    with pytest.raises(ec.BadInput, match=rf"holds no report\.json, so no run finished there; {give}"):
        ec.check(tmp_path, baseline=base)
    (tmp_path / "m.pt").write_bytes(b"")
    with pytest.raises(ec.BadInput, match=rf"neither \.onnx nor \.ecz; {give}"):
        ec.check(tmp_path / "m.pt", baseline=base)
    (tmp_path / "m.onnx").write_bytes(b"no graph")
    with pytest.raises(ec.BadInput, match=r"ONNX Runtime doesn't open it: .*; give a file that ONNX Runtime runs"):
        ec.check(tmp_path / "m.onnx", baseline=base)


def test_inputs_are_made_up_to_time_where_there_is_no_data(base: Path) -> None:
    made = run._example(run.read_report(base))
    assert tuple(made.shape) == (2, 1, 8, 8)  # type: ignore[union-attr] # a single input
