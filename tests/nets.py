"""Small nets that tests share, each from SHAPE-sized images to logits, (N, 10); and the digits as a task for them."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

from easycompress.artifact.onnx_export import export
from easycompress.core.progress import Silent
from easycompress.core.task import Split, Splits, Task
from easycompress.measure.profile import profile
from easycompress.metrics import LOSSES, METRICS
from easycompress.technique import Context
from easycompress.training.fit import Hooks, Schedule, fit
from easycompress.training.speed import Speed
from easycompress.training.terms import Labels, make_teacher

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx

SHAPE = (1, 8, 8)
CLASSES = 10
WORDS = 50
"""Tokens that the nets of words know."""


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.hidden1 = nn.Linear(64, 24)
        self.hidden2 = nn.Linear(24, 16)
        self.output = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.hidden1(x.flatten(1)))
        return self.output(torch.relu(self.hidden2(x)))


class LeNet(nn.Module):
    """Convolutions, pooling, flatten, linear layers, as in LeNet5."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 3, padding=1)
        self.conv2 = nn.Conv2d(6, 12, 3)
        self.fc1 = nn.Linear(12, 20)
        self.fc2 = nn.Linear(20, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(torch.relu(self.conv1(x)), 2)
        x = functional.max_pool2d(torch.relu(self.conv2(x)), 2)
        return self.fc2(torch.relu(self.fc1(x.flatten(1))))


class Flattened(nn.Module):
    """A convolution whose 4 x 4 maps are flattened: each channel is 16 inputs of the linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 3, stride=2, padding=1)
        self.fc = nn.Linear(6 * 4 * 4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.relu(self.conv(x)).flatten(1))


class BatchNormed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(8, 12, 3, padding=1),
            nn.BatchNorm2d(12),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
        )
        self.hidden = nn.Linear(12, 14)
        self.norm = nn.BatchNorm1d(14)
        self.output = nn.Linear(14, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x).flatten(1)
        return self.output(torch.relu(self.norm(self.hidden(x))))


class Block(nn.Module):
    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        out = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(torch.add(self.bn2(self.conv2(out)), self.shortcut(x)))


class Residual(nn.Module):
    """An identity shortcut, a 1 x 1 shortcut, functional relu and add."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.identity = Block(8, 8, 1)
        self.projected = Block(8, 16, 2)
        self.output = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.bn(self.stem(x)))
        x = self.projected(self.identity(x))
        return self.output(x.mean((2, 3)))


class Tower(nn.Module):
    """Four residual blocks, one of which halves the image. Not of NETS: Residual has all that it has."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.blocks = nn.Sequential(Block(8, 8, 1), Block(8, 8, 1), Block(8, 12, 2), Block(12, 12, 1))
        self.output = nn.Linear(12, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.blocks(torch.relu(self.stem(x))).mean((2, 3)))


class Attentive(nn.Module):
    """Two transformer layers over the image's rows. Not of NETS: channel pruning alone doesn't know heads."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Linear(8, 16)
        self.layers = nn.Sequential(
            *(nn.TransformerEncoderLayer(16, 4, 24, dropout=0.0, batch_first=True) for _ in range(2))
        )
        self.output = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.layers(self.embedding(x.flatten(1, 2))).mean(1))


class DepthwiseSeparable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.pointwise = nn.Conv2d(8, 12, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(12)
        self.output = nn.Linear(12, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu6(self.stem(x))
        x = functional.relu6(self.bn1(self.depthwise(x)))
        x = functional.relu6(self.bn2(self.pointwise(x)))
        return self.output(x.mean((2, 3)))


class Concatenated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Conv2d(1, 6, 3, padding=1)
        self.right = nn.Conv2d(1, 10, 1)
        self.joined = nn.Conv2d(16, 8, 3, stride=2, padding=1)
        self.output = nn.Linear(8 * 4 * 4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        both = torch.cat([torch.relu(self.left(x)), torch.relu(self.right(x))], dim=1)
        return self.output(torch.relu(self.joined(both)).flatten(1))


class Grouped(nn.Module):
    """A convolution in two groups: its channels are tied in blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.grouped = nn.Conv2d(8, 12, 3, padding=1, groups=2)
        self.tail = nn.Conv2d(12, 10, 3, stride=2, padding=1)
        self.hidden = nn.Linear(10, 12)
        self.output = nn.Linear(12, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.grouped(torch.relu(self.stem(x))))
        x = torch.relu(self.tail(x)).mean((2, 3))
        return self.output(torch.relu(self.hidden(x)))


class OutputFirst(nn.Module):
    """The layers stand in the source in the reverse of the order in which they run."""

    def __init__(self) -> None:
        super().__init__()
        self.output = nn.Linear(16, CLASSES)
        self.hidden = nn.Linear(12, 16)
        self.conv = nn.Conv2d(1, 12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv(x)).mean((2, 3))
        return self.output(torch.relu(self.hidden(x)))


class ConvOutput(nn.Module):
    """No linear layer: the last convolution makes the logits."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.body = nn.Conv2d(8, 12, 3, stride=2)
        self.output = nn.Conv2d(12, CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.body(torch.relu(self.stem(x))))
        return self.output(x).mean((2, 3))


class Pair(nn.Module):
    """Two inputs in order, integers and floats, and a tuple of outputs whose first is the answer."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, 32)
        self.numbers = nn.Linear(6, 32)
        self.hidden = nn.Linear(32, 48)
        self.output = nn.Linear(48, CLASSES)

    def forward(self, words: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        hidden = torch.relu(self.hidden(self.embedding(words).mean(1) + self.numbers(numbers)))
        return self.output(hidden), hidden


class Worded(nn.Module):
    """Two integer inputs by keyword, and a dict of outputs, as transformers have them."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, 32)
        self.hidden = nn.Linear(32, 64)
        self.output = nn.Linear(64, CLASSES)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        mask = attention_mask.unsqueeze(2).to(torch.float32)
        mean = (self.embedding(input_ids) * mask).sum(1) / mask.sum(1).clamp(min=1)
        hidden = torch.relu(self.hidden(mean))
        return {"logits": self.output(hidden), "hidden": hidden}


NETS: tuple[type[nn.Module], ...] = (
    Mlp,
    LeNet,
    Flattened,
    BatchNormed,
    Residual,
    DepthwiseSeparable,
    Concatenated,
    Grouped,
    OutputFirst,
    ConvOutput,
)


def make(net: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """Return the net in evaluation mode; batch norm has seen data, so that folding it changes numbers."""
    torch.manual_seed(seed)
    model = net()
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
            module.running_mean.normal_(std=0.3)
            module.running_var.uniform_(0.5, 2.0)
    return model.eval()


def images(count: int, seed: int = 0) -> Tensor:
    """Return `count` random images, (count, *SHAPE)."""
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(seed))


@functools.cache
def graph(net: type[nn.Module]) -> onnx.ModelProto:
    """Return the plain export of `make(net)`, made once: nobody may change it."""
    return export(make(net), images(2))


@functools.cache
def digits() -> Splits:
    """Return scikit-learn's handwritten digits, 8 x 8, values 0..1."""
    bunch = load_digits()
    inputs = torch.from_numpy(bunch.images).float().unsqueeze(1) / 16
    everything = Split(inputs, torch.from_numpy(bunch.target))
    order = torch.randperm(len(everything), generator=torch.Generator().manual_seed(0))
    return Splits(
        train=everything.take(order[:900]),
        calibration=everything.take(order[:200]),
        select=everything.take(order[900:1300]),
        report=everything.take(order[1300:]),
    )


def task(model: nn.Module) -> Task:
    """Return `model` with the digits."""
    data = digits()
    return Task(model, data, data.train.inputs[:2], METRICS["accuracy"], LOSSES["cross-entropy"])


def accuracy(model: nn.Module) -> float:
    """Return the accuracy on *select*, in percent."""
    select = digits().select
    assert select.targets is not None
    with torch.no_grad():
        return 100 * float((model(select.inputs).argmax(1) == select.targets).float().mean())


def same_state(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    """Tell whether two state dicts agree bit for bit."""
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def state(model: nn.Module) -> dict[str, Tensor]:
    """Return a copy of the state dict."""
    return {name: value.clone() for name, value in model.state_dict().items()}


SPEED = Speed(threads=1, channels_last=False, bfloat16=False, step_seconds=0.0)


def context(work: Task, **changes: Any) -> Context:
    """Return a context without training; `changes` are its other fields."""
    facts = profile(work.model, graph(type(work.model)), SHAPE, CLASSES)
    return Context(work, facts, 0, Silent(), **changes)


def training_context(work: Task, epochs: int = 2, **changes: Any) -> Context:
    """Return a context that trains a little, with recovery of one epoch between prunings."""

    def recover(model: nn.Module, index: int) -> int:
        schedule = Schedule(epochs=1, lr=0.02, seed=index)
        fit(model, work.data.train, Labels(work.loss), schedule, SPEED, Hooks(accuracy), None)
        return 1

    settings: dict[str, Any] = {
        "epochs": epochs,
        "speed": SPEED,
        "teacher": lambda: make_teacher(work.model, work.data.train, cache=True),
        "evaluate": accuracy,
        "recover": recover,
    }
    return context(work, **(settings | changes))
