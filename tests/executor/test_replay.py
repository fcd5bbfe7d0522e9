from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from easycompress.codes.affine import Affine, quantize_per_channel
from easycompress.codes.codebook import Codebook
from easycompress.codes.composed import Additive
from easycompress.codes.sparse import sparse_from
from easycompress.core.errors import BadInput
from easycompress.core.inputs import Bundle
from easycompress.executor.replay import _example, load, record_json

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from easycompress.codes.base import Code


def make(hidden: int = 6, inputs: int = 4) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, 3))


REMOVED = {"kind": "structured-pruning", "record": {"removed": [["0", [1, 4]], ["0", [0]]], "widths": {"0": 3}}}


def write(folder: Path, model: nn.Module, *records: dict[str, Any], codes: tuple[str, ...] = ()) -> Path:
    """Write what easycompress would: `model` already has the shape that `records` lead to."""
    tensors, forms = dict(model.state_dict()), {}
    for name in codes:
        code = quantize_per_channel(tensors.pop(name))
        tensors |= {f"{name}.{part}": value for part, value in code.arrays().items()}
        forms[name] = {"form": code.form, "meta": code.meta()}
    save_file(tensors, str(folder / "model.safetensors"))
    record = record_json(records, forms, torch.zeros(5, 4))
    (folder / "record.json").write_text(json.dumps(record))
    return folder


def refusal(folder: Path, factory: Callable[[], nn.Module] = make) -> str:
    with pytest.raises(BadInput) as error:
        load(folder, factory)
    text = str(error.value)
    assert "\n" not in text
    return text


def test_weights_come_back(tmp_path: Path) -> None:
    model = make()
    loaded = load(write(tmp_path, model), make)
    assert not loaded.training
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in model.state_dict().items())


def test_what_samples_are_like_is_kept_for_one_tensor_and_for_several() -> None:
    one = json.loads(json.dumps(record_json((), {}, torch.zeros(5, 4))))
    assert (one["sample_shape"], one["sample_dtype"]) == ([4], "float32")
    assert "samples" not in one
    made = _example(one)
    assert isinstance(made, torch.Tensor)
    assert made.shape == (2, 4)
    words = Bundle((torch.zeros(3, 7, dtype=torch.int64), torch.zeros(3, 2, 2)), ("input_ids", "boxes"))
    several = json.loads(json.dumps(record_json((), {}, words)))
    assert (several["sample_shape"], several["sample_dtype"]) == ([7], "int64")
    again = _example(several)
    assert isinstance(again, Bundle)
    assert again.names == words.names
    assert [(t.shape, t.dtype) for t in again.tensors] == [((2, 7), torch.int64), ((2, 2, 2), torch.float32)]


def test_structure_comes_back_before_the_weights(tmp_path: Path) -> None:
    model = make(hidden=3)
    loaded = load(write(tmp_path, model, REMOVED), make)
    x = torch.randn(8, 4)
    assert torch.equal(loaded(x), model.eval()(x))


def test_codes_come_back_dense(tmp_path: Path) -> None:
    model = make()
    loaded = load(write(tmp_path, model, codes=("0.weight", "3.weight")), make)
    for name in ("0.weight", "3.weight"):
        assert torch.equal(loaded.state_dict()[name], quantize_per_channel(model.state_dict()[name]).dense())


def test_codes_of_every_kind_come_back_dense(tmp_path: Path) -> None:
    model = make()
    weight, bias = model.state_dict()["0.weight"], model.state_dict()["3.bias"]
    book = Codebook(torch.arange(24, dtype=torch.uint8).reshape(6, 4) % 3, torch.tensor([-1.0, 0.0, 0.5]))
    codes: dict[str, Code] = {
        "0.weight": Additive((book, sparse_from(weight, weight.abs() > 0.3))),
        "3.bias": Affine(torch.tensor([1, -2, 3], dtype=torch.int8), torch.tensor([0.25])),
    }
    tensors = {name: value for name, value in model.state_dict().items() if name not in codes}
    for name, code in codes.items():
        tensors |= {f"{name}.{part}": value for part, value in code.arrays().items()}
    save_file(tensors, str(tmp_path / "model.safetensors"))
    forms = {name: {"form": code.form, "meta": code.meta()} for name, code in codes.items()}
    record = json.dumps(record_json((), forms, torch.zeros(5, 4)))
    (tmp_path / "record.json").write_text(record)
    assert list(json.loads(record)["codes"]) == ["0.weight", "3.bias"]
    loaded = load(tmp_path, make).state_dict()
    assert all(torch.equal(loaded[name], code.dense()) for name, code in codes.items())
    assert loaded["3.bias"].tolist() == [0.25, -0.5, 0.75] != bias.tolist()


def test_the_loaded_module_can_learn(tmp_path: Path) -> None:
    loaded = load(write(tmp_path, make(hidden=3), REMOVED, codes=("3.weight",)), make)
    loaded.train()(torch.randn(8, 4)).sum().backward()
    assert all(p.grad is not None for p in loaded.parameters())


def test_a_model_of_whole_numbers_is_traced_with_whole_numbers(tmp_path: Path) -> None:
    def words() -> nn.Module:
        return nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))

    removed = {"kind": "structured-pruning", "record": {"removed": [["2", [0, 5]]], "widths": {"2": 4}}}
    small = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 3))
    save_file(dict(small.state_dict()), str(tmp_path / "model.safetensors"))
    record = record_json((removed,), {}, torch.zeros(5, 2, dtype=torch.int64))
    (tmp_path / "record.json").write_text(json.dumps(record))
    tokens = torch.tensor([[1, 2], [3, 8]])
    assert torch.equal(load(tmp_path, words)(tokens), small.eval()(tokens))


def test_missing_files(tmp_path: Path) -> None:
    assert f"{tmp_path}/record.json: can't be read" in refusal(tmp_path)
    write(tmp_path, make())
    (tmp_path / "model.safetensors").unlink()
    assert f"{tmp_path}/model.safetensors: can't be read" in refusal(tmp_path)


def test_files_of_another_kind(tmp_path: Path) -> None:
    write(tmp_path, make())
    (tmp_path / "model.safetensors").write_bytes(b"not safetensors at all")
    assert "give a folder that easycompress finished" in refusal(tmp_path)
    for text in ('{"schema": "easycompress-record/1"}', "[]"):
        (tmp_path / "record.json").write_text(text)
        assert "this version reads easycompress-record/2; compress the model again" in refusal(tmp_path)


@pytest.mark.parametrize(
    "factory",
    [
        lambda: make(hidden=7),
        lambda: make(inputs=5),
        lambda: nn.Linear(4, 3),
        lambda: nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)),
        lambda: nn.Sequential(nn.Conv2d(4, 6, 1), nn.Flatten()),
    ],
)
@pytest.mark.parametrize("pruned", [False, True])
def test_the_factory_of_another_model(tmp_path: Path, factory: Callable[[], nn.Module], pruned: bool) -> None:  # noqa: FBT001 - a case
    write(tmp_path, make(3 if pruned else 6), *([REMOVED] if pruned else []), codes=("0.weight",))
    text = refusal(tmp_path, factory)
    assert text.startswith(f"{tmp_path}: doesn't fit this factory's module (")
    assert text.endswith("; give the factory of the model that was compressed")


@pytest.mark.parametrize(
    "change",
    [
        {"records": [{"kind": "structured-pruning", "record": {"removed": [["9", [0]]]}}]},
        {"records": [{"kind": "structured-pruning", "record": {}}]},
        {"records": [{"kind": "magic", "record": {}}]},
        {"codes": {"0.weight": "affine-int8"}},
        {"codes": {"0.weight": {"form": "affine-int8", "meta": {}}}},
        {"codes": {"0.weight": {"form": "magic", "meta": {}}}},
        {"codes": {"0.weight": {"form": "affine-int8"}}},
        {"codes": {"9.weight": {"form": "affine-int8", "meta": {}}}},
        {"codes": ["0.weight"]},
        {"sample_shape": "4"},
        {"sample_dtype": "float31"},
    ],
)
def test_a_record_that_was_tampered_with(tmp_path: Path, change: dict[str, Any]) -> None:
    write(tmp_path, make())
    record = json.loads((tmp_path / "record.json").read_text())
    (tmp_path / "record.json").write_text(json.dumps(record | change))
    assert "doesn't fit this factory's module" in refusal(tmp_path)
