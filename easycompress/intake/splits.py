"""What the user gave -> the disjoint splits that a run may look at, and the checks that every one must pass."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from easycompress.core.errors import BadInput
from easycompress.core.inputs import Bundle, parts
from easycompress.core.task import Split, Splits

if TYPE_CHECKING:
    from torch import Tensor

    from easycompress.intake.data import Raw

COMMONEST = 0.8
"""A larger share of one class among the samples is told: always answering it would already look good."""

_CHUNK = 4096
"""Samples checked for NaN or hashed at a time: a mask or a copy of a large split would take much memory."""

_DIGEST = 16
"""Bytes of a sample's hash: among a million samples two that differ agree in it with a chance of 1e-27."""


def make_splits(raw: Raw, *, seed: int, calibration: int = 1024, labelled: bool = True) -> Splits:
    """Return train, calibration (a random part of train of at most `calibration` samples), select and report.

    Validation becomes *select* and test becomes *report*. When only one of the two is given it is divided in two
    halves, stratified by label. Without training data, train is empty and calibration comes from *select*. Everything
    is a function of `seed`. `note` tells all this.

    Raises BadInput: only training data or none; a split that is empty, uneven in length, not finite, of another sample
    shape than the others, or without labels although `labelled`.
    """
    given = {"train": raw.train, "validation": raw.validation, "test": raw.test}
    present = {name: split for name, split in given.items() if split is not None}
    if not present:
        raise BadInput("no data: give a validation and a test split, and training data for recovery")
    if raw.validation is None and raw.test is None:
        raise BadInput(
            "only training data is given: the model may have seen it, so its quality there would prove nothing; "
            "give a validation and a test split, or one of them, that it was not trained on"
        )
    for name, split in present.items():
        _check(split, name, labelled=labelled)
    _check_alike(present)
    generator = torch.Generator().manual_seed(seed)
    select, report, note = _judges(raw.validation, raw.test, generator)
    if raw.train is None:
        train = select.take(slice(0, 0))
        note += "; no training data is given: calibration samples come from select, and recovery is impossible"
    else:
        train = raw.train
    source = select if raw.train is None else train
    chosen = torch.randperm(len(source), generator=generator)[:calibration]
    return Splits(train, source.take(chosen), select, report, note)


def _judges(validation: Split | None, test: Split | None, generator: torch.Generator) -> tuple[Split, Split, str]:
    """Return *select*, *report* and the sentence that says how they came about."""
    if validation is not None and test is not None:
        note = f"select is the validation split ({len(validation)} samples), report is the test split ({len(test)})"
        return validation, test, note
    whole, name, missing = (test, "test", "validation") if test is not None else (validation, "validation", "test")
    if whole is None or len(whole) < 2:  # noqa: PLR2004 - two halves
        raise BadInput(f"{name}: one sample can't be divided into select and report; give more, or a {missing} split")
    first, second = halves(whole, generator)
    stratified = ", stratified by label" if _has_classes(whole.targets) else ""
    select, report = whole.take(first), whole.take(second)
    note = (
        f"no {missing} split is given, so the {name} split is divided in two{stratified}: "
        f"select {len(select)} samples, report {len(report)}"
    )
    return select, report, note


def halves(split: Split, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return two disjoint index sets, int64 and ascending, that cover `split`.

    Each class, and the whole, is divided within one sample. Targets that are no classes are divided at random.
    """
    order = torch.randperm(len(split), generator=generator)
    if split.targets is not None and _has_classes(split.targets):
        # Sorted by class, shuffled within it, and dealt in turn: every class is a run, so it is dealt evenly.
        order = order[split.targets[order].argsort(stable=True)]
    return order[0::2].sort().values, order[1::2].sort().values


def _has_classes(targets: Tensor | None) -> bool:
    return targets is not None and targets.ndim == 1 and not targets.is_floating_point()


def _check(split: Split, name: str, *, labelled: bool) -> None:
    inputs, targets = split.inputs, split.targets
    if not len(inputs):
        raise BadInput(f"{name}: the split is empty; give samples, or leave it away")
    if targets is None:
        if labelled:
            raise BadInput(f"{name}: no labels; add them, or use --metric agreement, which compares with the original")
    elif targets.ndim == 0 or len(targets) != len(inputs):
        count = len(targets) if targets.ndim else 1
        raise BadInput(f"{name}: {len(inputs)} inputs but {count} targets; give one target a sample")
    for tensor, what in zip(parts(inputs), _named(split), strict=True):
        if len(tensor) != len(inputs):
            raise BadInput(f"{name}: {what}: {len(tensor)} samples, but the first has {len(inputs)}; give all of each")
        _check_finite(tensor, name, what)
    if targets is not None:
        _check_finite(targets, name, "targets")


def _check_finite(values: Tensor, name: str, what: str) -> None:
    if not values.is_floating_point():
        return
    chunks = (values[start : start + _CHUNK] for start in range(0, len(values), _CHUNK))
    bad = [~chunk.isfinite().reshape(len(chunk), -1).all(1) for chunk in chunks]
    places = torch.cat(bad).nonzero()
    if len(places):
        raise BadInput(
            f"{name}: NaN or infinity in the {what} of {len(places)} of {len(values)} samples, "
            f"first at index {int(places[0])}; mend or remove them"
        )


def _check_alike(present: dict[str, Split]) -> None:
    (first_name, first), *others = present.items()
    for name, split in others:
        for what, of in (("arguments", _arguments), ("shape", _shape), ("type", _dtype)):
            if of(first) != of(split):
                raise BadInput(
                    f"{name}: samples of {what} {of(split)}, but {first_name} has {of(first)}; "
                    "prepare all splits in the same way"
                )


def _named(split: Split) -> list[str]:
    """Return what to call each input in an error text."""
    if not isinstance(split.inputs, Bundle):
        return ["inputs"]
    names = split.inputs.names or tuple(f"number {i}" for i in range(len(split.inputs.tensors)))
    return [f"inputs {name}" for name in names]


def _arguments(split: Split) -> str:
    return ", ".join(what.removeprefix("inputs ") for what in _named(split))


def _shape(split: Split) -> str:
    return ", ".join("x".join(map(str, tensor.shape[1:])) or "scalar" for tensor in parts(split.inputs))


def _dtype(split: Split) -> str:
    return ", ".join(str(tensor.dtype).removeprefix("torch.") for tensor in parts(split.inputs))


def leaks(splits: Splits) -> str | None:
    """Return one sentence on the samples of one split that are in another, by the bytes of their inputs; None if none.

    What *select* or *report* share with train was trained on, and what *report* shares with *select* was chosen on:
    quality there flatters. The data is the user's, so nothing is left out.
    """
    train, select, report = (_digests(split) for split in (splits.train, splits.select, splits.report))
    trained, chosen = set(train), set(select)
    pairs = (
        ("select", select, "train", trained),
        ("report", report, "train", trained),
        ("report", report, "select", chosen),
    )
    found = [(name, sum(sample in seen for sample in own), len(own), other) for name, own, other, seen in pairs]
    parts = [
        f"{count} of the {number} {name} samples {'is' if count == 1 else 'are'} also in {other}"
        for name, count, number, other in found
        if count
    ]
    if not parts:
        return None
    where = " and ".join(dict.fromkeys(name for name, count, _, _ in found if count))
    return (
        f"{', '.join(parts)} (the same inputs, byte for byte); "
        f"nothing was left out, so quality on {where} may look better than on new data"
    )


def imbalance(splits: Splits) -> str | None:
    """Return one sentence where one class makes up more than COMMONEST of *report*; None else, or without classes."""
    targets = splits.report.targets
    if targets is None or not _has_classes(targets):
        return None
    classes, counts = np.unique(targets.numpy(), return_counts=True)
    share = float(counts.max()) / len(targets)
    if share <= COMMONEST or len(classes) < 2:  # noqa: PLR2004 - a single class is no imbalance
        return None
    return (
        f"{share:.0%} of the report samples are of class {int(classes[counts.argmax()])}: accuracy says little about "
        "the others; --metric f1 weighs them"
    )


def _digests(split: Split) -> list[bytes]:
    """Return a hash of each sample's input; of samples without a single byte, none."""
    tensors = [tensor for tensor in parts(split.inputs) if tensor.numel()]
    if not tensors:
        return []
    digests = []
    for start in range(0, len(split), _CHUNK):
        pieces = [tensor[start : start + _CHUNK] for tensor in tensors]
        # Bytes rather than numbers: NumPy has no bfloat16.
        rows = [piece.reshape(len(piece), -1).contiguous().view(torch.uint8).numpy() for piece in pieces]
        digests += [_digest(row) for row in zip(*rows, strict=True)]
    return digests


def _digest(row: tuple[Any, ...]) -> bytes:
    digest = hashlib.blake2b(digest_size=_DIGEST)
    for piece in row:
        digest.update(piece)
    return digest.digest()


def check_labels(splits: Splits, classes: int) -> None:
    """Raise BadInput unless every label is an integer within 0..classes-1; splits without labels pass."""
    named = {"train": splits.train, "select": splits.select, "report": splits.report}
    labels = {name: split.targets for name, split in named.items() if split.targets is not None and len(split)}
    for name, targets in labels.items():
        if targets.is_floating_point():
            raise BadInput(f"{name}: labels are {_plain(targets)}; class labels are integers 0..{classes - 1}")
        if targets.shape[1:] == (classes,):
            raise BadInput(f"{name}: labels of shape {tuple(targets.shape)} look one-hot; give their argmax(1)")
    if not labels:
        return
    lowest = min(int(targets.min()) for targets in labels.values())
    for name, targets in labels.items():
        wrong = targets[(targets < 0) | (targets >= classes)]
        if len(wrong):
            raise BadInput(_wrong_label(int(wrong[0]), name, classes, lowest, int(targets.max())))


def _plain(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _wrong_label(value: int, name: str, classes: int, lowest: int, highest: int) -> str:
    text = f"{name}: label {value}, but the model has {classes} outputs, so labels are 0..{classes - 1}"
    if value < 0:
        return f"{text}; a negative label usually marks unlabelled samples: remove them, or use --metric agreement"
    if lowest >= 1 and highest == classes:
        return f"{text}; the labels seem to count from 1: subtract 1"
    return f"{text}; give the data that the model was trained for, or a model with {highest + 1} outputs"
