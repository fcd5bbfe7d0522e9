"""Pixels: encoded images and arrays of bytes become float32 NCHW tensors in 0..1, then normalised."""

from __future__ import annotations

import io
import math
import os
import struct
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import torch
from PIL import Image, ImageOps

from easycompress.core.errors import BadInput, one_line
from easycompress.core.inputs import Bundle, described
from easycompress.intake import stored
from easycompress.intake.stored import Growing, refuse_too_large

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from torch import Tensor

    from easycompress.core.inputs import Inputs

Array: TypeAlias = "np.ndarray[Any, Any]"

CHANNELS = (1, 3, 4)
"""Lengths of an axis that are taken for grey, RGB and RGBA channels."""

IMAGE_DIMS = 4
"""Dimensions of a batch of images: N, C, H, W."""

_BATCH = 64
"""Images that a thread decodes in one go; one at a time, handing them over costs as much as decoding them."""

_THREADS_FROM = 64 * 64
"""Pixels of an image from which threads pay. Below, they wait for the interpreter: 81 us against 67 us at 32x32."""

_SIXTEEN_TO_EIGHT = 8
"""Bits dropped from 16-bit grey. Pillow's own conversion clips at 255 instead, which turns such an image white."""


class Picture(NamedTuple):
    """One encoded or opened image, or what opens it, and what to call it in an error text."""

    source: bytes | Path | Image.Image | Callable[[], Image.Image]
    name: str


def decode(picture: Picture) -> Array:
    """Return an image's pixels, uint8: (H, W) when it is grey, (H, W, 3) otherwise; upright by its EXIF orientation."""
    source = picture.source
    try:
        if callable(source):
            source = source()
        if isinstance(source, Path):
            source = source.read_bytes()
        image = Image.open(io.BytesIO(source)) if isinstance(source, bytes) else source
        return _pixels(ImageOps.exif_transpose(image))
    except (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError) as error:
        raise BadInput(f"{picture.name}: not a readable image: {one_line(error)}; mend or remove it") from error


def _pixels(image: Image.Image) -> Array:
    if image.mode.startswith("I"):
        eight: Array = np.clip(np.asarray(image) >> _SIXTEEN_TO_EIGHT, 0, 255).astype(np.uint8)
        return eight
    if image.mode in ("1", "L", "LA"):
        return np.asarray(image.convert("L"))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # straight to RGB Pillow warns and guesses
    return np.asarray(image.convert("RGB"))


def load_pictures(
    groups: Mapping[str, Sequence[Picture]], where: str, prepare: Callable[[list[Array]], Tensor] | None = None
) -> dict[str, Tensor]:
    """Decode every group (a split) into a float32 tensor (N, C, H, W) in 0..1.

    C is 1 when all images of all groups are grey, else 3. Raises BadInput for an empty group, for images of different
    sizes (two are named), an unreadable one, or more than the disk holds.

    `prepare` turns a few decoded images of any sizes into what the model takes, (n, ...), instead of all that.
    """
    for name, group in groups.items():
        if not group:
            raise BadInput(f"{where}: no images for {name}; add some, or leave {name} away")
    if prepare is not None:
        return {name: _prepared(_decoded(g), len(g), prepare, f"{where}: {name}") for name, g in groups.items()}
    everything = list(chain.from_iterable(groups.values()))
    arrays = _decode_all(everything, where)
    colour = any(array.ndim > 2 for array in arrays)  # noqa: PLR2004 - (H, W) is grey, (H, W, 3) is colour
    tensors, start = {}, 0
    for name, group in groups.items():
        tensors[name] = stack(arrays[start : start + len(group)], colour=colour)
        start += len(group)
    return tensors


def _prepared(
    batches: Iterable[list[Array]], count: int, prepare: Callable[[list[Array]], Tensor], where: str
) -> Tensor:
    growing = Growing(where)
    for batch in batches:
        try:
            made = prepare(batch)
        except Exception as error:  # the model's own processor may raise anything
            raise BadInput(f"{where}: the model's image processor raised {one_line(error)}") from error
        if not len(growing):
            refuse_too_large(count, made[0].nbytes, where)
        growing.add(made)
    return growing.tensor()


def prepared_arrays(pixels: Array, prepare: Callable[[list[Array]], Tensor], where: str) -> Tensor:
    """Return what a model's image processor makes of uint8 images (N, H, W) or (N, H, W, 3), as in load_pictures."""
    batches = (list(pixels[start : start + _BATCH]) for start in range(0, len(pixels), _BATCH))
    return _prepared(batches, len(pixels), prepare, where)


def _decode_all(pictures: Sequence[Picture], where: str) -> list[Array]:
    """Return the pixels of all images, uint8: a quarter of what they become."""
    arrays: list[Array] = []
    for batch in _decoded(pictures):
        if not arrays:
            refuse_too_large(len(pictures), 4 * batch[0].size, where)
        for array in batch:
            require_same_size((arrays or batch)[0], pictures[0].name, array, pictures[len(arrays)].name, where)
            arrays.append(array)
    return arrays


def _decoded(pictures: Sequence[Picture]) -> Iterator[list[Array]]:
    """Yield the images in order, some at a time, decoded by several threads where that pays."""
    height, width = decode(pictures[0]).shape[:2]
    workers = min(8, os.cpu_count() or 1) if height * width >= _THREADS_FROM else 1
    batches = [pictures[start : start + _BATCH] for start in range(0, len(pictures), _BATCH)]
    pool = ThreadPoolExecutor(workers)
    try:
        yield from pool.map(lambda batch: [decode(picture) for picture in batch], batches)
    finally:
        pool.shutdown(cancel_futures=True)  # after an error the rest needs no decoding


def require_same_size(first: Array, first_name: str, other: Array, other_name: str, where: str) -> None:
    """Raise BadInput, naming both images with their sizes, when they differ in height or width."""
    (h0, w0), (h1, w1) = first.shape[:2], other.shape[:2]
    if (h0, w0) != (h1, w1):
        raise BadInput(
            f"{where}: images differ in size: {first_name} is {w0}x{h0}, {other_name} is {w1}x{h1} (width x height); "
            "resize them all to what the model takes"
        )


def stack(arrays: Sequence[Array], *, colour: bool) -> Tensor:
    """Return decoded images of one size as float32 (N, 3 or 1, H, W) in 0..1; grey is repeated when `colour`."""
    height, width = arrays[0].shape[:2]
    pixels = np.empty((len(arrays), height, width, 3 if colour else 1), dtype=np.uint8)
    for row, array in enumerate(arrays):
        pixels[row] = array.reshape(height, width, -1)
    return _scaled(pixels.transpose(0, 3, 1, 2))


def from_array(array: Array, where: str) -> Tensor:
    """Return an input array (N, ...) as a tensor that a model takes.

    uint8 is scaled to 0..1: (N, H, W) becomes (N, 1, H, W), and (N, H, W, C) with C of 1, 3 or 4 becomes (N, C, H, W).
    Floats become float32 as they are; only 4 dimensions whose last is 1, 3 or 4, and whose second is not, are turned
    from channels-last to NCHW. Other integers are tokens and become int64. Raises BadInput for any other kind.
    """
    if array.dtype.kind not in "biuf":
        raise BadInput(f"{where}: an array of {array.dtype}; inputs are uint8 images, floats or integer tokens")
    refuse_too_large(len(array), 4 * math.prod(array.shape[1:]), where)
    channels_last = array.ndim == IMAGE_DIMS and array.shape[-1] in CHANNELS
    if array.dtype == np.uint8:
        if array.ndim == IMAGE_DIMS - 1:
            array = array[:, None]
        elif channels_last:
            array = array.transpose(0, 3, 1, 2)
        return _scaled(array)
    if array.dtype.kind in "iu":
        return torch.from_numpy(np.ascontiguousarray(array.astype(np.int64)))
    if channels_last and array.shape[1] not in CHANNELS:
        array = array.transpose(0, 3, 1, 2)
    return torch.from_numpy(np.ascontiguousarray(array.astype(np.float32, order="C")))


def pixel_maker(processor: Any, channels: int) -> Callable[[list[Array]], Tensor] | None:  # noqa: ANN401 - transformers is untyped here
    """Return what makes a model's `pixel_values` (n, C, H, W) of decoded images; None where that is no image processor.

    Grey images become colour ones where the model takes 3 channels.
    """
    if not callable(processor) or "pixel_values" not in getattr(processor, "model_input_names", ()):
        return None

    def prepare(arrays: list[Array]) -> Tensor:
        alike = [np.stack([a] * 3, -1) if a.ndim == 2 and channels == 3 else a for a in arrays]  # noqa: PLR2004 - grey
        pixels: Tensor = processor(images=[Image.fromarray(a) for a in alike], return_tensors="pt")["pixel_values"]
        return pixels.float()

    return prepare


def _scaled(pixels: Array) -> Tensor:
    """Return uint8 pixels as float32 in 0..1, contiguous."""
    if 4 * pixels.size <= stored.MEMORY_BYTES:
        return torch.from_numpy(np.ascontiguousarray(pixels)).float().div_(255)
    growing = Growing("images")
    for start in range(0, len(pixels), _BATCH):
        growing.add(torch.from_numpy(np.ascontiguousarray(pixels[start : start + _BATCH])).float().div_(255))
    return growing.tensor()


def check_normalisation(mean: tuple[float, ...] | None, std: tuple[float, ...] | None) -> None:
    """Raise BadInput unless both are given or neither, finite, and the standard deviations positive."""
    if (mean is None) != (std is None):
        given, missing = ("--mean", "--std") if std is None else ("--std", "--mean")
        raise BadInput(f"{given} without {missing}: give both; mean 0 and standard deviation 1 change nothing")
    if mean is None or std is None:
        return
    if not all(map(math.isfinite, (*mean, *std))):
        raise BadInput("--mean, --std: not finite; give one number a channel, of images scaled to 0..1")
    if any(value <= 0 for value in std):
        raise BadInput(f"--std {','.join(f'{v:g}' for v in std)}: a standard deviation must be positive")


def normalise(images: Inputs, mean: tuple[float, ...] | None, std: tuple[float, ...] | None, where: str) -> Inputs:
    """Return (images - mean) / std per channel, computed in place on `images` (N, C, H, W) float32.

    Raises BadInput when `images` are not images, or the lengths are neither 1 nor C.
    """
    if mean is None or std is None:
        return images
    if isinstance(images, Bundle):
        raise BadInput(f"{where}: --mean and --std are for images, but a sample is {described(images)}; leave them out")
    if images.ndim != IMAGE_DIMS or not images.is_floating_point():
        sample = f"{tuple(images.shape[1:])} {str(images.dtype).removeprefix('torch.')}"
        raise BadInput(f"{where}: --mean and --std are for images, but a sample is {sample}; leave them out")
    channels = images.shape[1]
    for flag, values in (("--mean", mean), ("--std", std)):
        if len(values) not in (1, channels):
            raise BadInput(f"{flag}: {len(values)} numbers for {channels} channels; give 1 or {channels}")
    view = (1, -1, 1, 1)
    return images.sub_(torch.tensor(mean).view(view)).div_(torch.tensor(std).view(view))
