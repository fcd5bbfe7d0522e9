from __future__ import annotations

import pytest
import torch

from easycompress.codes.lowrank import LAYOUTS, LowRank, from_matrix, matrix_size, to_matrix


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(3, 4), (0, 3), (3, 0), (2, 3, 5), (2, 3, 5, 7), (0, 3, 2, 2)])
def test_views_undo_each_other(shape: tuple[int, ...], layout: str) -> None:
    weight = torch.randn(shape)
    matrix = to_matrix(weight, layout)
    assert tuple(matrix.shape) == matrix_size(shape, layout)
    back = from_matrix(matrix, shape, layout)
    assert torch.equal(back, weight)
    assert back.is_contiguous()


def test_schemes_of_a_convolution() -> None:
    weight = torch.arange(2 * 3 * 5 * 7.0).reshape(2, 3, 5, 7)
    first, second = to_matrix(weight, "scheme-1"), to_matrix(weight, "scheme-2")
    assert first.shape == (2, 3 * 5 * 7)
    assert second.shape == (2 * 5, 3 * 7)
    n, c, h, w = 1, 2, 3, 4
    assert first[n, (c * 5 + h) * 7 + w] == second[n * 5 + h, c * 7 + w] == weight[n, c, h, w]


@pytest.mark.parametrize("shape", [(), (5,)])
def test_a_vector_has_no_matrix_view(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"^a tensor of shape \(5?,?\) has no matrix view$"):
        to_matrix(torch.zeros(shape), "scheme-1")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_full_rank_gives_the_matrix_back_and_rank_0_gives_zeros(layout: str) -> None:
    weight = torch.randn(4, 3, 2, 2).half().float()
    matrix = to_matrix(weight, layout)
    full = LowRank(torch.eye(len(matrix)), matrix, (4, 3, 2, 2), layout)
    assert full.rank == len(matrix)
    assert torch.equal(full.dense(), weight)
    empty = LowRank(matrix[:, :0], matrix[:0], (4, 3, 2, 2), layout)
    assert (empty.rank, empty.bits()) == (0, 0)
    assert torch.equal(empty.dense(), torch.zeros(4, 3, 2, 2))


def test_the_memory_order_of_the_factors_does_not_show() -> None:
    left, right = torch.randn(64, 33).half(), torch.randn(33, 50).half()
    plain = LowRank(left, right, (64, 50)).dense()
    turned = LowRank(left.T.contiguous().T, right.T.contiguous().T, (64, 50)).dense()
    assert torch.equal(plain, turned)
