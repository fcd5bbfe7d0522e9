"""A folder to try easycompress in: a small convolutional net, trained in seconds on data that scikit-learn ships."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import torch

from easycompress.core.errors import BadInput
from easycompress.core.files import write_bytes, write_text
from easycompress.core.inputs import answer
from easycompress.intake.data import load_data
from easycompress.intake.models import make_module
from easycompress.intake.splits import make_splits
from easycompress.metrics import LOSSES, METRICS
from easycompress.training.fit import Hooks, Schedule, fit
from easycompress.training.speed import Speed
from easycompress.training.terms import Labels

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from easycompress.core.progress import Progress

COMMAND = "easycompress compress model.pt --objective size --target 10x --max-drop 1%"

REPORT = "model-easycompress/report.html"
"""What that command writes for people, in the demo's folder."""

SEED = 0
EPOCHS = 30

FACTORY = '''\
"""The architecture of the demo model: two convolutions and two linear layers for 8x8 digits."""
import torch
from torch import nn


class DigitNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(32)
        self.conv2 = nn.Conv2d(32, 64, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(64)
        self.fc1 = nn.Linear(64 * 4 * 4, 256)
        self.fc2 = nn.Linear(256, 10)

    def forward(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        x = nn.functional.max_pool2d(torch.relu(self.bn2(self.conv2(x))), 2)
        return self.fc2(torch.relu(self.fc1(x.flatten(1))))


def make_model():
    return DigitNet()
'''

CONFIG = """\
# Flags that the command line may leave out. Paths are relative to this file; a flag on the line wins.
factory = "model.py:make_model"
data = "digits"
budget = "2min"
"""

FILES = ("model.py", "model.pt", "easycompress.toml")
RESULT = "model-easycompress"


def make_demo(folder: Path, progress: Progress) -> None:
    """Write the demo's files into `folder`, training the model. Raises BadInput where other files are in the way."""
    if folder.exists() and not folder.is_dir():
        raise BadInput(f"{folder}: is a file; name a new folder: easycompress demo DIR")
    if folder.exists():
        foreign = sorted({path.name for path in folder.iterdir()} - {*FILES, RESULT, "__pycache__"})
        if foreign:
            raise BadInput(
                f"{folder}: holds other files ({', '.join(foreign[:3])}); name a new folder: easycompress demo DIR"
            )
    write_text(folder / "model.py", FACTORY)
    write_text(folder / "easycompress.toml", CONFIG)
    torch.manual_seed(SEED)
    model = make_module("model.py:make_model", folder)
    quality = _train(model, progress)
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    write_bytes(folder / "model.pt", buffer.getvalue())
    progress.say(f"trained a small CNN on scikit-learn's digits: {quality:.2f} % on its validation split")


def _train(model: nn.Module, progress: Progress) -> float:
    data = make_splits(load_data("digits", mean=None, std=None, base=None, seed=SEED), seed=SEED)
    metric = METRICS["accuracy"]
    targets = data.select.targets
    assert targets is not None  # noqa: S101 - digits are labelled

    def evaluate(trained: nn.Module) -> float:
        with torch.no_grad():
            return metric.quality(metric.scores(answer(trained, data.select.inputs), targets))

    hooks = Hooks(evaluate, progress=progress, label="training the demo model")
    speed = Speed(threads=1, channels_last=False, bfloat16=False, step_seconds=0.0)
    schedule = Schedule(epochs=EPOCHS, lr=0.05, batch=64, seed=SEED)
    return fit(model, data.train, Labels(LOSSES["cross-entropy"]), schedule, speed, hooks, None).best
