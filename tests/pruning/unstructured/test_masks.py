from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from easycompress.pruning.unstructured.masks import FLOOR, choose, largest, n_of_m, pattern_of

few_values = st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.0]), min_size=1, max_size=30)


@given(values=few_values, count=st.integers(-1, 32))
def test_the_mask_has_exactly_as_many_places_as_asked_for_and_the_largest(values: list[float], count: int) -> None:
    saliency = torch.tensor(values)
    keep = largest(saliency, count)
    wanted = min(max(count, 0), len(values))
    assert int(keep.sum()) == wanted
    assert float(saliency[keep].sum()) == sum(sorted(values, reverse=True)[:wanted])


def test_of_equal_ones_the_first_stay() -> None:
    assert largest(torch.ones(4), 3).tolist() == [True, True, True, False]


@pytest.mark.parametrize(("share", "kept"), [(0.0, 0), (0.25, 3), (1.0, 12)])
@pytest.mark.parametrize("by_layer", [True, False])
def test_no_share_and_the_whole(share: float, kept: int, *, by_layer: bool) -> None:
    masks = choose({"a": torch.zeros(2, 4), "b": torch.ones(4)}, share, by_layer=by_layer)
    assert sum(int(mask.sum()) for mask in masks.values()) == kept
    assert {name: mask.shape for name, mask in masks.items()} == {"a": (2, 4), "b": (4,)}


def test_global_ranks_all_weights_and_layer_each_of_them() -> None:
    saliency = {"small": torch.full((1, 8), 0.1), "large": torch.full((1, 8), 1.0)}
    everywhere, each = choose(saliency, 0.5), choose(saliency, 0.5, by_layer=True)
    assert [int(everywhere[name].sum()) for name in saliency] == [1, 7]
    assert [int(each[name].sum()) for name in saliency] == [4, 4]


@pytest.mark.parametrize("pattern", [None, (2, 4)])
def test_no_layer_is_emptied_by_the_others(pattern: tuple[int, int] | None) -> None:
    """One ranking would keep nothing of `small`; its own largest stay, and the count of all is kept."""
    saliency = {"small": torch.arange(1, 1001).reshape(2, 500) / 1e6, "large": torch.arange(1, 9001).reshape(9, 1000)}
    masks = choose(saliency, 0.1, pattern=pattern)
    assert sum(int(mask.sum()) for mask in masks.values()) == 1000
    kept = saliency["small"][masks["small"]]
    assert len(kept) == round(FLOOR * 0.1 * 1000) == 10
    if pattern is None:
        assert torch.equal(kept, saliency["small"].flatten()[-10:])


@pytest.mark.parametrize("by_layer", [True, False])
def test_every_layer_keeps_a_weight_even_beyond_the_count(*, by_layer: bool) -> None:
    saliency = {"a": torch.tensor([1.0, 3.0, 2.0]), "b": torch.tensor([[9.0, 8.0]])}
    allowed = {"a": torch.tensor([True, False, True]), "b": torch.tensor([[True, True]])}
    masks = choose(saliency, 1e-3, allowed=allowed, by_layer=by_layer)
    assert masks["a"].tolist() == [False, False, True]
    assert masks["b"].tolist() == [[True, False]]


def test_a_floor_never_brings_back_what_is_gone() -> None:
    allowed = {"a": torch.zeros(4, dtype=torch.bool), "b": torch.ones(4, dtype=torch.bool)}
    masks = choose({"a": torch.ones(4), "b": torch.ones(4)}, 0.5, allowed=allowed)
    assert not masks["a"].any()
    assert masks["b"].all()


def test_what_is_gone_stays_gone() -> None:
    saliency = {"w": torch.tensor([0.0, 9.0, 0.0, 1.0])}
    allowed = {"w": torch.tensor([True, False, True, True])}
    assert choose(saliency, 0.5, allowed=allowed)["w"].tolist() == [True, False, False, True]
    assert choose(saliency, 1.0, allowed=allowed)["w"].tolist() == allowed["w"].tolist()


@pytest.mark.parametrize(("name", "kept", "among"), [("2:4", 2, 4), ("4:8", 4, 8), ("1:4", 1, 4)])
def test_n_of_m_keeps_exactly_the_largest_n_of_every_m(name: str, kept: int, among: int) -> None:
    assert pattern_of(name) == (kept, among)  # type: ignore[arg-type]
    saliency = torch.rand(3, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    groups = n_of_m(saliency, kept, among).reshape(-1, among)
    assert groups.sum(1).tolist() == [kept] * len(groups)
    values = saliency.reshape(-1, among)
    assert torch.allclose((values * groups).sum(1), values.topk(kept, 1).values.sum(1))


def test_a_shorter_last_group_keeps_no_more() -> None:
    assert n_of_m(torch.ones(2, 7), 2, 4).int().tolist() == [[1, 1, 0, 0, 1, 1, 0]] * 2


def test_no_pattern_is_none() -> None:
    assert pattern_of("none") is None


def feasible(mask: Tensor, count: int) -> bool:
    return int(mask.sum()) <= count and all(int(group.sum()) <= 2 for group in mask.reshape(-1, 4))


@given(values=st.lists(st.integers(0, 5), min_size=8, max_size=8), count=st.integers(0, 8))
def test_pattern_and_count_together_are_solved_exactly(values: list[int], count: int) -> None:
    saliency = torch.tensor(values).float().reshape(1, 8)
    mask = choose({"w": saliency}, count / 8, pattern=(2, 4))["w"]
    assert feasible(mask, count)
    every = (torch.tensor(bits).reshape(1, 8) for bits in itertools.product([0, 1], repeat=8))
    assert float(saliency[mask].sum()) == max(float((saliency * m).sum()) for m in every if feasible(m, count))
