"""Augmentations of a batch of training inputs. Randomness comes from torch's global generator, seeded by the loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from easycompress.core.errors import BadInput, Crashed, one_line
from easycompress.core.inputs import Bundle, bundled, described, mapped, parts, unbundled
from easycompress.core.memory import is_exhausted
from easycompress.intake.images import IMAGE_DIMS
from easycompress.intake.userfile import load_function

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from easycompress.core.inputs import Inputs

PADDING_SHARE = 8
"""Random crops move an image by at most 1/8 of its side: 4 pixels at 32, as is usual for CIFAR (He et al. 2016)."""


def make_augment(spec: str, base: Path | None) -> Callable[[Inputs], Inputs] | None:
    """Return the augmentation named `spec`: `none` (None), `flip`, `flip-crop` or a user's `file.py:function`.

    It takes a batch of inputs (N, ...) and returns one of N samples; its argument is not changed. Where a model takes
    several tensors a user's function is given a tuple of them, or a dict where they have names, and returns the same.
    Raises BadInput for
    an unknown name; when it is used, for a batch that is not of images (`flip`, `flip-crop`) or a user's function that
    raises or returns something else.
    """
    if spec == "none":
        return None
    if spec == "flip":
        return _of_images(flip, spec)
    if spec == "flip-crop":
        return _of_images(flip_crop, spec)
    if ":" in spec:
        return _users(spec, base)
    raise BadInput(f"--augment {spec}: unknown; use none, flip, flip-crop or file.py:function")


def _of_images(change: Callable[[Tensor], Tensor], name: str) -> Callable[[Inputs], Inputs]:
    def augment(batch: Inputs) -> Inputs:
        if isinstance(batch, Bundle):
            raise BadInput(
                f"--augment {name}: is for images (N, C, H, W), but a sample is {described(batch)}; "
                "use --augment none or a function of your own"
            )
        return change(batch)

    return augment


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


def _users(spec: str, base: Path | None) -> Callable[[Inputs], Inputs]:
    function = load_function(spec, "--augment", base)

    def augment(batch: Inputs) -> Inputs:
        try:
            # The batch may be a view of the data, which a function that works in place must not reach.
            result = function(unbundled(mapped(batch, Tensor.clone)))
        except Exception as error:
            if is_exhausted(error):
                raise  # which training can do something about
            raise Crashed(f"--augment {spec}: raised {type(error).__name__}: {one_line(error)}") from error
        made = _alike(result, batch)
        if made is None:
            got = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
            shape = described(batch) if isinstance(batch, Bundle) else tuple(batch.shape)
            raise BadInput(f"--augment {spec}: returned {got} for a batch {shape}; return as many inputs")
        return made

    return augment


def _alike(result: object, batch: Inputs) -> Inputs | None:
    """Return what a user's function returned as inputs; None where it isn't as many samples of the same tensors."""
    if isinstance(batch, Tensor):
        return result if isinstance(result, Tensor) and len(result) == len(batch) else None
    values = list(result.values()) if isinstance(result, dict) else result
    if not isinstance(values, (tuple, list)) or not all(isinstance(value, Tensor) for value in values):
        return None
    if isinstance(result, dict):
        made = bundled({name: result[name] for name in batch.names}) if set(result) == set(batch.names) else None
    else:
        made = bundled(values) if not batch.names and len(values) == len(batch.tensors) else None
    return made if made is not None and all(len(tensor) == len(batch) for tensor in parts(made)) else None
