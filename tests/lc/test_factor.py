from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from easycompress.codes.composed import Additive
from easycompress.codes.half import Half
from easycompress.codes.lowrank import LowRank
from easycompress.codes.sparse import sparse_from
from easycompress.lc.factor import factor, refactor
from easycompress.lc.projections.lowrank import LowRankAt

CONVOLUTIONS = [
    {"kernel_size": 3},
    {"kernel_size": (3, 5), "stride": (2, 1), "padding": (1, 2), "dilation": (1, 2)},
    {"kernel_size": 3, "padding": "same", "bias": False},
]


class Net(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


def low_rank(layer: nn.Module, rank: int, layout: str = "scheme-1") -> LowRank:
    code = LowRankAt(rank, layout).project([layer.weight], 1.0)[0]  # type: ignore[arg-type]
    assert isinstance(code, LowRank)
    return code


def with_weight(layer: nn.Module, weight: Tensor, x: Tensor) -> Tensor:
    copied = copy.deepcopy(layer)
    copied.weight.data.copy_(weight)
    return copied(x)


@pytest.mark.parametrize("layout", ["scheme-1", "scheme-2"])
@pytest.mark.parametrize("settings", CONVOLUTIONS, ids=["plain", "strided", "same"])
def test_two_convolutions_compute_what_the_low_rank_one_does(layout: str, settings: dict[str, object]) -> None:
    torch.manual_seed(0)
    net, x = Net(nn.Conv2d(6, 16, **settings)), torch.randn(2, 6, 13, 12)  # type: ignore[arg-type]
    code = low_rank(net.layer, 3, layout)
    expected = with_weight(net.layer, code.dense(), x)
    codes, record = factor(net, {"layer.weight": code})
    assert net(x).shape == expected.shape
    assert torch.allclose(net(x), expected, atol=1e-5)
    assert record == {"layer": [3, layout]}
    assert sorted(codes) == ["layer.0.weight", "layer.1.weight"]
    assert all(isinstance(code, Half) for code in codes.values())
    assert all(torch.equal(net.get_parameter(name), code.dense()) for name, code in codes.items())


def test_two_linear_layers_and_their_replay() -> None:
    torch.manual_seed(0)
    net, x = Net(nn.Linear(20, 12)), torch.randn(3, 20)
    fresh = copy.deepcopy(net)
    code = low_rank(net.layer, 2)
    expected = with_weight(net.layer, code.dense(), x)
    _, record = factor(net, {"layer.weight": code})
    assert torch.allclose(net(x), expected, atol=1e-5)
    refactor(fresh, record).load_state_dict(net.state_dict())
    assert torch.equal(fresh(x), net(x))


def test_what_saves_nothing_or_is_a_sum_stays_one_layer() -> None:
    net = Net(nn.Linear(8, 8))
    full = low_rank(net.layer, 8)
    codes, record = factor(net, {"layer.weight": full})
    assert record == {}
    assert codes["layer.weight"] is full
    total = Additive((low_rank(net.layer, 1), sparse_from(net.layer.weight.detach(), net.layer.weight > 1)))
    codes, record = factor(net, {"layer.weight": total})
    assert record == {}
    assert type(net.layer) is nn.Linear


def test_grouped_convolutions_stay_one_layer() -> None:
    net = Net(nn.Conv2d(8, 8, 3, groups=2))
    codes, record = factor(net, {"layer.weight": low_rank(net.layer, 1)})
    assert record == {}
    assert list(codes) == ["layer.weight"]
