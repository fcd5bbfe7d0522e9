"""What `--data` accepts, what comes out, and what is refused with which words."""

from __future__ import annotations

import io
import shutil
import textwrap
from collections import UserDict
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from pyarrow import parquet
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from easycompress.core.errors import BadInput
from easycompress.core.inputs import Bundle
from easycompress.intake import stored
from easycompress.intake.data import Raw, load_data
from easycompress.intake.objects import as_split
from easycompress.intake.userfile import load_function

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from easycompress.core.task import Split

RNG = np.random.default_rng(0)


def load(
    spec: str,
    base: Path | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    *,
    seed: int = 0,
    labelled: bool = True,
) -> Raw:
    return load_data(spec, mean=mean, std=std, base=base, seed=seed, labelled=labelled)


def some(split: Split | None) -> Split:
    assert split is not None
    return split


def labels_of(split: Split | None) -> list[Any]:
    targets = some(split).targets
    assert targets is not None
    return targets.tolist()


def refused(spec: str, base: Path | None = None, **options: Any) -> str:
    with pytest.raises(BadInput) as caught:
        load(spec, base, **options)
    text = str(caught.value)
    assert "\n" not in text
    return text


def unreadable(value: object) -> str:
    with pytest.raises(BadInput) as caught:
        as_split(value, "validation")
    text = str(caught.value)
    assert text.startswith("validation")
    assert "\n" not in text
    return text


def full(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that memory holds 1000 bytes, and the disk no more."""
    monkeypatch.setattr(stored, "MEMORY_BYTES", 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))


def pixels(*shape: int) -> np.ndarray[Any, Any]:
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def encoded(array: np.ndarray[Any, Any]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


class TestDigits:
    def test_is_split_60_20_20_and_stratified(self) -> None:
        raw = load("digits")
        sizes = [len(some(split)) for split in (raw.train, raw.validation, raw.test)]
        assert sizes == [1078, 359, 360]
        train = some(raw.train)
        assert train.inputs.shape == (1078, 1, 8, 8)
        assert train.inputs.dtype == torch.float32
        assert (float(train.inputs.min()), float(train.inputs.max())) == (0.0, 1.0)
        counts = np.bincount(labels_of(raw.test), minlength=10)
        assert counts.min() >= 35
        assert counts.max() <= 37

    def test_does_not_depend_on_the_seed(self) -> None:
        first, second = load("digits", seed=0), load("digits", seed=1)
        assert torch.equal(some(first.test).inputs, some(second.test).inputs)

    def test_is_normalised(self) -> None:
        plain, moved = some(load("digits").test), some(load("digits", mean=(0.5,), std=(0.25,)).test)
        assert torch.allclose(moved.inputs, (plain.inputs - 0.5) / 0.25)


class TestNpz:
    def test_grey_bytes_become_one_channel_in_0_to_1(self, tmp_path: Path) -> None:
        x = pixels(5, 4, 6)
        np.savez(tmp_path / "d.npz", x_train=x, y_train=np.arange(5, dtype=np.uint8))
        raw = load("d.npz", tmp_path)
        train = some(raw.train)
        assert train.inputs.shape == (5, 1, 4, 6)
        assert torch.allclose(train.inputs[:, 0], torch.from_numpy(x) / 255)
        assert train.targets is not None
        assert train.targets.dtype == torch.int64
        assert raw.validation is None
        assert raw.test is None

    @pytest.mark.parametrize("channels", [1, 3, 4])
    @pytest.mark.parametrize("dtype", [np.uint8, np.float64])
    def test_channels_last_becomes_nchw(self, tmp_path: Path, channels: int, dtype: type) -> None:
        x: np.ndarray[Any, Any] = pixels(2, 5, 6, channels).astype(dtype)
        np.savez(tmp_path / "d.npz", x_test=x, y_test=[0, 1])
        inputs = some(load("d.npz", tmp_path).test).inputs
        expected = torch.from_numpy(x).permute(0, 3, 1, 2).float() / (255 if dtype is np.uint8 else 1)
        assert inputs.dtype == torch.float32
        assert inputs.is_contiguous()
        assert torch.allclose(inputs, expected)

    @pytest.mark.parametrize("shape", [(3, 3, 5, 6), (3, 7), (3, 1, 8, 3), (3, 5, 6)])
    def test_floats_keep_their_layout_and_values(self, tmp_path: Path, shape: tuple[int, ...]) -> None:
        x: np.ndarray[Any, Any] = RNG.normal(size=shape)
        np.savez(tmp_path / "d.npz", x_validation=x, y_validation=np.array([0.5, 1.5, 2.5]))
        split = some(load("d.npz", tmp_path).validation)
        assert torch.equal(split.inputs, torch.from_numpy(x.astype(np.float32)))
        assert split.targets is not None
        assert split.targets.dtype == torch.float32

    def test_other_integers_are_tokens(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "d.npz", x_val=np.array([[1, 2], [3, 300]], dtype=np.uint16), y_val=[[1], [0]])
        raw = load("d.npz", tmp_path)
        assert some(raw.validation).inputs.dtype == torch.int64
        assert some(raw.validation).inputs.tolist() == [[1, 2], [3, 300]]
        assert labels_of(raw.validation) == [1, 0]

    def test_normalisation_is_per_channel_after_scaling(self, tmp_path: Path) -> None:
        x = pixels(2, 4, 4, 3)
        np.savez(tmp_path / "d.npz", x_test=x, y_test=[0, 1])
        moved = some(load("d.npz", tmp_path, mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 4.0)).test).inputs
        expected = (x / 255 - [0.1, 0.2, 0.3]) / [1, 2, 4]
        assert np.allclose(moved.permute(0, 2, 3, 1).numpy(), expected, atol=1e-6)

    def test_normalisation_reaches_float_images_too(self, tmp_path: Path) -> None:
        x = np.ones((2, 3, 4, 4), dtype=np.float32)
        np.savez(tmp_path / "d.npz", x_test=x, y_test=[0, 1])
        assert (some(load("d.npz", tmp_path, mean=(0.5,), std=(0.5,)).test).inputs == 1.0).all()

    @pytest.mark.parametrize(
        ("mean", "std", "text"),
        [
            ((0.5,), None, "--mean without --std"),
            (None, (0.5,), "--std without --mean"),
            ((0.5,), (0.0,), "--std 0: a standard deviation must be positive"),
            ((float("nan"),), (1.0,), "not finite"),
            ((0.1, 0.2), (0.5,), "--mean: 2 numbers for 3 channels; give 1 or 3"),
            ((0.1,), (0.5, 0.5), "--std: 2 numbers for 3 channels; give 1 or 3"),
        ],
    )
    def test_bad_normalisation(
        self, tmp_path: Path, mean: tuple[float, ...] | None, std: tuple[float, ...] | None, text: str
    ) -> None:
        np.savez(tmp_path / "d.npz", x_test=pixels(2, 4, 4, 3), y_test=[0, 1])
        assert text in refused("d.npz", tmp_path, mean=mean, std=std)

    def test_normalisation_is_for_images(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "d.npz", x_test=np.ones((2, 9)), y_test=[0, 1])
        text = refused("d.npz", tmp_path, mean=(0.5,), std=(0.5,))
        assert "--mean and --std are for images, but a sample is (9,) float32" in text

    def test_refusals(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "keys.npz", images=np.ones(3), y_test=[1])
        np.savez(tmp_path / "text.npz", x_test=np.array(["a", "b"]))
        np.savez(tmp_path / "object.npz", x_test=np.array([{}, None], dtype=object))
        (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 nothing")
        with (tmp_path / "single.npz").open("wb") as file:
            np.save(file, np.ones(3))
        assert "no x_train, x_val or x_test in it; it holds images, y_test" in refused("keys.npz", tmp_path)
        assert "test: an array of <U1; inputs are uint8 images" in refused("text.npz", tmp_path)
        for name in ("object.npz", "broken.npz", "single.npz"):
            assert f"--data {name}: not a readable .npz of plain arrays" in refused(name, tmp_path)
        assert "no file" in refused("missing.npz", tmp_path)

    def test_more_than_the_memory_limit(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        full(monkeypatch)
        np.savez(tmp_path / "d.npz", x_test=pixels(10, 8, 8), y_test=np.zeros(10, int))
        assert "test: 10 samples of 0.000256 MB are" in refused("d.npz", tmp_path)


class TestFolder:
    def fill(self, folder: Path, arrays: list[np.ndarray[Any, Any]], suffix: str = "png") -> None:
        folder.mkdir(parents=True)
        for index, array in enumerate(arrays):
            Image.fromarray(array).save(folder / f"{index}.{suffix}")

    def test_class_folders_in_split_folders(self, tmp_path: Path) -> None:
        cats, dogs = pixels(2, 5, 4, 3), pixels(3, 5, 4, 3)
        self.fill(tmp_path / "train/dog", list(dogs))
        self.fill(tmp_path / "train/cat", list(cats))
        self.fill(tmp_path / "valid/dog", list(dogs[:1]), "bmp")
        (tmp_path / "train/cat/notes.txt").write_text("not an image")
        (tmp_path / "train/.cache").mkdir()
        raw = load(str(tmp_path))
        assert torch.allclose(some(raw.train).inputs[:2], torch.from_numpy(cats).permute(0, 3, 1, 2) / 255)
        assert labels_of(raw.train) == [0, 0, 1, 1, 1]
        assert labels_of(raw.validation) == [1]  # as train numbers it, though cat is not here
        assert raw.test is None

    def test_without_split_folders_it_is_training_data(self, tmp_path: Path) -> None:
        self.fill(tmp_path / "a", [pixels(4, 4)])
        self.fill(tmp_path / "b", [pixels(4, 4)])
        raw = load(str(tmp_path))
        assert labels_of(raw.train) == [0, 1]
        assert some(raw.train).inputs.shape == (2, 1, 4, 4)
        assert raw.validation is None

    def test_grey_among_colour_becomes_rgb_in_every_split(self, tmp_path: Path) -> None:
        grey = pixels(4, 4)
        self.fill(tmp_path / "train/a", [grey])
        self.fill(tmp_path / "test/a", [pixels(4, 4, 3)])
        inputs = some(load(str(tmp_path)).train).inputs
        assert torch.allclose(inputs, torch.from_numpy(grey).expand(1, 3, 4, 4) / 255)

    def test_exif_palette_alpha_and_16_bit(self, tmp_path: Path) -> None:
        folder = tmp_path / "test/a"
        folder.mkdir(parents=True)
        exif = Image.Exif()
        exif[0x0112] = 6  # turn a quarter clockwise to see it upright
        wide = np.zeros((8, 16, 3), dtype=np.uint8)
        wide[:, :8] = 255
        Image.fromarray(wide).save(folder / "0.jpg", exif=exif, quality=95)
        palette = Image.fromarray(np.ones((16, 8), dtype=np.uint8))
        palette = palette.convert("P")
        palette.putpalette([0, 0, 0, 255, 0, 0])
        palette.save(folder / "1.png", transparency=b"\x00\xff")
        Image.fromarray(np.full((16, 8, 4), 51, dtype=np.uint8)).save(folder / "2.webp", lossless=True, exact=True)
        Image.fromarray(np.full((16, 8), 51 * 257, dtype=np.uint16)).save(folder / "3.png")
        inputs = some(load(str(tmp_path)).test).inputs
        assert inputs.shape == (4, 3, 16, 8)
        assert float(inputs[0, :, :7].min()) > 0.9
        assert float(inputs[0, :, 9:].max()) < 0.1
        assert inputs[1].amax((1, 2)).tolist() == [1.0, 0.0, 0.0]
        assert torch.allclose(inputs[2:], torch.tensor(0.2))

    def test_large_images_are_decoded_by_threads_in_order(self, tmp_path: Path) -> None:
        shades = [np.full((64, 64), shade, dtype=np.uint8) for shade in range(10)]
        self.fill(tmp_path / "test/a", shades)
        inputs = some(load(str(tmp_path)).test).inputs
        assert (inputs[:, 0, 0, 0] * 255).round().tolist() == list(range(10))

    def test_different_sizes_name_two_files(self, tmp_path: Path) -> None:
        self.fill(tmp_path / "train/a", [pixels(4, 6), pixels(5, 6)])
        text = refused(str(tmp_path))
        assert "images differ in size: train/a/0.png is 6x4, train/a/1.png is 6x5" in text.replace("\\", "/")

    def test_refusals(self, tmp_path: Path) -> None:
        self.fill(tmp_path / "twice/val/a", [pixels(2, 2)])
        self.fill(tmp_path / "twice/valid/a", [pixels(2, 2)])
        self.fill(tmp_path / "extra/train/a", [pixels(2, 2)])
        self.fill(tmp_path / "extra/test/b", [pixels(2, 2)])
        self.fill(tmp_path / "hollow/train/a", [])
        self.fill(tmp_path / "flat", [pixels(2, 2)])
        self.fill(tmp_path / "broken/test/a", [])
        (tmp_path / "broken/test/a/x.png").write_bytes(b"no image")
        assert "val and valid both mean validation; keep one" in refused("twice", tmp_path)
        assert "is a class that train has not" in refused("extra", tmp_path)
        assert "--data hollow: no images for train" in refused("hollow", tmp_path)
        assert "--data flat: no class folders in" in refused("flat", tmp_path)
        assert "x.png: not a readable image" in refused("broken", tmp_path)

    def test_more_than_the_memory_limit(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        full(monkeypatch)
        self.fill(tmp_path / "test/a", [pixels(10, 10), pixels(10, 10), pixels(10, 10)])
        assert "3 samples of 0.0004 MB are 1.2e-06 GB, but" in refused(str(tmp_path))


class TestParquet:
    def write(self, path: Path, cells: list[Any], **columns: list[Any]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(pa.table({"image": cells} | columns), path)

    def cells(self, arrays: np.ndarray[Any, Any]) -> list[dict[str, Any]]:
        return [{"bytes": encoded(array), "path": None} for array in arrays]

    def test_shards_and_splits(self, tmp_path: Path) -> None:
        x = pixels(5, 4, 4, 3)
        self.write(tmp_path / "data/train-00000-of-00002.parquet", self.cells(x[:2]), label=[3, 1])
        self.write(tmp_path / "data/train-00001-of-00002.parquet", self.cells(x[2:4]), label=[2, 0])
        self.write(tmp_path / "data/validation.parquet", self.cells(x[4:]), label=[7])
        raw = load(str(tmp_path))
        assert torch.allclose(some(raw.train).inputs, torch.from_numpy(x[:4]).permute(0, 3, 1, 2) / 255)
        assert labels_of(raw.train) == [3, 1, 2, 0]
        assert labels_of(raw.validation) == [7]
        assert raw.test is None

    def test_one_file_other_column_names_and_a_path(self, tmp_path: Path) -> None:
        x = pixels(2, 4, 4)
        (tmp_path / "b.png").write_bytes(encoded(x[1]))
        cells = [{"bytes": encoded(x[0]), "path": "a.png"}, {"bytes": None, "path": "b.png"}]
        parquet.write_table(pa.table({"coarse": [0, 0], "img": cells, "fine_label": [4, 5]}), tmp_path / "test.parquet")
        raw = load("test.parquet", tmp_path)
        assert torch.allclose(some(raw.test).inputs[:, 0], torch.from_numpy(x) / 255)
        assert labels_of(raw.test) == [4, 5]

    def test_labels_may_be_missing_when_none_are_needed(self, tmp_path: Path) -> None:
        self.write(tmp_path / "test.parquet", self.cells(pixels(2, 4, 4)))
        assert some(load("test.parquet", tmp_path, labelled=False).test).targets is None
        text = refused("test.parquet", tmp_path)
        assert "test.parquet has no label column among image; name it by --columns" in text
        assert "--metric agreement" in text

    def test_refusals(self, tmp_path: Path) -> None:
        cells = self.cells(pixels(2, 4, 4))
        self.write(tmp_path / "images.parquet", cells, label=[0, 1])
        self.write(tmp_path / "train.parquet", cells, label=["cat", "dog"])
        self.write(tmp_path / "val.parquet", cells, label=[1, None])
        self.write(tmp_path / "test_holes.parquet", [cells[0], None], label=[0, 1])
        parquet.write_table(pa.table({"text": ["a"], "label": [1]}), tmp_path / "test.parquet")
        (tmp_path / "dev.parquet").write_bytes(b"nothing")
        assert load("images.parquet", tmp_path).train is not None
        named = load("train.parquet", tmp_path)
        assert labels_of(named.train) == [0, 1]
        assert "labels were numbered in the order of their names: cat, dog" in named.notes
        assert "val.parquet row 1 has no label" in refused("val.parquet", tmp_path)
        assert "test_holes.parquet row 1 has no image; fill it in" in refused("test_holes.parquet", tmp_path)
        assert "column text holds texts, but the model has no tokenizer" in refused("test.parquet", tmp_path)
        assert "dev.parquet is not readable parquet" in refused("dev.parquet", tmp_path)
        assert "no file" in refused("none.parquet", tmp_path)


class TestFunction:
    def write(self, folder: Path, body: str, name: str = "task.py") -> None:
        (folder / name).write_text("import torch\n" + textwrap.dedent(body))

    def test_a_dict_of_splits(self, tmp_path: Path) -> None:
        self.write(tmp_path, "def data():\n    x = torch.rand(3, 2)\n    return {'train': (x, [0, 1, 0]), 'test': x}")
        before = torch.get_rng_state()
        raw, again, other = (load("task.py:data", tmp_path, seed=seed) for seed in (0, 0, 1))
        assert labels_of(raw.train) == [0, 1, 0]
        assert some(raw.test).targets is None
        assert torch.equal(some(raw.test).inputs, some(again.test).inputs)
        assert not torch.equal(some(raw.test).inputs, some(other.test).inputs)
        assert torch.equal(torch.get_rng_state(), before)

    @pytest.mark.parametrize(
        ("body", "text"),
        [
            ("return 3", "--data task.py:data: returned a int; return a dict"),
            ("return {'val': torch.ones(2)}", "returned the keys val; use any of train, validation, test"),
            ("return {}", "returned the keys (none)"),
            ("raise OSError('no such disk')", "--data task.py:data: raised OSError: no such disk"),
            ("return {'test': 'x'}", "test: a str can't be read as data; give a DataLoader"),
        ],
    )
    def test_refusals(self, tmp_path: Path, body: str, text: str) -> None:
        self.write(tmp_path, f"def data():\n    {body}\n")
        assert text in refused("task.py:data", tmp_path)

    def test_normalisation_belongs_inside(self, tmp_path: Path) -> None:
        self.write(tmp_path, "def data():\n    return {'test': torch.ones(2, 3, 4, 4)}\n")
        assert "normalise inside it" in refused("task.py:data", tmp_path, mean=(0.5,), std=(0.5,))

    def test_unknown_forms_name_the_known(self, tmp_path: Path) -> None:
        (tmp_path / "x.xls").write_text("a")
        for spec, reason in (("nowhere", "not found"), ("x.xls", "is a file of no known form")):
            text = refused(spec, tmp_path)
            assert text.startswith(f"--data {spec}: {reason}; --data takes digits, file.npz")
            assert "parquet" in text


class TestLoadFunction:
    def test_neighbours_are_importable_and_the_path_is_left_alone(self, tmp_path: Path) -> None:
        import sys  # noqa: PLC0415 - only this test looks at the path

        folder = tmp_path / "deep"
        folder.mkdir()
        (folder / "neighbour_of_task.py").write_text("VALUE = 7\n")
        (folder / "task.py").write_text("from neighbour_of_task import VALUE\ndef make(): return VALUE\n")
        before = list(sys.path)
        assert load_function("deep/task.py:make", "--factory", tmp_path)() == 7
        assert sys.path == before

    def test_same_file_name_in_two_folders(self, tmp_path: Path) -> None:
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "task.py").write_text(f"def make(): return {name!r}\n")
        functions = [load_function(f"{name}/task.py:make", "--factory", tmp_path) for name in ("one", "two")]
        assert [function() for function in functions] == ["one", "two"]
        assert functions[0].__module__ != functions[1].__module__

    def test_modules(self, tmp_path: Path) -> None:
        package = tmp_path / "package_for_loading"
        package.mkdir()
        (package / "__init__.py").write_text("")
        (package / "inner.py").write_text("def make(): return 3\n")
        assert load_function("package_for_loading.inner:make", "--factory", tmp_path)() == 3
        assert load_function("math:sqrt", "--loss")(9) == 3

    @pytest.mark.parametrize(
        ("spec", "text"),
        [
            ("task.py", "--loss task.py: not a function; write file.py:function or package.module:function"),
            ("task.py:", "--loss task.py:: not a function"),
            ("gone.py:make", "--loss gone.py:make: no file"),
            ("bad.py:make", "--loss bad.py:make: bad.py raised ZeroDivisionError: division by zero"),
            ("exits.py:make", "exits.py raised SystemExit: 1"),
            ("syntax.py:make", "syntax.py raised SyntaxError"),
            ("task.py:gone", "task.py has no function gone; functions there: make, other"),
            ("empty.py:gone", "functions there: none"),
            ("task.py:VALUE", "VALUE is a int, not a function"),
            ("no_such_module_here:make", "importing no_such_module_here raised ModuleNotFoundError"),
        ],
    )
    def test_refusals(self, tmp_path: Path, spec: str, text: str) -> None:
        (tmp_path / "task.py").write_text("from math import sqrt\nVALUE = 1\ndef make(): ...\ndef other(): ...\n")
        (tmp_path / "bad.py").write_text("1 / 0\n")
        (tmp_path / "exits.py").write_text("raise SystemExit(1)\n")
        (tmp_path / "syntax.py").write_text("def (:\n")
        (tmp_path / "empty.py").write_text("")
        with pytest.raises(BadInput) as caught:
            load_function(spec, "--loss", tmp_path)
        assert text in str(caught.value)
        assert "\n" not in str(caught.value)


class Squares(Dataset[Any]):
    """Ten samples: x = i, y = i squared."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> Any:
        return torch.full((3,), float(index), dtype=torch.float64), index * index


IDS = torch.tensor([[1, 2], [3, 4], [5, 6]])
MASK = torch.tensor([[1.0], [0.0], [1.0]])
LABELS = torch.tensor([2, 0, 1])
ROWS = [{"ids": ids, "mask": mask, "labels": label} for ids, mask, label in zip(IDS, MASK, LABELS, strict=True)]


class Columns:
    """What is needed of a Hugging Face dataset: column names, a length, slices as a dict of columns."""

    def __init__(self, **columns: list[Any]) -> None:
        self.columns = columns
        self.column_names = list(columns)

    def __len__(self) -> int:
        return len(self.columns[self.column_names[0]])

    def __getitem__(self, rows: slice) -> dict[str, list[Any]]:
        return {name: values[rows] for name, values in self.columns.items()}


class TestObjects:
    def test_pairs_of_arrays_or_tensors(self) -> None:
        x, y = RNG.normal(size=(4, 2)), np.array([[1], [0], [1], [0]], dtype=np.int32)
        for pair in ((x, y), [torch.from_numpy(x), torch.from_numpy(y)]):
            split = as_split(pair, "train")
            assert split.inputs.dtype == torch.float32
            assert torch.allclose(split.inputs.double(), torch.from_numpy(x))
            assert labels_of(split) == [1, 0, 1, 0]

    def test_inputs_alone_and_types_that_stay(self) -> None:
        tokens = torch.tensor([[1, 2]], dtype=torch.int32)
        split = as_split(tokens, "test")
        assert split.inputs.dtype == torch.int32
        assert split.targets is None
        assert as_split((tokens, None), "test").targets is None
        assert as_split(np.ones((2, 2), np.float16), "test").inputs.dtype == torch.float32

    def test_read_only_and_reversed_arrays(self) -> None:
        x = np.arange(6.0, dtype=">f4").reshape(3, 2)[::-1]
        x.flags.writeable = False
        assert as_split(x, "test").inputs.tolist() == [[4.0, 5.0], [2.0, 3.0], [0.0, 1.0]]

    def test_map_style_dataset(self) -> None:
        split = as_split(Squares(), "train")
        assert split.inputs.shape == (10, 3)
        assert split.inputs.dtype == torch.float32
        assert labels_of(split) == [i * i for i in range(10)]

    def test_iterable_dataset(self) -> None:
        class Stream(IterableDataset[Any]):
            def __iter__(self) -> Iterator[Any]:
                return iter([(torch.ones(2) * i, float(i)) for i in range(3)])

        split = as_split(Stream(), "train")
        assert labels_of(split) == [0.0, 1.0, 2.0]
        assert split.inputs[:, 0].tolist() == [0.0, 1.0, 2.0]

    def test_loader_is_read_whole_and_shuffles_alike_each_time(self) -> None:
        before = torch.get_rng_state()
        loader = DataLoader(Squares(), batch_size=4, shuffle=True)
        first, second = as_split(loader, "test"), as_split(loader, "test")
        assert sorted(labels_of(first)) == [i * i for i in range(10)]
        assert labels_of(first) == labels_of(second)
        assert torch.equal(torch.get_rng_state(), before)

    def test_loader_of_inputs_alone(self) -> None:
        split = as_split(DataLoader(TensorDataset(torch.arange(6.0).view(3, 2)), batch_size=2), "test")
        assert split.inputs.tolist() == [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]
        assert split.targets is None

    def test_columns_of_images(self) -> None:
        arrays = [pixels(4, 5, 3), pixels(4, 5)]
        data = Columns(image=[Image.fromarray(array) for array in arrays], label=[1, 0])
        split = as_split(data, "test")
        assert split.inputs.shape == (2, 3, 4, 5)
        assert torch.allclose(split.inputs[1, 2], torch.from_numpy(arrays[1]) / 255)
        assert labels_of(split) == [1, 0]
        as_arrays = as_split(Columns(labels=[1, 0], image=[*arrays]), "test")
        assert torch.equal(as_arrays.inputs, split.inputs)

    def test_columns_of_numbers(self) -> None:
        tokens = as_split(Columns(target=[1, 0], input_ids=[[1, 2], [3, 4]]), "test")
        assert tokens.inputs.dtype == torch.int64
        assert labels_of(tokens) == [1, 0]
        assert as_split(Columns(x=[0.5, 1.5]), "test").inputs.tolist() == [0.5, 1.5]

    @pytest.mark.parametrize(
        "value",
        [
            ((IDS, MASK), LABELS),
            [[IDS.numpy(), MASK.numpy()], LABELS],
            DataLoader(TensorDataset(torch.arange(3)), collate_fn=lambda _: ((IDS, MASK), LABELS), batch_size=3),
        ],
    )
    def test_inputs_of_several_tensors_in_order(self, value: object) -> None:
        split = as_split(value, "train")
        assert isinstance(split.inputs, Bundle)
        assert split.inputs.names == ()
        assert [t.tolist() for t in split.inputs.tensors] == [IDS.tolist(), MASK.tolist()]
        assert [t.dtype for t in split.inputs.tensors] == [torch.int64, torch.float32]
        assert labels_of(split) == LABELS.tolist()

    @pytest.mark.parametrize(
        "value",
        [
            {"ids": IDS, "mask": MASK, "labels": LABELS},
            UserDict({"ids": IDS, "mask": MASK, "target": LABELS}),
            ({"ids": IDS, "mask": MASK}, LABELS),
            DataLoader(ROWS, batch_size=2),  # type: ignore[arg-type] # a list serves as a dataset
            DataLoader([(({"ids": r["ids"], "mask": r["mask"]}), r["labels"]) for r in ROWS]),  # type: ignore[arg-type] # as above
        ],
    )
    def test_inputs_by_keyword(self, value: object) -> None:
        split = as_split(value, "train")
        assert isinstance(split.inputs, Bundle)
        assert split.inputs.names == ("ids", "mask")
        assert torch.equal(split.inputs.tensors[0], IDS)
        assert torch.equal(split.inputs.tensors[1], MASK)
        assert labels_of(split) == LABELS.tolist()

    def test_columns_of_a_tokenizer(self) -> None:
        data = Columns(
            sentence=["a", "b"], label=[1, 0], idx=[7, 8], attention_mask=[[1, 1], [1, 0]], input_ids=[[5, 6], [7, 0]]
        )
        split = as_split(data, "train")
        assert isinstance(split.inputs, Bundle)
        assert split.inputs.names == ("input_ids", "attention_mask")
        assert split.inputs.tensors[0].tolist() == [[5, 6], [7, 0]]
        assert split.inputs.tensors[0].dtype == torch.int64

    @pytest.mark.parametrize(
        ("value", "text"),
        [
            ({"train": 1}, "train: inputs are a single number; the first dimension counts the samples"),
            ({"labels": torch.zeros(2)}, "a dict without inputs; give the model's arguments by name"),
            ({"text": ["good", "bad"]}, "text: inputs are a list of <U4, not numbers; give a tensor"),
            ((torch.zeros(2), {"a": 1}), "targets are a dict; give one tensor of targets"),
            (DataLoader([(1, 2, 3)]), "batches of 3 parts; give (inputs, targets): inputs of several tensors are"),  # type: ignore[arg-type] # a list serves as a dataset
            (DataLoader([(1, "cat")]), "targets are a tuple of <U3, not numbers"),  # type: ignore[arg-type] # as above
            (
                DataLoader([torch.ones(2), torch.ones(3)]),  # type: ignore[arg-type] # as above
                "samples of shape (2,) and of (3,); pad or resize",
            ),
            ((torch.ones(2), [[1], [1, 2]]), "targets are uneven"),
            (torch.tensor(1.0), "inputs are a single number"),
            (3, "a int can't be read as data; give a DataLoader, a Dataset"),
            (Columns(text=["a"], label=[1]), "row 0: column text holds a str"),
            (Columns(label=[1]), "a dataset of label; give one split of one that has an input column"),
            (Columns(x=[]), "the dataset has no rows"),
            (Columns(x=[[1, 2], [3]]), "row 1: column x has shape (1,), row 0 (2,)"),
            (Columns(image=[Image.new("L", (4, 5)), Image.new("RGB", (4, 6))]), "row 0 is 4x5, row 1 is 4x6"),
        ],
    )
    def test_refusals(self, value: object, text: str) -> None:
        assert text in unreadable(value)

    def test_a_loader_that_raises(self) -> None:
        class Broken(Squares):
            def __getitem__(self, index: int) -> Any:
                raise KeyError(f"sample\n{index}")

        assert "validation: reading batch 1 raised KeyError" in unreadable(Broken())

    def test_a_loader_that_raises_later_says_where(self) -> None:
        def batches() -> Iterator[torch.Tensor]:
            yield from torch.zeros(2, 3, 4)
            raise OSError("the share is gone")

        text = "validation: reading batch 3 raised OSError: the share is gone; mend the loader"
        assert unreadable(batches()) == text

    def test_a_streamed_dataset(self) -> None:
        class Streamed(IterableDataset[Any]):
            column_names = ("x",)

            def __iter__(self) -> Iterator[Any]:
                return iter([{"x": 1}])

        split = as_split(Streamed(), "validation")
        assert isinstance(split.inputs, torch.Tensor)
        assert split.inputs.tolist() == [1]

    def test_an_empty_loader(self) -> None:
        class Empty(IterableDataset[Any]):
            def __iter__(self) -> Iterator[Any]:
                return iter(())

        assert "the loader gave no batch" in unreadable(Empty())

    def test_memory_is_checked_before_everything_is_read(self, monkeypatch: pytest.MonkeyPatch) -> None:
        full(monkeypatch)
        asked: list[int] = []

        class Big(Squares):
            def __len__(self) -> int:
                return 10_000

            def __getitem__(self, index: int) -> Any:
                asked.append(index)
                return super().__getitem__(index)

        text = unreadable(DataLoader(Big(), batch_size=4))
        assert "validation: 10000 samples of 1.2e-05 MB are" in text
        assert len(asked) == 4
        assert "give a subset" in unreadable(Columns(x=[[1.0] * 300]))
