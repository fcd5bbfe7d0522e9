from __future__ import annotations

import nets
import pytest
import torch
from torch import Tensor, nn

from easycompress.artifact.fold import find_pairs, fold, fold_checked

FOLDED = {
    nets.BatchNormed: [("features.0", "features.1"), ("features.4", "features.5"), ("hidden", "norm")],
    nets.Residual: [
        ("stem", "bn"),
        ("identity.conv1", "identity.bn1"),
        ("identity.conv2", "identity.bn2"),
        ("projected.conv1", "projected.bn1"),
        ("projected.conv2", "projected.bn2"),
        ("projected.shortcut.0", "projected.shortcut.1"),
    ],
    nets.DepthwiseSeparable: [("depthwise", "bn1"), ("pointwise", "bn2")],
    nets.LeNet: [],
}


@pytest.mark.parametrize("net", FOLDED, ids=lambda n: n.__name__)
def test_folding_leaves_the_outputs_as_they_are(net: type[nn.Module]) -> None:
    model, inputs = nets.make(net), nets.images(20, seed=4)
    with torch.no_grad():
        before = model(inputs)
        pairs = fold_checked(model, nets.images(2))
        assert torch.allclose(model(inputs), before, atol=1e-4)
    assert pairs == FOLDED[net]
    assert not any(isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d)) for m in model.modules())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_a_recorded_folding_is_repeated_exactly() -> None:
    checked, repeated = nets.make(nets.Residual), nets.make(nets.Residual)
    fold(repeated, fold_checked(checked, nets.images(2)))
    assert nets.same_state(repeated.state_dict(), checked.state_dict())


class SharedOutput(nn.Module):
    """A shortcut around the batch norm reads the convolution's output too."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 3)
        self.norm = nn.BatchNorm2d(6)
        self.second = nn.Conv2d(6, 6, 3)
        self.second_norm = nn.BatchNorm2d(6)
        self.output = nn.Linear(6, nets.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        x = torch.relu(self.norm(x) + x)
        return self.output(self.second_norm(self.second(x)).mean((2, 3)))


class CalledTwice(nn.Module):
    """One convolution, two batch norms."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, padding=1)
        self.first = nn.BatchNorm2d(1)
        self.second = nn.BatchNorm2d(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.conv(self.first(self.conv(x)))).flatten(1)


class NormShared(nn.Module):
    """Two convolutions, one batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(1, 1, 3, padding=1)
        self.two = nn.Conv2d(1, 1, 3, padding=1)
        self.norm = nn.BatchNorm2d(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.two(torch.relu(self.norm(self.one(x))))).flatten(1)


class TwoNorms(nn.Module):
    """Two batch norms read the same tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.one = nn.BatchNorm2d(4)
        self.two = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return torch.cat([self.one(x), self.two(x)], 1).flatten(1)


class NormAfterRelu(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(torch.relu(self.conv(x))).flatten(1)


class InPlaceBetween(nn.Module):
    """The tensor that the batch norm reads is the convolution's, but no longer what it returned."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(torch.relu_(self.conv(x))).flatten(1)


@pytest.mark.parametrize("net", [CalledTwice, NormShared, TwoNorms, NormAfterRelu, InPlaceBetween])
def test_what_cannot_be_folded_is_left_alone(net: type[nn.Module]) -> None:
    model = nets.make(net)
    before = nets.state(model)
    assert fold_checked(model, nets.images(2)) == []
    assert nets.same_state(model.state_dict(), before)


def test_a_convolution_whose_output_is_read_elsewhere_is_left_alone() -> None:
    model, inputs = nets.make(SharedOutput), nets.images(20, seed=4)
    with torch.no_grad():
        before = model(inputs)
        assert fold_checked(model, nets.images(2)) == [("second", "second_norm")]
        assert torch.allclose(model(inputs), before, atol=1e-4)
    assert isinstance(model.get_submodule("norm"), nn.BatchNorm2d)


def test_a_norm_of_batch_statistics_is_no_pair() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)).eval()
    assert find_pairs(model, nets.images(2)) == []


def test_a_norm_without_weights_is_folded() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4, affine=False)).eval()
    model[1].running_var.uniform_(0.5, 2.0)
    inputs = nets.images(5)
    with torch.no_grad():
        before = model(inputs)
        assert fold_checked(model, nets.images(2)) == [("0", "1")]
        assert torch.allclose(model(inputs), before, atol=1e-5)
