"""A code is what its arrays and its meta say, and nothing else."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load, save

from easycompress.codes.affine import Affine, quantize_per_channel
from easycompress.codes.codebook import Codebook
from easycompress.codes.composed import Additive, Scaled
from easycompress.codes.half import Half
from easycompress.codes.hashed import Hashed
from easycompress.codes.lowrank import LowRank, matrix_size
from easycompress.codes.packing import bits_for, gap_bits, positions_of
from easycompress.codes.reading import FORMS, read_code
from easycompress.codes.sparse import Sparse, sparse_from

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from easycompress.codes.base import Code

SHAPES = [(), (0,), (1,), (8,), (17,), (3, 4), (0, 3), (3, 0), (2, 3, 2), (2, 3, 3, 2), (3001,)]
DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]


def assert_reads_back(code: Code) -> None:
    arrays = code.arrays()
    assert code.bits() == 8 * sum(len(array.numpy().tobytes()) for array in arrays.values())
    again = read_code(code.form, json.loads(json.dumps(code.meta())), load(save(arrays)))
    dense = code.dense()
    assert type(again) is type(code)
    assert again.form == code.form
    assert again.shape == code.shape == tuple(dense.shape)
    assert again.bits() == code.bits()
    assert again.dense().dtype == dense.dtype == torch.float32
    assert again.dense().is_contiguous()
    assert dense.is_contiguous()
    assert torch.equal(again.dense().view(torch.int32), dense.view(torch.int32))  # minus zero, too, stays
    assert {name: array.tolist() for name, array in again.arrays().items()} == {
        name: array.tolist() for name, array in arrays.items()
    }


def _noise(draw: st.DrawFn) -> torch.Generator:
    return torch.Generator().manual_seed(draw(st.integers(0, 2**32)))


@st.composite
def affines(draw: st.DrawFn, shape: tuple[int, ...]) -> Affine:
    weight = torch.randn(shape, generator=_noise(draw)).to(draw(st.sampled_from(DTYPES)))
    if draw(st.booleans()):
        return quantize_per_channel(weight)
    row = quantize_per_channel(weight[None])  # one scale for all slices
    return Affine(row.values[0], row.scale)


@st.composite
def codebooks(draw: st.DrawFn, shape: tuple[int, ...]) -> Codebook:
    noise, k = _noise(draw), draw(st.sampled_from([1, 2, 3, 4, 5, 16, 17, 255, 256]))
    indices = torch.randint(0, k, shape, generator=noise)
    common, rare = draw(st.integers(0, k - 1)), draw(st.sampled_from([0, 0.002, 0.05, 0.3, 1]))
    indices = torch.where(torch.rand(shape, generator=noise) < rare, indices, common)
    return Codebook(indices.to(torch.uint8), torch.randn(k, generator=noise) * draw(st.sampled_from([-0.0, 1, 1e30])))


@st.composite
def sparses(draw: st.DrawFn, shape: tuple[int, ...]) -> Sparse:
    noise = _noise(draw)
    weight = torch.randn(shape, generator=noise).to(draw(st.sampled_from(DTYPES)))
    return sparse_from(weight, torch.rand(shape, generator=noise) < draw(st.sampled_from([0, 0.002, 0.1, 1])))


@st.composite
def low_ranks(draw: st.DrawFn, shape: tuple[int, ...]) -> LowRank:
    layout = draw(st.sampled_from(["scheme-1", "scheme-2"]))
    (rows, columns), noise, dtype = matrix_size(shape, layout), _noise(draw), draw(st.sampled_from(DTYPES))
    rank = draw(st.integers(0, min(rows, columns)))
    left = torch.randn(rank, rows, generator=noise).T.to(dtype)  # not contiguous, as factors of an SVD are
    return LowRank(left, torch.randn(rank, columns, generator=noise).to(dtype), shape, layout)


@st.composite
def hasheds(draw: st.DrawFn, shape: tuple[int, ...]) -> Hashed:
    buckets = draw(st.sampled_from([1, 2, 7, 1000]))
    return Hashed(torch.randn(buckets, generator=_noise(draw)), shape, draw(st.integers(0, 2**31 - 2)))


@st.composite
def halves(draw: st.DrawFn, shape: tuple[int, ...]) -> Half:
    return Half(torch.randn(shape, generator=_noise(draw)).to(draw(st.sampled_from(DTYPES))))


@st.composite
def leaves(draw: st.DrawFn, shape: tuple[int, ...]) -> Code:
    kinds = [codebooks, sparses, hasheds, halves]
    kinds += [low_ranks] if len(shape) > 1 else []
    kinds += [affines] if shape else []
    return draw(draw(st.sampled_from(kinds))(shape))


@st.composite
def additives(draw: st.DrawFn, shape: tuple[int, ...]) -> Additive:
    return Additive(tuple(draw(st.lists(leaves(shape), min_size=1, max_size=4))))


@st.composite
def scaleds(draw: st.DrawFn, shape: tuple[int, ...]) -> Scaled:
    code = draw(st.one_of(leaves(shape), additives(shape)))
    scale = torch.randn(shape[0], 2, generator=_noise(draw))[:, 0].to(draw(st.sampled_from(DTYPES)))
    return Scaled(code, scale.float())


FORM_STRATEGIES: list[tuple[Callable[[tuple[int, ...]], st.SearchStrategy[Code]], int]] = [
    (affines, 1),
    (codebooks, 0),
    (sparses, 0),
    (low_ranks, 2),
    (hasheds, 0),
    (additives, 0),
    (scaleds, 1),
    (halves, 0),
]


@pytest.mark.parametrize(("form", "least"), FORM_STRATEGIES, ids=FORMS)
@given(data=st.data())
def test_every_form_is_rebuilt_bit_for_bit(
    form: Callable[[tuple[int, ...]], st.SearchStrategy[Code]], least: int, data: st.DataObject
) -> None:
    shape = data.draw(st.sampled_from([shape for shape in SHAPES if len(shape) >= least]))
    assert_reads_back(data.draw(form(shape)))


@given(data=st.data())
def test_every_codebook_layout_says_the_same_and_the_smallest_is_taken(data: st.DataObject) -> None:
    shape = data.draw(st.sampled_from(SHAPES))
    code = data.draw(codebooks(shape))
    others = positions_of(code.indices.flatten() != code.common)
    listed = gap_bits(others, bits_for(len(code.entries)))[1]
    plans = [("planes", 0), ("mask", len(others)), ("gaps", listed)]
    for layout, count in plans if len(code.entries) > 1 else plans[:2]:
        forced = Codebook(code.indices, code.entries)
        forced.__dict__["_plan"] = (layout, count)
        assert forced.layout == layout
        read = read_code("codebook", forced.meta(), forced.arrays())
        assert torch.equal(read.indices, code.indices)
        assert code.bits() <= forced.bits()


@pytest.mark.parametrize(
    ("indices", "k", "layout", "bits"),
    [
        ([0, 1] * 8, 2, "planes", 16),
        ([0] * 100, 1, "planes", 0),
        ([3] * 100, 4, "gaps", 0),
        ([0, 1, 2, 3] * 8, 4, "planes", 64),
        ([0] * 60 + [1, 2, 3, 1], 4, "gaps", 8 * (6 + 2)),
        (([0] * 3 + [1, 2]) * 16, 3, "mask", 80 + 32),
        ([1] + [0] * 1000, 2, "gaps", 8),
    ],
)
def test_layouts_by_hand(indices: list[int], k: int, layout: str, bits: int) -> None:
    code = Codebook(torch.tensor(indices, dtype=torch.uint8), torch.arange(float(k)))
    assert code.layout == layout
    assert code.bits() == bits + 32 * k
    assert code.dense().tolist() == indices
    assert_reads_back(code)


@pytest.mark.parametrize("place", [0, 7, 8, 2**16 - 1, 2**16, 200_000])
def test_one_far_weight(place: int) -> None:
    """In a tensor that ends with it, alone and after fillers."""
    keep = torch.zeros(place + 1, dtype=torch.bool)
    keep[-1] = True
    sparse = sparse_from(torch.full((place + 1,), 2.5), keep)
    assert sparse.pairs[1] == -(-(place + 1) // 2 ** sparse.pairs[0])
    assert_reads_back(sparse)
    assert_reads_back(Codebook(keep.to(torch.uint8) * 3, torch.tensor([0.5, 1, 2, 3])))


def test_a_sparse_tensor_stores_what_float16_keeps() -> None:
    weight = torch.tensor([[1.0, 1e-9], [2.0, -0.0]])
    code = sparse_from(weight.T, torch.tensor([[True, False], [True, True]]))
    assert code.positions.tolist() == [0]
    assert code.dense().tolist() == [[1, 0], [0, 0]]
    with pytest.raises(OverflowError, match=r"^a weight beyond 65504 has no float16 value$"):
        sparse_from(torch.tensor([1e5]), torch.tensor([True]))


def test_explicit_zeros_are_dropped_and_minus_zero_is_kept() -> None:
    code = Sparse(torch.tensor([1, 2, 4]), torch.tensor([0.0, -0.0, 3.0], dtype=torch.float16), (6,))
    again = read_code("sparse", code.meta(), code.arrays())
    assert again.positions.tolist() == [2, 4]
    assert torch.equal(again.dense().view(torch.int32), code.dense().view(torch.int32))


def test_factors_of_full_precision_stand_for_what_is_stored() -> None:
    left, right = torch.full((2, 1), 1 / 3), torch.full((1, 2), 3.0)
    code = LowRank(left, right, (2, 2))
    assert code.dense()[0, 0] == 3 * torch.tensor(1 / 3).half().float() != 1
    assert Half(left).dense()[0, 0] == torch.tensor(1 / 3).half().float()
    sparse = Sparse(torch.tensor([0]), torch.tensor([1 / 3]), (1,))
    assert sparse.dense()[0] == torch.tensor(1 / 3).half().float()


def test_what_is_stored_is_plain() -> None:
    """No gradient, no stride, no view of something larger: a file can take it."""
    wide = torch.randn(4, 6, requires_grad=True)
    codes = [
        LowRank(wide[:, :2], wide[:2].detach(), (4, 6)),
        Hashed(wide[:, 0], (5,)),
        Codebook(torch.zeros(3, 2, dtype=torch.uint8).T, wide[0, ::2]),
        Affine(torch.ones(3, 4, dtype=torch.int8).T, wide[:, 0]),
        Scaled(Hashed(wide[0], (4, 2)), wide[:, 1]),
        Sparse(torch.tensor([1]), wide[0, :1], (3,)),
        Half(wide.T),
    ]
    for code in codes:
        for array in code.arrays().values():
            assert array.is_contiguous()
            assert not array.requires_grad
        assert load(save(code.arrays())).keys() == code.arrays().keys()


def test_gradients_reach_entries_and_factors() -> None:
    entries = torch.tensor([1.0, 2.0], requires_grad=True)
    Codebook(torch.tensor([[0, 1, 1]], dtype=torch.uint8), entries).dense().sum().backward()
    assert entries.grad.tolist() == [1, 2]


def _sum(parts: list[Tensor]) -> Tensor:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


@given(data=st.data())
def test_composed_codes_mean_what_they_say(data: st.DataObject) -> None:
    shape = data.draw(st.sampled_from([shape for shape in SHAPES if shape]))
    code, scale = data.draw(additives(shape)), torch.linspace(-1, 1, shape[0])
    expected = _sum([part.dense() for part in code.parts])
    assert torch.equal(code.dense(), expected)
    assert code.bits() == math.fsum(part.bits() for part in code.parts)
    scaled = Scaled(code, scale)
    assert torch.equal(scaled.dense(), expected * scale.reshape([-1] + [1] * (len(shape) - 1)))
    assert scaled.bits() == code.bits() + 32 * shape[0]
