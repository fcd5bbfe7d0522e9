"""Codes of large models: 15 million weights, in seconds of one thread, the best of a few: other programs run too."""

from __future__ import annotations

import time
import tracemalloc
from typing import TYPE_CHECKING

import pytest
import torch

from easycompress.codes.codebook import Codebook
from easycompress.codes.packing import gap_bits, pack_planes, positions_of
from easycompress.codes.reading import read_code
from easycompress.codes.sparse import Sparse

if TYPE_CHECKING:
    from collections.abc import Callable

WEIGHTS = 15_000_000


def seconds(run: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(5):
        start = time.thread_time()
        run()
        best = min(best, time.thread_time() - start)
    return best


def rare() -> torch.Tensor:
    """Places of 3 % of the weights."""
    return positions_of(torch.rand(WEIGHTS) < 0.03)


@pytest.mark.parametrize(("entries", "most"), [(2, 0.15), (256, 0.5)])
def test_a_codebook_is_packed_and_read_at_once(entries: int, most: float) -> None:
    indices = torch.randint(0, entries, (WEIGHTS,), dtype=torch.uint8)
    code = Codebook(indices, torch.randn(entries))
    meta, arrays = code.meta(), code.arrays()
    assert seconds(lambda: Codebook(indices, code.entries).arrays()) < most
    assert seconds(lambda: read_code("codebook", meta, arrays)) < most


def test_a_sparse_code_is_packed_and_read_at_once() -> None:
    positions = rare()
    code = Sparse(positions, torch.ones(len(positions), dtype=torch.float16), (WEIGHTS,))
    meta, arrays = code.meta(), code.arrays()
    assert seconds(code.arrays) < 0.15
    assert seconds(lambda: read_code("sparse", meta, arrays)) < 0.15


def test_index_bits_are_counted_in_no_time() -> None:
    positions = rare()
    assert seconds(lambda: gap_bits(positions, 16)) < 0.005


def test_planes_are_packed_one_by_one() -> None:
    indices = torch.randint(0, 256, (1_000_000,), dtype=torch.uint8)
    tracemalloc.start()
    try:
        pack_planes(indices, 8)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * indices.numel()  # the planes, and a few bytes a weight for the one in hand
