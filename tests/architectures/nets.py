"""Tiny nets of many kinds, with random weights: what a stranger's model may look like."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from easycompress.core.inputs import Bundle

if TYPE_CHECKING:
    from collections.abc import Callable

    from easycompress.core.inputs import Inputs

CLASSES, WORDS, LENGTH = 10, 40, 7


class Recurrent(nn.Module):
    """Words -> embedding -> a recurrent layer -> the last step's classes."""

    def __init__(
        self, kind: type[nn.LSTM | nn.GRU | nn.RNN], *, layers: int = 1, both: bool = False, width: int = 24
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, 16)
        self.body = kind(16, width, num_layers=layers, bidirectional=both, batch_first=True)
        self.output = nn.Linear(2 * width if both else width, CLASSES)

    def forward(self, words: Tensor) -> Tensor:
        return self.output(self.body(self.embedding(words))[0][:, -1])


class Signals(nn.Module):
    """A recurrent layer alone reads numbers, time first; its last hidden state is the answer's only source."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.LSTM(6, 32, batch_first=False)
        self.output = nn.Linear(32, CLASSES)

    def forward(self, signals: Tensor) -> Tensor:
        _, (hidden, _) = self.body(signals.transpose(0, 1))
        return self.output(hidden[-1])


class Cells(nn.Module):
    """A loop in Python over a GRU cell, wide enough to weigh more than its steps in the graph."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.width = width
        self.cell = nn.GRUCell(6, width)
        self.output = nn.Linear(width, CLASSES)

    def forward(self, signals: Tensor) -> Tensor:
        hidden = signals.new_zeros(signals.shape[0], self.width)
        for step in range(LENGTH):
            hidden = self.cell(signals[:, step], hidden)
        return self.output(hidden)


class ConvAutoencoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(3, 12, 3, 2, 1), nn.ReLU(), nn.Conv2d(12, 20, 3, 2, 1), nn.BatchNorm2d(20), nn.ReLU()
        )
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(20, 12, 2, 2), nn.ReLU(), nn.ConvTranspose2d(12, 3, 4, 2, 1), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder(x))


class LinearAutoencoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(192, 32), nn.Tanh(), nn.Linear(32, 12))
        self.decoder = nn.Sequential(nn.Linear(12, 32), nn.Tanh(), nn.Linear(32, 192))

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder(x.flatten(1))).view_as(x)


class Generator(nn.Module):
    """Noise -> image."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.ConvTranspose2d(16, 24, 2, bias=False),
            nn.BatchNorm2d(24),
            nn.ReLU(),
            nn.ConvTranspose2d(24, 12, 4, 2, 1, bias=False),
            nn.BatchNorm2d(12),
            nn.LeakyReLU(0.2),
            nn.ConvTranspose2d(12, 3, 4, 2, 1),
            nn.Tanh(),
        )

    def forward(self, noise: Tensor) -> Tensor:
        return self.body(noise[:, :, None, None])


class UNet(nn.Module):
    """Skip connections by concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(12, 20, 3, padding=1), nn.BatchNorm2d(20), nn.ReLU())
        self.bottom = nn.Sequential(nn.Conv2d(20, 20, 3, padding=1), nn.ReLU())
        self.up = nn.ConvTranspose2d(20, 14, 2, 2)
        self.right = nn.Sequential(nn.Conv2d(34, 16, 3, padding=1), nn.ReLU())
        self.last = nn.Conv2d(28, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.first(x)
        second = self.second(functional.max_pool2d(first, 2))
        bottom = self.bottom(functional.max_pool2d(second, 2))
        right = self.right(torch.cat([self.up(bottom), second], 1))
        large = functional.interpolate(right, scale_factor=2.0, mode="nearest")
        return self.last(torch.cat([large, first], 1))


class TiedEmbedding(nn.Module):
    """The table of words is the output layer's weight too."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, 24)
        self.hidden = nn.Linear(24, 24)
        self.output = nn.Linear(24, WORDS, bias=False)
        self.output.weight = self.embedding.weight

    def forward(self, words: Tensor) -> Tensor:
        return self.output(torch.tanh(self.hidden(self.embedding(words).mean(1))))


class SharedLinear(nn.Module):
    """The same layer runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(192, 28)
        self.hidden = nn.Linear(28, 28)
        self.output = nn.Linear(28, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x.flatten(1)))
        return self.output(torch.relu(self.hidden(torch.relu(self.hidden(x)))))


class Heads(nn.Module):
    """Several outputs from one body, as a tuple or a dict."""

    def __init__(self, *, named: bool) -> None:
        super().__init__()
        self.named = named
        self.body = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 20, 3, 2), nn.ReLU())
        self.classes = nn.Linear(20, CLASSES)
        self.boxes = nn.Linear(20, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor] | dict[str, Tensor]:
        pooled = self.body(x).mean((2, 3))
        made = (self.classes(pooled), self.boxes(pooled).sigmoid())
        return {"logits": made[0], "boxes": made[1]} if self.named else made


class TwoInputs(nn.Module):
    """An image and words, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Conv2d(3, 16, 3, 2)
        self.embedding = nn.Embedding(WORDS, 16)
        self.hidden = nn.Linear(32, 24)
        self.output = nn.Linear(24, CLASSES)

    def forward(self, image: Tensor, words: Tensor) -> Tensor:
        seen = torch.relu(self.image(image)).mean((2, 3))
        return self.output(torch.relu(self.hidden(torch.cat([seen, self.embedding(words).mean(1)], 1))))


class Keywords(nn.Module):
    """Words and their mask, by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, 24)
        self.hidden = nn.Linear(24, 32)
        self.output = nn.Linear(32, CLASSES)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        mask = attention_mask[..., None].float()
        mean = (self.embedding(input_ids) * mask).sum(1) / mask.sum(1).clamp(min=1)
        return {"logits": self.output(torch.relu(self.hidden(mean)))}


class Nested(nn.Module):
    """Sequential in ModuleList in ModuleDict; which branch runs is an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.branches = nn.ModuleDict(
            {
                name: nn.ModuleList([nn.Sequential(nn.Linear(size, 24), nn.ReLU()) for size in (192, 24)])
                for name in ("used", "spare")
            }
        )
        self.branch = "used"
        self.output = nn.Linear(24, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        for layer in self.branches[self.branch]:
            x = layer(x)
        return self.output(x)


class Functional(nn.Module):
    """No layers: plain parameters and functions."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(0.2 * torch.randn(16, 3, 3, 3))
        self.shift = nn.Parameter(0.1 * torch.randn(16))
        self.matrix = nn.Parameter(0.2 * torch.randn(24, 16))
        self.output = nn.Parameter(0.2 * torch.randn(24, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(functional.conv2d(x, self.kernel, self.shift, stride=2)).mean((2, 3))
        return torch.relu(functional.linear(x, self.matrix)) @ self.output


class PartlyFunctional(nn.Module):
    """A parameter of its own between two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2)
        self.matrix = nn.Parameter(0.2 * torch.randn(24, 16))
        self.output = nn.Linear(24, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x)).mean((2, 3))
        return self.output(torch.relu(functional.linear(x, self.matrix)))


class Normed(nn.Module):
    """Weights that are computed: by `wrap`, on a convolution and a linear layer."""

    def __init__(self, wrap: Callable[[nn.Module], nn.Module]) -> None:
        super().__init__()
        self.stem = wrap(nn.Conv2d(3, 16, 3, padding=1))
        self.body = nn.Conv2d(16, 20, 3, 2)
        self.hidden = wrap(nn.Linear(20, 24))
        self.output = nn.Linear(24, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.body(torch.relu(self.stem(x)))).mean((2, 3))
        return self.output(torch.relu(self.hidden(x)))


class Grouped(nn.Module):
    """Groups, or as many groups as channels."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.grouped = nn.Conv2d(16, 16, 3, padding=1, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.tail = nn.Conv2d(16, 24, 1)
        self.output = nn.Linear(24, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.grouped(functional.relu6(self.stem(x)))))
        return self.output(torch.relu(self.tail(x)).mean((2, 3)))


class Attributed(nn.Module):
    """How often a layer of a ModuleList runs, and which, depends on Python attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(192, 24)
        self.layers = nn.ModuleList(nn.Linear(24, 24) for _ in range(4))
        self.depth, self.order = 3, (2, 0, 1)
        self.output = nn.Linear(24, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x.flatten(1)))
        for i in range(self.depth):
            x = torch.relu(self.layers[self.order[i]](x)) + (x if i % 2 else 0)
        return self.output(x)


class Chosen(nn.Module):
    """Each sample's values decide between two branches, with torch.where."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(192, 24)
        self.left, self.right = nn.Linear(24, 24), nn.Linear(24, 24)
        self.output = nn.Linear(24, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x.flatten(1)))
        return self.output(torch.where(x.sum(1, keepdim=True) > 3, self.left(x), self.right(x)))


class Deciding(nn.Module):
    """The data decide in Python which layer runs: no graph can hold that."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(192, 24)
        self.layers = nn.ModuleList(nn.Linear(24, 24) for _ in range(2))
        self.output = nn.Linear(24, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x.flatten(1)))
        layer = self.layers[0] if float(x.sum()) > 0 else self.layers[1]
        return self.output(layer(x))


class Norms(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.GroupNorm(4, 16), nn.PReLU(16))
        self.second = nn.Sequential(nn.Conv2d(16, 20, 3, 2), nn.InstanceNorm2d(20, affine=True), nn.PReLU())
        self.hidden = nn.Linear(20, 24)
        self.norm = nn.LayerNorm(24)
        self.output = nn.Linear(24, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(functional.gelu(self.norm(self.hidden(self.second(self.first(x)).square().mean((2, 3))))))


class Conv1(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(6, 24, 3, padding=1), nn.BatchNorm1d(24), nn.ReLU(), nn.Conv1d(24, 24, 3), nn.ReLU()
        )
        self.output = nn.Linear(24, CLASSES)

    def forward(self, signals: Tensor) -> Tensor:
        return self.output(self.body(signals.transpose(1, 2)).amax(2))


class Conv3(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv3d(1, 12, 3, padding=1), nn.BatchNorm3d(12), nn.ReLU(), nn.MaxPool3d(2), nn.Conv3d(12, 16, 2)
        )
        self.output = nn.Linear(16, CLASSES)

    def forward(self, volumes: Tensor) -> Tensor:
        return self.output(torch.relu(self.body(volumes)).mean((2, 3, 4)))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, 16)
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)
        self.norm = nn.LayerNorm(16)
        self.output = nn.Linear(16, CLASSES)

    def forward(self, words: Tensor) -> Tensor:
        x = self.embedding(words)
        x = self.norm(x + self.attention(x, x, x, need_weights=False)[0])
        return self.output(x.mean(1))


class Gated(nn.Module):
    """A residual whose other summand, and a factor, are broadcast over the places of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.squeeze, self.excite = nn.Linear(16, 8), nn.Linear(8, 16)
        self.add = nn.Linear(16, 16)
        self.tail = nn.Conv2d(16, 20, 3, 2)
        self.output = nn.Linear(20, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        pooled = x.mean((2, 3))
        x = x * torch.sigmoid(self.excite(torch.relu(self.squeeze(pooled))))[:, :, None, None]
        x = x + self.add(pooled)[:, :, None, None]
        return self.output(torch.relu(self.tail(x)).mean((2, 3)))


class Unused(nn.Module):
    """A parameter and a layer that forward never reads."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2)
        self.left_over = nn.Parameter(torch.randn(8, 16))
        self.forgotten = nn.Linear(16, 12)
        self.hidden = nn.Linear(16, 24)
        self.output = nn.Linear(24, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(torch.relu(self.hidden(torch.relu(self.stem(x)).mean((2, 3)))))


class Buffered(nn.Module):
    """Constant buffers are part of the answer, one of them as wide as a layer that could be pruned."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2)
        self.hidden = nn.Linear(16, 24)
        self.output = nn.Linear(24, CLASSES)
        self.register_buffer("offset", torch.randn(CLASSES))
        self.register_buffer("scale", torch.rand(24) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.hidden(torch.relu(self.stem(x)).mean((2, 3)))) * self.scale
        return self.output(x) + self.offset


class Reshaped(nn.Module):
    """Space to depth, windows, and channels as tokens, by reshape and permute."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(12, 16, 1)
        self.tokens = nn.Linear(16, 24)
        self.places = nn.Linear(16, 12)
        self.output = nn.Linear(24 * 12, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        x = x.reshape(n, c, h // 2, 2, w // 2, 2).permute(0, 1, 3, 5, 2, 4).reshape(n, 4 * c, h // 2, w // 2)
        x = torch.relu(self.stem(x)).flatten(2).transpose(1, 2)
        x = torch.relu(self.tokens(x)).permute(0, 2, 1)
        return self.output(torch.relu(self.places(x)).reshape(n, -1))


class Shuffled(nn.Module):
    """ShuffleNet's channel shuffle between two grouped convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 24, 3, padding=1)
        self.grouped = nn.Conv2d(24, 24, 1, groups=3)
        self.second = nn.Conv2d(24, 24, 3, 2, groups=3)
        self.output = nn.Linear(24, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.grouped(torch.relu(self.first(x))))
        n, c, h, w = x.shape
        x = x.view(n, 3, c // 3, h, w).transpose(1, 2).reshape(n, c, h, w)
        return self.output(torch.relu(self.second(x)).mean((2, 3)))


def _old_weight_norm(layer: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # it is what old models have
        made: nn.Module = nn.utils.weight_norm(layer)
    return made


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(count: int, seed: int) -> Tensor:
    return torch.randn(count, 3, 8, 8, generator=_generator(seed))


def words(count: int, seed: int) -> Tensor:
    return torch.randint(WORDS, (count, LENGTH), generator=_generator(seed))


def signals(count: int, seed: int) -> Tensor:
    return torch.randn(count, LENGTH, 6, generator=_generator(seed))


def noise(count: int, seed: int) -> Tensor:
    return torch.randn(count, 16, generator=_generator(seed))


def volumes(count: int, seed: int) -> Tensor:
    return torch.randn(count, 1, 6, 6, 6, generator=_generator(seed))


def both(count: int, seed: int) -> Bundle:
    return Bundle((images(count, seed), words(count, seed + 1)))


def masked(count: int, seed: int) -> Bundle:
    mask = (torch.arange(LENGTH) < torch.randint(1, LENGTH + 1, (count, 1), generator=_generator(seed))).long()
    return Bundle((words(count, seed), mask), ("input_ids", "attention_mask"))


@dataclass(frozen=True)
class Kind:
    """An architecture: what makes its net, and samples of what it reads. `values`: it answers no classes."""

    name: str
    factory: Callable[[], nn.Module]
    draw: Callable[[int, int], Inputs] = images
    values: bool = False

    def make(self) -> nn.Module:
        """Return the net in evaluation mode, the same each time; batch norm has seen data."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(len(self.name))
            model = self.factory()
            for module in model.modules():
                if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
                    nn.init.uniform_(module.weight, 0.5, 1.5)
                    nn.init.normal_(module.bias, std=0.3)
                    module.running_mean.normal_(std=0.3)
                    module.running_var.uniform_(0.5, 2.0)
        return model.eval()


KINDS = {
    kind.name: kind
    for kind in (
        Kind("lstm", lambda: Recurrent(nn.LSTM), words),
        Kind("gru", lambda: Recurrent(nn.GRU), words),
        Kind("rnn", lambda: Recurrent(nn.RNN), words),
        Kind("bidirectional-lstm", lambda: Recurrent(nn.LSTM, both=True), words),
        Kind("deep-gru", lambda: Recurrent(nn.GRU, layers=2), words),
        Kind("wide-lstm", lambda: Recurrent(nn.LSTM, both=True, width=96), words),  # export leaves its gates apart
        Kind("lstm-of-signals", Signals, signals),
        Kind("gru-cell", Cells, signals),
        Kind("conv-autoencoder", ConvAutoencoder, values=True),
        Kind("linear-autoencoder", LinearAutoencoder, values=True),
        Kind("gan-generator", Generator, noise, values=True),
        Kind("u-net", UNet, values=True),
        Kind("tied-embedding", TiedEmbedding, words),
        Kind("shared-linear", SharedLinear),
        Kind("tuple-of-outputs", lambda: Heads(named=False)),
        Kind("dict-of-outputs", lambda: Heads(named=True)),
        Kind("two-inputs", TwoInputs, both),
        Kind("keyword-inputs", Keywords, masked),
        Kind("nested", Nested),
        Kind("functional", Functional),
        Kind("partly-functional", PartlyFunctional),
        Kind("weight-norm", lambda: Normed(parametrizations.weight_norm)),
        Kind("old-weight-norm", lambda: Normed(_old_weight_norm)),
        Kind("spectral-norm", lambda: Normed(parametrizations.spectral_norm)),
        Kind("old-spectral-norm", lambda: Normed(nn.utils.spectral_norm)),
        Kind("grouped", lambda: Grouped(4)),
        Kind("depthwise", lambda: Grouped(16)),
        Kind("attribute-flow", Attributed),
        Kind("data-flow-where", Chosen),
        Kind("data-flow-if", Deciding),
        Kind("norms", Norms),
        Kind("conv1d", Conv1, signals),
        Kind("conv3d", Conv3, volumes),
        Kind("attention", Attention, words),
        Kind("broadcast-residual", Gated),
        Kind("unused-parameter", Unused),
        Kind("buffers", Buffered),
        Kind("reshapes", Reshaped),
        Kind("channel-shuffle", Shuffled),
    )
}
