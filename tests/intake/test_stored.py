"""Data that doesn't fit into memory: written batch by batch to a file, and the same numbers come back."""

from __future__ import annotations

import shutil
import textwrap
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from easycompress.core.errors import BadInput
from easycompress.core.inputs import Bundle
from easycompress.intake import stored
from easycompress.intake.data import load_data
from easycompress.intake.objects import as_split
from easycompress.intake.stored import Growing, refuse_too_large

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

X = torch.arange(600, dtype=torch.float32).reshape(100, 6)
Y = torch.arange(100)


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "MEMORY_BYTES", 1000)


def is_mapped(tensor: torch.Tensor) -> bool:
    """Whether a tensor's numbers lie in a file: NumPy's view of it goes back to a memory map."""
    address = tensor.data_ptr()
    with open("/proc/self/maps") as maps:  # noqa: PTH123 - a file of the kernel's
        for line in maps:
            first, last = (int(part, 16) for part in line.split()[0].split("-"))
            if first <= address < last:
                return "easycompress-" in line or "(deleted)" in line
    return False


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.bool, torch.uint8])
def test_rows_come_back_from_the_file(dtype: torch.dtype) -> None:
    rows = (X > 300).to(dtype) if dtype == torch.bool else (X % 200).to(dtype)
    growing = Growing("train")
    for start in range(0, 100, 7):
        growing.add(rows[start : start + 7])
    tensor = growing.tensor()
    assert len(growing) == 100
    assert torch.equal(tensor, rows)
    assert is_mapped(tensor) == (rows.nbytes > 1000)


@pytest.mark.usefixtures("_small")
def test_the_file_outlives_its_maker_and_can_be_written_to() -> None:
    growing = Growing("train")
    growing.add(X)
    tensor = growing.tensor()
    del growing
    tensor.mul_(2)
    assert torch.equal(tensor, 2 * X)


def test_little_stays_in_memory() -> None:
    growing = Growing("train")
    growing.add(X)
    growing.add(X)
    assert torch.equal(growing.tensor(), torch.cat([X, X]))


def test_rows_of_another_kind() -> None:
    growing = Growing("train")
    growing.add(X)
    with pytest.raises(BadInput, match=r"train: samples of float32 \(6,\) and of int64 \(6,\); make them alike"):
        growing.add(X.long())


@pytest.mark.usefixtures("_small")
def test_a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=5000))
    refuse_too_large(10, 500, "train")
    with pytest.raises(BadInput, match=r"train: 11 samples of 0.0005 MB are 5.5e-06 GB, but .* set TMPDIR"):
        refuse_too_large(11, 500, "train")


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter(zip(X, Y, strict=True))


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize("kind", ["loader", "stream", "generator"])
def test_loaders_streams_and_generators_are_read_batch_by_batch(kind: str) -> None:
    sources: dict[str, Any] = {
        "loader": DataLoader(TensorDataset(X, Y), batch_size=9),
        "stream": Stream(),
        "generator": ((X[i : i + 9], Y[i : i + 9]) for i in range(0, 100, 9)),
    }
    split = as_split(sources[kind], "train")
    assert isinstance(split.inputs, torch.Tensor)
    assert torch.equal(split.inputs, X)
    assert split.targets is not None
    assert torch.equal(split.targets, Y)
    assert is_mapped(split.inputs)
    assert not is_mapped(split.targets)


def test_a_users_function_may_return_generators(tmp_path: Path) -> None:
    (tmp_path / "task.py").write_text(
        textwrap.dedent("""
        import torch

        def batches():
            for i in range(3):
                yield {"a": torch.full((2, 4), float(i)), "b": torch.ones(2, 1), "labels": torch.tensor([i, i])}

        def data():
            return {"train": batches(), "validation": iter([(torch.ones(2, 4), torch.zeros(2))])}
        """)
    )
    raw = load_data("task.py:data", mean=None, std=None, base=tmp_path, seed=0)
    assert raw.train is not None
    assert isinstance(raw.train.inputs, Bundle)
    assert raw.train.inputs.names == ("a", "b")
    assert raw.train.inputs.tensors[0][:, 0].tolist() == [0, 0, 1, 1, 2, 2]
    assert raw.train.targets is not None
    assert raw.train.targets.tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.usefixtures("_small")
def test_images_in_an_npz_are_scaled_into_the_file(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 8, 8, 3), dtype=np.uint8)
    np.savez(tmp_path / "d.npz", x_test=pixels, y_test=np.zeros(9, int))
    raw = load_data("d.npz", mean=(0.5,), std=(0.5,), base=tmp_path, seed=0)
    assert raw.test is not None
    assert isinstance(raw.test.inputs, torch.Tensor)
    expected = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 * 2 - 1
    assert torch.allclose(raw.test.inputs, expected, atol=1e-6)
    assert is_mapped(raw.test.inputs)
