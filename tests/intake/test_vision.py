"""torchvision's data by name and by folder, in its own formats; pixels as a model's own processor reads them."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from torch import nn
from torchvision import datasets
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

from easycompress.assemble import make_the_task
from easycompress.core.errors import BadInput
from easycompress.intake.config import make_request
from easycompress.intake.data import Raw, load_data
from easycompress.intake.vision import TORCHVISION, torchvision_hint

if TYPE_CHECKING:
    from pathlib import Path

    from easycompress.core.task import Split, Task


def load(spec: str, base: Path) -> Raw:
    return load_data(spec, mean=None, std=None, base=base, seed=0)


def pixels(split: Split | None) -> torch.Tensor:
    assert split is not None
    assert isinstance(split.inputs, torch.Tensor)
    return split.inputs


def labels(split: Split | None) -> list[int]:
    assert split is not None
    assert split.targets is not None
    found: list[int] = split.targets.tolist()
    return found


@pytest.mark.parametrize("name", TORCHVISION)
def test_every_name_is_a_class_that_takes_a_root_and_these_splits(name: str, tmp_path: Path) -> None:
    kind, _, splits = TORCHVISION[name]
    for chosen in splits.values():
        with pytest.raises((RuntimeError, FileNotFoundError)):  # nothing is there; another split would be a ValueError
            getattr(datasets, kind)(tmp_path, **chosen)
    with pytest.raises(BadInput) as caught:
        load(name, tmp_path)
    text = str(caught.value)
    assert text.startswith(f"--data {name}: not under ")
    assert f"from torchvision.datasets import {kind}; " in text or "its documentation of FER2013 says" in text
    assert "download=True" in text or kind == "FER2013"


def test_sets_in_one_array(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.SVHN, "_check_integrity", lambda _: True)
    grey = np.arange(32 * 32 * 3 * 2, dtype=np.uint8).reshape(32, 32, 3, 2)
    for part, classes in (("train", [[10], [3]]), ("test", [[1], [9]])):
        savemat(tmp_path / f"{part}_32x32.mat", {"X": grey, "y": np.array(classes, dtype=np.uint8)})
    for spec in ("svhn", "SVHN", str(tmp_path)):
        raw = load(spec, tmp_path)
        assert labels(raw.train) == [0, 3]  # the file's 10 is the digit 0
        assert labels(raw.test) == [1, 9]
        torch.testing.assert_close(pixels(raw.test)[1], torch.from_numpy(grey[..., 1]).permute(2, 0, 1) / 255)
        assert raw.validation is None


def test_sets_of_several_splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.MNIST, "_check_exists", lambda _: True)
    raw_folder = tmp_path / "data" / "EMNIST" / "raw"
    raw_folder.mkdir(parents=True)
    for part, count in (("train", 3), ("test", 2)):
        for what, array in (("images-idx3", np.full((count, 28, 28), 9)), ("labels-idx1", np.arange(count))):
            header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
            path = raw_folder / f"emnist-letters-{part}-{what}-ubyte"
            path.write_bytes(header + array.astype(np.uint8).tobytes())
    assert labels(load("emnist-letters", tmp_path).train) == [0, 1, 2]
    with pytest.raises(BadInput, match=r"data: holds emnistbalanced, .*; name one, as --data emnistbalanced"):
        load("data", tmp_path)


def gtsrb(root: Path, size: int = 8) -> None:
    """Write two training images and two test images in the layout of the traffic signs."""
    for place in range(2):
        folder = root / "gtsrb" / "GTSRB" / "Training" / f"{place:05d}"
        folder.mkdir(parents=True)
        Image.new("RGB", (size, size), (100 * place, 0, 255)).save(folder / "a.ppm")
    images = root / "gtsrb" / "GTSRB" / "Final_Test" / "Images"
    images.mkdir(parents=True)
    with (root / "gtsrb" / "GT-final_test.csv").open("w", newline="") as file:
        rows = csv.writer(file, delimiter=";")
        rows.writerow(["Filename", "ClassId"])
        for place in range(2):
            Image.new("RGB", (size, size), (0, 50 * place, 0)).save(images / f"{place}.ppm")
            rows.writerow([f"{place}.ppm", 1 - place])


def test_sets_of_files(tmp_path: Path) -> None:
    gtsrb(tmp_path)
    for spec in ("gtsrb", "GTSRB", str(tmp_path), str(tmp_path / "gtsrb")):
        raw = load(spec, tmp_path)
        assert (labels(raw.train), labels(raw.test)) == ([0, 1], [1, 0])
    assert pixels(raw.train).shape == (2, 3, 8, 8)
    torch.testing.assert_close(pixels(raw.test)[1, :, 0, 0], torch.tensor([0.0, 50 / 255, 0.0]))
    image = tmp_path / "gtsrb" / "GTSRB" / "Training" / "00001" / "a.ppm"
    Image.new("RGB", (9, 8)).save(image)
    with pytest.raises(BadInput, match="images differ in size: train sample 0 is 8x8, train sample 1 is 9x8"):
        load("gtsrb", tmp_path)
    image.write_bytes(b"P6 nothing")
    with pytest.raises(BadInput, match="train sample 1: not a readable image"):
        load("gtsrb", tmp_path)


def test_misspelt_names_are_answered_by_all_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise ConnectionError

    assert torchvision_hint("fashon-mnist").startswith("did you mean fashionmnist? torchvision's sets are mnist, ")
    monkeypatch.setattr(pytest.importorskip("datasets"), "load_dataset", offline)
    with pytest.raises(BadInput) as caught:
        load("svnh", tmp_path)
    text = str(caught.value)
    assert "did you mean svhn? torchvision's sets are " in text
    assert all(name in text for name in TORCHVISION)
    assert "\n" not in text


SIZE = 8


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of an untrained vision transformer, whose processor resizes to 8x8 and normalises to -1..1."""
    path = tmp_path_factory.mktemp("vit")
    torch.manual_seed(0)
    config = ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
                       image_size=SIZE, patch_size=4, num_labels=2)  # fmt: skip
    ViTForImageClassification(config).save_pretrained(path)
    ViTImageProcessor(size={"height": SIZE, "width": SIZE}).save_pretrained(path)
    return path


def task(folder: Path, **flags: Any) -> Task:
    request, base = make_request(str(folder), {"target": "2x", "max_drop": "50%"} | flags)
    return make_the_task(folder, request, base, (None, None, None))


def squares(count: int = 8) -> np.ndarray[Any, Any]:
    """Return grey images twice as large as the model takes them, each of one shade."""
    return np.repeat(np.arange(0, 32 * count, 32, dtype=np.uint8), 4 * SIZE * SIZE).reshape(count, 2 * SIZE, 2 * SIZE)


def made_of(given: Task) -> torch.Tensor:
    """Return all judged samples, darkest first."""
    found = torch.cat([pixels(given.data.select), pixels(given.data.report)])
    return found[found[:, 0, 0, 0].argsort()]


def expected() -> torch.Tensor:
    shades = torch.arange(0, 256, 32) / 255 * 2 - 1
    return shades[:, None, None, None].expand(8, 3, SIZE, SIZE)


def test_pictures_in_class_folders_as_the_processor_reads_them(vit: Path, tmp_path: Path) -> None:
    for place, square in enumerate(squares()):
        folder = tmp_path / "test" / str(place % 2)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(square).save(folder / f"{place}.png")
    made = task(vit, data=str(tmp_path))
    torch.testing.assert_close(made_of(made), expected(), atol=1e-4, rtol=0)
    assert made.metric.name == "accuracy"
    assert isinstance(made.model, ViTForImageClassification)


def test_pixels_in_an_npz_as_the_processor_reads_them(vit: Path, tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    np.savez(path, x_test=squares(), y_test=np.arange(8) % 2)
    made = task(vit, data=str(path))
    torch.testing.assert_close(made_of(made), expected(), atol=1e-4, rtol=0)
    assert "the model's own image processor read the pixels" in made.notes
    for array in (squares()[:, None].repeat(3, 1), squares()[..., None].repeat(4, -1), squares()[..., None]):
        np.savez(path, x_test=array, y_test=np.arange(8) % 2)
        torch.testing.assert_close(made_of(task(vit, data=str(path))), expected(), atol=1e-4, rtol=0)
    ready = expected().numpy()
    np.savez(path, x_test=ready, y_test=np.arange(8) % 2)
    plain = task(vit, data=str(path))
    torch.testing.assert_close(made_of(plain), expected(), atol=1e-4, rtol=0)  # floats are what the model takes
    assert "the model's own image processor read the pixels" not in plain.notes


def test_torchvision_s_images_as_the_processor_reads_them(vit: Path, tmp_path: Path) -> None:
    gtsrb(tmp_path, 20)
    made = task(vit, data=str(tmp_path))
    assert pixels(made.data.train).shape == (2, 3, SIZE, SIZE)
    torch.testing.assert_close(pixels(made.data.train)[0, :, 0, 0], torch.tensor([-1.0, -1.0, 1.0]))
    assert labels(made.data.train) == [0, 1]


def test_the_processor_normalises_alone(vit: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x_test=squares(), y_test=np.arange(8) % 2)
    with pytest.raises(BadInput, match="the model's own image processor normalises; leave them out"):
        task(vit, data=str(tmp_path / "d.npz"), mean=(0.5,), std=(0.5,))


def test_without_a_processor_pixels_are_scaled(tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    np.savez(path, x_test=squares(), y_test=np.arange(8) % 2)
    raw = load_data(str(path), mean=None, std=None, base=None, seed=0, model=nn.Identity())
    assert pixels(raw.test).shape == (8, 1, 2 * SIZE, 2 * SIZE)
    assert not raw.notes
