from __future__ import annotations

from typing import TYPE_CHECKING

import nets
import pytest
import torch
from torch import Tensor, nn

from easycompress.artifact.onnx_export import export
from easycompress.measure.compute import macs
from easycompress.measure.profile import profile

if TYPE_CHECKING:
    from collections.abc import Callable

    from easycompress.core.profile import LayerProfile, ModelProfile


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.randn(5, 16))
        self.attn = nn.MultiheadAttention(16, 4, batch_first=True)
        self.norm = nn.LayerNorm(16)
        self.up = nn.Linear(16, 32)
        self.down = nn.Linear(32, 16)
        self.output = nn.Linear(16, nets.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.position
        x = self.norm(x + self.attn(x, x, x, need_weights=False)[0])
        return self.output((x + self.down(torch.relu(self.up(x)))).mean(1))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(16, 8, batch_first=True)
        self.output = nn.Linear(8, nets.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.lstm(x)[0][:, -1])


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(16, 16)
        self.two = nn.Linear(16, 16)
        self.two.weight = self.one.weight
        self.again = self.one

    def forward(self, x: Tensor) -> Tensor:
        return self.again(torch.relu(self.two(torch.relu(self.one(x)))))


class Own(nn.Module):
    """The root itself holds a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 16))
        self.hidden = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.hidden(torch.relu(nn.functional.linear(x, self.weight)))


def of(model: nn.Module, *shape: int) -> ModelProfile:
    model.eval()
    return profile(model, export(model, torch.randn(2, *shape)), shape, nets.CLASSES)


CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "transformer": (Transformer, (5, 16)),
    "recurrent": (Recurrent, (5, 16)),
    "tied": (Tied, (16,)),
    "own": (Own, (16,)),
    "bare": (lambda: nn.Linear(16, 3), (16,)),
}


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", CASES)
def test_every_parameter_and_every_operation_counts_once(name: str) -> None:
    make, shape = CASES[name]
    model = make().eval()
    graph = export(model, torch.randn(2, *shape))
    facts = profile(model, graph, shape, nets.CLASSES)
    assert facts.params == sum(layer.params for layer in facts.layers) == count(model)
    assert facts.macs == sum(layer.macs for layer in facts.layers) == macs(graph)


@pytest.mark.parametrize("net", nets.NETS, ids=lambda n: n.__name__)
def test_the_nets(net: type[nn.Module]) -> None:
    model = nets.make(net)
    facts = profile(model, nets.graph(net), nets.SHAPE, nets.CLASSES)
    assert facts.params == count(model)
    assert facts.macs == sum(layer.macs for layer in facts.layers) == macs(nets.graph(net))
    assert facts.architecture == ("fnn" if net is nets.Mlp else "cnn")
    assert facts.has_batch_norm is any(isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d)) for m in model.modules())
    assert (facts.input_shape, facts.outputs) == (nets.SHAPE, nets.CLASSES)
    for layer in facts.layers:
        module = model.get_submodule(layer.name)
        assert layer.type == type(module).__name__
        assert layer.params == count(module)
        expected = {"Conv2d": "convolutional", "Linear": "linear"}.get(layer.type, "other")
        assert layer.family == expected
        assert (layer.macs > 0) is (expected != "other")


def layers(facts: ModelProfile) -> dict[str, LayerProfile]:
    return {layer.name: layer for layer in facts.layers}


def test_a_transformer() -> None:
    facts = of(Transformer(), 5, 16)
    assert facts.architecture == "transformer"
    found = layers(facts)
    assert found["attn"].params == 3 * 16 * 16 + 3 * 16  # in_proj, which no submodule of it owns
    assert found["attn"].macs == 5 * 16 * 48
    assert found["attn.out_proj"].macs == 5 * 16 * 16
    assert found["up"].macs == found["down"].macs == 5 * 16 * 32  # MatMul with a transposed weight in the file
    assert found["(products)"].macs == 2 * 4 * 5 * 5 * 4
    assert found[""].params == 80
    families = {name: layer.family for name, layer in found.items()}
    assert families == {
        "": "other",
        "attn": "attention",
        "attn.out_proj": "attention",
        "(products)": "attention",
        "norm": "other",
        "up": "linear",
        "down": "linear",
        "output": "linear",
    }


def test_a_recurrent_net() -> None:
    facts = of(Recurrent(), 5, 16)
    assert facts.architecture == "rnn"
    assert layers(facts)["lstm"].params == 4 * 8 * (16 + 8) + 2 * 32


def test_shared_weights_count_at_their_first_owner() -> None:
    found = layers(of(Tied(), 16))
    assert found["one"].params == 16 * 16 + 16
    assert found["two"].params == 16


@pytest.mark.parametrize(("make", "name", "expected"), [(Own, "", 16 * 6), (lambda: nn.Linear(16, 3), "", 16 * 3)])
def test_weights_of_the_root_are_no_products(make: Callable[[], nn.Module], name: str, expected: int) -> None:
    found = layers(of(make(), 16))
    assert found[name].macs == expected
    assert "(products)" not in found


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), "fnn"),
        (nn.Sequential(nn.Unflatten(1, (1, 16)), nn.Conv1d(1, 3, 3)), "cnn"),
        (nn.Sequential(nn.ReLU()), "other"),
    ],
)
def test_architectures_by_their_layers(model: nn.Module, expected: str) -> None:
    assert of(model, 16).architecture == expected


def test_shares_add_up() -> None:
    facts = of(Transformer(), 5, 16)
    for share in (facts.param_share(), facts.mac_share()):
        assert sum(share.values()) == pytest.approx(1)
        assert list(share.values()) == sorted(share.values(), reverse=True)
    assert facts.counts()["Linear"] == 3
