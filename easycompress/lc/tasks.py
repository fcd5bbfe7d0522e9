"""Which parameters are compressed how: the papers' task syntax, checked against a model."""

from __future__ import annotations

import dataclasses
import difflib
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from easycompress.artifact.codable import codable
from easycompress.core.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import nn

    from easycompress.lc.projections.base import Projection

ViewName = Literal["vector", "matrix", "scheme-1", "scheme-2"]

VIEWS: tuple[ViewName, ...] = ("vector", "matrix", "scheme-1", "scheme-2")
"""How a compression sees a tensor. `scheme-1` and `scheme-2` make a matrix of a convolution, see codes.lowrank."""


@dataclass(frozen=True)
class Task:
    """One compression of one or several parameters, jointly where its problem couples them."""

    parameters: tuple[str, ...]
    projection: Projection


def each(names: Iterable[str], projection: Any) -> dict[tuple[str, ...], Any]:  # noqa: ANN401 - what parse_tasks takes
    """Return a task of its own for every parameter: a codebook a layer, a rank a layer. One name is a list of one."""
    return {(name,): projection for name in ((names,) if isinstance(names, str) else names)}


def weights_of(model: nn.Module) -> tuple[str, ...]:
    """Return the names of the weights of convolutions, linear and recurrent layers and embeddings; tied ones once."""
    return tuple(codable(model))


def parse_tasks(model: nn.Module, tasks: Mapping[Any, Any]) -> tuple[Task, ...]:
    """Return the checked tasks of a mapping: parameters -> compression, (view, compression), or a list of these.

    A key is a name or a tuple of names. What stands in a list is added up, and so are tasks that share a parameter: a
    codebook for each layer and one sparse correction over all of them is
    `{**each(names, AdaptiveQuantization(2)), tuple(names): ConstraintL0(share=0.01)}`.
    Raises BadInput for names that the model doesn't have, names given twice in one task, views that don't fit.
    """
    if not isinstance(tasks, Mapping) or not tasks:
        what = "no tasks" if isinstance(tasks, Mapping) else f"{_shown(tasks)} is no mapping of tasks"
        raise BadInput(f"lc: {what}; give one such as {{'fc1.weight': AdaptiveQuantization(2)}}")
    parameters = dict(model.named_parameters())
    found = []
    for key, value in tasks.items():
        if not isinstance(key, (str, tuple)):
            raise BadInput(f"lc: {_shown(key)} names no parameters; give a name or a tuple of names")
        names = (key,) if isinstance(key, str) else key
        _check_names(names, parameters, model)
        for view, projection in _compressions(names, value):
            chosen = _with_view(names, view, projection)
            if chosen.view == "matrix":
                flat = next((name for name in names if parameters[name].dim() < 2), None)  # noqa: PLR2004 - a matrix
                if flat is not None:
                    raise BadInput(f"lc: {flat}: a vector has no matrix view; leave it out of {_name(projection)}")
            found.append(Task(names, chosen))
    return tuple(found)


def _check_names(names: tuple[str, ...], parameters: Mapping[str, Any], model: nn.Module) -> None:
    if not names:
        raise BadInput("lc: a task without parameters; name at least one")
    tied = {name for name, _ in model.named_parameters(remove_duplicate=False)} - set(parameters)
    for name in names:
        if name in tied:
            raise BadInput(f"lc: {name}: tied to another parameter; name that one")
        if name not in parameters:
            near = difflib.get_close_matches(str(name), parameters, n=1)
            hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(list(parameters)[:6]) or 'none'}"
            raise BadInput(f"lc: the model has no parameter {name!r}; {hint}")
        if not parameters[name].is_floating_point():
            raise BadInput(f"lc: {name}: {parameters[name].dtype} is no floating-point parameter; leave it out")
    doubles = sorted({name for name in names if names.count(name) > 1})
    if doubles:
        raise BadInput(f"lc: {', '.join(doubles)}: named twice in one task; name each parameter once")


def _compressions(names: tuple[str, ...], value: Any) -> Iterator[tuple[str | None, Projection]]:  # noqa: ANN401 - user input
    items = value if isinstance(value, list) else [value]
    if not items:
        raise BadInput(f"lc: {', '.join(names)}: an empty list of compressions; give one, or leave the task out")
    for item in items:
        if isinstance(item, tuple) and len(item) != 2:  # noqa: PLR2004 - a pair
            raise BadInput(f"lc: {', '.join(names)}: {_shown(item)} is no pair (view, compression); add up in a list")
        view, projection = item if isinstance(item, tuple) else (None, item)
        if isinstance(projection, type) or not hasattr(projection, "project"):
            raise BadInput(
                f"lc: {', '.join(names)}: {_shown(projection)} is no compression; give e.g. AdaptiveQuantization(2)"
            )
        yield view, projection


def _with_view(names: tuple[str, ...], view: str | None, projection: Projection) -> Projection:
    if view is None:
        return projection
    where = f"lc: {', '.join(names)}: view {view!r}"
    if view not in VIEWS:
        raise BadInput(f"{where}: no such view; there are {', '.join(VIEWS)}")
    if (view == "vector") != (projection.view == "vector"):
        raise BadInput(f"{where} doesn't fit {_name(projection)}, which takes a {projection.view}")
    if view in ("scheme-1", "scheme-2"):
        return dataclasses.replace(projection, layout=view)  # type: ignore[type-var]  # matrix ones have it
    return projection


def _name(projection: Projection) -> str:
    return type(projection).__name__


def _shown(value: object) -> str:
    """Return what the user gave, on one short line."""
    return value.__name__ if isinstance(value, type) else " ".join(reprlib.repr(value).split())
