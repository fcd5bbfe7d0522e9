from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from easycompress.core.errors import BadInput
from easycompress.lc.feedback import MOST, Feedback
from easycompress.lc.projections.entropy import EntropyConstrained, code_length
from easycompress.lc.statistics import LayerStatistics


def statistics(x: Tensor) -> LayerStatistics:
    x = x.double()
    return LayerStatistics(x.T @ x / len(x), x.mean(0))


def correlated(rows: int = 2000, size: int = 40, seed: int = 0) -> Tensor:
    """Return inputs that lie near 6 dimensions, as the layers of trained nets see them, with a mean."""
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(rows, 6, generator=generator) @ torch.randn(6, size, generator=generator)
    return mixed + 0.2 * torch.randn(rows, size, generator=generator) + 1


def weight(*size: int, seed: int = 1) -> Tensor:
    return 0.1 * torch.randn(*size, generator=torch.Generator().manual_seed(seed))


def output_error(w: Tensor, coded: Tensor, x: Tensor) -> float:
    """Return the outputs' mean squared change that a bias can't make up for."""
    change = x @ (w - coded).flatten(1).T
    return float((change - change.mean(0)).square().mean())


@pytest.mark.parametrize("bits", [0.7, 1.5, 3.0])
def test_at_equal_length_outputs_change_less_than_with_the_nearest_levels(bits: float) -> None:
    x, w = correlated(), weight(64, 40)
    nearest = EntropyConstrained(bits_per_weight=bits).project([w], 1.0)[0].dense()
    layer, low, high = Feedback(w, statistics(x)), -30.0, 10.0
    for _ in range(40):  # the slope at which it takes as many bits
        middle = (low + high) / 2
        over = code_length(layer.quantize(2.0**middle)) > bits * w.numel()
        low, high = (middle, high) if over else (low, middle)
    code = layer.quantize(2.0**high)
    assert code_length(code) <= bits * w.numel()
    assert output_error(w, code.dense(), x) < 0.5 * output_error(w, nearest, x)
    fresh = correlated(seed=0)[:500] * 1.1
    assert output_error(w, code.dense(), fresh) < 0.6 * output_error(w, nearest, fresh)


def test_what_the_mean_lost_is_what_the_bias_needs() -> None:
    x, w = correlated(), weight(16, 40)
    layer = Feedback(w, statistics(x))
    code = layer.quantize(0.01)
    shift = (x @ w.T).mean(0) - (x @ code.dense().T).mean(0)
    assert torch.allclose(layer.lost(code), shift, atol=1e-3)
    assert float(shift.abs().max()) > 0.01


def test_a_larger_slope_takes_fewer_bits() -> None:
    layer = Feedback(weight(32, 40), statistics(correlated()))
    lengths = [code_length(layer.quantize(slope)) for slope in (1e-6, 1e-4, 1e-2, 1.0)]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[-1] < 0.2 * lengths[0]


def test_without_a_price_the_error_is_that_of_a_fine_grid() -> None:
    w = weight(32, 40)
    code = Feedback(w, statistics(correlated())).quantize(1e-30)
    spacing = float(w.abs().max()) / MOST
    assert code.dense().shape == w.shape
    assert len(code.entries) <= 2 * MOST + 1
    remainders = code.entries / spacing - (code.entries / spacing).round()
    assert float(remainders.abs().max()) < 1e-3
    assert output_error(w, code.dense(), correlated()) < 1e-3 * output_error(w, 0 * w, correlated())


@pytest.mark.parametrize(
    "x",
    [
        torch.zeros(50, 12),
        torch.full((50, 12), 3.0),
        torch.full((50, 12), 1e4),
        torch.full((50, 12), 1e-20),
        torch.randn(1, 12, generator=torch.Generator().manual_seed(0)),
        torch.randn(3, 12, generator=torch.Generator().manual_seed(0)),
        torch.randn(200, 1, generator=torch.Generator().manual_seed(0)).expand(200, 12),
        torch.cat([torch.full((200, 11), 100.0), 1e-3 * torch.randn(200, 1)], 1),
        1e4 + 1e-2 * torch.randn(500, 12, generator=torch.Generator().manual_seed(0)),
        1e15 * torch.randn(50, 12, generator=torch.Generator().manual_seed(0)),
    ],
    ids=["zero", "constant", "large", "tiny", "one", "few", "rank 1", "one varies", "large mean", "huge"],
)
@pytest.mark.parametrize("single", [False, True])
def test_inputs_that_hardly_vary_do_not_fail(x: Tensor, single: bool) -> None:  # noqa: FBT001 - a case
    w = weight(8, 12)
    known = statistics(x)
    if single:  # moments that were summed in float32
        known = LayerStatistics((x.T @ x / len(x)).float(), x.mean(0))
    code = Feedback(w, known).quantize(1e-6)
    assert torch.isfinite(code.dense()).all()
    assert float((code.dense() - w).abs().max()) < 0.2
    assert torch.isfinite(Feedback(w, known).lost(code)).all()


@pytest.mark.parametrize("w", [torch.zeros(4, 12), torch.full((4, 12), 0.5), torch.tensor([[1.0] + [0.0] * 11])])
def test_weights_of_one_value_are_coded(w: Tensor) -> None:
    code = Feedback(w, statistics(correlated(size=12))).quantize(1e-9)
    assert torch.allclose(code.dense(), w, atol=1e-2)


def test_a_convolution_is_a_matrix_of_its_filters() -> None:
    w = weight(5, 3, 2, 2)
    code = Feedback(w, statistics(correlated(size=12))).quantize(1e-4)
    assert code.shape == (5, 3, 2, 2)
    flat = Feedback(w.flatten(1), statistics(correlated(size=12))).quantize(1e-4)
    assert torch.equal(code.dense().flatten(1), flat.dense())
    other = w.contiguous(memory_format=torch.channels_last)
    assert torch.equal(Feedback(other, statistics(correlated(size=12))).quantize(1e-4).dense(), code.dense())


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nan_and_infinity_are_refused(bad: float) -> None:
    w = weight(4, 12)
    w[1, 2] = bad
    with pytest.raises(BadInput, match="NaN or infinity"):
        Feedback(w, statistics(correlated(size=12)))
