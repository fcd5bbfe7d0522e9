"""MNIST and the three variants of the comparative study, made as Larochelle et al. 2007 describe them."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from pathlib import Path

TRAIN = 50_000
"""Training images, as many as the study's; its 12 000 test images are the file's 10 000 here."""

VARIANTS = ("mnist", "rotation", "random background", "image background")

LEAST_DEVIATION = 0.1
"""Patches whose grey levels (0 to 1) deviate less are left out, as the source does, which gives no number."""

SEEDS = {"train": 1, "val": 2, "test": 3}
"""What the draws of a split depend on."""


@dataclass(frozen=True)
class Images:
    """Normalised pixels (N, 784), float32, and labels (N,)."""

    pixels: Tensor
    labels: Tensor


def read(folder: Path, variant: str) -> dict[str, Images]:
    """Return the train, val and test images of a variant, normalised by the training pixels' mean and deviation.

    Angles, noise and patches are drawn once, the same for everyone. Backgrounds of a split come from the same split of
    CIFAR-10, so that no test patch was trained on.
    """
    with np.load(folder / "mnist.npz") as arrays:
        raw = {name: (arrays[f"x_{name}"], arrays[f"y_{name}"]) for name in SEEDS}
    made = {}
    for name, (digits, labels) in raw.items():
        count = TRAIN if name == "train" else len(digits)
        grey = torch.from_numpy(digits[:count]).reshape(-1, 28, 28).float() / 255
        generator = torch.Generator().manual_seed(SEEDS[name])
        made[name] = (
            changed(grey, variant, generator, folder, name).flatten(1),
            torch.from_numpy(labels[:count]).long(),
        )
    pixels = made["train"][0]
    mean, deviation = float(pixels.mean()), float(pixels.std())
    return {name: Images((x - mean) / deviation, y) for name, (x, y) in made.items()}


def changed(grey: Tensor, variant: str, generator: torch.Generator, folder: Path, split: str) -> Tensor:
    """Return the variant of grey images (N, 28, 28) in 0..1. A background shows wherever the digit is darker."""
    if variant == "rotation":
        return rotated(grey, generator)
    if variant == "random background":
        return torch.maximum(grey, torch.rand(grey.shape, generator=generator))
    if variant == "image background":
        name = {"train": "train", "val": "validation", "test": "test"}[split]
        return torch.maximum(grey, patches(folder / "cifar10" / f"{name}.parquet", len(grey), generator))
    return grey


def rotated(grey: Tensor, generator: torch.Generator) -> Tensor:
    """Return each image (N, 28, 28) turned by an angle of its own, uniform in 0 to 2 pi, bilinear, black outside."""
    angle = 2 * math.pi * torch.rand(len(grey), generator=generator)
    zero = torch.zeros_like(angle)
    rows = [torch.stack([angle.cos(), -angle.sin(), zero], 1), torch.stack([angle.sin(), angle.cos(), zero], 1)]
    found = []
    for part, turn in zip(torch.split(grey, 5000), torch.split(torch.stack(rows, 1), 5000), strict=True):
        grid = functional.affine_grid(turn, [len(part), 1, 28, 28], align_corners=False)
        found.append(functional.grid_sample(part[:, None], grid, align_corners=False)[:, 0])
    return torch.cat(found)


def patches(file: Path, count: int, generator: torch.Generator) -> Tensor:
    """Return `count` grey patches (N, 28, 28) in 0..1 of CIFAR-10's images, each of a random image and place.

    Images are drawn until enough patches deviate by LEAST_DEVIATION.
    """
    column = pq.read_table(file, columns=["image"])["image"].to_pylist()
    grey = torch.stack([_grey(entry["bytes"]) for entry in column])
    found: list[Tensor] = []
    while sum(map(len, found)) < count:
        which = torch.randint(len(grey), (count,), generator=generator)
        top, left = torch.randint(5, (2, count), generator=generator)
        windows = grey.unfold(1, 28, 1).unfold(2, 28, 1)[which, top, left]
        found.append(windows[windows.flatten(1).std(1) >= LEAST_DEVIATION])
    return torch.cat(found)[:count]


def _grey(encoded: bytes) -> Tensor:
    """Return an encoded image (32, 32) in 0..1."""
    with Image.open(io.BytesIO(encoded)) as image:
        return torch.from_numpy(np.asarray(image.convert("L")).copy()).float() / 255
