"""What is remembered of an export must be the export itself, weights apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

import nets
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from easycompress.artifact import exports as module
from easycompress.artifact.exports import Exports
from easycompress.artifact.fold import fold_checked
from easycompress.artifact.onnx_export import export, traced
from easycompress.artifact.slim import slim

if TYPE_CHECKING:
    import onnx


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """Return the models that were really exported."""
    seen: list[nn.Module] = []

    def noted(model: nn.Module, example: Tensor, **options: bool) -> object:
        seen.append(model)
        return traced(model, example, **options)

    monkeypatch.setattr(module, "traced", noted)
    return seen


def make(net: type[nn.Module], seed: int) -> nn.Module:
    """Return the net as it is exported for its codes: batch norm folded."""
    model = nets.make(net, seed)
    fold_checked(model, nets.images(2))
    return model


RELU6 = nets.DepthwiseSeparable
"""Its bounds are constants of the graph."""


SOME = (nets.LeNet, nets.Flattened, nets.Residual, nets.Concatenated, nets.Grouped)


@pytest.mark.parametrize("net", SOME, ids=lambda n: n.__name__)
def test_a_second_model_gets_the_graph_of_a_fresh_export(net: type[nn.Module], calls: list[nn.Module]) -> None:
    known, first, second = Exports(), make(net, 0), make(net, 1)
    one = known.export(first, nets.images(2))
    as_it_was = one.SerializeToString()
    assert (
        known.export(second, nets.images(2)).SerializeToString() == export(second, nets.images(2)).SerializeToString()
    )
    assert one.SerializeToString() == as_it_was
    assert known.export(first, nets.images(2)).SerializeToString() == as_it_was
    assert calls == [first]


def test_weights_of_any_layout_come_out_the_same(calls: list[nn.Module]) -> None:
    known = Exports()
    known.export(nets.make(nets.LeNet, 0), nets.images(2))
    strided = nets.make(nets.LeNet, 1).to(memory_format=torch.channels_last)
    fresh = export(nets.make(nets.LeNet, 1), nets.images(2))
    assert known.export(strided, nets.images(2)).SerializeToString() == fresh.SerializeToString()
    assert len(calls) == 1


def narrow() -> nn.Module:
    model = nets.make(nets.Mlp)
    model.hidden1, model.hidden2 = nn.Linear(64, 20), nn.Linear(20, 16)
    return model.eval()


def test_another_structure_is_exported_anew(calls: list[nn.Module]) -> None:
    known = Exports()
    for model in (nets.make(nets.Mlp), narrow(), nets.make(nets.Mlp, 1)):
        fresh = export(model, nets.images(2)).SerializeToString()
        assert known.export(model, nets.images(2)).SerializeToString() == fresh
    assert len(calls) == 2


class Shared(nn.Module):
    """A weight that export also stores transposed, under a name of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 8, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(self.fc(x.flatten(1)[:, :8])[:, None], self.fc.weight)


class Scaled(nn.Module):
    """A number that export computes from a weight, which itself stands there under its own name."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(64, nets.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.flatten(1)) * self.fc.weight.abs().max()


class Reparameterised(nn.Module):
    """A weight that only something computed from it is used of."""

    def __init__(self) -> None:
        super().__init__()
        self.raw = nn.Parameter(torch.randn(64, nets.CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ torch.tanh(self.raw)


def written(proto: onnx.ModelProto) -> bytes:
    """Return the bytes as they are written, without the names of operators, which the exporter counts up."""
    return slim(proto).SerializeToString(deterministic=True)


@pytest.mark.parametrize("net", [Shared, Scaled, Reparameterised, RELU6, nets.BatchNormed])
def test_what_export_may_have_computed_from_weights_is_computed_anew(
    net: type[nn.Module], calls: list[nn.Module]
) -> None:
    known, models = Exports(), [nets.make(net, seed) for seed in (0, 1)]
    for model in models:
        assert written(known.export(model, nets.images(2))) == written(export(model, nets.images(2)))
    assert calls == models[:1]


class Told(nn.Module):
    """Numbers that neither a name, nor a shape, nor the state shows."""

    def __init__(self, factor: float, table: float) -> None:
        super().__init__()
        self.fc = nn.Linear(64, nets.CLASSES)
        self.factor = factor
        self.register_buffer("table", torch.full((nets.CLASSES,), table), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.flatten(1)) * self.factor + self.table


def test_other_attributes_and_unsaved_buffers_are_exported_anew(calls: list[nn.Module]) -> None:
    known = Exports()
    for factor, table in ((1.5, 0.0), (2.5, 0.0), (2.5, 1.0), (2.5, 1.0)):
        model = Told(factor, table).eval()
        assert written(known.export(model, nets.images(2))) == written(export(model, nets.images(2)))
    assert len(calls) == 3
