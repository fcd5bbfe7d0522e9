from __future__ import annotations

from typing import Any

import nets
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from easycompress.lc.statistics import LayerStatistics, collect


def inputs(*size: int) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(0)) + 0.5


def one(layer: nn.Module, x: Tensor) -> LayerStatistics:
    return collect(nn.Sequential(layer).eval(), x, ["0.weight"])["0.weight"]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"stride": 2},
        {"padding": 1},
        {"padding": (2, 0), "stride": (1, 3)},
        {"dilation": 2},
        {"dilation": (1, 3), "padding": "same"},
        {"padding": "same"},
        {"padding": "valid"},
        {"kernel_size": 2, "padding": "same"},
        {"kernel_size": (4, 2), "padding": "same", "dilation": (1, 2)},
        {"kernel_size": 1},
        {"padding": 2, "padding_mode": "reflect"},
        {"padding": "same", "padding_mode": "circular"},
        {"padding": 1, "padding_mode": "replicate"},
    ],
)
def test_a_convolution_s_statistics_are_those_of_what_its_matrix_multiplies(options: dict[str, Any]) -> None:
    """The layer's own outputs say so: with y = W x, the mean of y y^T is W E[x x^T] W^T, for any W."""
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 50, **({"kernel_size": 3, "bias": False} | options)).double()  # type: ignore[arg-type]
    x = inputs(300, 3, 9, 8)
    found = one(layer.float(), x)
    outputs = layer.double()(x.double()).detach().movedim(1, -1).reshape(-1, 50)
    matrix = layer.weight.detach().flatten(1)
    assert found.moments.shape == (matrix.shape[1],) * 2
    assert torch.allclose(matrix @ found.mean, outputs.mean(0), atol=1e-5)
    moments = outputs.T @ outputs / len(outputs)
    assert torch.allclose(matrix @ found.moments @ matrix.T, moments, atol=1e-5, rtol=1e-4)


def test_a_convolution_s_statistics_by_hand() -> None:
    """Two positions of a 1 x 2 kernel on one row of three numbers: (1, 2) and (2, 4)."""
    found = one(nn.Conv2d(1, 1, (1, 2)), torch.tensor([[[[1.0, 2.0, 4.0]]]]))
    assert torch.allclose(found.mean, torch.tensor([1.5, 3.0]).double())
    assert torch.allclose(found.moments, torch.tensor([[2.5, 5.0], [5.0, 10.0]]).double())


@pytest.mark.parametrize("size", [(700, 6), (40, 7, 6), (20, 3, 2, 6)])
def test_a_linear_layer_s_statistics_are_over_all_its_rows(size: tuple[int, ...]) -> None:
    x = inputs(*size)
    found = one(nn.Linear(6, 4), x)
    rows = x.reshape(-1, 6).double()
    assert torch.allclose(found.mean, rows.mean(0), atol=1e-6)
    assert torch.allclose(found.moments, rows.T @ rows / len(rows), atol=1e-5)


def test_a_large_mean_does_not_swallow_the_variance() -> None:
    x = inputs(1000, 4) * torch.tensor([1.0, 0.1, 1.0, 10.0]) + 1e4
    found = one(nn.Linear(4, 2), x)
    variance = found.moments.diagonal() - found.mean**2
    assert torch.allclose(variance, x.double().var(0, unbiased=False), rtol=1e-3)


def test_layers_of_other_kinds_and_those_never_called_are_left_out() -> None:
    model = nets.make(nets.Grouped)
    model.unused = nn.Linear(5, 5)
    names = [name for name, _ in model.named_parameters() if name.endswith("weight")]
    assert set(collect(model, nets.images(10), names)) == {
        "stem.weight", "tail.weight", "hidden.weight", "output.weight"
    }  # fmt: skip
    transposed = nn.Sequential(nn.ConvTranspose2d(2, 3, 2))
    assert collect(transposed, inputs(2, 2, 4, 4), ["0.weight"]) == {}
    assert collect(model, nets.images(10), []) == {}


class Odd(nn.Module):
    """Layers called by keyword, on one image, twice, and by their weights alone."""

    def __init__(self) -> None:
        super().__init__()
        self.single, self.twice = nn.Conv2d(1, 1, 3), nn.Linear(6, 6)
        self.keyword, self.functional = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.stack([self.single(image) for image in x])[:, 0, 0]
        return functional.linear(self.keyword(input=self.twice(self.twice(x))), self.functional.weight)


def test_layers_called_in_other_ways_do_not_fail() -> None:
    found = collect(Odd(), inputs(5, 1, 3, 8), ["single.weight", "twice.weight", "keyword.weight", "functional.weight"])
    assert set(found) == {"single.weight", "twice.weight"}
    assert found["single.weight"].mean.shape == (9,)


def test_it_leaves_the_model_as_it_was() -> None:
    model = nets.make(nets.BatchNormed)
    before = nets.state(model)
    collect(model, nets.images(300), ["features.0.weight", "hidden.weight"])
    assert nets.same_state(model.state_dict(), before)
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert not model.training


def test_hooks_go_even_when_the_model_fails() -> None:
    model = nets.make(nets.Mlp)
    with pytest.raises(RuntimeError):
        collect(model, torch.zeros(2, 3), ["hidden1.weight"])
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_batches_do_not_matter() -> None:
    x = inputs(257, 6)
    whole, half = one(nn.Linear(6, 2), x), one(nn.Linear(6, 2), torch.cat([x, x]))
    assert torch.allclose(whole.moments, half.moments, atol=1e-6)
    assert torch.allclose(whole.mean, half.mean, atol=1e-6)
