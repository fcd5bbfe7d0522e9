from __future__ import annotations

from typing import TYPE_CHECKING

import nets
import pytest
import torch
from torch import Tensor, nn

from easycompress.core.inputs import Bundle, answer
from easycompress.pruning.graph import PruningGraph
from easycompress.pruning.tracing import trace

if TYPE_CHECKING:
    from easycompress.core.inputs import Inputs


class Shuffled(nn.Module):
    """ShuffleNet's unit: half of the channels pass by, then both halves are shuffled."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.branch = nn.Sequential(
            nn.Conv2d(4, 6, 1), nn.BatchNorm2d(6), nn.ReLU(inplace=True),
            nn.Conv2d(6, 6, 3, padding=1, groups=6), nn.Conv2d(6, 4, 1),
        )  # fmt: skip
        self.tail = nn.Conv2d(8, 12, 1)
        self.output = nn.Linear(12, nets.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.stem(x).chunk(2, dim=1)
        x = torch.cat([left, self.branch(right)], 1)
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        return self.output(torch.relu(self.tail(x)).mean((2, 3)))


class Windowed(nn.Module):
    """Swin's block: rolled windows, attention over heads, a feed-forward block, both around a residual stream."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 8, 2, stride=2)
        self.norm1, self.norm2 = nn.LayerNorm(8), nn.LayerNorm(8)
        self.qkv, self.proj = nn.Linear(8, 24), nn.Linear(8, 8)
        self.mlp = nn.Sequential(nn.Linear(8, 20), nn.GELU(), nn.Dropout(0.1), nn.Linear(20, 8))
        self.scale = nn.Parameter(torch.linspace(0.5, 1.5, 8))
        self.output = nn.Linear(8, nets.CLASSES)

    def attend(self, x: Tensor) -> Tensor:
        n, h, w, c = x.shape
        x = torch.roll(x, (-1, -1), (1, 2)).view(n, h // 2, 2, w // 2, 2, c)
        x = x.permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, c)
        q, k, v = self.qkv(x).reshape(x.shape[0], 4, 3, 2, 4).permute(2, 0, 3, 1, 4)
        x = (torch.softmax(q @ k.transpose(-2, -1), -1) @ v).transpose(1, 2).reshape(-1, 4, 8)
        x = self.proj(x).view(n, h // 2, w // 2, 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(n, h, w, c)
        return torch.roll(x, (1, 1), (1, 2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).permute(0, 2, 3, 1)
        x = x + self.attend(self.norm1(x))
        x = x + self.scale * self.mlp(self.norm2(x))
        return self.output(x.mean((1, 2)))


class Gated(nn.Module):
    """A gated feed-forward block with an embedding, and a bare parameter along the hidden channels."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(16, 8)
        self.gate, self.up, self.down = nn.Linear(8, 12), nn.Linear(8, 12), nn.Linear(12, 8)
        self.scale = nn.Parameter(torch.linspace(0.5, 1.5, 12))
        self.output = nn.Linear(8, nets.CLASSES)

    def forward(self, ids: Tensor, mask: Tensor) -> dict[str, Tensor]:
        x = self.table(ids)
        x = x + self.down(torch.sigmoid(self.gate(x)) * self.up(x) * self.scale)
        return {"logits": self.output((x * mask.unsqueeze(-1)).sum(1))}


class Tied(nn.Module):
    """Two layers share one weight, and a third is read behind its back."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(64, 12), nn.Linear(64, 12)
        self.second.weight = self.first.weight
        self.read = nn.Linear(12, 14)
        self.hidden = nn.Linear(14, 12)
        self.output = nn.Linear(12, nets.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x.flatten(1))) + torch.relu(self.second(x.flatten(1)))
        x = nn.functional.linear(x, self.read.weight)
        return self.output(torch.relu(self.hidden(x)))


class Numbered(nn.Module):
    """A forward that knows a width by heart, which no trace can see."""

    def __init__(self) -> None:
        super().__init__()
        self.known = nn.Conv2d(1, 6, 3, stride=2, padding=1)
        self.fc = nn.Linear(96, 20)
        self.output = nn.Linear(20, nets.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(torch.relu(self.fc(torch.relu(self.known(x)).view(-1, 96))))


class Split(nn.Module):
    """Channels cut into halves that are of one size again: torch-pruning follows them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.left, self.right = nn.Conv2d(4, 6, 1), nn.Conv2d(4, 6, 1)
        self.output = nn.Linear(12, nets.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        left, right = torch.split(self.stem(x), 4, dim=1)
        return self.output(torch.relu(torch.cat([self.left(left), self.right(right)], 1)).mean((2, 3)))


def tokens(count: int) -> Bundle:
    generator = torch.Generator().manual_seed(1)
    return Bundle((torch.randint(0, 16, (count, 5), generator=generator), torch.ones(count, 5)), ("ids", "mask"))


def samples(net: type[nn.Module], count: int) -> Inputs:
    return tokens(count) if net is Gated else nets.images(count)


def graph_of(model: nn.Module) -> PruningGraph:
    return PruningGraph(model, samples(type(model), 2))


def roots(model: nn.Module) -> set[str]:
    return {group.root for group in graph_of(model).groups("global", "l1")}


@pytest.mark.parametrize(
    ("net", "expected"),
    [
        (Shuffled, {"branch.0", "tail"}),
        (Windowed, {"patches", "mlp.0"}),
        (Gated, {"gate", "down"}),
        (Tied, {"hidden"}),
        (Numbered, {"fc"}),
    ],
)
def test_only_what_is_followed_to_the_end_is_offered(net: type[nn.Module], expected: set[str]) -> None:
    model = nets.make(net)
    assert roots(model) == expected
    assert graph_of(model).tracer == "run"


def test_cut_channels_go_to_the_tracer_that_follows_them() -> None:
    assert graph_of(nets.make(Split)).tracer == "torch-pruning"


def silence(model: nn.Module, group_root: str, channels: list[int]) -> None:
    """Zero everything that reads these channels of a group, as its members say."""
    graph = graph_of(model)
    group = next(group for group in graph.groups("global", "l1") if group.root == group_root)
    for member in group.members:
        if member.role == "reads":
            places = member.places[[int(root) in channels for root in member.channels]]
            with torch.no_grad():
                member.module.weight[:, places] = 0  # type: ignore[index, operator]


@pytest.mark.parametrize("net", [*nets.NETS, Shuffled, Gated, Numbered], ids=lambda n: n.__name__)
def test_channels_that_nobody_reads_can_go(net: type[nn.Module]) -> None:
    """One group after the other: a wrong place in any layer would change the outputs."""
    inputs = samples(net, 5)
    for root in sorted(roots(nets.make(net))):
        model = nets.make(net)
        silence(model, root, [0, 2])
        before = answer(model, inputs).detach()
        graph_of(model).remove(root, [0, 2])
        assert torch.allclose(answer(model, inputs).detach(), before, atol=1e-5), root


@pytest.mark.parametrize("net", [*nets.NETS, Shuffled, Windowed, Gated, Tied, Numbered], ids=lambda n: n.__name__)
def test_every_group_can_shrink_to_one_channel(net: type[nn.Module]) -> None:
    model = nets.make(net)
    inputs = samples(net, 3)
    shape = answer(model, inputs).shape
    graph = graph_of(model)
    for group in graph.groups("global", "l1"):
        graph.remove(group.root, list(range(group.width - 1)))
    assert answer(model, inputs).shape == shape
    retraced = graph_of(model)
    assert all(group.width == 1 for group in retraced.groups("global", "l1"))


def test_a_bare_parameter_shrinks_with_its_channels_and_stays_frozen() -> None:
    model = nets.make(Gated)
    model.get_parameter("scale").requires_grad_(False)  # noqa: FBT003 - torch's own signature
    graph_of(model).remove("gate", [0, 5])
    assert torch.equal(model.get_parameter("scale"), torch.linspace(0.5, 1.5, 12)[[1, 2, 3, 4, 6, 7, 8, 9, 10, 11]])
    assert [name for name, parameter in model.named_parameters() if not parameter.requires_grad] == ["scale"]


def test_an_embedding_shrinks_with_the_stream_it_feeds() -> None:
    model = nets.make(Gated)
    graph_of(model).remove("down", [3])
    assert model.get_submodule("table").embedding_dim == 7
    assert model.get_parameter("gate.weight").shape == (12, 7)


def test_channels_that_mix_are_told() -> None:
    assert trace(nets.make(Windowed), nets.images(2)).mixed >= {"aten::view"}
    assert trace(nets.make(Shuffled), nets.images(2)).cut == {"aten::slice"}
    assert not trace(nets.make(nets.Residual), nets.images(2)).mixed


def test_a_trace_leaves_no_marks() -> None:
    model = nets.make(nets.Residual)
    before = nets.state(model)
    fast = torch.backends.mha.get_fastpath_enabled()
    trace(model, nets.images(2))
    assert nets.same_state(model.state_dict(), before)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert torch.backends.mha.get_fastpath_enabled() == fast


def test_the_same_choice_on_a_fresh_module() -> None:
    """A record names roots; replayed on other weights they must mean the same channels."""
    for net in (Shuffled, Windowed, Split):
        one, other = graph_of(nets.make(net)), graph_of(nets.make(net, seed=9))
        assert one.tracer == other.tracer
        assert [g.root for g in one.groups("global", "l1")] == [g.root for g in other.groups("global", "l1")]
