"""Tables of texts, words, answers and numbers: which files and columns are read, and what comes out."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
import tiny_bert
import torch
from pyarrow import ipc, parquet
from torch import nn
from transformers import (
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertLMHeadModel,
)

from easycompress.core.errors import BadInput
from easycompress.core.inputs import Bundle, answer
from easycompress.intake.columns import parse_columns
from easycompress.intake.data import Raw, load_data

if TYPE_CHECKING:
    from pathlib import Path

    from easycompress.core.task import Split

TEXTS = ["a good film", "the plot is awful and bad"]
TOKENS = tiny_bert.tokenizer()


def model(kind: type[Any] = BertForSequenceClassification, **options: Any) -> Any:
    return kind(tiny_bert.config(**options)).eval()


def load(spec: str | Path, columns: str | None = None, net: Any = None, **options: Any) -> Raw:
    given: dict[str, Any] = {"processor": TOKENS, "mean": None, "std": None, "base": None, "seed": 0} | options
    return load_data(str(spec), columns=columns, model=net or model(), **given)


def refused(spec: str | Path, columns: str | None = None, net: Any = None, **options: Any) -> str:
    with pytest.raises(BadInput) as caught:
        load(spec, columns, net, **options)
    text = str(caught.value)
    assert "\n" not in text
    return text


def some(split: Split | None) -> Split:
    assert split is not None
    return split


def targets(split: Split | None) -> Any:
    found = some(split).targets
    assert found is not None
    return found.tolist()


def ids(split: Split | None) -> torch.Tensor:
    inputs = some(split).inputs
    assert isinstance(inputs, Bundle)
    return inputs.tensors[inputs.names.index("input_ids")]


class TestFiles:
    def test_a_tsv_without_header_is_named_by_columns_and_quotes_are_text(self, tmp_path: Path) -> None:
        (tmp_path / "train.tsv").write_text('a "good film\t1\nbad " plot\t0\n')
        (tmp_path / "my_dev.tsv").write_text("the cast\t1\n")
        raw = load(tmp_path, "text,label")
        assert (targets(raw.train), targets(raw.validation), raw.test) == ([1, 0], [1], None)
        assert ids(raw.train).shape == (2, 8)
        assert isinstance(raw.train.inputs, Bundle)  # type: ignore[union-attr] # there is one
        assert some(raw.train).inputs.names == ("input_ids", "attention_mask", "token_type_ids")  # type: ignore[union-attr] # several
        assert TOKENS.decode(ids(raw.train)[0], skip_special_tokens=True) == "a good film"

    def test_unused_columns_are_skipped(self, tmp_path: Path) -> None:
        (tmp_path / "test.tsv").write_text("gj04\t1\t\tgood film\n")
        assert targets(load(tmp_path, "_,label,_,text").test) == [1]

    @pytest.mark.parametrize("form", ["csv", "jsonl", "json", "parquet", "arrow", "stream"])
    def test_every_form_gives_the_same(self, tmp_path: Path, form: str) -> None:
        table = pa.table({"text": TEXTS, "label": [1, 0]})
        path = tmp_path / f"validation.{'arrow' if form == 'stream' else form}"
        if form == "csv":
            path.write_text('text,label\n"a good film",1\nthe plot is awful and bad,0\n')
        elif form == "json":
            path.write_text(json.dumps(table.to_pylist()))
        elif form == "jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
        elif form == "parquet":
            parquet.write_table(table, path)
        else:
            writer = ipc.new_file if form == "arrow" else ipc.new_stream
            with path.open("wb") as file, writer(file, table.schema) as opened:
                opened.write_table(table)
        raw = load(path)
        assert targets(raw.validation) == [1, 0]
        assert ids(raw.validation).tolist() == TOKENS(TEXTS, padding="max_length", max_length=8)["input_ids"]
        assert raw.notes == ("columns by their usual names: text with label as label",)

    def test_a_dataset_that_was_saved(self, tmp_path: Path) -> None:
        datasets = pytest.importorskip("datasets")
        features = datasets.Features(
            {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["positive", "negative"])}
        )
        data = datasets.Dataset.from_dict({"text": TEXTS, "label": [0, 1]}, features=features)
        datasets.DatasetDict({"train": data, "test": data}).save_to_disk(tmp_path / "saved")
        net = model(id2label={0: "negative", 1: "positive"}, label2id={"negative": 0, "positive": 1})
        raw = load(tmp_path / "saved", net=net)
        assert targets(raw.train) == [1, 0]  # the data's positive is 0, the model's 1
        assert "the data numbers its classes otherwise than the model: they were matched by name" in raw.notes

    def test_one_file_without_a_split_is_training_data(self, tmp_path: Path) -> None:
        (tmp_path / "reviews.csv").write_text("sentence,label\ngood,1\n")
        raw = load(tmp_path / "reviews.csv")
        assert targets(raw.train) == [1]
        assert raw.validation is raw.test is None

    def test_refusals(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_text("sentence,label\ngood,1\n")
        (tmp_path / "b.csv").write_text("good film,1\n")
        (tmp_path / "c.csv").write_text("text,label\n")
        (tmp_path / "d.json").write_text("3")
        (tmp_path / "e.csv").write_text("text,label\na,1,2\n")
        assert "no column words; there are sentence, label" in refused(tmp_path / "a.csv", "words,label")
        assert "b.csv begins with no usual column names (good film, 1)" in refused(tmp_path / "b.csv")
        assert "b.csv has 2 columns (good film, 1), but --columns names 3" in refused(tmp_path / "b.csv", "a,b,c")
        assert "c.csv has no rows" in refused(tmp_path / "c.csv")
        assert "d.json" in refused(tmp_path / "d.json")
        assert "e.csv is not readable csv" in refused(tmp_path / "e.csv")
        assert "column sentence holds texts, but the model has no tokenizer" in refused(
            tmp_path / "a.csv", processor=None
        )
        assert "--columns text: digits has no columns" in refused("digits", "text")

    @pytest.mark.parametrize("text", ["", "text,", "text,text", "_"])
    def test_columns_that_make_no_sense(self, text: str) -> None:
        with pytest.raises(BadInput, match="write each column's name once"):
            parse_columns(text)


class TestTexts:
    def write(self, folder: Path, **columns: list[Any]) -> Path:
        parquet.write_table(pa.table(columns), folder / "test.parquet")
        return folder

    def test_pairs(self, tmp_path: Path) -> None:
        raw = load(self.write(tmp_path, sentence1=["good"], sentence2=["bad film"], label=[0]))
        inputs = some(raw.test).inputs
        assert isinstance(inputs, Bundle)
        expected = TOKENS("good", "bad film", padding="max_length", max_length=8)
        for name, tensor in zip(inputs.names, inputs.tensors, strict=True):
            assert tensor.tolist() == [expected[name]]

    def test_all_splits_have_the_longest_length_and_cuts_are_told(self, tmp_path: Path) -> None:
        (tmp_path / "train.tsv").write_text(f"{'good ' * 50}\t1\ngood\t0\n")
        (tmp_path / "test.tsv").write_text("bad\t0\n")
        raw = load(tmp_path, "text,label")
        assert ids(raw.train).shape[1] == ids(raw.test).shape[1] == 32
        assert "1 of 3 texts were cut to 32 tokens" in raw.notes

    def test_padding_does_not_change_the_answer(self, tmp_path: Path) -> None:
        net = model()
        raw = load(self.write(tmp_path, text=["good", "a very awful film plot and the cast"], label=[1, 0]), net=net)
        alone = net(**TOKENS(["good"], return_tensors="pt")).logits
        assert torch.allclose(answer(net, some(raw.test).inputs)[:1], alone, atol=1e-6)

    def test_label_names(self, tmp_path: Path) -> None:
        self.write(tmp_path, text=["good", "bad"], label=["Good", "Bad"])
        known = model(id2label={0: "good", 1: "bad"}, label2id={"good": 0, "bad": 1})
        assert targets(load(tmp_path, net=known).test) == [0, 1]
        unknown = load(tmp_path)
        assert targets(unknown.test) == [1, 0]
        assert "labels were numbered in the order of their names: Bad, Good" in unknown.notes
        other = model(id2label=dict(enumerate("xyz")), label2id={n: i for i, n in enumerate("xyz")})
        assert "the label map doesn't fit: labels are Bad, Good, the model's classes x, y, z" in refused(
            tmp_path, net=other
        )

    def test_regression(self, tmp_path: Path) -> None:
        self.write(tmp_path, text=["good", "bad"], score=[1, 0])
        found = some(load(tmp_path, net=model(num_labels=1)).test).targets
        assert found is not None
        assert found.dtype == torch.float32

    def test_no_labels(self, tmp_path: Path) -> None:
        self.write(tmp_path, text=["good", "bad"])
        assert "test.parquet has no label column among text; name it by --columns" in refused(tmp_path)
        assert load(tmp_path, labelled=False).unlabelled

    def test_labels_that_are_kept_secret(self, tmp_path: Path) -> None:
        (tmp_path / "dev.csv").write_text("sentence,label\ngood,1\n")
        (tmp_path / "test.csv").write_text("sentence,label\ngood,-1\n")
        raw = load(tmp_path)
        assert raw.test is None
        assert targets(raw.validation) == [1]

    def test_an_empty_cell(self, tmp_path: Path) -> None:
        assert "test.parquet row 1 has no text" in refused(self.write(tmp_path, text=["good", None], label=[0, 1]))


class TestOtherTasks:
    def write(self, folder: Path, **columns: list[Any]) -> Path:
        parquet.write_table(pa.table(columns), folder / "test.parquet")
        return folder

    def test_tags_stand_at_each_words_first_piece(self, tmp_path: Path) -> None:
        self.write(tmp_path, tokens=[["goodly", "film"], ["paris"]], ner_tags=[[1, 0], [2]])
        raw = load(tmp_path, net=model(BertForTokenClassification, num_labels=3))
        assert TOKENS.convert_ids_to_tokens(ids(raw.test)[0])[:5] == ["[CLS]", "good", "##ly", "film", "[SEP]"]
        assert targets(raw.test) == [[-100, 1, -100, 0] + [-100] * 4, [-100, 2] + [-100] * 6]

    def test_named_tags(self, tmp_path: Path) -> None:
        self.write(tmp_path, tokens=[["paris", "is"]], tags=[["B-LOC", "O"]])
        net = model(BertForTokenClassification, id2label={0: "O", 1: "B-LOC"}, label2id={"O": 0, "B-LOC": 1})
        assert targets(load(tmp_path, net=net).test)[0][:3] == [-100, 1, 0]

    def test_tags_must_be_as_many_as_words(self, tmp_path: Path) -> None:
        self.write(tmp_path, tokens=[["paris", "is"]], ner_tags=[[1]])
        assert "test row 0 has 2 words but 1 tags" in refused(tmp_path, net=model(BertForTokenClassification))

    def test_answers_are_found_in_the_context(self, tmp_path: Path) -> None:
        context = "Paris is the capital of France"
        self.write(
            tmp_path,
            question=["the capital of France is", "who lives in Paris", "who"],
            context=[context, context, "good " * 40 + "film"],
            answers=[
                {"text": ["Paris", "paris"], "answer_start": [0, 0]},
                {"text": [], "answer_start": []},
                {"text": ["film"], "answer_start": [200]},
            ],
        )
        raw = load(tmp_path, net=model(BertForQuestionAnswering))
        assert raw.references is not None
        first, none, cut = targets(raw.test)
        assert raw.references.text(first[2], first[0], first[1]) == "Paris"
        assert raw.references.answers == (("Paris", "paris"), (), ("film",))
        assert none == [0, 0, 1]
        assert cut == [0, 0, 2]
        assert raw.references.text(0, 0, first[1]) == ""  # a token that is no part of the context
        assert "1 of 3 texts were cut to 32 tokens" in raw.notes

    def test_a_language_models_targets_are_its_tokens(self, tmp_path: Path) -> None:
        self.write(tmp_path, text=["good film", "", "a"])
        raw = load(tmp_path, net=model(BertLMHeadModel, is_decoder=True))
        tokens = ids(raw.test)
        assert tokens.shape == (2, 8)
        assert targets(raw.test) == tokens.masked_fill(tokens == 0, -100).tolist()
        assert "1 empty texts were left out" in raw.notes

    def test_a_table_of_numbers(self, tmp_path: Path) -> None:
        (tmp_path / "test.csv").write_text("width,height,label\n1,2.5,cat\n3,4,dog\n")
        split = some(load(tmp_path, net=nn.Linear(2, 2), processor=None).test)
        assert isinstance(split.inputs, torch.Tensor)
        assert split.inputs.tolist() == [[1.0, 2.5], [3.0, 4.0]]
        assert targets(split) == [0, 1]

    def test_columns_that_a_tokenizer_made(self, tmp_path: Path) -> None:
        self.write(tmp_path, attention_mask=[[1, 1]], input_ids=[[5, 6]], label=[1])
        inputs = some(load(tmp_path).test).inputs
        assert isinstance(inputs, Bundle)
        assert inputs.names == ("input_ids", "attention_mask")


class TestLabels:
    """What a wrong column would otherwise be taken for."""

    def write(self, folder: Path, rows: list[str], name: str = "test.tsv") -> Path:
        (folder / name).write_text("".join(f"{row}\n" for row in rows))
        return folder

    def test_the_run_says_which_column_is_which(self, tmp_path: Path) -> None:
        self.write(tmp_path, ["good film, very good\t1", "bad plot\t0"])
        notes = load(tmp_path, "txt,lbl").notes
        assert "columns as --columns names them: txt ('good film, very good') with lbl ('1') as label" in notes
        self.write(tmp_path, ["text,label", f"{'a very ' * 9}good film,1", "bad,0"], "test.csv")
        (tmp_path / "test.tsv").unlink()
        (said,) = load(tmp_path, "text,label").notes
        assert said == "columns as --columns names them: text ('a very a very a very a\u2026) with label ('1') as label"

    def test_texts_in_the_label_s_place(self, tmp_path: Path) -> None:
        self.write(tmp_path, ["1\tgood film", "0\tbad plot", "1\tthe cast"])
        text = refused(tmp_path, "labl,text")
        assert (
            "column text: 3 different labels ('bad plot', ...) are not those of a model with 2; name the label" in text
        )
        assert "of a file without header: all columns in their order" in text

    def test_a_header_taken_for_a_row(self, tmp_path: Path) -> None:
        self.write(tmp_path, ["statement\tpolarity", "good film\t1", "bad plot\t0"])
        assert "column polarty: labels are '0' and 'polarity', numbers and names" in refused(
            tmp_path, "statment,polarty"
        )
        assert targets(load(tmp_path, "statement,polarity").test) == [1, 0]

    @pytest.mark.parametrize("label", ["0", "good"])
    def test_a_label_that_is_always_the_same(self, tmp_path: Path, label: str) -> None:
        self.write(tmp_path, [f"good film\t{label}", f"bad plot\t{label}"])
        text = refused(tmp_path, "text,label")
        assert f"column label: is '{label}' in all 2 rows, which judges nothing; name the label by --columns" in text

    def test_fractions_are_no_classes(self, tmp_path: Path) -> None:
        self.write(tmp_path, ["good film\t0.75", "bad plot\t0"])
        assert "column label: holds 0.75, but the model scores classes" in refused(tmp_path, "text,label")
        self.write(tmp_path, ["good film\t1.0", "bad plot\t0.0"])
        found = some(load(tmp_path, "text,label").test).targets
        assert found is not None
        assert (found.dtype, found.tolist()) == (torch.int64, [1, 0])
        self.write(tmp_path, ["good film\t0.75", "bad plot\t0"])
        values = some(load(tmp_path, "text,label", net=model(num_labels=1)).test).targets
        assert values is not None
        assert values.tolist() == [0.75, 0.0]
