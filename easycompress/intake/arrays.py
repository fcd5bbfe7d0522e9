"""file.npz -> splits: arrays as the model takes them, or pixels and waveforms that its own processor reads."""

from __future__ import annotations

import math
import os
import zipfile
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from easycompress.core.errors import BadInput, one_line
from easycompress.core.task import Split
from easycompress.intake.frames import Frames
from easycompress.intake.images import CHANNELS, IMAGE_DIMS, from_array, prepared_arrays
from easycompress.intake.objects import as_targets
from easycompress.intake.sounds import Sound, from_samples, is_extractor, prepared

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from torch import Tensor, nn

    from easycompress.core.inputs import Inputs
    from easycompress.intake.images import Array

KEYS = {"train": ("train",), "validation": ("val", "validation"), "test": ("test",)}
"""What x_ and y_ are followed by, for each split."""

RATE = "sampling_rate"
"""The array that says how many samples of a waveform there are a second."""

HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}

_WAVES = 2  # dimensions of (N, samples)


def read_npz(
    path: Path,
    prepare: Callable[[list[Array]], Tensor] | None,
    model: nn.Module,
    processor: object | None,
    where: str,
) -> Frames:
    """Read x_train, y_train, x_val, y_val, x_test, y_test. Raises BadInput for what can't be read.

    Arrays are what the model takes (see images.from_array), but for two: uint8 images where `prepare`, made of the
    model's image processor, reads pixels, and waveforms (N, samples) where the `processor` is its feature extractor.
    """
    arrays = _arrays(path, where)
    inputs = {split: arrays[f"x {split}"] for split in KEYS if np.ndim(arrays[f"x {split}"]) > 0}
    if not inputs:
        listed = ", ".join(arrays["keys"]) or "nothing"
        raise BadInput(f"{where}: no x_train, x_val or x_test in it; it holds {listed}")
    made, notes = _made(inputs, arrays[RATE], prepare, model, processor, where)
    splits = {}
    for split, x in made.items():
        y = arrays[f"y {split}"]
        splits[split] = Split(x, None if y is None else as_targets(y, f"{where}: {split}"))
    return Frames(splits, None, tuple(notes))


def _arrays(path: Path, where: str) -> dict[str, Any]:
    arrays: dict[str, Any] = {}
    check_npz(path, where)
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            keys = list(file)
            for split, names in KEYS.items():
                for axis in "xy":
                    key = next((f"{axis}_{name}" for name in names if f"{axis}_{name}" in keys), None)
                    arrays[f"{axis} {split}"] = None if key is None else file[key]
            arrays[RATE] = file[RATE] if RATE in keys else None
    except (OSError, ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        # A lone .npy under this name has neither keys nor a context manager.
        text = f"{where}: not a readable .npz of plain arrays: {one_line(error)}"
        raise BadInput(f"{text}; write it by np.savez") from error
    return arrays | {"keys": keys}


def check_npz(path: Path, where: str) -> None:
    """Raise BadInput, before anything is allocated, where an array says to be larger than its bytes, or than memory."""
    total = 0
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                with archive.open(info) as entry:
                    said = _said_bytes(entry)
                    held = info.file_size - entry.tell()
                if said is not None and said != held:
                    raise BadInput(f"{where}: {info.filename} says to have {said} bytes and has {held}; write it again")
                total += info.file_size
    except (zipfile.BadZipFile, OSError, ValueError, EOFError, NotImplementedError, zlib.error):
        return  # reading it says what is wrong
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if total > there:
        raise BadInput(f"{where}: {total} bytes of arrays, over this machine's {there}; give a subset")


def _said_bytes(entry: Any) -> int | None:  # noqa: ANN401 - an open entry of an archive
    """Return the bytes that the header of an .npy says to follow, None where it has no header or holds objects."""
    reader = HEADERS.get(np.lib.format.read_magic(entry))
    if reader is None:
        return None
    shape, _, dtype = reader(entry)
    return None if dtype.hasobject else math.prod(shape) * dtype.itemsize


def _made(
    inputs: Mapping[str, Array],
    rate: Array | None,
    prepare: Callable[[list[Array]], Tensor] | None,
    model: nn.Module,
    processor: object | None,
    where: str,
) -> tuple[Mapping[str, Inputs], list[str]]:
    """Return the inputs of every split and notes."""
    if rate is not None and (rate.size != 1 or rate.dtype.kind not in "iu" or int(rate.item()) <= 0):
        raise BadInput(f"{where}: {RATE} is no whole number above 0; write the samples a second of the waveforms")
    if is_extractor(processor) and all(x.ndim == _WAVES and x.dtype.kind in "fi" for x in inputs.values()):
        hertz = None if rate is None else int(rate.item())
        return prepared(
            {n: [Sound(w, hertz) for w in from_samples(x)] for n, x in inputs.items()}, processor, model, where
        )
    pictures = all(x.dtype == np.uint8 and x.ndim in (IMAGE_DIMS - 1, IMAGE_DIMS) for x in inputs.values())
    if prepare is not None and pictures:
        made = {n: prepared_arrays(_pictures(x), prepare, f"{where}: {n}") for n, x in inputs.items()}
        return made, ["the model's own image processor read the pixels"]
    return {n: from_array(x, f"{where}: {n}") for n, x in inputs.items()}, []


def _pictures(pixels: Array) -> Array:
    """Return uint8 images as a picture file gives them, (N, H, W) or (N, H, W, 3); what is transparent is not."""
    if pixels.ndim == IMAGE_DIMS and pixels.shape[-1] not in CHANNELS:
        pixels = pixels.transpose(0, 2, 3, 1)
    return pixels if pixels.ndim < IMAGE_DIMS else pixels[..., 0] if pixels.shape[-1] == 1 else pixels[..., :3]
