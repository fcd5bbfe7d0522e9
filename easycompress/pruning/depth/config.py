"""Hugging Face configurations kept true when layers go, so that save_pretrained and from_pretrained work on the result.

A configuration is known by its `to_dict`; transformers itself is not needed.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import nn

SPECIFIC = {
    "decoder": ("num_decoder_layers", "decoder_layers"),
    "encoder": ("num_encoder_layers", "encoder_layers"),
}
"""What counts the layers of one half of an encoder-decoder model; it goes before COMMON."""

COMMON = ("num_hidden_layers", "num_layers", "n_layer", "n_layers", "depth")

STAGES = "depths"
"""Hierarchical models: one count a stage."""

INDICES = ("layer_idx", "layer_index", "layer_id", "idx")
"""What a layer, or a part of it, calls its own place: caches go by it."""


def configs_of(model: nn.Module, path: str) -> list[Any]:
    """Return the configurations of the modules that hold `path`, outermost first, each once."""
    found: dict[int, Any] = {}
    parts = path.split(".")
    for depth in range(len(parts) + 1):
        config = getattr(model.get_submodule(".".join(parts[:depth])), "config", None)
        if hasattr(config, "to_dict"):
            found.setdefault(id(config), config)
    return list(found.values())


def lower_config(model: nn.Module, path: str, places: Sequence[int], count: int) -> list[Callable[[], None]]:
    """Make every configuration above the list `path` say that of `count` layers those at `places` are left.

    The outermost may describe several lists: of its fields only the most specific one that fits changes. An inner one
    is a half's own copy (T5): there all that fit do. Lists with an entry a layer are shortened. Return what undoes it.
    """
    undo: list[Callable[[], None]] = []
    half = next((SPECIFIC[part] for part in reversed(path.split(".")) if part in SPECIFIC), ())
    stage = next((int(part) for part in reversed(path.split(".")) if part.isdigit()), None)
    for rank, config in enumerate(configs_of(model, path)):
        depths = getattr(config, STAGES, None)
        if (
            isinstance(depths, (list, tuple))
            and stage is not None
            and depths[stage : stage + 1] == type(depths)([count])
        ):
            lowered = [len(places) if index == stage else depth for index, depth in enumerate(depths)]
            undo.append(_set(config, STAGES, type(depths)(lowered)))
            continue
        fitting = [name for name in (*half, *COMMON) if _number(config, name) == count]
        undo += [_set(config, name, len(places)) for name in fitting[: 1 if rank == 0 else None]]
        for name, value in list(vars(config).items()):
            if fitting and "layer" in name and isinstance(value, list) and len(value) == count:
                undo.append(_set(config, name, [value[place] for place in places]))
    return undo


def renumber(layers: Sequence[nn.Module], places: Sequence[int]) -> list[Callable[[], None]]:
    """Give what knows its place in the list, once `places`, its new one. Return what undoes it."""
    return [
        _set(module, name, new)
        for new, (layer, old) in enumerate(zip(layers, places, strict=True))
        for module in layer.modules()
        for name in INDICES
        if new != old and _number(module, name) == old
    ]


def _number(holder: object, name: str) -> int | None:
    value = getattr(holder, name, None)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _set(holder: object, name: str, value: object) -> Callable[[], None]:
    before = getattr(holder, name)
    setattr(holder, name, value)
    return functools.partial(setattr, holder, name, before)
