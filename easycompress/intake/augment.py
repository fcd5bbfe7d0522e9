"""Augmentations of a batch of training inputs. Randomness comes from torch's global generator, seeded by the loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from easycompress.core.errors import BadInput, one_line
from easycompress.intake.images import IMAGE_DIMS
from easycompress.intake.userfile import load_function

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PADDING_SHARE = 8
"""Random crops move an image by at most 1/8 of its side: 4 pixels at 32, as is usual for CIFAR (He et al. 2016)."""


def make_augment(spec: str, base: Path | None) -> Callable[[Tensor], Tensor] | None:
    """Return the augmentation named `spec`: `none` (None), `flip`, `flip-crop` or a user's `file.py:function`.

    It takes a batch of inputs (N, ...) and returns one of N samples; its argument is not changed. Raises BadInput for
    an unknown name; when it is used, for a batch that is not of images (`flip`, `flip-crop`) or a user's function that
    raises or returns something else.
    """
    if spec == "none":
        return None
    if spec == "flip":
        return flip
    if spec == "flip-crop":
        return flip_crop
    if ":" in spec:
        return _users(spec, base)
    raise BadInput(f"--augment {spec}: unknown; use none, flip, flip-crop or file.py:function")


def flip(images: Tensor) -> Tensor:
    """Return images (N, C, H, W), each mirrored left to right with probability 1/2."""
    _require_images(images, "flip")
    return torch.where(_coins(images)[:, None, None, None], images.flip(3), images)


def flip_crop(images: Tensor) -> Tensor:
    """Return images (N, C, H, W) mirrored as by `flip`, each then shifted by a random crop after zero padding."""
    _require_images(images, "flip-crop")
    n, channels, height, width = images.shape
    pad_y, pad_x = height // PADDING_SHARE, width // PADDING_SHARE
    device = images.device
    top = torch.randint(2 * pad_y + 1, (n, 1), device=device)
    left = torch.randint(2 * pad_x + 1, (n, 1), device=device)
    columns = torch.arange(width, device=device).expand(n, width)
    # Mirrored samples read their columns backwards, so one gather does the flip and the crop.
    columns = left + torch.where(_coins(images)[:, None], columns.flip(1), columns)
    rows = top + torch.arange(height, device=device)
    padded = functional.pad(images, (pad_x, pad_x, pad_y, pad_y))
    places = (rows[:, :, None] * padded.shape[3] + columns[:, None, :]).reshape(n, 1, height * width)
    flat = padded.reshape(n, channels, -1).gather(2, places.expand(n, channels, height * width))
    return flat.reshape(images.shape)


def _coins(images: Tensor) -> Tensor:
    """Return one fair coin an image, boolean (N,)."""
    return torch.rand(len(images), device=images.device) < 0.5  # noqa: PLR2004 - a fair coin


def _require_images(batch: Tensor, name: str) -> None:
    if batch.ndim != IMAGE_DIMS:
        raise BadInput(
            f"--augment {name}: is for images (N, C, H, W), but a batch is {tuple(batch.shape)}; "
            "use --augment none or a function of your own"
        )


def _users(spec: str, base: Path | None) -> Callable[[Tensor], Tensor]:
    function = load_function(spec, "--augment", base)

    def augment(batch: Tensor) -> Tensor:
        try:
            # The batch may be a view of the data, which a function that works in place must not reach.
            result = function(batch.clone())
        except Exception as error:
            raise BadInput(f"--augment {spec}: raised {type(error).__name__}: {one_line(error)}") from error
        if not isinstance(result, Tensor) or len(result) != len(batch):
            got = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
            raise BadInput(f"--augment {spec}: returned {got} for a batch {tuple(batch.shape)}; return as many inputs")
        return result

    return augment
