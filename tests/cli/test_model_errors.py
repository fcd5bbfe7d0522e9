"""What a stranger's model, metric or columns may have wrong with them: one line each, and the exit code."""

from __future__ import annotations

import json
import zipfile
from typing import TYPE_CHECKING

import onnx
import pytest
import tiny_bert
import torch
from onnx import TensorProto, helper
from torch import nn

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Run

GOAL = ("--target", "2x", "--max-drop", "1%", "--budget", "none", "-o", "out")
OWN = """
def nothing(outputs, targets):
    return outputs[:, 0] * float("nan")

def broken(outputs, targets):
    raise RuntimeError("no class 7\\nin this world")
"""


@pytest.fixture(scope="module")
def _made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT, one whose table of words is too small, one whose configuration names a label too many, and reviews."""
    root = tmp_path_factory.mktemp("folders")
    tiny_bert.folder(root / "bert", num_hidden_layers=1)
    tiny_bert.folder(root / "few", num_hidden_layers=1, vocab_size=20)
    folder = tiny_bert.folder(root / "three", num_hidden_layers=1)
    config = json.loads((folder / "config.json").read_text())
    labels = {"bad": 0, "good": 1, "fair": 2}
    named = {"id2label": {str(number): name for name, number in labels.items()}, "label2id": labels}
    (folder / "config.json").write_text(json.dumps(config | named))
    (root / "reviews.csv").write_text("text,label\n" + "good film,1\nbad plot,0\n" * 20)
    return root


@pytest.fixture
def at(_made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(_made)
    return _made


FEW = "wrong tokenizer: it numbers 31 tokens, but the model embeds 20; give the one that the model was trained with"
THREE = (
    "config.json doesn't fit the weights: classifier.bias is (2,) there, but its settings (num_labels 3, vocab_size "
    "31, hidden_size 32) make it (3,); mend config.json"
)


@pytest.mark.parametrize(
    ("model", "columns", "line"),
    [
        ("few", "text,label", f"few: {FEW}"),
        ("bert", "sentence,label", "--data reviews.csv: no column sentence; there are text, label"),
        ("three", "text,label", f"three: {THREE}"),
    ],
)
def test_folders(at: Path, run: Run, model: str, columns: str, line: str) -> None:
    made = run("compress", model, "--data", "reviews.csv", "--columns", columns, *GOAL)
    assert (made.code, made.err) == (2, f"easycompress: {line}\n")
    assert not (at / "out").exists()


def test_a_label_that_the_map_lacks(at: Path, run: Run) -> None:
    (at / "odd.csv").write_text("text,label\n" + "good film,good\nbad plot,bad\nfine cast,odd\n" * 20)
    made = run("compress", "bert", "--data", "odd.csv", "--columns", "text,label", *GOAL)
    assert made.code == 2
    assert made.err.count("\n") == 1
    assert "column label: 3 different labels ('bad', ...) are not those of a model with 2" in made.err


def test_a_program_of_another_torch(folder: Path, run: Run) -> None:
    program = torch.export.export(nn.Linear(4, 3), (torch.zeros(2, 4),))
    torch.export.save(program, folder / "here.pt2")
    with zipfile.ZipFile(folder / "here.pt2") as old, zipfile.ZipFile(folder / "there.pt2", "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if "/models/" in name:
                changed = json.loads(content) | {"torch_version": "9.9.0", "schema_version": {"major": 99, "minor": 1}}
                content = json.dumps(changed).encode()
            new.writestr(name, content)
    made = run("compress", "there.pt2", "--data", "d.npz", *GOAL)
    here = torch.__version__.partition("+")[0]
    assert made.code == 2
    assert made.err == (
        f"easycompress: there.pt2: torch {here} can't read this program of torch 9.9.0; export the model again on the "
        f"CPU with torch {here}\n"
    )


def test_an_operator_that_has_no_layer_is_named(folder: Path, run: Run) -> None:
    node = helper.make_node("FastGelu", ["x"], ["y"], name="act", domain="com.microsoft")
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in ("x", "y")]
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    proto = helper.make_model(
        helper.make_graph([node], "g", values[:1], values[1:]), opset_imports=opsets, ir_version=9
    )
    onnx.save(proto, str(folder / "m.onnx"))
    made = run("compress", "m.onnx", "--data", "d.npz", *GOAL)
    assert made.code == 3
    assert made.err.count("\n") == 1
    assert "com.microsoft::FastGelu (node act) has no PyTorch form" in made.err


@pytest.mark.parametrize(
    ("metric", "line", "traceback"),
    [
        ("nothing", "it returned a score that is not a finite number; return one for every sample", False),
        ("broken", "it raised RuntimeError: no class 7 in this world; mend it", True),
    ],
)
def test_a_users_metric(folder: Path, run: Run, metric: str, line: str, *, traceback: bool) -> None:
    (folder / "own.py").write_text(OWN)
    made = run("compress", "m.pt", "--factory", "net.py:make", "--data", "d.npz", "--metric", f"own.py:{metric}",
               "--target", "2x", "--max-drop", "1", "--budget", "none", "-o", "out")  # fmt: skip
    first, *rest = made.err.splitlines()
    assert (made.code, first) == (2, f"easycompress: --metric own.py:{metric}: {line}")
    assert bool(rest) == traceback
    if traceback:
        assert rest[0] == "Traceback (most recent call last):"
        assert any('own.py", line 6, in broken' in text for text in rest)
    assert not (folder / "out").exists()
