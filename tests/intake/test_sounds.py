"""Sounds: arrays, WAV files in tables, and what a model's own feature extractor makes of them."""

from __future__ import annotations

import io
import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet
from scipy.io import wavfile
from torch import nn
from transformers import (
    ASTFeatureExtractor,
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForSequenceClassification,
    Wav2Vec2Processor,
)

from easycompress.assemble import make_the_task
from easycompress.core.errors import BadInput
from easycompress.core.inputs import Bundle
from easycompress.intake import sounds
from easycompress.intake.config import make_request
from easycompress.intake.data import Raw, load_data
from easycompress.intake.huggingface import load_folder

if TYPE_CHECKING:
    from pathlib import Path

    from easycompress.core.task import Split

RATE = 16000


def tone(hertz: float, samples: int = 400, rate: int = RATE, loud: float = 0.5) -> Any:
    return (loud * np.sin(2 * np.pi * hertz * np.arange(samples) / rate)).astype(np.float32)


def wav(wave: Any, rate: int = RATE) -> bytes:
    buffer = io.BytesIO()
    wavfile.write(buffer, rate, wave)
    return buffer.getvalue()


class Listener(nn.Module):
    """Takes waveforms (N, samples) of any length."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv1d(1, 4, 16, stride=8), nn.Linear(4, 2)

    def forward(self, wave: torch.Tensor) -> torch.Tensor:
        return self.head(self.conv(wave[:, None]).relu().mean(2))  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with an untrained Wav2Vec2 of two classes and its feature extractor."""
    path = tmp_path_factory.mktemp("wav2vec2")
    torch.manual_seed(0)
    config = Wav2Vec2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, conv_dim=(8, 8),
        conv_stride=(5, 4), conv_kernel=(10, 8), num_feat_extract_layers=2, num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2, classifier_proj_size=8, num_labels=2,
    )  # fmt: skip
    Wav2Vec2ForSequenceClassification(config).save_pretrained(path)
    Wav2Vec2FeatureExtractor().save_pretrained(path)
    return path


def table(home: Path, audio: list[Any], labels: list[int] | None = None) -> str:
    columns = {"audio": audio, "label": labels or [i % 2 for i in range(len(audio))]}
    parquet.write_table(pa.table(columns), home / "test.parquet")
    return str(home)


def load(spec: str, model: nn.Module | None = None, processor: object = None) -> Raw:
    return load_data(spec, mean=None, std=None, base=None, seed=0, model=model or Listener(), processor=processor)


def some(split: Split | None) -> torch.Tensor:
    assert split is not None
    assert isinstance(split.inputs, torch.Tensor)
    return split.inputs


def refused(*arguments: Any, **keywords: Any) -> str:
    with pytest.raises(BadInput) as caught:
        load(*arguments, **keywords)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_arrays_reach_a_model_that_takes_waveforms(tmp_path: Path) -> None:
    cells = [{"array": tone(100), "sampling_rate": 8000}, {"array": tone(200, 300), "sampling_rate": 8000}]
    raw = load(table(tmp_path, [{k: v.tolist() if k == "array" else v for k, v in c.items()} for c in cells]))
    found = some(raw.test)
    np.testing.assert_array_equal(found[0], cells[0]["array"])
    np.testing.assert_array_equal(found[1, :300], cells[1]["array"])
    assert not found[1, 300:].any()
    assert "1 sounds are shorter than the longest and were followed by silence" in raw.notes


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.int32, np.float32])
def test_encoded_wav_files_of_every_depth(tmp_path: Path, kind: Any) -> None:
    wave = tone(440)
    scale = 1 if kind is np.float32 else 127 if kind is np.uint8 else np.iinfo(kind).max
    stored = (wave * scale + (128 if kind is np.uint8 else 0)).astype(kind)
    stereo = np.stack([stored, stored], 1)
    (tmp_path / "b.wav").write_bytes(wav(stereo))
    cells = [{"bytes": wav(stored), "path": None}, {"bytes": None, "path": "b.wav"}]
    found = some(load(table(tmp_path, cells)).test)
    np.testing.assert_allclose(found, np.stack([wave] * 2), atol=0.02)


def test_the_model_s_own_extractor_reads_them_at_its_rate(folder: Path, tmp_path: Path) -> None:
    loaded = load_folder(folder, trust_pickle=False)
    assert isinstance(loaded.processor, Wav2Vec2FeatureExtractor)
    slow = tone(440, 200, 8000)
    raw = load(
        table(tmp_path, [{"bytes": wav(tone(440)), "path": ""}, {"bytes": wav(slow, 8000), "path": ""}]),
        loaded.model,
        loaded.processor,
    )
    expected = loaded.processor([tone(440)], sampling_rate=RATE, return_tensors="pt")["input_values"]
    found = some(raw.test)
    torch.testing.assert_close(found[:1], expected)
    assert found.shape == (2, 400)
    torch.testing.assert_close(found[1, 50:350], expected[0, 50:350], atol=0.1, rtol=0)  # but for the ends
    assert "1 sounds were resampled to 16000 Hz" in raw.notes


def test_an_extractor_s_mask_goes_with_its_values(folder: Path, tmp_path: Path) -> None:
    loaded = load_folder(folder, trust_pickle=False)
    extractor = Wav2Vec2FeatureExtractor(return_attention_mask=True)
    cells = [{"array": tone(100, n).tolist(), "sampling_rate": RATE} for n in (400, 240)]
    test = load(table(tmp_path, cells), loaded.model, extractor).test
    assert test is not None
    assert isinstance(test.inputs, Bundle)
    assert test.inputs.names == ("input_values", "attention_mask")
    values, mask = test.inputs.tensors
    assert mask.sum(1).tolist() == [400, 240]
    assert not values[1, 240:].any()


def test_spectrograms_are_made_as_the_extractor_makes_them(tmp_path: Path) -> None:
    extractor = ASTFeatureExtractor(max_length=8, num_mel_bins=16)
    cells = [{"array": tone(300, n).tolist(), "sampling_rate": RATE} for n in (1600, 1200)]
    found = some(load(table(tmp_path, cells), Listener(), extractor).test)
    expected = extractor([tone(300, 1600)], sampling_rate=RATE, return_tensors="pt")["input_values"]
    assert found.shape == (2, 8, 16)
    torch.testing.assert_close(found[:1], expected)


def test_long_sounds_are_cut_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sounds, "MOST_SECONDS", 1)
    raw = load(table(tmp_path, [{"array": tone(9, n, 100).tolist(), "sampling_rate": 100} for n in (150, 80)]))
    assert some(raw.test).shape == (2, 100)
    assert "1 sounds were cut to 1 seconds" in raw.notes


def test_waveforms_in_an_npz(folder: Path, tmp_path: Path) -> None:
    loaded = load_folder(folder, trust_pickle=False)
    waves, labels = np.stack([tone(100), tone(900)]), np.array([0, 1])
    path = tmp_path / "d.npz"
    np.savez(path, x_test=waves, y_test=labels)
    torch.testing.assert_close(some(load(str(path)).test), torch.from_numpy(waves))  # a model that takes waveforms
    raw = load(str(path), loaded.model, loaded.processor)
    expected = loaded.processor(list(waves), sampling_rate=RATE, return_tensors="pt")["input_values"]  # type: ignore[operator] # an extractor
    torch.testing.assert_close(some(raw.test), expected)
    assert "nothing says how the waveforms were sampled: they are taken for 16000 Hz" in raw.notes
    np.savez(path, x_test=(waves * 32767).astype(np.int16), y_test=labels, sampling_rate=RATE)
    told = load(str(path), loaded.model, loaded.processor)
    torch.testing.assert_close(some(told.test), expected, atol=1e-3, rtol=0)
    assert not told.notes
    np.savez(path, x_test=waves, y_test=labels, sampling_rate=8000)
    assert some(load(str(path), loaded.model, loaded.processor).test).shape == (2, 800)
    np.savez(path, x_test=waves, y_test=labels, sampling_rate=-1.0)
    assert "sampling_rate is no whole number above 0" in refused(str(path))


def test_a_folder_and_sounds_become_a_task(folder: Path, tmp_path: Path) -> None:
    cells = [{"array": tone(100 * (1 + i % 2)).tolist(), "sampling_rate": RATE} for i in range(8)]
    flags = {"data": table(tmp_path, cells), "target": "2x", "max_drop": "1%"}
    request, base = make_request(str(folder), flags)
    task = make_the_task(folder, request, base, (None, None, None))
    assert task.metric.name == "accuracy"
    assert task.data.select.inputs[:].shape == (4, 400)  # type: ignore[union-attr] # one tensor
    assert "columns by their usual names: audio with label as label" in task.notes


def test_of_a_tokenizer_and_an_extractor_the_one_that_the_model_needs(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "both")
    (tmp_path / "vocab.json").write_text(json.dumps({"<pad>": 0, "<unk>": 1, "|": 2, "<s>": 3, "</s>": 4}))
    tokenizer = Wav2Vec2CTCTokenizer(str(tmp_path / "vocab.json"))
    Wav2Vec2Processor(Wav2Vec2FeatureExtractor(), tokenizer).save_pretrained(tmp_path / "both")
    assert isinstance(load_folder(tmp_path / "both", trust_pickle=False).processor, Wav2Vec2FeatureExtractor)


def test_a_dataset_handed_over_in_python(folder: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    cells = [{"array": tone(100 * (1 + i % 2)).tolist(), "sampling_rate": RATE} for i in range(8)]
    data = datasets.Dataset.from_dict({"audio": cells, "label": [i % 2 for i in range(8)]})
    request, base = make_request(str(folder), {"target": "2x", "max_drop": "1%"})
    task = make_the_task(folder, request, base, (None, data, data))
    loaded = load_folder(folder, trust_pickle=False)
    torch.testing.assert_close(task.data.select.inputs, some(load(table(tmp_path, cells), *loaded[::3]).test))


def test_refusals(tmp_path: Path) -> None:
    good = {"array": tone(1).tolist(), "sampling_rate": RATE}
    different = [good, good | {"sampling_rate": 8000}]
    assert "sounds of 8000, 16000 Hz, and nothing says which the model takes" in refused(table(tmp_path, different))
    two = [{"array": [[0.5, 0.5]], "sampling_rate": RATE}] * 2
    assert "row 0: the sound's array is float64 of shape (1, 2); write one channel of floats" in refused(
        table(tmp_path, two)
    )
    integers = [{"array": [1, 2], "sampling_rate": RATE}] * 2
    assert "the sound's array is int64" in refused(table(tmp_path, integers))
    for content, what in ((b"RIFF broken", "no readable WAV"), (b"fLaC and more", "a sound, but no WAV")):
        text = refused(table(tmp_path, [{"bytes": content, "path": "a"}] * 2))
        assert f"test.parquet row 0: is {what}" in text
        assert "decode it, and write WAV or {array, sampling_rate}" in text
    lost = [{"bytes": wav(tone(1)), "path": ""}, {"bytes": None, "path": "nowhere.wav"}]
    assert "test.parquet row 1: no sound nowhere.wav (No such file" in refused(table(tmp_path, lost))
