"""Data handed over in Python: Hugging Face datasets of raw rows are read as files of them are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
import tiny_bert
import torch
from PIL import Image
from pyarrow import parquet
from torch.utils.data import TensorDataset
from transformers import BertForSequenceClassification

import easycompress as ec
from easycompress import api
from easycompress.assemble import make_the_task
from easycompress.core.errors import BadInput
from easycompress.core.inputs import parts
from easycompress.intake.config import make_request
from easycompress.intake.data import load_data
from easycompress.intake.handed import named_splits
from easycompress.intake.models import load_model

if TYPE_CHECKING:
    from pathlib import Path

    from easycompress.core.task import Split, Task

datasets = pytest.importorskip("datasets")

TEXTS = ["a good film", "the plot is awful and bad", "fine", "not good"]
LABELS = [1, 0, 1, 0]


def rows(texts: list[str] = TEXTS, labels: list[int] = LABELS, names: tuple[str, ...] = ("n", "p")) -> Any:
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=list(names))})
    return datasets.Dataset.from_dict({"text": texts, "label": labels}, features=features)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made: Path = tiny_bert.folder(tmp_path_factory.mktemp("bert"), num_hidden_layers=1)
    return made


def task(model: Any, **keywords: Any) -> Task:
    given = tuple(keywords.pop(name, None) for name in ("train", "validation", "test"))
    splits = named_splits(keywords.pop("data", None), given)
    flags = {"objective": "size", "target": "2x", "max_drop": "50%"} | keywords
    request, base = make_request("model", flags, use_file=False)
    return make_the_task(model, request, base, splits)


def refused(model: Any, **keywords: Any) -> str:
    with pytest.raises(BadInput) as caught:
        task(model, **keywords)
    text = str(caught.value)
    assert "\n" not in text
    return text


def targets(split: Split) -> list[int]:
    assert split.targets is not None
    found: list[int] = split.targets.tolist()
    return found


def words(split: Split) -> list[list[int]]:
    found: list[list[int]] = parts(split.inputs)[0].tolist()
    return found


def from_files(folder: Path, home: Path, **splits: Any) -> Any:
    """Read the same rows as `--data` does."""
    for name, data in splits.items():
        parquet.write_table(
            pa.table({"text": list(data["text"]), "label": list(data["label"])}), home / f"{name}.parquet"
        )
    loaded = load_model(folder, None, home, trust_pickle=False)
    return load_data(str(home), mean=None, std=None, base=home, seed=0, model=loaded.model, processor=loaded.processor)


@pytest.mark.parametrize("form", ["DatasetDict", "dict", "keywords", "streamed"])
def test_texts_become_what_files_of_them_become(folder: Path, tmp_path: Path, form: str) -> None:
    train, test = rows(), rows(TEXTS[::-1], LABELS[::-1])
    expected = from_files(folder, tmp_path, train=train, test=test)
    splits: dict[str, Any] = {"train": train, "test": test}
    if form == "streamed":
        splits = {name: data.to_iterable_dataset() for name, data in splits.items()}
    if form == "DatasetDict":
        splits = {"data": datasets.DatasetDict(splits)}
    elif form == "dict":
        splits = {"data": splits}
    made = task(folder, **splits)
    assert words(made.data.train) == words(expected.train)
    assert targets(made.data.train) == LABELS
    both = words(made.data.select) + words(made.data.report)
    assert sorted(both) == sorted(words(expected.test))
    assert made.example.names == ("input_ids", "attention_mask", "token_type_ids")  # type: ignore[union-attr] # a Bundle
    assert "columns by their usual names: text with label as label" in made.notes


def test_a_selection_keeps_its_own_rows_and_order(folder: Path) -> None:
    chosen = rows().select([2, 0])
    made = task(folder, validation=chosen, test=rows())
    assert targets(made.data.select) == [1, 1]
    known = task(folder, validation=rows(["fine", "a good film"], [1, 1]), test=rows())
    assert words(made.data.select) == words(known.data.select)


def test_columns_are_named_as_on_the_command_line(folder: Path) -> None:
    data = rows().rename_columns({"text": "review_text", "label": "polarity"})
    made = task(folder, test=data, columns="review_text,polarity")
    assert "columns as --columns names them: review_text ('a good film') with polarity (1) as label" in made.notes
    assert "data: no column film; there are review_text, polarity" in refused(
        folder, test=data, columns="film,polarity"
    )
    assert "none of its columns (review_text, polarity) has a usual name" in refused(folder, test=data)


def test_a_module_knows_the_folder_that_it_came_from(folder: Path) -> None:
    module = BertForSequenceClassification.from_pretrained(folder)
    assert words(task(module, test=rows()).data.report) == words(task(folder, test=rows()).data.report)


def test_texts_without_a_tokenizer_are_refused() -> None:
    module = BertForSequenceClassification(tiny_bert.config(num_hidden_layers=1))
    assert "column text holds texts, but the model has no tokenizer; give MODEL as a Hugging Face" in refused(
        module, test=rows()
    )


def test_labels_are_matched_by_the_model_s_names(tmp_path: Path) -> None:
    names = {"id2label": {0: "n", 1: "p"}, "label2id": {"n": 0, "p": 1}}
    home = tiny_bert.folder(tmp_path, num_hidden_layers=1, **names)
    turned = rows(names=("p", "n"))
    made = task(home, validation=turned, test=turned)
    assert targets(made.data.select) == targets(made.data.report) == [1 - label for label in LABELS]
    assert "column label: the splits name their classes differently" in refused(home, validation=turned, test=rows())


def test_what_the_user_prepared_stays_as_it_is(folder: Path) -> None:
    ready = datasets.Dataset.from_dict({"input_ids": [[5, 6]] * 4, "attention_mask": [[1, 1]] * 4, "label": LABELS})
    assert words(task(folder, test=ready).data.report) == [[5, 6]] * 2
    own = rows().with_transform(lambda batch: {"input_ids": [[7, 8, 9]] * len(batch["text"]), "label": batch["label"]})
    assert words(task(folder, test=own).data.report) == [[7, 8, 9]] * 2


def test_other_data_beside_a_dataset(folder: Path) -> None:
    length = parts(task(folder, test=rows()).data.report.inputs)[0].shape[1]
    tokens = torch.ones(6, length, dtype=torch.int64)
    train = {"input_ids": tokens, "attention_mask": tokens, "token_type_ids": 0 * tokens, "labels": torch.arange(6) % 2}
    made = task(folder, train=train, test=rows())
    assert len(made.data.train) == 6
    assert len(made.data.report) == 2
    assert "columns='text,label': train is no Hugging Face dataset" in refused(
        folder, train=train, test=rows(), columns="text,label"
    )
    assert "train: mean= and std= don't reach data of your own" in refused(
        folder, train=train, test=rows(), mean=(0.5,), std=(0.5,)
    )


def test_a_function_s_datasets_are_read_too(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "task.py").write_text(
        "import datasets\n\n\ndef data():\n"
        f"    return {{'test': datasets.Dataset.from_dict({{'text': {TEXTS!r}, 'label': {LABELS!r}}})}}\n"
    )
    loaded = load_model(folder, None, tmp_path, trust_pickle=False)
    raw = load_data(
        f"{tmp_path}/task.py:data", mean=None, std=None, base=tmp_path, seed=0, model=loaded.model,
        processor=loaded.processor,
    )  # fmt: skip
    assert raw.test is not None
    assert sorted(words(raw.test)) == sorted(words(from_files(folder, tmp_path, test=rows()).test))


def test_pictures_of_a_dataset_are_normalised() -> None:
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    pixels = [Image.new("L", (4, 4), 51 * i) for i in range(4)]
    data = datasets.Dataset.from_dict({"image": pixels, "label": LABELS}, features=features)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2))
    made = task(net, validation=data, test=data, mean=(0.2,), std=(0.5,))
    assert parts(made.data.select.inputs)[0][:, 0, 0, 0].tolist() == pytest.approx([-0.4, 0.0, 0.4, 0.8])


def test_which_split_is_which() -> None:
    data = rows()
    assert named_splits(None, (1, None, 2)) == (1, None, 2)
    found = {"train": 1, "validation_matched": 2, "validation_mismatched": 3, "unsupervised": 4}
    assert named_splits(found, (None, None, None)) == (1, 2, None)
    named = datasets.Dataset(data.data, split=datasets.Split.TEST)
    assert named_splits(named, (None, None, None)) == (None, None, named)
    for given, text in (
        (data, "a dataset that doesn't say which split it is"),
        ({"all": data}, "its splits are all; it needs any of train, validation, test"),
        ({}, "its splits are none"),
        (TensorDataset(torch.zeros(2)), "a TensorDataset; give what --data takes as text"),
    ):
        with pytest.raises(BadInput, match=text):
            named_splits(given, (None, None, None))
    with pytest.raises(BadInput, match="not beside train=, validation= or test="):
        named_splits({"test": data}, (data, None, None))


class Enough(Exception):
    pass


@pytest.mark.parametrize("face", [ec.compress, ec.plan])
def test_both_faces_take_it(folder: Path, monkeypatch: pytest.MonkeyPatch, face: Any) -> None:
    seen: list[Any] = []

    def caught(*arguments: Any) -> None:
        seen.extend(arguments)
        raise Enough

    monkeypatch.setattr(api, "make_the_task", caught)
    train, test = rows(), rows()
    flags = {"objective": "size", "target": "2x", "max_drop": "1%", "columns": "text,label"}
    with pytest.raises(Enough):
        face(folder, data=datasets.DatasetDict({"train": train, "test": test}), **flags)
    model, request, _, splits = seen
    assert model == folder
    assert splits == (train, None, test)
    assert (request.data, request.columns) == (None, "text,label")
    with pytest.raises(Enough):
        face(folder, data="digits", **flags)
    assert (seen[5].data, seen[7]) == ("digits", (None, None, None))
