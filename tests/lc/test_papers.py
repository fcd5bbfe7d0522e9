"""The formulas of 002, appendix B, against numbers worked by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from easycompress.codes.affine import Affine
from easycompress.codes.codebook import Codebook
from easycompress.codes.composed import Additive
from easycompress.codes.half import Half
from easycompress.codes.hashed import Hashed
from easycompress.codes.lowrank import LowRank
from easycompress.codes.sparse import Sparse
from easycompress.lc.papers import operations, ratios, storage_bits

if TYPE_CHECKING:
    from easycompress.codes.base import Code

SIZE = (10, 20)


def codebook(k: int, size: tuple[int, ...] = SIZE, *, zero: bool = False) -> Codebook:
    count = torch.Size(size).numel()
    entries = torch.arange(1.0, k + 1) - (1.0 if zero else 0.0)
    return Codebook((torch.arange(count) % k).to(torch.uint8).reshape(size), entries)


def sparse(positions: list[int], size: tuple[int, ...] = SIZE) -> Sparse:
    return Sparse(torch.tensor(positions, dtype=torch.int64), torch.ones(len(positions)).half(), size)


def low_rank(rank: int, size: tuple[int, ...] = SIZE) -> LowRank:
    rows, columns = size[0], torch.Size(size[1:]).numel()
    return LowRank(torch.ones(rows, rank).half(), torch.ones(rank, columns).half(), size)


@pytest.mark.parametrize(
    ("code", "bits"),
    [
        (codebook(1), 32 + 200 * 0),
        (codebook(2), 2 * 32 + 200 * 1),  # B.1.1: k x 32 + weights x ceil(log2 k)
        (codebook(3), 3 * 32 + 200 * 2),
        (codebook(4), 4 * 32 + 200 * 2),
        (codebook(5), 5 * 32 + 200 * 3),
        (sparse([]), 0),
        (sparse([0]), 1 * (0 + 16)),  # its gap needs no bit
        (sparse([0, 2, 4, 6]), 4 * (1 + 16)),  # gaps of 1 at most: one bit each
        (sparse([3, 7, 11]), 3 * (2 + 16)),  # gaps of 3: two bits
        # One pair far away: 150 weights between. 8 bits for each of two gaps, or 0 bits and 151 pairs, or between
        # them: p bits and ceil(150 / 2^p) - 1 fillers. p = 8: 2 x 24 = 48 is the least.
        (sparse([0, 151]), 2 * (8 + 16)),
        # Forty pairs in a row, then one 159 weights later. 8 bits: 41 x 24 = 984. 5 bits: 4 fillers, 45 x 21 = 945.
        # 4 bits: 9 fillers, 50 x 20 = 1000. 6 bits: 2 fillers, 43 x 22 = 946. 5 bits win.
        (sparse([*range(40), 199]), 45 * 21),
        (low_rank(3), 16 * 3 * (10 + 20)),  # B.1.3: 16 r (m + n)
        (low_rank(0), 0),
        (Half(torch.ones(SIZE).half()), 16 * 200),
        (Hashed(torch.ones(7), SIZE), 32 * 7),
        (Affine(torch.ones(SIZE, dtype=torch.int8), torch.ones(10)), 8 * 200 + 32 * 10),
        (Additive((codebook(2), sparse([3, 7, 11]), low_rank(1))), 264 + 54 + 480),  # B.1.5: the sum
    ],
)
def test_storage(code: Code, bits: float) -> None:
    assert storage_bits(code) == bits


@pytest.mark.parametrize(
    ("code", "additions", "multiplications"),
    [
        (codebook(2), 200, 2 * 10),  # B.2.2: m n additions, k a neuron multiplications
        (codebook(4), 200, 4 * 10),
        (codebook(2, zero=True), 100, 10),  # what is zero isn't added, nor multiplied
        (codebook(150), 200, 200),  # never more than the weights there are
        (sparse([1, 50, 199]), 3, 3),  # B.2.3: fillers are neither
        (sparse([0, 199]), 2, 2),
        (low_rank(3), 90, 90),  # B.2.4: r (n + m)
        (Hashed(torch.ones(7), SIZE), 200, 70),
        (Affine(torch.ones(SIZE, dtype=torch.int8), torch.ones(10)), 200, 200),
        (Half(torch.ones(SIZE).half()), 200, 200),
        (Additive((codebook(2), sparse([1, 2]))), 202, 22),
    ],
)
def test_operations(code: Code, additions: float, multiplications: float) -> None:
    assert operations(code) == (additions, multiplications)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.fc = nn.Linear(20, 10)


MACS = {"conv": 72 * 36, "fc": 200}  # 36 positions


def test_a_whole_net() -> None:
    """Weights 72 + 8 + 200 + 10 = 290, 9280 bits; 2592 + 200 = 2792 additions and multiplications."""
    codes: dict[str, Code] = {
        "conv.weight": codebook(2, (4, 2, 3, 3)),
        "fc.weight": Additive((codebook(2), sparse([3, 7, 11]))),
    }
    found = ratios(Net(), codes, MACS)
    stored = (64 + 72) + 8 * 32 + (64 + 200 + 54) + 10 * 32  # what has no code counts 32 bits a number: B.1.4
    assert found.storage == pytest.approx(9280 / stored)
    assert found.additions == pytest.approx(2792 / (72 * 36 + 203))
    assert found.multiplications == pytest.approx(2792 / (8 * 36 + 23))
    assert found.named() == {
        "rho_storage_formula": found.storage,
        "rho_additions": found.additions,
        "rho_multiplications": found.multiplications,
    }


def test_a_convolution_s_low_rank_is_applied_at_every_position() -> None:
    found = ratios(Net(), {"conv.weight": low_rank(2, (4, 2, 3, 3))}, MACS)
    assert found.additions == found.multiplications == pytest.approx(2792 / (2 * (4 + 18) * 36 + 200))
    assert found.storage == pytest.approx(9280 / (9280 - 72 * 32 + 16 * 2 * 22))


def test_nothing_compressed_is_a_ratio_of_one() -> None:
    found = ratios(Net(), {}, MACS)
    assert (found.storage, found.additions, found.multiplications) == (1.0, 1.0, 1.0)


def test_everything_gone_is_no_division_by_zero() -> None:
    model = nn.Linear(20, 10, bias=False)
    found = ratios(model, {"weight": sparse([])}, {"": 200})
    assert found.storage == 6400
    assert found.additions == 200
