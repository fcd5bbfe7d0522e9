"""The study's nets, several runs of one shape trained side by side as one batched model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from easycompress.core.task import Split
from easycompress.training.speed import Speed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.comparative_study_data import Images

RUNS = 5

SPEED = Speed(threads=1, channels_last=False, bfloat16=False, step_seconds=0.0)


class Dense(nn.Module):
    """784 inputs, `width` rectified hidden units, 10 outputs."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(784, width)
        self.output = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, 10) of pixels (N, 784)."""
        logits: Tensor = self.output(torch.relu(self.hidden(x)))
        return logits


@dataclass(frozen=True)
class Shape:
    """A small convolutional net: kernel size, output channels, stride, pool size."""

    kernel: int
    channels: int
    stride: int
    pool: int

    @property
    def features(self) -> int:
        """What the linear layer takes."""
        side = ((28 - self.kernel) // self.stride + 1) // self.pool
        return self.channels * side**2


class Convolutional(nn.Module):
    """A convolution, ReLU, max pooling and a linear layer (the study's section 4.1, without its dropout)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.hidden = nn.Conv2d(1, shape.channels, shape.kernel, shape.stride)
        self.output = nn.Linear(shape.features, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, 10) of pixels (N, 784)."""
        maps = torch.relu(self.hidden(x.reshape(-1, 1, 28, 28)))
        logits: Tensor = self.output(functional.max_pool2d(maps, self.shape.pool).flatten(1))
        return logits


class Side(nn.Module):
    """`nets`, each with its own weights, computed in one pass: what is trained takes places of samples, not pixels.

    Called with places (B, R), a column a run, it returns logits (B, R, 10): each run sees the training images in an
    order of its own.
    """

    pixels: Tensor

    def __init__(self, nets: Sequence[nn.Module], pixels: Tensor) -> None:
        super().__init__()
        self.nets = nn.ModuleList(nets)
        self.register_buffer("pixels", pixels, persistent=False)

    def forward(self, places: Tensor) -> Tensor:
        """Return logits (B, R, 10)."""
        return self.logits(self.pixels[places])

    def logits(self, x: Tensor) -> Tensor:
        """Return logits (B, R, 10) of pixels (B, R, 784)."""
        layers = [(cast("Dense", net).hidden, cast("Dense", net).output) for net in self.nets]
        weights = torch.stack([hidden.weight for hidden, _ in layers])
        biases = torch.stack([hidden.bias for hidden, _ in layers])
        first = self.nets[0]
        if isinstance(first, Convolutional):
            shape = first.shape
            maps = functional.conv2d(
                x.reshape(len(x), len(layers), 28, 28), weights.flatten(0, 1), biases.flatten(), shape.stride,
                groups=len(layers),
            )  # fmt: skip
            pooled = functional.max_pool2d(torch.relu(maps), shape.pool)
            features = pooled.reshape(len(x), len(layers), -1).transpose(0, 1)
        else:
            features = torch.relu(torch.baddbmm(biases[:, None], x.transpose(0, 1), weights.transpose(1, 2)))
        last = torch.stack([output.weight for _, output in layers])
        bias = torch.stack([output.bias for _, output in layers])
        return torch.baddbmm(bias[:, None], features, last.transpose(1, 2)).transpose(0, 1)


def orders(images: Images, runs: int) -> Split:
    """Return the training split of `Side`: places (N, R), a permutation of the samples a run, and labels (N, R)."""
    places = torch.stack(
        [torch.randperm(len(images.labels), generator=torch.Generator().manual_seed(run)) for run in range(runs)], 1
    )
    return Split(places, images.labels[places])


def summed_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the sum over runs of each run's mean cross-entropy: every run's gradients are as if it were alone."""
    return targets.shape[1] * functional.cross_entropy(outputs.flatten(0, 1), targets.flatten())


def accuracies(nets: nn.ModuleList, images: Images) -> list[float]:
    """Return each run's accuracy in percent."""
    with torch.no_grad():
        answers = [net(images.pixels).argmax(1) for net in nets]
    return [100 * float((answer == images.labels).double().mean()) for answer in answers]
