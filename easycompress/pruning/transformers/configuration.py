"""What a model's own configuration can say about its heads and feed-forward widths. Knows no library by name.

A model with `config` and `save_pretrained` is built from its configuration: whether a changed configuration describes
the pruned model is found by building that model without memory (device meta) and comparing shapes.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch

from easycompress.pruning.transformers.surgery import groups_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import nn

    from easycompress.pruning.transformers.blocks import Block

FEED_FORWARD = ("intermediate_size", "d_ff", "hidden_dim", "ffn_dim", "encoder_ffn_dim", "decoder_ffn_dim", "n_inner")
HEADS = ("num_attention_heads", "num_heads", "n_heads", "n_head", "encoder_attention_heads", "decoder_attention_heads")
GROUPS = ("num_key_value_heads",)
HEAD_SIZES = ("d_kv", "head_dim")
HIDDEN = ("hidden_size", "n_embd", "d_model", "dim")

Settings = dict[str, Any]
"""Fields of a configuration and their new values: numbers, or a dictionary of them."""


def configured(model: nn.Module) -> tuple[str, nn.Module] | None:
    """Return the outermost module that a configuration describes, with its path, None where there is none."""
    for name, module in model.named_modules():
        if hasattr(getattr(module, "config", None), "to_dict") and hasattr(module, "save_pretrained"):
            return name, module
    return None


def feed_forward_changes(config: object, old: int, new: int) -> Settings:
    """Return the settings that say a feed-forward width; empty where none does."""
    found: Settings = {name: new for name in FEED_FORWARD if getattr(config, name, None) == old}
    if not found and getattr(config, "n_inner", 0) is None:  # GPT-2: unset is four times the width
        found = {"n_inner": new}
    return found


def head_changes(config: object, block: Block, heads: int, groups: int) -> Settings:
    """Return the settings that say the numbers of heads and key-value heads at the head size there is."""
    found: Settings = {name: heads for name in HEADS if getattr(config, name, None) == block.units}
    found |= {name: groups for name in GROUPS if getattr(config, name, None) == block.groups}
    size = block.outputs[0].width
    if not any(name == "d_kv" and getattr(config, name, None) == size for name in HEAD_SIZES):
        found["head_dim"] = size
    return found


def size_changes(config: object, old: int, new: int) -> Settings:
    """Return the setting that says a head size."""
    return {"d_kv" if getattr(config, "d_kv", None) == old else "head_dim": new}


def joint_changes(config: object, block: Block, heads: int) -> tuple[int, Settings]:
    """Return the hidden width, and the settings that say fewer heads with a hidden width in the same proportion.

    Both are empty where the configuration doesn't say a width that its heads share out.
    """
    width = block.units * block.outputs[0].width
    found: Settings = {name: heads * block.outputs[0].width for name in HIDDEN if getattr(config, name, None) == width}
    if not found:
        return 0, {}
    if getattr(config, "n_inner", 0) is None:  # GPT-2: unset it would follow the width
        found["n_inner"] = 4 * width
    return width, found | {name: heads for name in HEADS if getattr(config, name, None) == block.units}


def change(model: nn.Module, settings: Mapping[str, Any]) -> None:
    """Put settings into every copy of the configuration that the configured part of the model holds."""
    found = configured(model)
    if found is None or not settings:
        return
    root = found[1]
    kind = type(root.config)
    for config in {id(c): c for m in root.modules() if isinstance(c := getattr(m, "config", None), kind)}.values():
        for name, value in settings.items():
            setattr(config, name, copy.copy(value))


def accepts(config: Any, settings: Mapping[str, Any]) -> bool:  # noqa: ANN401 - a class of the model's library
    """Tell whether the configuration's own checks let the settings pass."""
    try:
        changed(config, settings)
    except Exception:  # noqa: BLE001 - whatever the library raises, it means no
        return False
    return True


def describes(model: nn.Module, settings: Mapping[str, Any], kept: Sequence[tuple[Block, Sequence[int]]]) -> bool:
    """Tell whether the configuration with `settings` builds a model with the shapes that `kept` units leave."""
    shapes = built_shapes(model, settings)
    if shapes is None or not settings:
        return False
    wanted: dict[tuple[str, int], int] = {}
    for block, units in kept:
        for cut in block.cuts:
            count = len(groups_of(block, units)) if cut.per == "group" else len(units)
            wanted[cut.tensor, cut.axis] = wanted.get((cut.tensor, cut.axis), 0) + count * cut.width
    return all(name in shapes and shapes[name][axis] == size for (name, axis), size in wanted.items())


def built(model: nn.Module, settings: Mapping[str, Any]) -> tuple[str, nn.Module] | None:
    """Return the path of the configured part and what the configuration with `settings` builds there, without memory.

    None where there is no configuration, or where the class can't be built from it.
    """
    found = configured(model)
    if found is None:
        return None
    path, root = found
    try:
        with torch.device("meta"):
            return path, type(root)(changed(root.config, settings))
    except Exception:  # noqa: BLE001 - a class that can't be built this way has no checked configuration
        return None


def built_shapes(model: nn.Module, settings: Mapping[str, Any]) -> dict[str, tuple[int, ...]] | None:
    """Return the shapes of the parameters that the configuration with `settings` builds, named as in `model`.

    None where nothing can be built.
    """
    made = built(model, settings)
    if made is None:
        return None
    prefix = f"{made[0]}." if made[0] else ""
    return {prefix + name: tuple(p.shape) for name, p in made[1].named_parameters(remove_duplicate=False)}


def changed(config: Any, settings: Mapping[str, Any]) -> Any:  # noqa: ANN401 - a class of the model's library
    """Return a changed copy that went the way of a saved file, so that the library's checks ran."""
    copied = copy.deepcopy(config)
    for name, value in settings.items():
        setattr(copied, name, value)
    fresh = type(config).from_dict(copied.to_dict())
    implementation = getattr(config, "_attn_implementation", None)
    if implementation is not None:
        fresh._attn_implementation = implementation  # noqa: SLF001 - not part of a saved configuration
    return fresh
