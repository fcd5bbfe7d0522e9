"""`easycompress init` writes files that the next command understands, and never over somebody's own."""

from __future__ import annotations

import importlib.util
import json
from typing import TYPE_CHECKING, Any

import pytest

from easycompress import cli
from easycompress.core.errors import BadInput
from easycompress.init import Case, ask_case, files_of, find_model, guess_kind, usual_drop
from easycompress.intake.config import make_request
from easycompress.starter import METRICS

if TYPE_CHECKING:
    from pathlib import Path


def case_of(path: Path, **changes: Any) -> Case:
    values: dict[str, Any] = {
        "model": path, "kind": "image-classification", "factory": None, "data": None, "objective": "size",
        "target": "10x", "max_drop": "1%", "budget": "20min",
    }  # fmt: skip
    return Case(**(values | changes))


def test_init_writes_settings_that_the_next_command_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "net.safetensors").write_bytes(b"weights")
    monkeypatch.chdir(tmp_path)
    assert cli._run(["init", "--target", "5x", "--data", "digits"]) == 0
    request, base = make_request("net.safetensors", {})
    assert (request.target, request.data, request.factory) == ("5x", "digits", "task.py:make_model")
    assert base == tmp_path
    assert "def make_model" in (tmp_path / "task.py").read_text()
    assert "def make_data" not in (tmp_path / "task.py").read_text()


@pytest.mark.parametrize("kind", METRICS)
def test_every_kind_gives_files_that_are_valid(kind: str, tmp_path: Path) -> None:
    model = tmp_path / "net.pt"
    files = files_of(case_of(model, kind=kind, max_drop=usual_drop(kind)))
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    request, _ = make_request(str(model), {})
    assert request.max_drop == usual_drop(kind)
    assert request.data == "task.py:make_data"
    spec = importlib.util.spec_from_file_location("task_of_" + kind.replace("-", "_"), tmp_path / "task.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert callable(module.make_model)
    assert hasattr(module, "score") == (METRICS[kind][0] is None)


def test_a_model_that_brings_its_module_needs_no_factory(tmp_path: Path) -> None:
    folder = tmp_path / "bert"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"architectures": ["BertForQuestionAnswering"]}))
    assert find_model(tmp_path) == folder
    assert guess_kind(folder) == "question-answering"
    files = files_of(case_of(folder, kind="question-answering", data="squad.json"))
    assert list(files) == ["easycompress.toml"]
    assert "factory" not in files["easycompress.toml"]


def test_files_that_are_there_stay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "net.onnx").write_bytes(b"graph")
    (tmp_path / "easycompress.yaml").write_text("target: 3x\n")
    assert cli._run(["init", str(tmp_path / "net.onnx"), "--data", "digits"]) == 2
    error = capsys.readouterr().err
    assert error == f"easycompress: {tmp_path}/easycompress.yaml: is there already; --force writes it anew\n"
    assert not (tmp_path / "easycompress.toml").exists()


def test_wrong_answers_are_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "net.pt").write_bytes(b"weights")
    for flags, text in (
        (["--task", "juggling"], "--task juggling: unknown; use one of image-classification, "),
        (["--target", "10"], "--target 10: not a target; "),
        (["--objective", "speed"], "--objective speed: unknown; "),
    ):
        assert cli._run(["init", str(tmp_path / "net.pt"), *flags]) == 2
        assert text in capsys.readouterr().err
    assert cli._run(["init", str(tmp_path / "no.pt")]) == 2
    assert "no.pt: doesn't exist; name the model" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.pt"]


def test_it_asks_where_somebody_answers(tmp_path: Path) -> None:
    answers = {"what does the model do": "regression", "where is the data": "rows.npz"}
    questions = []

    def ask(question: str, default: str) -> str:
        questions.append(question)
        return next((answer for begin, answer in answers.items() if question.startswith(begin)), default)

    found = ask_case(case_of(tmp_path / "net.pt"), ask)
    assert (found.kind, found.data, found.max_drop, found.factory) == ("regression", "rows.npz", "1%rel", None)
    assert len(questions) == 7
    with pytest.raises(BadInput, match=r"^dance: unknown; use one of"):
        ask_case(case_of(tmp_path / "net.pt"), lambda *_: "dance")


def test_yaml_holds_the_same_settings_as_toml(tmp_path: Path) -> None:
    model = str(tmp_path / "net.pt")
    (tmp_path / "easycompress.yaml").write_text("target: 4x\nmax-drop: 0.5%\nmean: [0.5]\nstd: [0.25]\nseed: 3\n")
    request, base = make_request(model, {"target": "6x"})
    assert (request.target, request.max_drop, request.mean, request.seed) == ("6x", "0.5%", (0.5,), 3)
    assert base == tmp_path
    (tmp_path / "easycompress.yaml").write_text("- target\n")
    with pytest.raises(BadInput, match=r"not a mapping of settings; write lines such as data: digits$"):
        make_request(model, {})
    (tmp_path / "easycompress.yaml").write_text("target: [\n")
    with pytest.raises(BadInput, match="not valid YAML: "):
        make_request(model, {})
    (tmp_path / "easycompress.toml").write_text("")
    with pytest.raises(BadInput, match=r"two files of settings; keep one of them$"):
        make_request(model, {})
