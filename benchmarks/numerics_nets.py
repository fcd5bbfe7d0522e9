"""Random small networks, and what can be wrong with a network or with its data."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

Pair: TypeAlias = "tuple[Tensor, Tensor]"

CLASSES = 4
SAMPLES = 160


class Net(nn.Module):
    """A few blocks, some with a shortcut, then a mean over places where there are any, and a linear layer."""

    def __init__(self, choice: random.Random) -> None:
        super().__init__()
        self.images = choice.random() < 0.6
        width = choice.choice([4, 8, 12])
        self.first = nn.Conv2d(1, width, 3, padding=1) if self.images else nn.Linear(16, width)
        self.blocks = nn.ModuleList(_block(choice, width, images=self.images) for _ in range(choice.randint(1, 3)))
        self.shortcuts = [choice.random() < 0.5 for _ in self.blocks]
        self.last = nn.Linear(width, CLASSES, bias=choice.random() < 0.8)

    def forward(self, x: Tensor) -> Tensor:
        """Return scores (N, 4) of images (N, 1, 6, 6) or vectors (N, 16)."""
        x = self.first(x)
        for block, shortcut in zip(self.blocks, self.shortcuts, strict=True):
            x = x + block(x) if shortcut else block(x)
        return self.last(x.mean((2, 3)) if self.images else x)


def _block(choice: random.Random, width: int, *, images: bool) -> nn.Sequential:
    inner = choice.choice([4, 8, 16])
    middle = choice.choice([nn.ReLU, nn.Tanh, nn.GELU, nn.SiLU, nn.Hardswish, nn.LeakyReLU, nn.Sigmoid])()
    if images:
        groups = choice.choice([1, 1, 2])
        layers: list[nn.Module] = [nn.Conv2d(width, inner, 3, padding=1, groups=groups), middle]
        norm: nn.Module = nn.BatchNorm2d(inner)
        end: nn.Module = nn.Conv2d(inner, width, 1, bias=choice.random() < 0.5)
    else:
        layers, norm, end = [nn.Linear(width, inner), middle], nn.BatchNorm1d(inner), nn.Linear(inner, width)
    if choice.random() < 0.6:
        layers.insert(1, norm)
    return nn.Sequential(*layers, end)


def random_net(choice: random.Random) -> Net:
    """Return a net in evaluation mode; its batch norms have seen some noise."""
    net = Net(choice)
    net.train()
    with torch.no_grad():
        net(torch.randn(64, 1, 6, 6) if net.images else torch.randn(64, 16))
    return net.eval()


def samples(net: nn.Module, choice: random.Random) -> Pair:
    """Return inputs and targets that the net, where it can be run, gets right four times of five."""
    shape = (1, 6, 6) if getattr(net, "images", True) else (16,)
    inputs = torch.randn(SAMPLES, *shape)
    with torch.no_grad():
        targets = net.to(inputs.dtype)(inputs).argmax(1) if _plain(net) else torch.zeros(SAMPLES, dtype=torch.long)
    places = torch.tensor([choice.random() < 0.2 for _ in range(SAMPLES)])
    return inputs, torch.where(places, (targets + 1) % CLASSES, targets)


def _plain(net: nn.Module) -> bool:
    return all(tensor.dtype == torch.float32 for tensor in net.parameters())


def _layers(net: nn.Module) -> list[nn.Module]:
    return [module for module in net.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]


@torch.no_grad()
def _dead_channels(net: nn.Module) -> None:
    for layer in _layers(net)[:-1]:
        layer.weight[::2] = 0  # type: ignore[index,operator] # a layer with weights
        if layer.bias is not None:
            layer.bias[::2] = 0  # type: ignore[index,operator]


@torch.no_grad()
def _zero_layer(net: nn.Module) -> None:
    for tensor in _layers(net)[1].parameters():
        tensor.zero_()


@torch.no_grad()
def _all_zero(net: nn.Module) -> None:
    for tensor in net.parameters():
        tensor.zero_()


@torch.no_grad()
def _constant_layer(net: nn.Module) -> None:
    for tensor in _layers(net)[0].parameters():
        tensor.fill_(0.25)


def _scaled(factor: float) -> Callable[[nn.Module], None]:
    @torch.no_grad()
    def change(net: nn.Module) -> None:
        for tensor in _layers(net)[0].parameters():
            tensor.mul_(factor)

    return change


@torch.no_grad()
def _unequal_channels(net: nn.Module) -> None:
    weight = _layers(net)[0].weight
    weight.mul_(10.0 ** torch.linspace(-6, 4, len(weight)).reshape(-1, *[1] * (weight.dim() - 1)))  # type: ignore[arg-type,operator,union-attr]


@torch.no_grad()
def _no_variance(net: nn.Module) -> None:
    for module in net.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.running_var.zero_()  # type: ignore[union-attr]


def _turned(net: nn.Module) -> None:
    for layer in _layers(net):
        layer.weight = nn.Parameter(layer.weight.detach().transpose(0, 1).contiguous().transpose(0, 1))  # type: ignore[union-attr,operator]


def _shared(net: nn.Module) -> None:
    blocks = net.blocks
    if isinstance(blocks, nn.ModuleList) and len(blocks) > 1:
        blocks[1] = blocks[0]


def _frozen(net: nn.Module) -> None:
    net.requires_grad_(requires_grad=False)


@torch.no_grad()
def _not_a_number(net: nn.Module) -> None:
    next(net.parameters()).view(-1)[0] = float("nan")


AFFLICTIONS: dict[str, Callable[[nn.Module], object]] = {
    "none": lambda _: None,
    "dead channels": _dead_channels,
    "a layer of zeros": _zero_layer,
    "nothing but zeros": _all_zero,
    "a constant layer": _constant_layer,
    "huge weights": _scaled(1e6),
    "tiny weights": _scaled(1e-12),
    "channels of unequal size": _unequal_channels,
    "batch norm without variance": _no_variance,
    "float16": lambda net: net.half(),
    "bfloat16": lambda net: net.bfloat16(),
    "float64": lambda net: net.double(),
    "non-contiguous weights": _turned,
    "shared blocks": _shared,
    "frozen": _frozen,
    "left in training mode": lambda net: net.train(),
    "a weight that is no number": _not_a_number,
}

DATA_AFFLICTIONS: dict[str, Callable[[Pair], Pair]] = {
    "one class only": lambda pair: (pair[0], torch.zeros_like(pair[1])),
    "one sample only": lambda pair: (pair[0][:1], pair[1][:1]),
    "three samples": lambda pair: (pair[0][:3], pair[1][:3]),
    "the same sample again and again": lambda pair: (
        pair[0][:1].repeat(50, *[1] * (pair[0].dim() - 1)),
        pair[1][:1].repeat(50),
    ),
    "huge inputs": lambda pair: (pair[0] * 1e8, pair[1]),
    "inputs of zeros": lambda pair: (pair[0] * 0, pair[1]),
}
