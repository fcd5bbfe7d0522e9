from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from easycompress.codes.entropy import encode
from easycompress.core.errors import BadInput
from easycompress.lc.projections.entropy import EntropyConstrained, code_length
from easycompress.lc.rows import MOST, quantize_rows


def table(rows: int = 400, width: int = 32) -> Tensor:
    return 0.1 * torch.randn(rows, width, generator=torch.Generator().manual_seed(3))


def test_rows_of_a_low_slope_are_nearer_and_those_of_a_high_one_coarser() -> None:
    weight = table()
    slope = torch.full((400,), 1e-3, dtype=torch.float64)
    slope[:100] = 1e-5
    code, _ = quantize_rows(weight, slope)
    error = (code.dense() - weight).square().mean(1)
    assert float(error[:100].mean()) < float(error[100:].mean()) / 20
    levels = [len(rows.unique()) for rows in (code.indices[:100], code.indices[100:])]
    assert levels[0] > 2 * levels[1]


def test_the_levels_lie_on_one_grid_through_zero() -> None:
    slope = torch.logspace(-6, -1, 400, dtype=torch.float64)
    code, _ = quantize_rows(table(), slope)
    spacing = float(code.entries.abs()[code.entries != 0].min())
    integers = code.entries / spacing
    assert torch.allclose(integers, integers.round(), atol=1e-3)
    assert float(integers.abs().max()) <= MOST
    assert bool((code.entries == 0).any())


def test_the_bits_fall_steadily_where_most_rows_count_alike() -> None:
    slope = torch.ones(400, dtype=torch.float64)
    slope[:5] = 1e-4  # so fine that the largest weight decides the grid
    found = [quantize_rows(table(), slope * 10.0 ** (power / 20))[1] for power in range(-70, -48)]
    steps = [b / a for a, b in itertools.pairwise(found)]
    assert max(steps) < 1.01
    assert min(steps) > 0.9


def test_at_one_slope_it_is_about_as_good_as_the_constrained_quantizer() -> None:
    weight, slope = table(), 2e-3
    code, bits = quantize_rows(weight, torch.full((400,), slope, dtype=torch.float64))
    (best,) = EntropyConstrained(lam=slope / 2).project([weight], 1.0)
    costs = [
        float((found.dense() - weight).square().sum()) + slope * length
        for found, length in ((code, bits), (best, code_length(best)))
    ]
    assert costs[0] < 1.03 * costs[1]


def test_the_stream_takes_about_the_bits_that_are_said() -> None:
    slope = torch.full((3000,), 3e-2, dtype=torch.float64)
    slope[::10] = 1e-5
    code, bits = quantize_rows(table(3000), slope)
    stream = 8 * len(encode(code.indices.numpy(), len(code.entries)))
    assert stream < 1.02 * bits
    assert bits < 0.9 * code_length(code)  # one set of frequencies for all rows costs more


def test_rows_of_zeros_stay_zeros_and_equal_slopes_need_no_names() -> None:
    code, bits = quantize_rows(torch.zeros(10, 4), torch.ones(10, dtype=torch.float64))
    assert not code.dense().any()
    assert bits == 32


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_no_number_is_refused(wrong: float) -> None:
    with pytest.raises(BadInput):
        quantize_rows(torch.full((2, 2), wrong), torch.ones(2, dtype=torch.float64))
