from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from easycompress.codes.packing import (
    MOST_GAP_BITS,
    bits_for,
    gap_bits,
    least_gap_cost,
    pack_gaps,
    pack_planes,
    plane_bytes,
    positions_of,
    unpack_bytes,
    unpack_gaps,
    unpack_planes,
)

VALUE_BITS = st.integers(0, 16)


@st.composite
def places(draw: st.DrawFn) -> torch.Tensor:
    """Sorted positions: neighbours, short and long gaps, and gaps that only fillers bridge."""
    gap = st.one_of(st.just(0), st.integers(0, 20), st.integers(0, 70_000), st.integers(2**16 - 2, 2**18))
    gaps = draw(st.lists(gap, max_size=30))
    return torch.tensor([gap + 1 for gap in gaps], dtype=torch.int64).cumsum(0) - 1


@given(st.integers(1, 5000))
def test_bits_tell_the_levels_apart(levels: int) -> None:
    assert 2 ** bits_for(levels) >= levels
    assert levels == 1 or 2 ** (bits_for(levels) - 1) < levels


def test_no_level_takes_no_bit() -> None:
    assert bits_for(0) == bits_for(1) == 0


@given(st.integers(0, 16), st.integers(0, 40), st.sampled_from([torch.uint8, torch.int32, torch.int64]), st.randoms())
def test_planes_give_the_values_back(bits: int, count: int, dtype: torch.dtype, random: object) -> None:
    bits = min(bits, 8) if dtype == torch.uint8 else bits
    values = torch.tensor([random.getrandbits(16) % 2**bits for _ in range(count)], dtype=dtype)
    planes = pack_planes(values, bits)
    assert planes.dtype == torch.uint8
    assert planes.shape == (bits, plane_bytes(count))
    assert unpack_planes(planes, count).dtype == torch.int32
    assert unpack_planes(planes, count).tolist() == values.tolist()
    if bits <= 8:
        assert unpack_bytes(planes, count).dtype == torch.uint8
        assert unpack_bytes(planes, count).tolist() == values.tolist()


def test_the_bytes_are_those_of_the_format() -> None:
    planes = pack_planes(torch.tensor([1, 2, 3, 0, 0, 0, 0, 0, 2]), 2)
    assert planes.tolist() == [[0b10100000, 0], [0b01100000, 0b10000000]]


def test_a_strided_view_packs_as_its_copy() -> None:
    values = torch.arange(64, dtype=torch.uint8).reshape(8, 8).T
    assert torch.equal(pack_planes(values, 6), pack_planes(values.contiguous(), 6))


@pytest.mark.parametrize(
    ("planes", "count"),
    [
        (torch.zeros(2, 1, dtype=torch.uint8), 9),  # numpy alone would fill up with zeros
        (torch.zeros(2, 2, dtype=torch.uint8), 8),
        (torch.zeros(0, 1, dtype=torch.uint8), 0),
        (torch.zeros(8, dtype=torch.uint8), 8),
        (torch.zeros(2, 1, dtype=torch.int64), 8),
        (torch.zeros(32, 1, dtype=torch.uint8), 8),
        (torch.zeros(1, 0, dtype=torch.uint8), -1),
    ],
)
def test_planes_of_another_size_are_refused(planes: torch.Tensor, count: int) -> None:
    with pytest.raises(ValueError, match=r"^bit planes of shape .* don't hold -?\d+ values$"):
        unpack_planes(planes, count)


def test_nine_planes_are_no_bytes() -> None:
    with pytest.raises(ValueError, match=r"^9 bit planes don't fit a byte$"):
        unpack_bytes(torch.zeros(9, 1, dtype=torch.uint8), 8)


@given(st.lists(st.booleans(), max_size=40))
def test_positions_are_where_it_is_true(chosen: list[bool]) -> None:
    found = positions_of(torch.tensor(chosen, dtype=torch.bool))
    assert found.dtype == torch.int64
    assert found.tolist() == [i for i, c in enumerate(chosen) if c]


def _pairs(positions: list[int], bits: int) -> int:
    """Count the stored pairs one by one."""
    count, last = 0, -1
    for position in positions:
        while position - last > 2**bits:
            last += 2**bits
            count += 1
        last = position
        count += 1
    return count


@given(places(), VALUE_BITS)
def test_the_gap_width_is_the_cheapest_of_all(positions: torch.Tensor, value_bits: int) -> None:
    costs = {bits: _pairs(positions[-20:].tolist(), bits) for bits in range(5, MOST_GAP_BITS + 1)}
    bits, pairs = gap_bits(positions[-20:], value_bits)
    assert pairs * (bits + value_bits) <= min(n * (b + value_bits) for b, n in costs.items())
    if bits in costs:
        assert pairs == costs[bits]


@given(st.sets(st.integers(0, 300)), VALUE_BITS)
def test_narrow_gaps_are_counted_too(chosen: set[int], value_bits: int) -> None:
    positions = sorted(chosen)
    bits, pairs = gap_bits(torch.tensor(positions, dtype=torch.int64), value_bits)
    best = min(_pairs(positions, b) * (b + value_bits) for b in range(MOST_GAP_BITS + 1))
    assert pairs * (bits + value_bits) == best
    assert not positions or pairs == _pairs(positions, bits)


@given(places(), VALUE_BITS)
def test_no_gap_code_beats_the_bound(positions: torch.Tensor, value_bits: int) -> None:
    end = int(positions[-1]) + 1 if len(positions) else 0
    bits, pairs = gap_bits(positions, value_bits)
    assert least_gap_cost(len(positions), end, value_bits) <= pairs * (bits + value_bits)


@given(places(), st.integers(1, 16))
def test_gaps_give_the_positions_back(positions: torch.Tensor, value_bits: int) -> None:
    gaps = pack_gaps(positions, value_bits)
    assert (gaps.bits, gaps.count) == gap_bits(positions, value_bits)
    end = int(positions[-1]) + 1 if len(positions) else 0
    stored = unpack_gaps(gaps.planes, gaps.count, end)
    assert torch.equal(stored[~gaps.filler], positions)
    assert (stored.diff() > 0).all()  # fillers, too, have places of their own


def test_a_dense_stretch_needs_no_gaps() -> None:
    gaps = pack_gaps(torch.arange(100), 16)
    assert (gaps.bits, gaps.count) == (0, 100)
    assert gaps.planes.shape == (0, 13)


def test_one_far_position_takes_fillers() -> None:
    gaps = pack_gaps(torch.tensor([10 * 2**16 - 1]), 16)
    assert (gaps.bits, gaps.count) == (16, 10)
    assert gaps.filler.tolist() == [True] * 9 + [False]


def test_gaps_past_the_end_are_refused() -> None:
    gaps = pack_gaps(torch.tensor([3, 900]), 16)
    with pytest.raises(ValueError, match=r"^gaps that run to position 900 of a tensor of 900 weights$"):
        unpack_gaps(gaps.planes, gaps.count, 900)


def test_gaps_wider_than_the_format_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^gaps of 17 bits; there are at most 16$"):
        unpack_gaps(torch.zeros(17, 1, dtype=torch.uint8), 8)


def test_positions_on_other_strides_are_the_same() -> None:
    positions = torch.from_numpy(np.arange(0, 2000, 7))
    strided = torch.stack([positions, positions]).T[:, 0]
    assert gap_bits(strided, 16) == gap_bits(positions, 16)
    assert torch.equal(pack_gaps(strided, 16).planes, pack_gaps(positions, 16).planes)
