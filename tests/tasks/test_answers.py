"""Extractive question answering from a Hugging Face folder and a file of questions, judged as SQuAD is."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import tiny_bert
import torch
from transformers import BertForQuestionAnswering

import easycompress as ec
from easycompress.core.inputs import answer
from easycompress.intake.data import load_data
from easycompress.measure import latency
from easycompress.metrics import LOSSES

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

COUNTS = {"train": 200, "validation": 100, "test": 100}
FILLING = ("good", "bad", "film", "plot", "was", "and", "very")


def question(chance: random.Random) -> dict[str, Any]:
    words = chance.choices(FILLING, k=6)
    place = chance.randrange(6)
    words[place] = chance.choice(("paris", "france"))
    start = sum(len(word) + 1 for word in words[:place])
    return {
        "question": "where is the capital", "context": " ".join(words),
        "answers": {"text": [words[place].title(), "nothing"], "answer_start": [start, 0]},
    }  # fmt: skip


def test_question_answering(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "ROUNDS", 1)
    monkeypatch.setattr(latency, "PATIENCE", 0.0)
    data = tmp_path / "data"
    data.mkdir()
    for seed, (name, count) in enumerate(COUNTS.items()):
        chance = random.Random(seed)  # noqa: S311 - a test's data
        (data / f"{name}.jsonl").write_text("\n".join(json.dumps(question(chance)) for _ in range(count)))
    folder = tiny_bert.folder(tmp_path / "bert", BertForQuestionAnswering)
    model = BertForQuestionAnswering.from_pretrained(folder)
    spec = {"mean": None, "std": None, "base": None, "seed": 0}
    raw = load_data(str(data), model=model, processor=tiny_bert.tokenizer(), **spec)  # type: ignore[arg-type] # as said
    assert raw.train is not None
    assert raw.train.targets is not None
    optimizer = torch.optim.Adam(model.parameters(), lr=0.005)
    for _ in range(40):
        optimizer.zero_grad()
        LOSSES["cross-entropy"](answer(model, raw.train.inputs), raw.train.targets).backward()
        optimizer.step()
    model.save_pretrained(folder)
    goal = {"objective": "size", "target": "1.5x", "max_drop": "5%", "budget": "none", "threads": 1}
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("steps: [{kind: weight-only}]")
    result = ec.compress(folder, data=str(data), out=tmp_path / "out", recipe=str(recipe), **goal)
    report = result.report
    assert report.profile["metric"]["name"] == "squad-f1"
    assert "F1 of the answers' words" in "; ".join(report.plan["notes"])
    assert report.baseline.quality > 80
    assert report.verdict == "met", report.summary
    assert report.drop.n == COUNTS["test"]
    assert result.exit_code == 0
    session = onnxruntime.InferenceSession(str(result.out / "model.onnx"), providers=["CPUExecutionProvider"])
    batch = raw.train.inputs[:20]
    given = dict(zip(batch.names, batch.tensors, strict=True))  # type: ignore[union-attr] # by keyword
    found = session.run(["start_logits", "end_logits"], {v.name: given[v.name].numpy() for v in session.get_inputs()})
    with torch.no_grad():
        expected = result.model(**given)
    assert np.allclose(found[0], expected.start_logits.numpy(), atol=0.05)
    assert np.allclose(found[1], expected.end_logits.numpy(), atol=0.05)
