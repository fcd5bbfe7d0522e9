"""A task small enough to be compressed in seconds: 8x8 pictures of six shapes in noise, and a net that knows them."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

if TYPE_CHECKING:
    from pathlib import Path

CLASSES = 6
SIZES = {"train": 1500, "validation": 1500, "test": 2000}
NOISE = 1.3
EPOCHS = 6
BATCH = 64

FACTORY = """\
from torch import nn


def make():
    return nn.Sequential(
        nn.Conv2d(1, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(24, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.Flatten(),
        nn.Linear(512, 48), nn.ReLU(), nn.Linear(48, 6),
    )
"""

Pair = tuple[Tensor, Tensor]


def make() -> nn.Module:
    """Return the net, untrained. FACTORY is the same as a file's text."""
    names: dict[str, object] = {}
    exec(FACTORY, names)  # noqa: S102 - one source for the file and for this process
    module = names["make"]()  # type: ignore[operator]
    assert isinstance(module, nn.Module)
    return module


@dataclass(frozen=True)
class Tiny:
    """A trained net and its splits. `model` must not be changed: take `copy()`."""

    state: dict[str, Tensor]
    splits: dict[str, Pair]

    def model(self) -> nn.Module:
        """Return a fresh copy of the trained net, in evaluation mode."""
        model = make()
        model.load_state_dict(self.state)
        return model.eval()

    def write(self, folder: Path) -> Path:
        """Write net.safetensors, net.py and data.npz; return the path of the net."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file(self.state, str(folder / "net.safetensors"))
        (folder / "net.py").write_text(FACTORY)
        short = {"train": "train", "validation": "val", "test": "test"}
        arrays = {}
        for name, (inputs, targets) in self.splits.items():
            arrays[f"x_{short[name]}"], arrays[f"y_{short[name]}"] = inputs.numpy(), targets.numpy()
        np.savez(folder / "data.npz", **arrays)
        return folder / "net.safetensors"


def _draw(generator: torch.Generator, shapes: Tensor, count: int) -> Pair:
    targets = torch.randint(CLASSES, (count,), generator=generator)
    return shapes[targets] + NOISE * torch.randn(count, 1, 8, 8, generator=generator), targets


@functools.cache
def tiny() -> Tiny:
    """Draw the data and train the net, once a test session."""
    generator = torch.Generator().manual_seed(7)
    coarse = torch.randn(CLASSES, 1, 4, 4, generator=generator)
    shapes = nn.functional.interpolate(coarse, size=(8, 8), mode="nearest")
    splits = {name: _draw(generator, shapes, count) for name, count in SIZES.items()}
    inputs, targets = splits["train"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = make()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        for _ in range(EPOCHS):
            for places in torch.randperm(len(inputs)).split(BATCH):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(inputs[places]), targets[places]).backward()
                optimizer.step()
    return Tiny({name: value.detach().clone() for name, value in model.state_dict().items()}, splits)
