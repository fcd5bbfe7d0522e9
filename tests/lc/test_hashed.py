from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from easycompress.codes.hashed import Hashed, hash_places
from easycompress.core.errors import BadInput
from easycompress.lc.projections.hashed import HashedSharing


def one(projection: HashedSharing, tensor: torch.Tensor) -> Hashed:
    (code,) = projection.project([tensor], 1.0)
    assert isinstance(code, Hashed)
    assert code.shape == tuple(tensor.shape)
    return code


@given(st.integers(1, 60), st.integers(1, 20), st.integers(0, 2**31))
def test_every_value_is_the_mean_of_its_bucket_and_no_other_value_is_nearer(
    count: int, buckets: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    w = torch.randn(count, generator=generator)
    code = one(HashedSharing(buckets, seed=seed), w)
    places = hash_places(count, buckets, code.seed)
    for bucket in range(buckets):
        members = w[places == bucket].double()
        expected = float(members.mean()) if len(members) else 0.0
        assert float(code.values[bucket]) == pytest.approx(expected, abs=1e-6)
    exact = w.double()  # differences in float32 are off by more than the bound
    distance = (exact - code.dense()).square().sum()
    for _ in range(10):
        rival = (code.values + 0.1 * torch.randn(buckets, generator=generator))[places]
        assert distance <= (exact - rival).square().sum() + 1e-9


def test_two_values_are_no_worse_than_brute_force() -> None:
    w = torch.tensor([1.0, -2.0, 0.5, 3.0, -1.5, 0.25, 2.0, -0.75, 1.5, -2.5]).double()
    code = one(HashedSharing(2), w)
    places = code.places()
    grid = torch.linspace(-3, 3, 121).double()
    best = min(float((w - torch.stack([a, b])[places]).square().sum()) for a in grid for b in grid)
    assert len(places.unique()) == 2
    assert float((w - code.dense().double()).square().sum()) <= best + 1e-5


def test_a_result_is_its_own_projection() -> None:
    w = torch.randn(40, 25, generator=torch.Generator().manual_seed(1))
    projection = HashedSharing(share=0.1, seed=3)
    once = one(projection, w)
    again = one(projection, once.dense())
    assert torch.allclose(again.dense(), once.dense(), rtol=1e-6, atol=0)
    assert again.seed == once.seed


def test_every_tensor_has_its_own_hash_and_the_same_one_each_time() -> None:
    w = torch.randn(64, generator=torch.Generator().manual_seed(2))
    projection = HashedSharing(8, seed=5)
    first, second = projection.project([w, w], 1.0)
    again = projection.project([w, w], 0.0, warm=[first, second])
    assert isinstance(first, Hashed)
    assert isinstance(second, Hashed)
    assert not torch.equal(first.places(), second.places())
    for code, same in zip((first, second), again, strict=True):
        assert torch.equal(code.dense(), same.dense())
    assert not torch.equal(one(HashedSharing(8, seed=6), w).places(), first.places())


def test_share_counts_the_weights_of_each_tensor() -> None:
    tensors = [torch.ones(100), torch.ones(4, 5), torch.ones(2), torch.ones(0)]
    codes = HashedSharing(share=0.1).project(tensors, 1.0)
    assert [len(code.arrays()["values"]) for code in codes] == [10, 2, 1, 1]


def test_one_bucket_is_the_mean_and_a_constant_tensor_stays() -> None:
    w = torch.tensor([1.0, 2.0, 6.0])
    assert one(HashedSharing(1), w).dense().tolist() == [3.0, 3.0, 3.0]
    assert one(HashedSharing(7), torch.full((5, 2), 0.25)).dense().unique().tolist() == [0.25]


def test_a_bucket_without_weights_is_zero() -> None:
    code = one(HashedSharing(50), torch.tensor([4.0]))
    assert int(code.values.count_nonzero()) == 1
    assert code.dense().tolist() == [4.0]


def test_zero_empty_and_no_tensors() -> None:
    assert torch.equal(one(HashedSharing(3), torch.zeros(2, 2)).dense(), torch.zeros(2, 2))
    assert one(HashedSharing(3), torch.zeros(0, 4)).dense().shape == (0, 4)
    assert HashedSharing(3).project([], 1.0) == []
    assert HashedSharing(3).view == "vector"


def test_layout_and_precision_of_the_input_do_not_matter() -> None:
    w = torch.randn(6, 4, generator=torch.Generator().manual_seed(5)).bfloat16()
    expected = one(HashedSharing(4), w.float()).dense()
    assert torch.equal(one(HashedSharing(4), w).dense(), expected)
    assert torch.equal(one(HashedSharing(4), w.float().t().contiguous().t()).dense(), expected)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nan_and_infinity_are_refused(bad: float) -> None:
    with pytest.raises(BadInput, match="NaN or infinity"):
        HashedSharing(2).project([torch.tensor([1.0, bad])], 1.0)


def test_settings_out_of_range_are_refused_with_rule_and_value() -> None:
    with pytest.raises(BadInput, match=r"either buckets.*got buckets=None, share=None"):
        HashedSharing()
    with pytest.raises(BadInput, match=r"either buckets.*got buckets=2, share=0.5"):
        HashedSharing(2, 0.5)
    with pytest.raises(BadInput, match=r"1 <= buckets < \d+; got 0"):
        HashedSharing(0)
    for share in (0.0, 1.1, math.nan):
        with pytest.raises(BadInput, match=rf"0 < share <= 1.*got {share}"):
            HashedSharing(share=share)
    with pytest.raises(BadInput, match=r"seed >= 0; got -1"):
        HashedSharing(2, seed=-1)
