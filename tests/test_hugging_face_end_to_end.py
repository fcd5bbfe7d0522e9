"""A Hugging Face folder and a tsv without header: compressed by one call, as a stranger would."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import tiny_bert
import torch
from transformers import BertForSequenceClassification

import easycompress
from easycompress.assemble import make_the_task
from easycompress.intake.config import make_request

if TYPE_CHECKING:
    from collections.abc import Iterator

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
    return home


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    made = _made()
    yield Path(made.name)
    made.cleanup()


def test_a_text_classifier_is_compressed_by_one_call(home: Path, tmp_path: Path) -> None:
    result = easycompress.compress(
        home / "model", data=str(home / "data"), columns="text,label", objective="size", target="2.5x", max_drop="2%",
        budget="none", out=tmp_path / "out",
    )  # fmt: skip
    report = result.report
    assert report.baseline.quality > 90
    assert report.verdict == "met"
    assert report.ratio >= 2.5
    assert (tmp_path / "out" / "model.onnx").stat().st_size == report.final.size_bytes
    assert report.request["columns"] == "text,label"


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
