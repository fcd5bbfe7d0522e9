from __future__ import annotations

import math
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from easycompress.codes import entropy, tables
from easycompress.codes.entropy import code_length, decode, encode

Array = np.ndarray[Any, Any]

SHAPES = [(), (1,), (7,), (300,), (3, 4), (20, 30), (2, 3, 4, 5), (1, 400), (400, 1), (0, 5), (5, 0), (16, 1, 5, 5)]


def same(symbols: Array, k: int) -> bytes:
    data = encode(symbols, k)
    back = decode(data, symbols.shape, k)
    assert back.dtype == np.uint8
    assert back.shape == symbols.shape
    assert np.array_equal(back, symbols)
    return data


@st.composite
def arrays(draw: st.DrawFn) -> tuple[Array, int]:
    shape = draw(st.sampled_from(SHAPES))
    k = draw(st.sampled_from([1, 2, 3, 4, 9, 16, 100, 255, 256]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = draw(st.sampled_from(["uniform", "skewed", "dirichlet", "constant", "rows", "columns"]))
    if kind == "uniform":
        return rng.integers(0, k, shape), k
    if kind == "constant":
        return np.full(shape, rng.integers(k)), k
    share = rng.dirichlet(np.full(k, 0.3))
    if kind == "skewed":
        share = np.full(k, 0.03 / k)
        share[rng.integers(k)] += 0.97
    symbols = rng.choice(k, shape, p=share / share.sum())
    if kind == "rows" and len(shape) > 1:
        symbols = np.where(
            rng.random((shape[0], *[1] * (len(shape) - 1))) < 0.5, symbols, symbols.flat[0] if symbols.size else 0
        )
    if kind == "columns" and len(shape) > 1:
        symbols = np.where(rng.random(shape[1:]) < 0.5, symbols, symbols.flat[0] if symbols.size else 0)
    return symbols, k


@settings(max_examples=300, deadline=None)
@given(arrays())
def test_what_is_decoded_is_what_was_encoded(case: tuple[Array, int]) -> None:
    same(*case)


def gauss(rng: np.random.Generator, n: int, k: int) -> Array:
    return np.clip(np.rint(rng.standard_normal(n) * k / 6 + k / 2), 0, k - 1).astype(np.int64)


def sources(n: int, k: int) -> list[Array]:
    rng = np.random.default_rng([n, k])
    mostly = np.full(k, 0.03 / (k - 1))
    mostly[k // 2] = 0.97
    return [
        rng.integers(0, k, n),
        rng.choice(k, n, p=mostly),
        gauss(rng, n, k),
    ]


@pytest.mark.parametrize("n", [10, 100, 1000, 10_000, 300_000])
@pytest.mark.parametrize("k", [2, 5, 16, 256])
def test_within_two_percent_of_the_ideal(n: int, k: int) -> None:
    for symbols in sources(n, k):
        ideal = code_length(symbols, k) / 8
        assert len(same(symbols, k)) <= min(1.02 * ideal + 32, n * math.log2(k) / 8 + 8)


@pytest.mark.parametrize("n", [10, 100, 1000, 10_000, 300_000])
@pytest.mark.parametrize("k", [2, 5, 16, 256])
def test_a_ragged_histogram_costs_what_telling_it_takes(n: int, k: int) -> None:
    rng = np.random.default_rng([n, k])
    symbols = rng.choice(k, n, p=rng.dirichlet(np.full(k, 0.5)))
    table = (k - 1) * (math.log2(1 + n / k) / 2 + 1) / 8  # a count's precision is its square root
    size = len(same(symbols, k))
    assert size <= min(1.02 * code_length(symbols, k) / 8 + 16 + table, n * math.log2(k) / 8 + 8)


def test_two_dimensions_cost_nothing_where_they_tell_nothing() -> None:
    for symbols in sources(90_000, 9):
        assert len(same(symbols.reshape(300, 300), 9)) <= 1.003 * len(encode(symbols, 9)) + 4


def sparse(rng: np.random.Generator, shares: Array) -> Array:
    return np.where(rng.random(shares.shape) < shares, rng.integers(0, 4, shares.shape), 4)


@pytest.mark.parametrize("turned", [False, True])
def test_empty_columns_or_rows_are_nearly_free(turned: bool) -> None:  # noqa: FBT001 - a case
    rng = np.random.default_rng(0)
    shares = np.repeat(np.where(rng.random(784) < 0.3, 0.0, 0.06)[None], 300, 0)
    symbols = sparse(rng, shares.T if turned else shares)
    full = symbols[shares[0] > 0] if turned else symbols[:, shares[0] > 0]
    lines = code_length((shares[0] > 0).astype(np.int64), 2)
    ideal = (code_length(full, 5) + lines) / 8
    assert ideal < 0.95 * code_length(symbols, 5) / 8
    assert len(same(symbols, 5)) <= 1.005 * ideal + 24


def test_rows_and_columns_together() -> None:
    rng = np.random.default_rng(1)
    rows, columns = rng.choice([0.02, 0.4], 200), rng.choice([0.1, 0.9], 500)
    symbols = sparse(rng, rows[:, None] * columns)
    ideal = sum(code_length(symbols[rows == r][:, columns == c], 5) for r in (0.02, 0.4) for c in (0.1, 0.9)) / 8
    assert len(same(symbols, 5)) <= 1.02 * ideal + 700 / 8 + 60


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("lag", [1, 5, 28])
def test_signs_of_neighbours_are_used(axis: int, lag: int) -> None:
    rng = np.random.default_rng(2)
    noise = rng.standard_normal((200, 300))
    smooth = noise + np.roll(noise, lag, axis)
    symbols = np.where(smooth > 1, 2, np.where(smooth < -1, 0, 1))
    before = np.roll(symbols, lag, axis)
    ideal = sum(code_length(symbols[before == b], 3) for b in range(3)) / 8
    assert ideal < 0.93 * code_length(symbols, 3) / 8
    assert len(same(symbols, 3)) <= 1.02 * ideal


def test_rows_of_different_spread_have_their_own_tables() -> None:
    rng = np.random.default_rng(3)
    spread = rng.choice([1.0, 12.0], 128)[:, None]
    symbols = np.clip(np.rint(rng.standard_normal((128, 256)) * spread) + 64, 0, 127).astype(np.int64)
    ideal = sum(code_length(symbols[spread[:, 0] == s], 128) for s in (1.0, 12.0)) / 8
    assert len(same(symbols, 128)) <= 1.02 * ideal + 64


@pytest.mark.parametrize("shape", [(3, 5000), (5000, 3), (70_000, 2), (2, 70_000)])
def test_long_and_thin_arrays(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(4)
    symbols = np.repeat(rng.integers(0, 3, (shape[0] // 2 or 1, shape[1])), 2, 0)[: shape[0]]
    same(symbols, 3)
    same(np.resize(symbols, shape), 3)


def test_a_constant_array_takes_a_few_bytes() -> None:
    assert len(same(np.full((1000, 1000), 3), 9)) <= 8
    assert encode(np.zeros((5, 5), np.int64), 1) == b""


def test_memory_order_and_type_do_not_matter() -> None:
    symbols = np.random.default_rng(5).integers(0, 5, (40, 60))
    expected = encode(symbols, 5)
    assert encode(np.asfortranarray(symbols), 5) == expected
    assert encode(symbols.astype(np.uint8), 5) == expected
    assert encode(np.repeat(symbols, 2, axis=1)[:, ::2], 5) == expected


def test_the_stream_is_the_same_on_every_machine() -> None:
    symbols = (np.arange(600).reshape(20, 30) ** 2 // 7 % 11 % 4) * (np.arange(30) % 3 > 0)
    data = encode(symbols, 4)
    assert data.hex() == GOLDEN
    assert np.array_equal(decode(bytes.fromhex(GOLDEN), (20, 30), 4), symbols)


GOLDEN = (
    "8656b27141def5769e418b59818bbb06fdf75af4fdf4c4b449f558d2d94657c9ed4405ec25a59b6b0801a8a820c7cee3985d"
    "5f7a813efc76fcef856e24dd83476c719b1d3079f01ab31ecaaee9559b55f69046bb61e0688db939e649f92c6ff8c069d010"
    "07e8e772f8ca480e"
)


@pytest.mark.parametrize(
    ("symbols", "k", "text"),
    [
        ([0, 1, 2], 2, r"^symbols from 0 to 2, expected 0 to 1$"),
        ([-1, 1], 2, r"^symbols from -1 to 1, expected 0 to 1$"),
        ([0], 0, r"^0 symbols, expected 1 to 256$"),
        ([0], 257, r"^257 symbols, expected 1 to 256$"),
    ],
)
def test_what_is_out_of_range_is_refused(symbols: list[int], k: int, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        encode(np.array(symbols), k)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60), st.sampled_from(SHAPES), st.sampled_from([1, 2, 5, 256]))
def test_nonsense_gives_an_error_or_symbols_in_range(data: bytes, shape: tuple[int, ...], k: int) -> None:
    try:
        symbols = decode(data, shape, k)
    except ValueError as error:
        assert "\n" not in str(error)  # noqa: PT017 - an error is allowed, not expected
        return
    assert symbols.shape == shape
    assert not symbols.size or int(symbols.max()) < k


def test_a_damaged_stream_never_crashes() -> None:
    rng = np.random.default_rng(6)
    symbols = sparse(rng, np.repeat(rng.choice([0.0, 0.3], 60)[None], 40, 0))
    data = encode(symbols, 5)
    outcomes = []
    for place in range(len(data)):
        for trial in (data[:place], data[:place] + bytes([data[place] ^ 128]) + data[place + 1 :]):
            try:
                outcomes.append(int(decode(trial, symbols.shape, 5).max()) < 5)
            except ValueError:
                outcomes.append(True)
    assert all(outcomes)


def test_code_length_is_the_entropy() -> None:
    assert code_length(np.array([0, 1, 2, 3]), 4) == 8
    assert code_length(np.array([0, 0, 0, 1]), 2) == pytest.approx(4 * 0.811278, abs=1e-5)
    assert code_length(np.zeros(10, np.int64), 3) == 0
    assert code_length(np.zeros(0, np.int64), 3) == 0


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=40))
def test_tables_survive_and_cost_what_was_expected(counts: list[int]) -> None:
    row = np.array(counts)
    roots, bits = tables.quantize_table(row)
    weights = tables.weights_of(roots)
    assert ((weights > 0) == (row > 0)).all()
    writer = tables.Writer()
    tables.write_table(writer, roots, bits)
    data = writer.finish()
    expected = tables.table_cost(row * 0, roots, bits)
    assert 8 * len(data) <= expected + 64
    if row.any():
        assert np.array_equal(tables.read_table(tables.Reader(data), len(row)), weights)


@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)), min_size=1, max_size=20))
def test_odds_are_close_and_certain_only_where_nothing_else_was_seen(pairs: list[tuple[int, int]]) -> None:
    ones, zeros = np.array(pairs).T
    levels, bits, cost = tables.quantize_odds(ones, ones + zeros, tables.FLAG_ONE)
    chances = tables.odds(levels, bits, tables.FLAG_ONE)
    assert ((chances > 0) | (ones == 0)).all()
    assert ((chances < tables.FLAG_ONE) | (zeros == 0)).all()
    ideal = sum(code_length(np.repeat([0, 1], [z, o]), 2) for o, z in zip(ones.tolist(), zeros.tolist(), strict=True))
    assert ideal - 1e-6 <= cost <= 1.01 * ideal + len(ones) * 15 + 15
    writer = tables.Writer()
    tables.write_odds(writer, levels, bits)
    assert np.array_equal(tables.read_odds(tables.Reader(writer.finish()), len(ones), tables.FLAG_ONE), chances)


def test_odds_rise_with_the_level() -> None:
    for bits in range(1, tables.MOST_BITS + 1):
        chances = tables.odds(np.arange((2 << bits) + 1), bits, tables.FLAG_ONE)
        assert chances[0] == 0
        assert chances[-1] == tables.FLAG_ONE
        assert chances[1 << bits] == tables.FLAG_ONE // 2
        assert (np.diff(chances) >= 0).all()


@given(st.lists(st.integers(0, 3), min_size=1, max_size=200))
def test_classes_survive_and_cost_what_was_expected(labels: list[int]) -> None:
    writer = tables.Writer()
    tables.write_classes(writer, np.array(labels), 4)
    data = writer.finish()
    assert tables.read_classes(tables.Reader(data), len(labels), 4).tolist() == labels
    assert abs(8 * len(data) - tables.classes_cost(np.array(labels), 4)) <= 64


@pytest.mark.parametrize(("shape", "k"), [((1, 3000), 5), ((64, 50), 9), ((12, 200), 256), ((600, 3), 3)])
def test_how_many_symbols_are_read_at_once_changes_nothing(
    shape: tuple[int, int], k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(k)
    rows = rng.integers(0, k, (shape[0] // 8 + 1, shape[1])).repeat(8, 0)[: shape[0]]  # alike: neighbours tell
    symbols = np.where(rng.random(shape) < 0.8, rows * (rows % 2), rng.integers(0, k, shape)).astype(np.uint8)
    data = encode(symbols, k)
    for block in (1000, 77, 1):
        monkeypatch.setattr(entropy, "BLOCK", block)
        assert np.array_equal(decode(data, shape, k), symbols)


def test_reading_a_long_vector_takes_ten_bytes_a_symbol(monkeypatch: pytest.MonkeyPatch) -> None:
    symbols = (np.arange(100_000) % 7 % 3).astype(np.uint8)
    data = encode(symbols, 3)
    monkeypatch.setattr(entropy, "BLOCK", 1000)
    tracemalloc.start()
    decode(data, symbols.shape, 3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 * symbols.size + 200_000
