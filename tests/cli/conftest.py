"""A folder as a user has it, a small trained net with its data, and a way to run the command line in this process."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pytest
import torch
from torch import nn

from easycompress.cli import _run
from easycompress.intake.models import make_module
from easycompress.measure import latency

if TYPE_CHECKING:
    from pathlib import Path

FACTORY = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 16, 3, padding=1)
        self.hidden = nn.Linear(16 * 4 * 4, 32)
        self.head = nn.Linear(32, 3)

    def forward(self, x):
        x = nn.functional.max_pool2d(torch.relu(self.conv(x)), 2)
        return self.head(torch.relu(self.hidden(x.flatten(1))))

def make():
    return Net()
"""

CLASSES = 3
SIZES = {"train": 120, "val": 120, "test": 120}


@dataclass(frozen=True)
class Ran:
    """What a command gave back."""

    code: int
    out: str
    err: str


class Run(Protocol):
    """Runs `easycompress ARGUMENTS` in this process."""

    def __call__(self, *arguments: str) -> Ran: ...


def arrays() -> dict[str, Any]:
    """Images of 8x8 whose class is the column that is bright: any net learns them in a second."""
    generator = np.random.default_rng(0)
    found: dict[str, Any] = {}
    for name, number in SIZES.items():
        labels = np.arange(number) % CLASSES
        images = generator.normal(0, 0.15, (number, 1, 8, 8)).astype(np.float32)
        for image, label in zip(images, labels, strict=True):
            image[0, :, 2 * label : 2 * label + 3] += 0.8
        found[f"x_{name}"], found[f"y_{name}"] = images, labels
    return found


@pytest.fixture(scope="session")
def _trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    (folder / "net.py").write_text(FACTORY)
    data = arrays()
    np.savez(folder / "d.npz", **data)
    torch.manual_seed(0)
    model = make_module("net.py:make", folder)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(30):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(torch.from_numpy(data["x_train"])), torch.from_numpy(data["y_train"]))
        loss.backward()  # type: ignore[no-untyped-call] # torch has no types for it
        optimizer.step()
    torch.save(model.state_dict(), folder / "m.pt")
    return folder


@pytest.fixture
def folder(_trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder: net.py, m.pt, d.npz."""
    for path in _trained.iterdir():
        if path.is_file():
            shutil.copy(path, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(latency, "ROUNDS", 1)  # how exactly a millisecond is measured isn't what these tests ask
    monkeypatch.setattr(latency, "PATIENCE", 0.0)

    def go(*arguments: str) -> Ran:
        capsys.readouterr()
        code = _run(list(arguments))
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return go
