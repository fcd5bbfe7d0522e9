"""The text of `--data` -> the splits that it names, in memory."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from easycompress.core.errors import BadInput, one_line
from easycompress.core.task import Split
from easycompress.intake.cells import IMAGE_SUFFIXES
from easycompress.intake.columns import parse_columns
from easycompress.intake.frames import read_frames
from easycompress.intake.hub import (
    default_roots,
    hub_tables,
    is_hub_name,
    torchvision_in,
    torchvision_name,
    torchvision_splits,
)
from easycompress.intake.images import Picture, check_normalisation, from_array, load_pictures, normalise, pixel_maker
from easycompress.intake.objects import as_split, as_targets
from easycompress.intake.tables import SPLIT_NAMES, TABLE_SUFFIXES, read_tables, split_of, table_files
from easycompress.intake.userfile import load_function

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from easycompress.core.references import References
    from easycompress.intake.images import Array
    from easycompress.intake.tables import Part

FORMS = (
    "digits, file.npz (x_train, y_train, x_val, y_val, x_test, y_test), a folder of class folders, "
    "a folder or file of parquet, csv, tsv, json or arrow, mnist, cifar10 and the like, a Hugging Face dataset, "
    "file.py:function"
)
DIGITS_SEED = 0
"""Fixed, whatever --seed is: a model that was trained on the train split of `digits` has never seen the rest."""

_DIGITS_MAX = 16.0
"""The largest pixel of scikit-learn's digits."""


@dataclass(frozen=True)
class Raw:
    """What the user gave, before it becomes train, calibration, select and report. None: not given.

    `references`: what answers to questions are judged by. `notes`: what reading the data has to tell.
    """

    train: Split | None
    validation: Split | None
    test: Split | None
    references: References | None = None
    notes: tuple[str, ...] = ()

    @property
    def unlabelled(self) -> bool:
        """Whether there is data, and no split of it has labels."""
        splits = [split for split in (self.train, self.validation, self.test) if split is not None]
        return bool(splits) and all(split.targets is None for split in splits)


def load_data(
    spec: str,
    *,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    base: Path | None,
    seed: int,
    labelled: bool = True,
    columns: str | None = None,
    model: nn.Module | None = None,
    processor: object | None = None,
) -> Raw:
    """Read what `--data` names; see FORMS. Paths are relative to `base` (default: the working folder).

    Images come as float32 (N, C, H, W) in 0..1, then (x - mean) / std per channel; labels as int64, other targets as
    float32. Of tables, `columns` (`text,label`) are read, texts and pictures by the `processor` of the `model`: its
    tokenizer or image processor. `seed` seeds torch while a user's function runs. With `labelled`, tables without
    labels are refused at once. Raises BadInput for anything that can't be read, in one line.
    """
    check_normalisation(mean, std)
    where = f"--data {spec}"
    path = (base or Path.cwd()) / Path(spec).expanduser()
    known = model if model is not None else nn.Identity()
    prepare = pixel_maker(processor, int(getattr(getattr(known, "config", None), "num_channels", 3)))
    if prepare is not None and mean is not None:
        raise BadInput("--mean, --std: the model's own image processor normalises; leave them out")
    if spec.rpartition(":")[0].endswith(".py") or (":" in spec and not path.exists()):
        if mean is not None:
            raise BadInput(f"{where}: --mean and --std don't reach a function of your own; normalise inside it")
        return _function(spec, base, seed, where)
    raw = _without_columns(spec, path, base or Path.cwd(), where, prepare)
    if raw is None:
        named = parse_columns(columns)
        frames = read_frames(_tables(path, spec, named, where), named, known, processor, where, labelled=labelled)
        raw = replace(_raw(frames.splits), references=frames.references, notes=frames.notes)
    elif columns is not None:
        raise BadInput(f"--columns {columns}: {spec} has no columns; leave it out")
    for split in (raw.train, raw.validation, raw.test):
        if split is not None:
            normalise(split.inputs, mean, std, where)
    return raw


def _without_columns(
    spec: str, path: Path, base: Path, where: str, prepare: Callable[[list[Array]], Tensor] | None
) -> Raw | None:
    """Read what is no table: digits, .npz, class folders, torchvision's data by name or in its folder; else None."""
    if spec == "digits":
        return _digits()
    if path.is_dir():
        if table_files(path):
            return None
        name = torchvision_in(path)
        return _folder(path, where, prepare) if name is None else _raw(torchvision_splits(name, [path], where))
    if path.suffix == ".npz":
        return _npz(_existing(path, where), where)
    name = None if path.exists() else torchvision_name(spec)
    return None if name is None else _raw(torchvision_splits(name, default_roots(base), where))


def _tables(path: Path, spec: str, named: tuple[str, ...] | None, where: str) -> dict[str, list[Part]]:
    """Return the tables of a folder, a file or a dataset of the Hub."""
    if path.is_dir():
        return read_tables(table_files(path), named, where)
    if path.suffix.lower() in TABLE_SUFFIXES:
        return read_tables({split_of(path) or "train": [_existing(path, where)]}, named, where)
    if not path.exists() and is_hub_name(spec):
        return hub_tables(spec, where, FORMS)
    reason = "is a file of no known form" if path.is_file() else "not found"
    raise BadInput(f"{where}: {reason}; --data takes {FORMS}")


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
    parts = {"train": train, "validation": validation, "test": test}
    return _raw({name: everything.take(torch.from_numpy(part)) for name, part in parts.items()})


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


def _folder(root: Path, where: str, prepare: Callable[[list[Array]], Tensor] | None) -> Raw:
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
    tensors = load_pictures(pictures, where, prepare)
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
