"""Models in other forms than a state dict, by the command line: what comes out beside them, and what is refused."""

from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tiny_bert
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import BertForSequenceClassification

import easycompress as ec
from easycompress.intake.models import make_module

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Run

RECIPE = "steps:\n- kind: weight-only\n  bits: 8\n"
WORDS, LENGTH = 24, 12


class Mean(nn.Module):
    """Divides by the length of what it is given, which a trace may turn into a number."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.hidden, self.head = nn.Embedding(WORDS, 32), nn.Linear(32, 32), nn.Linear(32, 3)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.hidden(self.embed(words))).sum(1) / words.shape[1])  # type: ignore[no-any-return]


def flags(*more: str, metric: str = "agreement") -> list[str]:
    return ["--objective", "size", "--target", "1.5x", "--max-drop", "50%", "--metric", metric, "--budget", "none",
            "--threads", "1", "--quiet", *more]  # fmt: skip


def report(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "report.json").read_text())
    return found


def in_half(folder: Path) -> nn.Module:
    """Write half.pt2, the trained network in float16; return it."""
    net = make_module("net.py:make", folder).eval()
    net.load_state_dict(torch.load(folder / "m.pt", weights_only=True))
    net = net.half()
    batch = {0: torch.export.Dim.DYNAMIC}
    program = torch.export.export(net, (torch.randn(2, 1, 8, 8).half(),), dynamic_shapes=(batch,))
    torch.export.save(program, folder / "half.pt2")
    return net


def test_half_precision_without_source(folder: Path, run: Run) -> None:
    net = in_half(folder)
    (folder / "r.yaml").write_text(RECIPE)
    line = ["compress", "half.pt2", "--data", "d.npz", "-o", "out", "--recipe", "r.yaml", *flags(metric="accuracy")]
    ran = run(*line)
    assert (ran.code, ran.err) == (0, "")
    found = report(folder / "out")
    assert found["verdict"] == "met"
    assert found["baseline"]["quality"] > 95
    inputs = torch.from_numpy(np.load(folder / "d.npz")["x_test"])
    loaded = ec.load(folder / "out")
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    wanted = net.float()(inputs).argmax(1)
    assert float((loaded(inputs).argmax(1) == wanted).float().mean()) > 0.95
    again = run(*line, "--resume")
    assert (again.code, again.out) == (0, ran.out)


def test_a_program_and_a_folder_beside_the_result(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_bert.folder(tmp_path / "bert", num_hidden_layers=1)
    rows = "".join(f"{word} film,{i % 2}\n" for i, word in enumerate(tiny_bert.WORDS[:20]))
    (tmp_path / "test.csv").write_text(f"text,label\n{rows}")
    (tmp_path / "r.yaml").write_text(RECIPE)
    ran = run("compress", "bert", "--data", "test.csv", "-o", "out", "--recipe", "r.yaml", *flags("--also", "pt2,hf"))
    assert (ran.code, ran.err) == (0, "")
    listed = {artifact["path"] for artifact in report(tmp_path / "out")["artifacts"]}
    assert {"model.onnx", "model.pt2", "pretrained/config.json", "pretrained/model.safetensors"} <= listed
    tokens = tiny_bert.tokenizer()(
        ["good film", "the plot is bad"], padding="max_length", max_length=8, return_tensors="pt"
    )
    program, folder = (
        ec.load(tmp_path / "out"),
        BertForSequenceClassification.from_pretrained(tmp_path / "out" / "pretrained"),
    )
    names = ("input_ids", "attention_mask", "token_type_ids")
    one = program(**{name: tokens[name] for name in names})["logits"]
    torch.testing.assert_close(one, folder.eval()(**tokens).logits, atol=1e-5, rtol=1e-5)
    assert not torch.equal(
        load_file(tmp_path / "out" / "pretrained" / "model.safetensors")["classifier.weight"],
        load_file(tmp_path / "bert" / "model.safetensors")["classifier.weight"],
    )


@pytest.mark.usefixtures("folder")
def test_forms_that_there_are_not(run: Run) -> None:
    common = ("compress", "m.pt", "--factory", "net.py:make", "--data", "d.npz", *flags())
    ran = run(*common, "--also", "tflite")
    assert (ran.code, ran.out) == (2, "")
    assert "--also tflite: not a form; write pt2 (an exported program), hf (a folder), or both" in ran.err
    ran = run(*common, "--also", "pt2,hf")
    assert ran.code == 2
    assert "--also hf: Net has no save_pretrained; leave hf out, or write pt2" in ran.err


def with_open_length(folder: Path) -> tuple[nn.Module, torch.Tensor]:
    """Write open.onnx, whose length is free, and d.npz with samples of one length; return the network and these."""
    torch.manual_seed(0)
    net, words = Mean().eval(), torch.randint(WORDS, (60, LENGTH))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(net, (words[:2],), str(folder / "open.onnx"), dynamo=False, input_names=["words"],
                          dynamic_axes={"words": {0: "n", 1: "t"}})  # fmt: skip
    np.savez(folder / "d.npz", x_test=words.numpy())
    return net, words


def test_an_open_length_is_that_of_the_data(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnx2pytorch")
    monkeypatch.chdir(tmp_path)
    net, words = with_open_length(tmp_path)
    (tmp_path / "r.yaml").write_text(RECIPE)
    ran = run("compress", "open.onnx", "--data", "d.npz", "-o", "out", "--recipe", "r.yaml", *flags(metric="fidelity"),
              "--max-drop", "0.1")  # fmt: skip
    assert (ran.code, ran.err) == (0, "")
    assert report(tmp_path / "out")["verdict"] == "met"
    with torch.no_grad():
        expected = net(words)
        for loaded in (ec.load("out"), ec.load("out", "open.onnx")):
            assert float((loaded(words) - expected).abs().max()) < 0.05 * float(expected.abs().max())
