"""A Hugging Face folder as MODEL: what comes back, and what is refused with which words."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import tiny_bert
import torch
from transformers import (
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertModel,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
)

from easycompress.core.errors import BadInput
from easycompress.intake.models import load_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made: Path = tiny_bert.folder(tmp_path / "model")
    return made


def refused(path: Path, *, trust_pickle: bool = False) -> str:
    with pytest.raises(BadInput) as caught:
        load_model(path, None, Path(), trust_pickle=trust_pickle)
    text = str(caught.value)
    assert "\n" not in text
    return text


def edit(folder: Path, **values: Any) -> None:
    """Change settings of config.json; None takes one out."""
    file = folder / "config.json"
    content = json.loads(file.read_text()) | values
    file.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def test_model_and_tokenizer(folder: Path) -> None:
    loaded = load_model(folder, None, Path(), trust_pickle=False)
    assert isinstance(loaded.model, BertForSequenceClassification)
    assert not loaded.model.training
    assert loaded.checkpoint_bytes == (folder / "model.safetensors").stat().st_size
    assert loaded.notes == ()
    assert len(loaded.processor) == len(tiny_bert.WORDS) + 5  # type: ignore[arg-type] # a tokenizer


def test_half_precision_is_upcast_and_told(tmp_path: Path) -> None:
    BertModel(tiny_bert.config()).half().save_pretrained(tmp_path)
    loaded = load_model(tmp_path, None, Path(), trust_pickle=False)
    assert {p.dtype for p in loaded.model.parameters()} == {torch.float32}
    assert "stored in half precision" in loaded.notes[0]
    assert loaded.processor is None


def test_an_image_processor(tmp_path: Path) -> None:
    config = ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, image_size=8,
                       patch_size=4)  # fmt: skip
    ViTForImageClassification(config).save_pretrained(tmp_path)
    ViTImageProcessor(size={"height": 8, "width": 8}).save_pretrained(tmp_path)
    loaded = load_model(tmp_path, None, Path(), trust_pickle=False)
    assert "pixel_values" in loaded.processor.model_input_names  # type: ignore[union-attr] # an image processor


def test_a_bin_of_plain_tensors_is_read_and_a_pickle_is_not_run(folder: Path, tmp_path: Path) -> None:
    state = BertForSequenceClassification(tiny_bert.config()).state_dict()
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    assert load_model(folder, None, Path(), trust_pickle=False).checkpoint_bytes > 0

    class Evil:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "ran",)

    torch.save({"weight": Evil()}, folder / "pytorch_model.bin", pickle_module=pickle)
    assert "add --trust-pickle if you made this file" in refused(folder)
    assert not (tmp_path / "ran").exists()


def test_what_is_missing_or_unknown(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "is a folder without config.json; give a Hugging Face folder" in refused(tmp_path / "empty")
    edit(folder, architectures=["BertForFortuneTelling"])
    assert "architecture BertForFortuneTelling is unknown to transformers" in refused(folder)
    edit(folder, auto_map={"AutoModel": "code.Bert"})
    assert "is defined by code in the folder (auto_map), which easycompress never runs" in refused(folder)
    edit(folder, architectures=None)
    assert "config.json: names no architectures" in refused(folder)
    (folder / "config.json").write_text("{")
    assert "config.json: not valid JSON" in refused(folder)


def test_code_in_the_folder_is_not_needed_for_a_known_class(folder: Path) -> None:
    edit(folder, auto_map={"AutoModelForSequenceClassification": "code.Bert"})
    assert isinstance(load_model(folder, None, Path(), trust_pickle=False).model, BertForSequenceClassification)


def test_weights_that_are_missing_broken_or_another_models(folder: Path) -> None:
    edit(folder, architectures=[BertForQuestionAnswering.__name__])
    assert "the weights hold no qa_outputs.bias, qa_outputs.weight, which BertForQuestionAnswering" in refused(folder)
    edit(folder, architectures=["BertForSequenceClassification"], hidden_size=64)
    assert "config.json doesn't fit the weights: bert.embeddings.LayerNorm.bias is (32,) there" in refused(folder)
    (folder / "model.safetensors").write_bytes(b"nothing")
    assert "the weights don't make a BertForSequenceClassification" in refused(folder)
    (folder / "model.safetensors").unlink()
    assert "no weights: no model.safetensors or pytorch_model.bin" in refused(folder)


def test_a_wrong_tokenizer(tmp_path: Path) -> None:
    folder = tiny_bert.folder(tmp_path, vocab_size=20)
    assert "wrong tokenizer: it numbers 31 tokens, but the model embeds 20" in refused(folder)


def test_a_broken_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")
    assert "its tokenizer or processor can't be read" in refused(folder)


def test_a_label_map_that_contradicts_itself(folder: Path) -> None:
    edit(folder, id2label={"0": "bad", "1": "good"}, label2id={"bad": 0, "fine": 1, "good": 2})
    assert "the label map doesn't fit: id2label has 2 classes (0, 1), label2id numbers 0, 1, 2" in refused(folder)
