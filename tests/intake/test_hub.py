"""Data by its published name: torchvision's, where it lies, and Hugging Face's, without a network."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torchvision import datasets

from easycompress.core.errors import BadInput
from easycompress.intake.config import make_request
from easycompress.intake.data import Raw, load_data
from easycompress.intake.hub import is_hub_name
from easycompress.intake.vision import torchvision_name

if TYPE_CHECKING:
    from pathlib import Path


def load(spec: str, base: Path) -> Raw:
    return load_data(spec, mean=None, std=None, base=base, seed=0)


def idx(path: Path, array: np.ndarray[Any, Any]) -> None:
    """Write bytes in the format of MNIST's files."""
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    path.write_bytes(header + array.tobytes())


@pytest.fixture
def mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "data" / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for part, count in (("train", 3), ("t10k", 2)):
        idx(folder / f"{part}-images-idx3-ubyte", np.full((count, 28, 28), 255, np.uint8))
        idx(folder / f"{part}-labels-idx1-ubyte", np.arange(count, dtype=np.uint8))
    monkeypatch.setattr(datasets.MNIST, "_check_exists", lambda _: True)
    return tmp_path


@pytest.mark.parametrize("spec", ["mnist", "MNIST", "data"])
def test_torchvisions_data_by_name_and_by_folder(mnist: Path, spec: str) -> None:
    raw = load(spec, mnist)
    assert raw.train is not None
    assert raw.test is not None
    assert isinstance(raw.train.inputs, torch.Tensor)
    assert raw.train.inputs.shape == (3, 1, 28, 28)
    assert float(raw.train.inputs.min()) == 1.0
    assert raw.test.targets is not None
    assert raw.test.targets.tolist() == [0, 1]
    assert raw.validation is None


def test_how_to_get_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"--data cifar10: not under .*CIFAR10\('data', download=True\)"):
        load("cifar10", tmp_path)


def test_names() -> None:
    assert torchvision_name("Fashion-MNIST") == "fashionmnist"
    assert torchvision_name("imagenet") is None
    assert is_hub_name("stanfordnlp/sst2")
    assert is_hub_name("imdb")
    assert not is_hub_name("data.csv")
    assert not is_hub_name("../sst2")
    assert not is_hub_name("a/b/c")


def test_a_hub_name_without_network_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    with pytest.raises(BadInput) as caught:
        load("nobody/nothing", tmp_path)
    text = str(caught.value)
    assert text.startswith("--data nobody/nothing: not found; --data takes digits, ")
    assert "the Hugging Face Hub gives no such dataset" in text


def test_a_hub_name_is_not_taken_for_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert make_request("m", {"data": "owner/name"}, use_file=False)[0].data == "owner/name"
    (tmp_path / "easycompress.toml").write_text(f"columns = {json.dumps(['text', 'label'])}\n")
    request, _ = make_request("m", {"data": "owner/name"})
    assert (request.data, request.columns) == ("owner/name", "text,label")
    (tmp_path / "owner" / "name").mkdir(parents=True)
    assert make_request("m", {"data": "owner/name"})[0].data == str(tmp_path / "owner" / "name")
