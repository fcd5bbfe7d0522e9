"""Inputs for a model that comes without any data: enough to export and run it, not to judge it.

Only their shape and type are right. What is computed on them says whether the compressed model still computes nearly
the same, never how good it is.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from easycompress.core.errors import BadInput, one_line
from easycompress.core.inputs import Bundle, answer, bundled, described
from easycompress.intake.lift_proof import EXAMPLE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from easycompress.core.inputs import Inputs

SAMPLES = 64
"""Enough for a spread of the answers, few enough for a large model."""

SEED = 0
TOKENS = 32
"""Length of made-up texts, at most what the model takes."""

SIDES = (224, 32, 28, 64, 8, 16, 96, 128, 256, 299, 384)
"""Sizes of square images that are tried in turn; the first that the model takes is used."""

IDS = ("input_ids", "decoder_input_ids")
MASK = "attention_mask"


def make_inputs(model: nn.Module, shape: str | None) -> tuple[Inputs, str]:
    """Return SAMPLES made-up inputs, and in one sentence what they are.

    `shape` is the user's, one sample without the batch: `3,32,32`. Else the inputs that a lifted module was exported
    with tell, the model's own configuration, or its first layer. Raises BadInput where none of that does.
    """
    example = getattr(model, "meta", {}).get(EXAMPLE)
    generator = torch.Generator().manual_seed(SEED)
    if shape is not None:
        inputs: Inputs = shaped(shape, SAMPLES, generator)
        _check(model, inputs, f"--shape {shape}")
    elif example is not None:
        inputs = _like(example[0] if len(example) == 1 else Bundle(example), generator)
    else:
        inputs = _configured(model, generator) or _first_fitting(model, generator)
    return inputs, f"no data was given: quality isn't judged; random inputs of shape {described(inputs)} stand in"


def shaped(shape: str, count: int, generator: torch.Generator | None = None) -> Tensor:
    """Return `count` random samples of the shape that a user wrote as `3,224,224`. Raises BadInput for no shape."""
    return torch.randn(count, *_sizes(shape), generator=generator)


def _sizes(shape: str) -> tuple[int, ...]:
    try:
        sizes = tuple(int(part) for part in shape.split(","))
    except ValueError:
        sizes = ()
    if not sizes or min(sizes) < 1:
        raise BadInput(f"--shape {shape}: not a shape; write one sample's without the batch, such as 3,224,224")
    return sizes


def _check(model: nn.Module, inputs: Inputs, where: str) -> None:
    try:
        with torch.no_grad():
            answer(model, inputs[:2])
    except Exception as error:  # the user's own forward may raise anything
        raise BadInput(
            f"{where}: the model doesn't take it: {one_line(error, 160)}; give the shape it takes"
        ) from error


def _like(example: Inputs, generator: torch.Generator) -> Inputs:
    """Return samples like those of the model's file: its own integers in another order, normal numbers for floats."""

    def made(tensor: Tensor) -> Tensor:
        if tensor.is_floating_point():
            return torch.randn(SAMPLES, *tensor.shape[1:], generator=generator)
        flat = tensor.flatten()
        places = torch.randint(len(flat), (SAMPLES * flat[: tensor[0].numel()].numel(),), generator=generator)
        return flat[places].reshape(SAMPLES, *tensor.shape[1:])

    if isinstance(example, Bundle):
        return Bundle(tuple(made(tensor) for tensor in example.tensors), example.names)
    return made(example)


def _configured(model: nn.Module, generator: torch.Generator) -> Inputs | None:
    """Return what a pretrained model's configuration describes: token numbers, or images; None for other modules."""
    config: Any = getattr(model, "config", None)
    names = inspect.signature(model.forward).parameters
    if config is None or not hasattr(model, "main_input_name"):
        return None
    found: dict[str, Tensor] = {}
    if "input_ids" in names and hasattr(config, "vocab_size"):
        most = min(TOKENS, int(getattr(config, "max_position_embeddings", TOKENS) or TOKENS))
        length = max(1, most - 2)  # some keep two positions for padding
        decodes = bool(getattr(config, "is_encoder_decoder", False))
        for name in (name for name in IDS[: 1 + decodes] if name in names):
            found[name] = torch.randint(int(config.vocab_size), (SAMPLES, length), generator=generator)
        if MASK in names:
            found[MASK] = torch.ones(SAMPLES, length, dtype=torch.long)
    elif "pixel_values" in names:
        size = getattr(config, "image_size", SIDES[0])
        side = tuple(size) if isinstance(size, (tuple, list)) else (int(size), int(size))
        channels = int(getattr(config, "num_channels", 3))
        found["pixel_values"] = torch.randn(SAMPLES, channels, *side, generator=generator)
    if not found:
        return None
    inputs = bundled(found)
    _check(model, inputs, "the model's configuration")
    return inputs


def _first_fitting(model: nn.Module, generator: torch.Generator) -> Inputs:
    """Return the first candidate that the model takes, by its first layer."""
    for inputs in _candidates(model, generator):
        try:
            with torch.no_grad():
                answer(model, inputs[:2])
        except Exception:  # noqa: BLE001, S112 - a size that doesn't fit raises whatever the user's forward does
            continue
        return inputs
    raise BadInput(
        "no data given, and nothing tells what the model takes: add --data, or --shape, one sample's shape without the "
        "batch, such as 3,224,224"
    )


def _candidates(model: nn.Module, generator: torch.Generator) -> Iterator[Inputs]:
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            for side in SIDES:
                yield torch.randn(SAMPLES, layer.in_channels, side, side, generator=generator)
            return
        if isinstance(layer, nn.Linear):
            yield torch.randn(SAMPLES, layer.in_features, generator=generator)
            yield torch.randn(SAMPLES, TOKENS, layer.in_features, generator=generator)
            return
        if isinstance(layer, nn.Embedding):
            yield torch.randint(layer.num_embeddings, (SAMPLES, TOKENS), generator=generator)
            return
        if isinstance(layer, nn.RNNBase):
            yield torch.randn(SAMPLES, TOKENS, layer.input_size, generator=generator)
            return
        if isinstance(layer, nn.Conv1d):
            yield torch.randn(SAMPLES, layer.in_channels, 10 * TOKENS, generator=generator)
            return
