"""A Hugging Face folder and a tsv without header: compressed by one call, as a stranger would."""

from __future__ import annotations

import functools
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnxruntime
import pytest
import tiny_bert
import torch
from transformers import BertForSequenceClassification, GPT2Config, GPT2LMHeadModel

import easycompress
from easycompress.assemble import make_the_task
from easycompress.cli import _run
from easycompress.intake.config import make_request
from easycompress.measure import latency

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

GOOD, BAD = ("good", "fine", "great"), ("bad", "poor", "awful")
FILLER = ("film", "plot", "cast", "the", "is", "was", "very")
SIZES = {"train": 300, "dev": 300, "test": 400}
STEPS = 80


def rows(count: int, generator: torch.Generator) -> list[tuple[str, int]]:
    """Draw short reviews, one word of which tells the label."""
    made = []
    for _ in range(count):
        label, tells, length, place = (
            int(torch.randint(n, (1,), generator=generator)) for n in (2, 3, 5, 3)
        )  # fmt: skip
        words = [FILLER[int(i)] for i in torch.randint(len(FILLER), (length + 3,), generator=generator)]
        words.insert(place, (BAD, GOOD)[label][tells])
        made.append((" ".join(words), label))
    return made


@functools.cache
def _made() -> tempfile.TemporaryDirectory[str]:
    """Write `model` (trained a few steps), `data` with three tsv files, and `bare`, the same texts without labels."""
    home = tempfile.TemporaryDirectory(prefix="tiny-bert-")
    root, generator = Path(home.name), torch.Generator().manual_seed(0)
    drawn = {name: rows(count, generator) for name, count in SIZES.items()}
    for folder in ("data", "bare"):
        (root / folder).mkdir()
    for name, pairs in drawn.items():
        (root / "data" / f"{name}.tsv").write_text("".join(f"{text}\t{label}\n" for text, label in pairs))
        (root / "bare" / f"{name}.csv").write_text("text\n" + "".join(f"{text}\n" for text, _ in pairs))
    torch.manual_seed(0)
    model, tokenizer = BertForSequenceClassification(tiny_bert.config(num_hidden_layers=1)), tiny_bert.tokenizer()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    batch = tokenizer([text for text, _ in drawn["train"]], padding=True, return_tensors="pt")
    labels = torch.tensor([label for _, label in drawn["train"]])
    for _ in range(STEPS):
        places = torch.randint(len(labels), (32,), generator=generator)
        part = {name: tensor[places] for name, tensor in batch.items()}
        optimizer.zero_grad()
        model(**part, labels=labels[places]).loss.backward()
        optimizer.step()
    model.save_pretrained(root / "model")
    tokenizer.save_pretrained(root / "model")
    _speller(batch["input_ids"], len(tokenizer), generator).save_pretrained(root / "speller")
    tokenizer.save_pretrained(root / "speller")
    return home


def _speller(ids: torch.Tensor, words: int, generator: torch.Generator) -> GPT2LMHeadModel:
    """Return a decoder that has read the same reviews."""
    ends = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
    model = GPT2LMHeadModel(GPT2Config(vocab_size=words, n_positions=32, n_embd=32, n_layer=1, n_head=2, **ends))
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(STEPS):
        part = ids[torch.randint(len(ids), (32,), generator=generator)]
        optimizer.zero_grad()
        model(input_ids=part, labels=part.masked_fill(part == 0, -100)).loss.backward()
        optimizer.step()
    return model.eval()


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    made = _made()
    yield Path(made.name)
    made.cleanup()


def run(*arguments: str, out: Path) -> tuple[int, dict[str, Any]]:
    """Type a command; return its exit code and its report."""
    code = _run(["compress", *arguments, "--budget", "none", "--threads", "1", "-o", str(out)])
    return code, json.loads((out / "report.json").read_text())


def answers(out: Path, texts: list[str]) -> np.ndarray[Any, Any]:
    """Ask the file, batch by batch of texts as long as each other: padding plays no part."""
    session = onnxruntime.InferenceSession(str(out / "model.onnx"), providers=["CPUExecutionProvider"])
    batch = tiny_bert.tokenizer()(texts, padding="max_length", max_length=16, return_tensors="np")
    return session.run(["logits"], {value.name: batch[value.name] for value in session.get_inputs()})[0]  # type: ignore[no-any-return]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "ROUNDS", 1)
    monkeypatch.setattr(latency, "PATIENCE", 0.0)


def test_a_text_classifier_is_compressed_by_one_command(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, report = run(str(home / "model"), "--data", str(home / "data"), "--columns", "text,label",
                       "--objective", "size", "--target", "2.5x", "--max-drop", "2%", out=out)  # fmt: skip
    assert code == 0
    assert report["verdict"] == "met"
    assert report["baseline"]["quality"] > 90
    assert report["ratio"] >= 2.5
    assert (out / "model.onnx").stat().st_size == report["final"]["size_bytes"]
    assert report["request"]["columns"] == "text,label"
    lines = [line.split("\t") for line in (home / "data" / "test.tsv").read_text().splitlines()]
    right = answers(out, [text for text, _ in lines]).argmax(1) == [int(label) for _, label in lines]
    assert 100 * right.mean() == pytest.approx(report["final"]["quality"], abs=0.5)


def test_a_language_model_is_compressed_by_one_command(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("steps: [{kind: weight-only}]")
    code, report = run(str(home / "speller"), "--data", str(home / "bare"), "--target", "1.5x", "--max-drop", "5%rel",
                       "--recipe", str(recipe), out=out)  # fmt: skip
    assert code == 0
    assert report["verdict"] == "met"
    assert report["profile"]["metric"]["name"] == "perplexity"
    assert report["baseline"]["quality"] < 15  # of 31 words
    texts = (home / "bare" / "test.csv").read_text().splitlines()[1:]
    ids = tiny_bert.tokenizer()(texts, padding="max_length", max_length=16)["input_ids"]
    logits, targets = torch.from_numpy(answers(out, texts))[:, :-1], torch.tensor(ids)[:, 1:]
    loss = torch.nn.functional.cross_entropy(logits.transpose(1, 2), targets.masked_fill(targets == 0, -100))
    assert float(loss.exp()) == pytest.approx(report["final"]["quality"], rel=1e-3)


def test_without_labels_quality_is_agreement_with_the_original(home: Path) -> None:
    flags = {"data": str(home / "bare"), "target": "2x", "max_drop": "2%"}
    request, base = make_request(str(home / "model"), flags)
    task = make_the_task(home / "model", request, base, (None, None, None))
    assert task.metric.name == "agreement"
    assert task.data.report.targets is not None
    assert task.data.report.targets.unique().tolist() == [0, 1]  # the model's own answers
    assert any(note.startswith("the data has no labels: quality is agreement") for note in task.notes)


def test_a_metric_that_was_asked_for_needs_its_labels(home: Path) -> None:
    with pytest.raises(easycompress.BadInput, match=r"has no label column among text; name it by --columns"):
        easycompress.plan(
            home / "model", data=str(home / "bare"), metric="accuracy", objective="size", target="2x", max_drop="2%"
        )
