"""The text of `--data` -> the splits that it names, in memory."""

from __future__ import annotations

import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from easycompress.core.errors import BadInput, one_line
from easycompress.core.task import Split
from easycompress.intake.images import Picture, check_normalisation, from_array, load_pictures, normalise
from easycompress.intake.objects import LABEL_COLUMNS, as_split, as_targets
from easycompress.intake.userfile import load_function

FORMS = (
    "digits, file.npz (x_train, y_train, x_val, y_val, x_test, y_test), a folder of class folders, "
    "a folder or file of parquet images, file.py:function"
)
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
"""Names of folders and files, each with the split that it means."""

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
IMAGE_COLUMNS = ("image", "img")
DIGITS_SEED = 0
"""Fixed, whatever --seed is: a model that was trained on the train split of `digits` has never seen the rest."""

_DIGITS_MAX = 16.0
"""The largest pixel of scikit-learn's digits."""


@dataclass(frozen=True)
class Raw:
    """What the user gave, before it becomes train, calibration, select and report. None: not given."""

    train: Split | None
    validation: Split | None
    test: Split | None


def load_data(
    spec: str,
    *,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    base: Path | None,
    seed: int,
    labelled: bool = True,
) -> Raw:
    """Read what `--data` names; see FORMS. Paths are relative to `base` (default: the working folder).

    Images come as float32 (N, C, H, W) in 0..1, then (x - mean) / std per channel; labels as int64, other targets as
    float32. `seed` seeds torch while a user's function runs. With `labelled`, parquet files without labels are refused
    at once. Raises BadInput for anything that can't be read, in one line.
    """
    check_normalisation(mean, std)
    where = f"--data {spec}"
    path = (base or Path.cwd()) / Path(spec).expanduser()
    if spec == "digits":
        raw = _digits()
    elif path.is_dir():
        parquet = sorted(path.glob("*.parquet")) or sorted(path.glob("data/*.parquet"))
        raw = _parquet(parquet, where, labelled=labelled) if parquet else _folder(path, where)
    elif path.suffix == ".npz":
        raw = _npz(_existing(path, where), where)
    elif path.suffix == ".parquet":
        raw = _parquet([_existing(path, where)], where, labelled=labelled)
    elif ":" in spec:
        if mean is not None:
            raise BadInput(f"{where}: --mean and --std don't reach a function of your own; normalise inside it")
        return _function(spec, base, seed, where)
    else:
        reason = "is a file of no known form" if path.is_file() else "not found"
        raise BadInput(f"{where}: {reason}; --data takes {FORMS}")
    for split in (raw.train, raw.validation, raw.test):
        if split is not None:
            normalise(split.inputs, mean, std, where)
    return raw


def _raw(splits: dict[str, Split]) -> Raw:
    return Raw(splits.get("train"), splits.get("validation"), splits.get("test"))


def _existing(path: Path, where: str) -> Path:
    if not path.is_file():
        raise BadInput(f"{where}: no file {path}; --data takes {FORMS}")
    return path


def _digits() -> Raw:
    """1797 handwritten digits of 8x8 pixels that scikit-learn ships, 60 % / 20 % / 20 %, stratified."""
    from sklearn.datasets import load_digits  # noqa: PLC0415 - takes a second to import, and only this form needs it
    from sklearn.model_selection import train_test_split  # noqa: PLC0415 - as above

    pixels, labels = load_digits(return_X_y=True)
    inputs = torch.from_numpy(pixels).float().div_(_DIGITS_MAX).view(-1, 1, 8, 8)
    everything = Split(inputs, torch.from_numpy(labels).long())
    train, rest = train_test_split(np.arange(len(labels)), test_size=0.4, stratify=labels, random_state=DIGITS_SEED)
    validation, test = train_test_split(rest, test_size=0.5, stratify=labels[rest], random_state=DIGITS_SEED)
    return Raw(*(everything.take(torch.from_numpy(part)) for part in (train, validation, test)))


def _npz(path: Path, where: str) -> Raw:
    arrays: dict[str, Any] = {}
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            keys = list(file)
            for split, names in {"train": ["train"], "validation": ["val", "validation"], "test": ["test"]}.items():
                for axis in "xy":
                    key = next((f"{axis}_{name}" for name in names if f"{axis}_{name}" in keys), None)
                    arrays[f"{axis} {split}"] = None if key is None else file[key]
    except (OSError, ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        # A lone .npy under this name has neither keys nor a context manager.
        text = f"{where}: not a readable .npz of plain arrays: {one_line(error)}"
        raise BadInput(f"{text}; write it by np.savez") from error
    splits = {}
    for split in ("train", "validation", "test"):
        x, y = arrays[f"x {split}"], arrays[f"y {split}"]
        if x is None or x.ndim == 0:
            continue
        name = f"{where}: {split}"
        splits[split] = Split(from_array(x, name), None if y is None else as_targets(y, name))
    if not splits:
        raise BadInput(f"{where}: no x_train, x_val or x_test in it; it holds {', '.join(keys) or 'nothing'}")
    return _raw(splits)


def _subfolders(folder: Path) -> list[Path]:
    return sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))


def _folder(root: Path, where: str) -> Raw:
    """root/split/class/images, or root/class/images, which can only be training data."""
    parts: dict[str, Path] = {}
    for child in _subfolders(root):
        split = SPLIT_NAMES.get(child.name.lower())
        if split in parts:
            raise BadInput(f"{where}: {parts[split].name} and {child.name} both mean {split}; keep one of them")
        if split is not None:
            parts[split] = child
    parts = parts or {"train": root}
    owners = [parts["train"]] if "train" in parts else list(parts.values())
    classes = sorted({child.name for owner in owners for child in _subfolders(owner)})
    if not classes:
        raise BadInput(f"{where}: no class folders in {owners[0]}; --data takes {FORMS}")
    pictures: dict[str, list[Picture]] = {}
    labels: dict[str, list[int]] = {}
    for split, folder in parts.items():
        pictures[split], labels[split] = _class_folders(folder, root, classes, where)
    tensors = load_pictures(pictures, where)
    return _raw({split: Split(inputs, torch.tensor(labels[split])) for split, inputs in tensors.items()})


def _class_folders(folder: Path, root: Path, classes: list[str], where: str) -> tuple[list[Picture], list[int]]:
    pictures: list[Picture] = []
    labels: list[int] = []
    for child in _subfolders(folder):
        if child.name not in classes:
            raise BadInput(f"{where}: {child.relative_to(root)} is a class that train has not; rename or remove it")
        files = sorted(file for file in child.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
        pictures += [Picture(file, str(file.relative_to(root))) for file in files]
        labels += [classes.index(child.name)] * len(files)
    return pictures, labels


def _parquet(paths: list[Path], where: str, *, labelled: bool) -> Raw:
    """Images as Hugging Face datasets writes them: a struct {bytes, path} and a label a row, the split in the name."""
    pictures: dict[str, list[Picture]] = {}
    labels: dict[str, list[Any]] = {}
    for path in paths:
        split = SPLIT_NAMES.get(re.split(r"[-_.]", path.stem, maxsplit=1)[0].lower())
        if split is not None:
            more, targets = _parquet_file(path, where, labelled=labelled)
            pictures.setdefault(split, []).extend(more)
            labels.setdefault(split, []).extend(targets)
    if not pictures:
        raise BadInput(f"{where}: {paths[0].name} names no split; begin file names with train, validation or test")
    tensors = load_pictures(pictures, where)
    return _raw(
        {
            split: Split(inputs, as_targets(labels[split], f"{where}: {split}") if labels[split] else None)
            for split, inputs in tensors.items()
        }
    )


def _parquet_file(path: Path, where: str, *, labelled: bool) -> tuple[list[Picture], list[Any]]:
    from pyarrow import parquet  # noqa: PLC0415 - a fifth of a second to import, and only this form needs it

    try:
        columns = parquet.read_schema(path).names
        image = next((name for name in IMAGE_COLUMNS if name in columns), None)
        label = next((name for name in LABEL_COLUMNS if name in columns), None)
        if image is None:
            raise BadInput(f"{where}: {path.name} has columns {', '.join(columns)}; images need a column image or img")
        if label is None and labelled:
            raise BadInput(
                f"{where}: {path.name} has no label column ({', '.join(LABEL_COLUMNS)}) among {', '.join(columns)}; "
                "add one, or use --metric agreement, which needs none"
            )
        table = parquet.read_table(path, columns=[name for name in (image, label) if name is not None])
    except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
        raise BadInput(f"{where}: {path.name} is not readable parquet: {one_line(error)}; write it again") from error
    pictures = [
        Picture(_encoded(cell, path, row, where), f"{path.name} row {row}")
        for row, cell in enumerate(table.column(image).to_pylist())
    ]
    targets = [] if label is None else table.column(label).to_pylist()
    if None in targets:
        raise BadInput(f"{where}: {path.name} row {targets.index(None)} has no {label}; label it or remove it")
    return pictures, targets


def _encoded(cell: object, path: Path, row: int, where: str) -> bytes | Path:
    """Return the encoded image of one cell: its bytes, or the file that it points to."""
    if isinstance(cell, dict):
        if isinstance(cell.get("path"), str) and cell.get("bytes") is None:
            return path.parent / str(cell["path"])
        cell = cell.get("bytes")
    if not isinstance(cell, bytes):
        raise BadInput(f"{where}: {path.name} row {row} holds no image; write {{bytes, path}} as Hugging Face does")
    return cell


def _function(spec: str, base: Path | None, seed: int, where: str) -> Raw:
    """Call a user's function. It returns {"train": ..., "validation": ..., "test": ...}, each in a form of as_split."""
    function = load_function(spec, "--data", base)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            given = function()
        except Exception as error:
            raise BadInput(f"{where}: raised {type(error).__name__}: {one_line(error)}") from error
    if not isinstance(given, dict):
        raise BadInput(f"{where}: returned a {type(given).__name__}; return a dict with any of train, validation, test")
    unknown = [str(key) for key in given if key not in ("train", "validation", "test")]
    splits = {name: as_split(value, name) for name, value in given.items() if name not in unknown and value is not None}
    if unknown or not splits:
        keys = ", ".join(map(str, given)) or "(none)"
        raise BadInput(f"{where}: returned the keys {keys}; use any of train, validation, test")
    return _raw(splits)
