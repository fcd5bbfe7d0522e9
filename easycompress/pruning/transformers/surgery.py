"""Heads and neurons taken out of a module's tensors, and the numbers that its forwards read put right."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import nn

from easycompress.core.errors import CannotCompress
from easycompress.pruning.transformers.layout import GROUP_COUNTS, HEAD_COUNTS, TOTALS
from easycompress.pruning.transformers.narrow import narrowed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from easycompress.pruning.transformers.blocks import Block, Cut

WIDTHS = ("intermediate_size", "ffn_dim", "hidden_dim", "d_ff")
"""What feed-forward modules call their width, if they keep it."""


def groups_of(block: Block, units: Sequence[int]) -> list[int]:
    """Return the key-value groups that the query heads `units` use."""
    return sorted({unit * block.groups // block.units for unit in units})


def places(cut: Cut, block: Block, units: Sequence[int]) -> Tensor:
    """Return where along the cut's axis the heads or neurons `units` are."""
    kept = groups_of(block, units) if cut.per == "group" else units
    starts = torch.tensor(list(kept), dtype=torch.long)[:, None] * cut.width + cut.offset
    return (starts + torch.arange(cut.width)).flatten()


@torch.no_grad()
def silence(model: nn.Module, block: Block, units: Sequence[int]) -> None:
    """Set to zero what `units` give to the rest of the model: the same as their removal, in the old shapes."""
    for cut in block.outputs:
        model.get_parameter(cut.tensor).index_fill_(cut.axis, places(cut, block, units), 0.0)


@torch.no_grad()
def keep(model: nn.Module, block: Block, units: Sequence[int]) -> None:
    """Leave only the heads or neurons `units` of a block, in order, in the model itself."""
    if len(units) == block.units:
        return
    owner = model.get_submodule(block.name) if block.kind == "feed-forward" else keep_size(model, block)
    select(model, [(cut, places(cut, block, units)) for cut in block.cuts])
    if block.kind == "attention":
        _tell_heads(owner, block, units)
    else:
        tell(owner, WIDTHS, block.units, len(units))


def keep_size(model: nn.Module, block: Block) -> nn.Module:
    """Return a block's attention module, put in the form that keeps its head size and scale."""
    return _replace(model, block.name, narrowed(model.get_submodule(block.name)))


@torch.no_grad()
def select(model: nn.Module, kept: Sequence[tuple[Cut, Tensor]]) -> None:
    """Leave only the given places along the axis of each cut.

    A tensor that several cuts share (queries, keys and values in one matrix) is cut once, at all places together.
    """
    wanted: dict[tuple[str, int], list[Tensor]] = {}
    for cut, where in sorted(kept, key=lambda one: one[0].offset):
        wanted.setdefault((cut.tensor, cut.axis), []).append(where)
    for (tensor, axis), found in wanted.items():
        path, _, name = tensor.rpartition(".")
        holder = model.get_submodule(path)
        old = model.get_parameter(tensor)
        new = nn.Parameter(old.detach().index_select(axis, torch.cat(found)), requires_grad=old.requires_grad)
        setattr(holder, name, new)
        recount(holder)


def _replace(model: nn.Module, path: str, module: nn.Module) -> nn.Module:
    """Put a module at a path, where it isn't there already."""
    if model.get_submodule(path) is module:
        return module
    if not path:
        raise CannotCompress(
            f"transformer pruning: the model is nothing but {type(model).__name__}, which needs another form for fewer "
            "heads; give a module that holds it"
        )
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, module)
    for encoder in model.modules():
        if isinstance(encoder, nn.TransformerEncoder):  # nested tensors need the fused kernel
            encoder.use_nested_tensor = False
    return module


def recount(module: nn.Module) -> None:
    """Make the counts that a layer keeps of itself those of its weight."""
    if isinstance(module, (nn.LayerNorm, nn.RMSNorm)):
        module.normalized_shape = tuple(module.weight.shape)
    elif isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        module.out_channels, module.in_channels = module.weight.shape[0], module.weight.shape[1] * module.groups
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif hasattr(module, "nf") and isinstance(module.weight, nn.Parameter):
        module.nx, module.nf = module.weight.shape  # type: ignore[assignment]
    elif isinstance(module, nn.Embedding):
        module.num_embeddings, module.embedding_dim = module.weight.shape


def _tell_heads(module: nn.Module, block: Block, units: Sequence[int]) -> None:
    heads, groups = len(units), len(groups_of(block, units))
    size = block.outputs[0].width
    config = getattr(module, "config", None)
    if hasattr(module, "qkv_proj") and getattr(config, "num_attention_heads", None) == block.units:
        own = copy.copy(config)  # Phi-3 splits by the configuration that all its layers share
        setattr(module, "config", own)  # noqa: B010 - a plain attribute, which nn.Module's types don't know
        tell(own, ("num_attention_heads",), block.units, heads)
    tell(module, HEAD_COUNTS, block.units, heads)
    tell(module, GROUP_COUNTS, block.groups, groups)
    tell(module, TOTALS, block.units * size, heads * size)
    tell(module, ("num_key_value_groups",), block.units // block.groups, heads // groups)


def tell(module: object, names: Sequence[str], old: int, new: int) -> None:
    """Change those of the attributes that hold the old number."""
    for name in names:
        if getattr(module, name, None) == old:
            setattr(module, name, new)
