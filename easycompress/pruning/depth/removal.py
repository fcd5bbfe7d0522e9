"""Blocks taken out of a model by name, and put back."""

from __future__ import annotations

import functools
from contextlib import contextmanager
from typing import TYPE_CHECKING

from torch import nn

from easycompress.pruning.depth.config import configs_of, lower_config, renumber

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

Undo = list["Callable[[], None]"]


def remove(model: nn.Module, names: Sequence[str]) -> Undo:
    """Take the blocks `names` out of `model`, in place; return what puts them back, last change last.

    All names are those of the model as it comes in. Out of an nn.ModuleList, whose forward code may index it, the rest
    is renumbered, with the Hugging Face configuration and the layers' own indices; an nn.Sequential keeps its other
    keys, so that parameters keep their names, unless a configuration builds it; elsewhere an nn.Identity takes the
    block's place. Raises AttributeError where there is no such block.
    """
    undo: Undo = []
    parents = {path: model.get_submodule(path) for path in by_parent(names)}
    for path, gone in by_parent(names).items():
        if missing := gone - children(parents[path]).keys():
            raise AttributeError(f"{path or 'the model'} has no block {', '.join(sorted(missing))}")
    for path, gone in by_parent(names).items():
        parent = parents[path]
        before = children(parent)
        undo.append(functools.partial(_refill, parent, before))
        kept = {key: module for key, module in before.items() if key not in gone}
        if isinstance(parent, nn.ModuleList) or (isinstance(parent, nn.Sequential) and configs_of(model, path)):
            places = [place for place, key in enumerate(before) if key in kept]
            undo += renumber(list(kept.values()), places)
            undo += lower_config(model, path, places, len(before))
            numbered = all(key.isdigit() for key in before)
            _refill(parent, {str(i): m for i, m in enumerate(kept.values())} if numbered else kept)
        elif isinstance(parent, nn.Sequential):
            _refill(parent, kept)
        else:
            _refill(parent, {key: kept.get(key, nn.Identity()) for key in before})
    return undo


def restore(undo: Undo) -> None:
    """Put back what remove() took."""
    for step in reversed(undo):
        step()


@contextmanager
def without(model: nn.Module, names: Sequence[str]) -> Iterator[None]:
    """Take blocks out for a while."""
    undo = remove(model, names)
    try:
        yield
    finally:
        restore(undo)


def by_parent(names: Sequence[str]) -> dict[str, set[str]]:
    """Return the keys of the blocks in each parent, parents by name."""
    parents: dict[str, set[str]] = {}
    for name in names:
        path, _, key = name.rpartition(".")
        parents.setdefault(path, set()).add(key)
    return parents


def children(parent: nn.Module) -> dict[str, nn.Module]:
    """Return a module's children by key, in order, one that stands there twice included twice."""
    return {key: module for key, module in parent._modules.items() if module is not None}  # noqa: SLF001 - named_children() leaves doubles out


def _refill(parent: nn.Module, modules: Mapping[str, nn.Module]) -> None:
    for key in children(parent):
        delattr(parent, key)
    for key, module in modules.items():
        parent.add_module(key, module)
