"""The text of `--data` -> the splits that it names, in memory."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from easycompress.core.errors import BadInput, one_line
from easycompress.core.task import Split
from easycompress.intake.arrays import read_npz
from easycompress.intake.cells import IMAGE_SUFFIXES
from easycompress.intake.columns import parse_columns
from easycompress.intake.frames import Frames, read_frames
from easycompress.intake.handed import SPLITS, read_objects
from easycompress.intake.hub import hub_tables, is_hub_name
from easycompress.intake.images import Picture, check_normalisation, load_pictures, normalise, pixel_maker
from easycompress.intake.tables import SPLIT_NAMES, TABLE_SUFFIXES, read_tables, split_of, table_files
from easycompress.intake.userfile import load_function
from easycompress.intake.vision import default_roots, torchvision_in, torchvision_name, torchvision_splits

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from easycompress.core.references import References
    from easycompress.intake.images import Array
    from easycompress.intake.tables import Part

FORMS = (
    "digits, file.npz (x_train, y_train, x_val, y_val, x_test, y_test), a folder of class folders, "
    "a folder or file of parquet, csv, tsv, json or arrow, mnist, cifar10 and torchvision's others, a Hugging Face "
    "dataset, "
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
    float32. Of tables, `columns` (`text,label`) are read; texts, pictures and sounds by the `processor` of the `model`:
    its tokenizer, image processor or feature extractor. `seed` seeds torch while a user's function runs. With
    `labelled`, tables without labels are refused at once. Raises BadInput for anything that can't be read, in one line.
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
        given = _function(spec, base, seed, where)
        return raw_of(
            read_objects(
                given, mean=None, std=None, columns=columns, model=known, processor=processor, labelled=labelled
            )
        )
    raw = _without_columns(spec, path, base or Path.cwd(), where, prepare)
    if raw is None and path.suffix == ".npz":
        raw = raw_of(read_npz(_existing(path, where), prepare, known, processor, where))
    if raw is None:
        named = parse_columns(columns)
        raw = raw_of(read_frames(_tables(path, spec, named, where), named, known, processor, where, labelled=labelled))
    elif columns is not None:
        raise BadInput(f"--columns {columns}: {spec} has no columns; leave it out")
    for split in (raw.train, raw.validation, raw.test):
        if split is not None:
            normalise(split.inputs, mean, std, where)
    return raw


def _without_columns(
    spec: str, path: Path, base: Path, where: str, prepare: Callable[[list[Array]], Tensor] | None
) -> Raw | None:
    """Read what is no table: digits, class folders, torchvision's data by name or in its folder; else None."""
    if spec == "digits":
        return _digits()
    if path.is_dir():
        held = torchvision_in(path, where)
        if table_files(path) and (held is None or held[1] == path):
            return None
        if held is None:
            return _folder(path, where, prepare)
        return _raw(torchvision_splits(held[0], [held[1]], where, prepare))
    name = None if path.exists() else torchvision_name(spec)
    return None if name is None else _raw(torchvision_splits(name, default_roots(base), where, prepare))


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


def raw_of(frames: Frames) -> Raw:
    """Return what was read, split by split."""
    return replace(_raw(frames.splits), references=frames.references, notes=frames.notes)


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


def _function(spec: str, base: Path | None, seed: int, where: str) -> dict[str, object]:
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
    splits = {str(name): value for name, value in given.items() if value is not None}
    if set(splits) - set(SPLITS) or not splits:
        keys = ", ".join(map(str, given)) or "(none)"
        raise BadInput(f"{where}: returned the keys {keys}; use any of train, validation, test")
    return splits
