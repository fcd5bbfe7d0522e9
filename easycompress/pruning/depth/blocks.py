"""Which blocks of a model can go: found by watching it run and by experiment, not by class names."""

from __future__ import annotations

import copy
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from easycompress.core.inputs import Inputs, answer
from easycompress.pruning.depth.config import configs_of
from easycompress.pruning.depth.removal import by_parent, children, without

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

LISTS = (nn.Sequential, nn.ModuleList)

STREAM = "hidden_states"
"""The keyword under which Hugging Face layers may be handed what flows through the blocks."""

NUDGE = 0.1
"""How far the input of a block is moved, in its standard deviations, to see whether it passes through."""

PASSES = 0.3
"""Cosine between the moves of input and output from which on a shortcut is there; a final ReLU leaves about 0.7."""

GATE = 0.05
"""A block that scales its input by a factor further from 1 than this gates it: no shortcut."""


@dataclass(frozen=True)
class Removable:
    """`names` of the blocks that can go, in the order of the model. Of those in a list at most `limits[list]` go.

    A layer list is never emptied: a transformer without layers is none, and configurations know no empty stage.
    """

    names: tuple[str, ...]
    limits: dict[str, int]

    @property
    def count(self) -> int:
        """Return how many blocks can go together."""
        return sum(min(len(keys), self.limits.get(path, len(keys))) for path, keys in by_parent(self.names).items())

    def left(self, gone: Sequence[str]) -> list[str]:
        """Return the blocks of which one more can go when `gone` are gone."""
        lost = by_parent(gone)
        full = {path for path, limit in self.limits.items() if len(lost.get(path, ())) >= limit}
        return [name for name in self.names if name not in gone and name.rpartition(".")[0] not in full]

    def utmost(self) -> list[str]:
        """Return one choice of as many blocks as can go together, the last ones of each list."""
        chosen: list[str] = []
        for name in reversed(self.names):
            if name in self.left(chosen):
                chosen.append(name)
        return chosen[::-1]


def find_blocks(model: nn.Module, example: Inputs) -> Removable:
    """Return the residual blocks of `model`, in evaluation mode, that can be removed; `example` is a small batch.

    A block is called once, hands on a tensor of the shape and type that it is given, holds weights and has a shortcut:
    with its weights at zero its input still comes through. It is the outermost such entry of an nn.Sequential or
    nn.ModuleList that is no stage of several alike, or, outside of those, such a module with a tensor as only
    argument. Without it the model runs and answers in the same shape.
    """
    shape = _shape(model, example)
    steady = _steady(model, example)
    entries = _with_shortcut(model, example, [name for name in steady if _parent_is_list(model, name)])
    members = _outermost([name for name in entries if not _is_stage(model, name, entries)])
    single = [n for n, alone in steady.items() if alone and not _parent_is_list(model, n) and not _overlaps(n, members)]
    inside = _with_shortcut(model, example, single)
    names = [n for n in (*members, *_outermost(inside)) if not _owns_more(model, n)]
    order = {name: place for place, (name, _) in enumerate(model.named_modules())}
    found = _limited(model, sorted(names, key=order.__getitem__))
    if found.count and not _runs_without(model, example, found.utmost(), shape):
        found = _limited(model, [n for n in found.names if _runs_without(model, example, [n], shape)])
    return found


def first_tensor(value: Any) -> Tensor | None:  # noqa: ANN401 - whatever a module is given or returns
    """Return a tensor, or the tensor that a tuple or list starts with."""
    if isinstance(value, (tuple, list)) and value:
        value = value[0]
    return value if isinstance(value, Tensor) else None


def stream(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """Return what flows into a block that is called with these arguments."""
    value = args[0] if args else kwargs.get(STREAM)
    return value if isinstance(value, Tensor) else None


@contextmanager
def watched(
    model: nn.Module, names: Sequence[str], see: Callable[[str, tuple[Any, ...], dict[str, Any], Any], None]
) -> Iterator[None]:
    """Have `see(name, args, kwargs, output)` called for each call of the modules `names` within the context."""

    def hook(name: str) -> Callable[..., None]:
        def seen(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:  # noqa: ARG001, ANN401 - torch's signature
            see(name, args, kwargs, output)

        return seen

    handles = [model.get_submodule(n).register_forward_hook(hook(n), with_kwargs=True) for n in names]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _steady(model: nn.Module, example: Inputs) -> dict[str, bool]:
    """Return the modules with layers in them that are called once and keep the shape and type of their tensor.

    The value says whether that tensor is the only argument and the only result.
    """
    inner = [(name, module) for name, module in model.named_modules() if name and not _is_container(module)]
    calls: dict[str, list[bool | None]] = {}

    def see(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:  # noqa: ANN401 - any result
        given, made = stream(args, kwargs), first_tensor(output)
        keeps = (
            given is not None
            and made is not None
            and given.is_floating_point()
            and (given.shape, given.dtype) == (made.shape, made.dtype)
        )
        alone = len(args) == 1 and not kwargs and isinstance(output, Tensor)
        calls.setdefault(name, []).append(alone if keeps else None)

    with watched(model, [name for name, module in inner if _has_layers(module)], see), torch.no_grad():
        answer(model, example)
    return {name: seen[0] for name, seen in calls.items() if len(seen) == 1 and seen[0] is not None}


def _with_shortcut(model: nn.Module, example: Inputs, names: Sequence[str]) -> list[str]:
    """Return those of `names` that have a shortcut; each is tried on what it is given while the model runs."""
    if not names:
        return []
    found: list[str] = []
    trying: list[str] = []

    def hook(name: str) -> Callable[..., None]:
        def seen(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if trying:  # the experiment calls the module, and what is in it, again
                return
            trying.append(name)
            if _has_shortcut(module, args, kwargs):
                found.append(name)
            trying.clear()

        return seen

    handles = [model.get_submodule(n).register_forward_pre_hook(hook(n), with_kwargs=True) for n in names]
    try:
        with torch.no_grad():
            answer(model, example)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _has_shortcut(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Tell whether the block's input comes through when its matrices and kernels are zero."""
    zeros = {name: torch.zeros_like(value) for name, value in module.named_parameters() if value.dim() > 1}
    given = stream(args, kwargs)
    assert given is not None  # noqa: S101 - only blocks that were given a tensor are tried

    def out(value: Tensor) -> Tensor:
        rest, named = copy.deepcopy((args[1:], kwargs))  # a cache among them would remember this call
        if args:
            result = torch.func.functional_call(module, zeros, (value, *rest), named)
        else:
            result = torch.func.functional_call(module, zeros, (), {**named, STREAM: value})
        made = first_tensor(result)
        assert made is not None  # noqa: S101 - it gave one when the model ran
        return made.clone()

    generator = torch.Generator(given.device).manual_seed(0)
    noise = torch.randn(given.shape, generator=generator, dtype=given.dtype, device=given.device)
    move = NUDGE * given.std().clamp_min(1e-6) * noise
    plain = out(given.clone())
    moved = out(given + move) - plain
    cosine = torch.cosine_similarity(move.flatten(), moved.flatten(), dim=0)
    if not cosine > PASSES:
        return False
    if not torch.allclose(out(2 * given), 2 * plain, rtol=1e-3, atol=1e-6):
        return True
    through = moved.abs() > 0
    factor = (moved[through] / move[through]).median()
    return bool((factor - 1).abs() <= GATE)


def _is_container(module: nn.Module) -> bool:
    """Tell whether a module only calls its entries one after the other."""
    return isinstance(module, (nn.ModuleList, nn.ModuleDict)) or type(module).forward is nn.Sequential.forward


def _has_layers(module: nn.Module) -> bool:
    """Tell whether there are matrices or kernels in modules below: embeddings that are added are no layers."""
    return any(
        value.dim() > 1
        for part in module.modules()
        if part is not module and not isinstance(part, nn.Embedding)
        for value in part.parameters(recurse=False)
    )


def _parent_is_list(model: nn.Module, name: str) -> bool:
    return isinstance(model.get_submodule(name.rpartition(".")[0]), LISTS)


def _is_stage(model: nn.Module, name: str, residual: Sequence[str]) -> bool:
    """Tell whether the entry `name` of a list, or one of its kind beside it, holds a list of residual blocks alike.

    A stage of a single block looks like one: those beside it tell.
    """
    path, _, key = name.rpartition(".")
    beside = children(model.get_submodule(path))
    kind = type(beside[key])
    return any(_holds_alike(model, f"{path}.{k}", residual) for k, entry in beside.items() if type(entry) is kind)


def _holds_alike(model: nn.Module, name: str, residual: Sequence[str]) -> bool:
    """Tell whether a list within `name` holds two residual blocks of one type."""
    seen: set[tuple[str, type[nn.Module]]] = set()
    for inner in residual:
        if inner.startswith(f"{name}."):
            kind = (inner.rpartition(".")[0], type(model.get_submodule(inner)))
            if kind in seen:
                return True
            seen.add(kind)
    return False


def _outermost(names: Sequence[str]) -> list[str]:
    return [name for name in names if not any(name.startswith(f"{other}.") for other in names)]


def _overlaps(name: str, members: Sequence[str]) -> bool:
    return any(name.startswith(f"{other}.") or other.startswith(f"{name}.") for other in members)


def _owns_more(model: nn.Module, name: str) -> bool:
    """Tell whether a layer of a list holds parameters that none of the others has: T5's relative position bias."""
    path, _, key = name.rpartition(".")
    parent = model.get_submodule(path)
    if not isinstance(parent, nn.ModuleList):
        return False
    own = {n for n, _ in children(parent)[key].named_parameters()}
    others = [{n for n, _ in other.named_parameters()} for k, other in children(parent).items() if k != key]
    return bool(others) and not own <= set().union(*others)


def _limited(model: nn.Module, names: Sequence[str]) -> Removable:
    limits = {}
    for path in by_parent(names):
        parent = model.get_submodule(path)
        if isinstance(parent, nn.ModuleList) or (isinstance(parent, nn.Sequential) and configs_of(model, path)):
            limits[path] = len(parent) - 1
    return Removable(tuple(names), limits)


def _shape(model: nn.Module, example: Inputs) -> torch.Size:
    with torch.no_grad():
        return answer(model, example).shape


def _runs_without(model: nn.Module, example: Inputs, names: Sequence[str], shape: torch.Size) -> bool:
    try:
        with without(model, names):
            return _shape(model, example) == shape
    except (RuntimeError, LookupError, TypeError, ValueError, AttributeError):  # whatever forward code fails with
        return False
