"""Augmentations keep what they must: the samples, their order, their pixels, and the batch that they were given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from easycompress.core.errors import BadInput
from easycompress.core.inputs import Bundle
from easycompress.intake.augment import make_augment

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def named(spec: str, base: Path | None = None) -> Callable[[Tensor], Tensor]:
    augment = make_augment(spec, base)
    assert augment is not None
    return augment


def pictures(n: int, channels: int, height: int, width: int) -> Tensor:
    """Images without two equal pixels and without zeros, so that a crop can be recognised."""
    return torch.arange(1.0, 1 + n * channels * height * width).view(n, channels, height, width)


def test_none_is_none() -> None:
    assert make_augment("none", None) is None


def test_flip_mirrors_about_half_of_the_images() -> None:
    torch.manual_seed(0)
    x = pictures(400, 2, 3, 5)
    y = named("flip")(x)
    mirrored = (y == x.flip(3)).flatten(1).all(1)
    kept = (y == x).flatten(1).all(1)
    assert torch.all(mirrored ^ kept)
    assert 160 <= int(mirrored.sum()) <= 240


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 6), st.integers(1, 3), st.sampled_from([5, 8, 16]), st.sampled_from([4, 17]), st.integers(0, 9))
def test_flip_crop_is_a_crop_of_the_padded_image_or_of_its_mirror_image(
    n: int, channels: int, height: int, width: int, seed: int
) -> None:
    torch.manual_seed(seed)
    x = pictures(n, channels, height, width)
    y = named("flip-crop")(x)
    assert y.shape == x.shape
    pad_y, pad_x = height // 8, width // 8
    for before, after in zip(x, y, strict=True):
        sides = [functional.pad(side, (pad_x, pad_x, pad_y, pad_y)) for side in (before, before.flip(2))]
        crops = [
            side[:, top : top + height, left : left + width]
            for side in sides
            for top in range(2 * pad_y + 1)
            for left in range(2 * pad_x + 1)
        ]
        assert any(torch.equal(after, crop) for crop in crops)


def test_flip_crop_uses_every_offset_and_both_sides() -> None:
    torch.manual_seed(0)
    x = pictures(1, 1, 8, 8).expand(500, 1, 8, 8)
    outcomes = {tuple(image.flatten().tolist()) for image in named("flip-crop")(x)}
    assert len(outcomes) == 2 * 3 * 3  # padding is 1 at 8 pixels: three offsets a side, mirrored or not


@pytest.mark.parametrize("spec", ["flip", "flip-crop"])
def test_seeded_by_the_global_generator_and_leaves_its_argument_alone(spec: str) -> None:
    x = pictures(16, 1, 8, 8)
    before = x.clone()
    results = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        results.append(named(spec)(x))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])
    assert torch.equal(x, before)


@pytest.mark.parametrize("spec", ["flip", "flip-crop"])
def test_only_images_can_be_flipped(spec: str) -> None:
    with pytest.raises(BadInput, match=rf"--augment {spec}: is for images \(N, C, H, W\), but a batch is \(4, 9\)"):
        named(spec)(torch.ones(4, 9))


@pytest.mark.parametrize("spec", ["flip", "flip-crop"])
def test_inputs_of_several_tensors_are_no_images(spec: str) -> None:
    augment = make_augment(spec, None)
    assert augment is not None
    with pytest.raises(BadInput, match=rf"--augment {spec}: is for images \(N, C, H, W\), but a sample is a \(3,\)"):
        augment(Bundle((torch.ones(4, 3),), ("a",)))


def test_a_function_of_the_user_takes_and_returns_what_the_model_takes(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "def mask(x): return {**x, 'ids': x['ids'].zero_()}\ndef swap(x): return x[::-1]\n"
        "def less(x): return {'ids': x['ids']}\ndef short(x): return tuple(t[:1] for t in x)\ndef one(x): return x[0]\n"
    )
    named_ = Bundle((torch.ones(4, 3, dtype=torch.int64), torch.ones(4, 2)), ("ids", "mask"))
    plain = Bundle(named_.tensors)

    def made(name: str, batch: Bundle) -> Any:
        augment = make_augment(f"mine.py:{name}", tmp_path)
        assert augment is not None
        return augment(batch)

    assert made("mask", named_).names == ("ids", "mask")
    assert not made("mask", named_).tensors[0].any()
    assert named_.tensors[0].all()  # though the function worked in place
    assert made("swap", plain).tensors[0].dtype == torch.float32
    for name, batch in (("less", named_), ("short", plain), ("one", plain)):
        with pytest.raises(BadInput, match=rf"mine.py:{name}: returned .* for a batch .*; return as many inputs"):
            made(name, batch)


def test_unknown_name() -> None:
    with pytest.raises(BadInput, match=r"--augment mirror: unknown; use none, flip, flip-crop or file\.py:function"):
        make_augment("mirror", None)


def test_a_function_of_the_user(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "def double(x): return x.mul_(2)\ndef broken(x): raise ValueError('no')\ndef short(x): return x[:1]\n"
        "def text(x): return 'x'\n"
    )
    x = torch.ones(3, 2)
    assert named("mine.py:double", tmp_path)(x).tolist() == [[2.0, 2.0]] * 3
    assert x.tolist() == [[1.0, 1.0]] * 3  # though the function worked in place
    for name, text in (
        ("broken", "raised ValueError: no"),
        ("short", r"returned \(1, 2\) for a batch \(3, 2\); return as many inputs"),
        ("text", r"returned str for a batch \(3, 2\)"),
    ):
        with pytest.raises(BadInput, match=f"--augment mine.py:{name}: {text}"):
            named(f"mine.py:{name}", tmp_path)(x)
