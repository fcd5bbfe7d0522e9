from __future__ import annotations

from collections import OrderedDict
from typing import Any

import nets
import pytest
import torch
from torch import Tensor, nn

from easycompress.core import inputs as inp
from easycompress.core.inputs import Bundle

WORDS = torch.arange(12).view(3, 4)
MASK = torch.ones(3, 4, dtype=torch.long)
NAMED = Bundle((MASK, WORDS), ("attention_mask", "input_ids"))
ORDERED = Bundle((WORDS, torch.zeros(3, 6)))


class Called(nn.Module):
    """Remembers what it was called with."""

    def forward(self, first: Tensor, *rest: Tensor, second: Tensor | None = None, **others: Tensor) -> Any:
        self.seen = (first, rest, second, others)
        return first


def test_what_is_bundled_is_unbundled() -> None:
    for value in (WORDS, (WORDS, MASK), {"input_ids": WORDS, "attention_mask": MASK}):
        back = inp.unbundled(inp.bundled(value))
        assert type(back) is type(value)
        flat = [list(made.values()) if isinstance(made, dict) else list(made) for made in (back, value)]
        assert all(torch.equal(*pair) for pair in zip(*flat, strict=True))
        assert not isinstance(back, dict) or list(back) == list(value)


def test_a_bundle_is_cut_and_put_together_like_a_tensor() -> None:
    assert len(NAMED) == 3
    assert torch.equal(inp.parts(NAMED[torch.tensor([2, 0])])[1], WORDS[[2, 0]])
    pieces = list(inp.chunks(NAMED, 2))
    assert [len(piece) for piece in pieces] == [2, 1]
    again = inp.joined(pieces)
    assert isinstance(again, Bundle)
    assert again.names == NAMED.names
    assert torch.equal(again.tensors[1], WORDS)
    assert [len(piece) for piece in inp.chunks(WORDS, 2)] == [2, 1]


def test_samples_are_repeated_to_any_number() -> None:
    five = inp.repeated(NAMED, 5)
    assert torch.equal(inp.parts(five)[1], WORDS[[0, 1, 2, 0, 1]])
    assert torch.equal(inp.parts(inp.repeated(WORDS, 1))[0], WORDS[:1])


def test_integers_stay_integers() -> None:
    for made in (inp.mapped(NAMED, torch.Tensor.clone), inp.channels_last(NAMED), inp.repeated(NAMED, 4)):
        assert [tensor.dtype for tensor in inp.parts(made)] == [torch.int64, torch.int64]


def test_names_are_keywords_and_the_rest_stands_in_order() -> None:
    model = Called()
    inp.call(model, Bundle((WORDS, MASK), ("first", "second")))
    assert model.seen[0] is WORDS
    assert model.seen[2] is MASK
    inp.call(model, Bundle((WORDS, MASK)))
    assert model.seen[1][0] is MASK
    inp.call(model, WORDS)
    assert model.seen[0] is WORDS


@pytest.mark.parametrize(
    "output",
    [
        WORDS,
        (WORDS, MASK),
        [None, WORDS],
        {"loss": None, "logits": WORDS, "hidden": (MASK,)},
        OrderedDict(logits=WORDS),
        ((WORDS, MASK), MASK),
    ],
)
def test_the_answer_is_the_first_tensor(output: Any) -> None:
    assert inp.first(output) is WORDS
    assert next(iter(inp.tensors_of(output).values())) is WORDS


@pytest.mark.parametrize("output", [None, {}, (), {"a": "text"}])
def test_no_tensor_is_no_answer(output: Any) -> None:
    with pytest.raises(TypeError, match="holds no tensor"):
        inp.first(output)


def test_outputs_keep_their_names_and_lose_what_is_nested() -> None:
    assert list(inp.tensors_of({"logits": WORDS, "pooled": MASK, "cache": (MASK, MASK)})) == ["logits", "pooled"]
    assert list(inp.tensors_of((WORDS, MASK))) == ["output", "output_1"]
    assert list(inp.tensors_of(WORDS)) == ["output"]


def test_names_of_a_forward() -> None:
    assert inp.names_of(nets.Pair(), ORDERED) == ("words", "numbers")
    assert inp.names_of(nets.Worded(), NAMED) == NAMED.names
    assert inp.names_of(nets.Mlp(), WORDS) == ("x",)
    assert inp.names_of(Called(), Bundle((WORDS, MASK))) == ("first", "input_1")
    assert inp.names_of(nn.Sequential(), WORDS) == ("input",)


def test_keywords_are_put_in_the_order_of_the_forward() -> None:
    made = inp.in_order(nets.Worded(), NAMED)
    assert isinstance(made, Bundle)
    assert made.names == ("input_ids", "attention_mask")
    assert made.tensors[0] is WORDS
    assert inp.in_order(nets.Pair(), ORDERED) is ORDERED


def test_shapes_for_people() -> None:
    assert inp.described(WORDS) == "(4,)"
    assert inp.described(NAMED) == "attention_mask (4,), input_ids (4,)"
    assert inp.described(ORDERED) == "input 0 (4,), input 1 (6,)"
    assert inp.sample_shape(ORDERED) == (4,)
    assert not inp.are_images(NAMED)
    assert inp.are_images(nets.images(2))
    assert not inp.are_images(torch.zeros(2, 1, 8, 8, dtype=torch.int64))
