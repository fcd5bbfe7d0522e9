from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from easycompress.codes.affine import INT8_LIMIT, REDUCED_LIMIT, TINY, quantize_per_channel
from easycompress.core.errors import BadInput

numbers = st.floats(-(2.0**100), 2.0**100, width=32)
limits = st.sampled_from([INT8_LIMIT, REDUCED_LIMIT])


@st.composite
def weights(draw: st.DrawFn) -> Tensor:
    shape = draw(st.sampled_from([(1, 1), (3, 4), (2, 3, 2), (2, 1, 2, 2)]))
    count = int(torch.Size(shape).numel())
    return torch.tensor(draw(st.lists(numbers, min_size=count, max_size=count))).reshape(shape)


@given(weights(), limits)
def test_no_weight_moves_by_more_than_half_a_step(weight: Tensor, limit: int) -> None:
    code = quantize_per_channel(weight, limit=limit)
    step = code.scale.double().reshape([-1] + [1] * (weight.dim() - 1))
    distance = (code.values.double() * step - weight.double()).abs()
    assert (distance <= step / 2 * (1 + 1e-4)).all()


@given(weights(), limits)
def test_the_code_is_the_nearest_point_of_its_grid(weight: Tensor, limit: int) -> None:
    code = quantize_per_channel(weight, limit=limit)
    step = code.scale.double().reshape([-1] + [1] * (weight.dim() - 1))
    assert int(code.values.abs().max()) <= limit
    for neighbour in (-1, 1):
        other = (code.values.double() + neighbour).clamp(-limit, limit)
        distance, rival = ((v * step - weight.double()).abs() for v in (code.values.double(), other))
        assert (distance <= rival + 1e-4 * step).all()


@given(weights(), limits)
def test_quantizing_again_changes_nothing(weight: Tensor, limit: int) -> None:
    once = quantize_per_channel(weight, limit=limit)
    twice = quantize_per_channel(once.dense(), limit=limit)
    assert torch.equal(twice.values, once.values)
    assert torch.allclose(twice.scale, torch.where(once.values.flatten(1).any(1), once.scale, 1.0), rtol=1e-6, atol=0)


@given(weights())
def test_what_is_stored_is_what_it_stands_for(weight: Tensor) -> None:
    code = quantize_per_channel(weight)
    arrays = code.arrays()
    assert arrays.keys() == {"values", "scale"}
    assert arrays["values"].dtype == torch.int8
    assert arrays["scale"].dtype == torch.float32
    assert arrays["values"].shape == code.dense().shape == weight.shape
    assert arrays["scale"].shape == (len(weight),)
    assert code.bits() == 8 * sum(len(a.numpy().tobytes()) for a in arrays.values())
    assert code.dense().dtype == torch.float32


def test_each_slice_has_its_own_scale() -> None:
    code = quantize_per_channel(torch.tensor([[127.0, -1.0], [1.27, 0.5]]))
    assert code.values.tolist() == [[127, -1], [127, 50]]
    assert code.scale.tolist() == pytest.approx([1.0, 0.01])


def test_the_whole_grid_is_symmetric() -> None:
    weight = torch.linspace(-1, 1, 4001)[None]
    assert sorted(set(quantize_per_channel(weight).values.flatten().tolist())) == list(range(-127, 128))
    reduced = quantize_per_channel(weight, limit=REDUCED_LIMIT)
    assert sorted(set(reduced.values.flatten().tolist())) == list(range(-64, 65))


def test_reduced_products_fit_sixteen_bits() -> None:
    assert 2 * 255 * REDUCED_LIMIT < 2**15 <= 2 * 255 * (REDUCED_LIMIT + 1)


def test_a_slice_of_zeros_stays_zero() -> None:
    code = quantize_per_channel(torch.tensor([[0.0, 0.0], [1.0, -1.0]]))
    assert code.scale[0] == 1
    assert code.dense()[0].tolist() == [0, 0]
    assert code.values[1].tolist() == [127, -127]


def test_a_slice_too_small_for_a_scale_counts_as_zero() -> None:
    code = quantize_per_channel(torch.tensor([[1e-42, -1e-44], [1e-42, 1.0]]))
    assert code.scale[0] == 1
    assert code.values.tolist() == [[0, 0], [0, 127]]
    assert (code.scale >= TINY).all()


def test_the_weight_itself_stays() -> None:
    weight = torch.randn(3, 4)
    before = weight.clone()
    quantize_per_channel(weight)
    assert torch.equal(weight, before)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_no_number_is_refused_by_name(value: float) -> None:
    weight = torch.ones(2, 2)
    weight[1, 0] = value
    with pytest.raises(BadInput, match=r"^fc\.weight holds NaN or infinity, so it can't be quantized; repair the ch"):
        quantize_per_channel(weight, name="fc.weight")
