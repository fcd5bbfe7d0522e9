"""The residual stream: the hidden channels that every layer of a transformer reads and adds to, made narrower.

Where a configuration computes the size of a head as hidden width / heads, fewer heads can only be said together with a
hidden width that is smaller in the same proportion. Which axes are the stream's is read from the configuration itself:
the model that the changed one builds (without memory) is compared with the model there is.
"""

from __future__ import annotations

import contextlib
import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from easycompress.pruning.transformers.configuration import built_shapes, configured
from easycompress.pruning.transformers.surgery import recount, tell

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from easycompress.pruning.transformers.blocks import Block

WIDTHS = ("hidden_size", "n_embd", "d_model", "dim", "embed_dim")
"""What modules call the width of the stream, if they keep it."""


@dataclass(frozen=True)
class Stream:
    """`width` channels of which `kept` stay; `cuts` are the (tensor, axis) along which they lie, all in one order.

    A matrix that leads out of the stream with as many outputs, such as a pooler's, loses the same places.
    """

    width: int
    kept: int
    cuts: tuple[tuple[str, int], ...]

    def after(self, step: int, steps: int) -> int:
        """Return the channels left after one of several equal steps."""
        return self.width - (self.width - self.kept) * step // steps


def stream_of(
    model: nn.Module, blocks: Sequence[Block], settings: Mapping[str, Any], width: int, kept: int
) -> Stream | None:
    """Return the stream that the configuration with `settings` narrows from `width` to `kept` channels.

    None where the settings build nothing, where something else than the stream and the heads of `blocks` changes
    with them, or where layers outside of what the configuration describes could read the stream.
    """
    shapes, root = built_shapes(model, settings), configured(model)
    tensors = dict(model.named_parameters(remove_duplicate=False))
    if shapes is None or root is None or shapes.keys() != tensors.keys():
        return None
    heads = {(cut.tensor, cut.axis) for block in blocks for cut in block.cuts}
    cuts: list[tuple[str, int]] = []
    for name, tensor in tensors.items():
        if len(shapes[name]) != tensor.dim():
            return None
        for axis, (old, new) in enumerate(zip(tensor.shape, shapes[name], strict=True)):
            if old == new or (name, axis) in heads:
                continue
            if (old, new) != (width, kept):
                return None
            cuts.append((name, axis))
    return Stream(width, kept, tuple(cuts))


def best_channels(scores: Tensor, count: int) -> list[int]:
    """Return the `count` channels with the largest scores (width,), sorted; of equal ones the later go first."""
    return sorted(torch.sort(scores, descending=True, stable=True).indices[:count].tolist())


@torch.no_grad()
def silence_channels(model: nn.Module, stream: Stream, kept: Sequence[int]) -> None:
    """Set everything that writes or reads the channels that aren't `kept` to zero."""
    width = model.get_parameter(stream.cuts[0][0]).shape[stream.cuts[0][1]]
    gone = torch.tensor(sorted(set(range(width)) - set(kept)), dtype=torch.long)
    for name, axis in stream.cuts:
        model.get_parameter(name).index_fill_(axis, gone, 0.0)


@contextlib.contextmanager
def normalised_over(model: nn.Module, stream: Stream, kept: Sequence[int]) -> Iterator[None]:
    """Let the stream's normalisations see the `kept` channels only, and give zero at all others, for a while.

    With the other channels silenced the model then computes what it will compute without them.
    """
    cut = {name for name, axis in stream.cuts if axis == 0}
    places = torch.tensor(list(kept), dtype=torch.long)
    handles = []
    for name, module in model.named_modules():
        if f"{name}.weight".lstrip(".") in cut and is_norm(module):
            narrow = copy.deepcopy(module)
            for child, parameter in list(narrow.named_parameters(recurse=False)):
                setattr(narrow, child, nn.Parameter(parameter.detach()[places], requires_grad=False))
            recount(narrow)
            handles.append(module.register_forward_hook(_widened(narrow, places)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def is_norm(module: nn.Module) -> bool:
    """Tell whether a module is a normalisation over its last dimension, of whichever library."""
    weight = getattr(module, "weight", None)
    return "norm" in type(module).__name__.lower() and isinstance(weight, Tensor) and weight.dim() == 1


def _widened(narrow: nn.Module, places: Tensor) -> Any:  # noqa: ANN401 - a forward hook
    """Return the hook that puts a narrow normalisation in a wide one's place."""

    def hook(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return torch.zeros_like(output).index_copy(-1, places, narrow(inputs[0][..., places]))

    return hook


@torch.no_grad()
def keep_channels(model: nn.Module, stream: Stream, kept: Sequence[int]) -> None:
    """Leave only the `kept` channels, in order, in the model itself; weights that layers share stay shared."""
    places = torch.tensor(list(kept), dtype=torch.long)
    axes: dict[str, list[int]] = {}
    for name, axis in stream.cuts:
        axes.setdefault(name, []).append(axis)
    made: dict[int, tuple[nn.Parameter, nn.Parameter]] = {}  # with the old one, so that its id isn't given again
    for name, along in axes.items():
        old = model.get_parameter(name)
        if id(old) not in made:
            values = old.detach()
            width = values.shape[along[0]]
            for axis in along:
                values = values.index_select(axis, places)
            made[id(old)] = old, nn.Parameter(values.contiguous(), requires_grad=old.requires_grad)
        path, _, child = name.rpartition(".")
        holder = model.get_submodule(path)
        setattr(holder, child, made[id(old)][1])
        recount(holder)
    for module in model.modules():
        tell(module, WIDTHS, width, len(places))
