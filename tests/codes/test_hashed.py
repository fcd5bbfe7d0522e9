from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from easycompress.codes.hashed import INCREMENT, MULTIPLIER, PRIME, STEP, Hashed, hash_places


def _by_hand(place: int, buckets: int, seed: int) -> int:
    """The hash in Python's unbounded integers."""
    first = ((place + 1) * STEP + seed) ** 2 % PRIME
    return (first * MULTIPLIER + INCREMENT) ** 2 % PRIME % buckets


@given(st.integers(0, 300), st.one_of(st.integers(1, 300), st.just(PRIME)), st.integers(0, PRIME - 1))
def test_the_hash_is_its_formula(count: int, buckets: int, seed: int) -> None:
    assert hash_places(count, buckets, seed).tolist() == [_by_hand(i, buckets, seed) for i in range(count)]


def test_the_hash_does_not_depend_on_where_it_is_cut() -> None:
    places = hash_places(200_000, 1000, 5)
    for place in (65_535, 65_536, 65_537, 131_072, 199_999):
        assert places[place] == _by_hand(place, 1000, 5)


def test_the_hash_of_the_last_place_fits_63_bits() -> None:
    assert (PRIME - 1) * STEP + PRIME < 2**62
    assert (PRIME - 1) * MULTIPLIER + INCREMENT < 2**62
    assert (PRIME - 1) ** 2 < 2**62


@pytest.mark.parametrize(("rows", "columns", "buckets"), [(300, 784, 2000), (100, 300, 300), (300, 784, 29_400)])
def test_sharing_follows_no_distance(rows: int, columns: int, buckets: int) -> None:
    """No distance makes neighbours share more often than chance: 5 standard deviations over 1 / buckets, everywhere."""
    count = rows * columns
    places = hash_places(count, buckets, 0)
    for distance in range(1, 1200):
        same = int((places[distance:] == places[:-distance]).sum())
        expected = (count - distance) / buckets
        assert same < expected + 5 * expected**0.5 + 5


def test_buckets_are_evenly_filled() -> None:
    counts = torch.bincount(hash_places(100_000, 500, 1), minlength=500).double()
    chi_square = float(((counts - 200) ** 2 / 200).sum())
    assert 499 - 5 * (2 * 499) ** 0.5 < chi_square < 499 + 5 * (2 * 499) ** 0.5


def test_seeds_share_nothing() -> None:
    first, second = hash_places(100_000, 500, 0), hash_places(100_000, 500, 1)
    assert abs(float((first == second).double().mean()) - 1 / 500) < 1e-3


def test_every_weight_has_its_bucket_s_value() -> None:
    code = Hashed(torch.tensor([1.0, 2.0, 4.0]), (5, 7), seed=3)
    assert code.dense().flatten().tolist() == [[1.0, 2.0, 4.0][place] for place in code.places().tolist()]
    assert code.bits() == 96


def test_one_bucket_is_a_constant() -> None:
    assert (Hashed(torch.tensor([2.5]), (3, 4)).dense() == 2.5).all()
