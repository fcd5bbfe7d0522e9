"""How channels pass through operators: one rule an operator, on the atoms along each dimension (see tracing).

A rule returns the labels of each output, or None where it can't say, and then every channel involved is pinned.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from easycompress.pruning.tracing import Atoms, Labels, Trace

    Rule = Callable[["Step"], "list[Labels] | None"]


@dataclass(frozen=True)
class Step:
    """One operator of a run: the tensors among its arguments, their labels as `given`, and what it returned."""

    trace: Trace
    sources: list[Tensor]
    given: list[Labels]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: list[Tensor]

    def dims(self, place: int, default: tuple[int, ...] = ()) -> set[int]:
        """Return the dimensions of the first source that the argument `dim`, or the one at `place`, names."""
        named = self.kwargs.get("dim", self.args[place] if len(self.args) > place else None)
        listed = default if named is None or named == [] else named if isinstance(named, (list, tuple)) else (named,)
        return {int(dim) % self.sources[0].dim() for dim in listed}


def _pointwise(step: Step) -> list[Labels] | None:
    """Tie what meets along a dimension; one value for all channels meets them all alike."""
    made: list[Labels] = []
    for output in step.outputs:
        labels: list[Atoms | None] = []
        for back in range(1, output.dim() + 1):
            size = output.shape[-back]
            meeting = [
                labels_[-back]
                for source, labels_ in zip(step.sources, step.given, strict=True)
                if source.dim() >= back and source.shape[-back] == size
            ]
            labels.append(_meet(step.trace, meeting) if size > 1 else None)
        made.append(tuple(reversed(labels)))
    return made


def _meet(trace: Trace, meeting: Sequence[Atoms | None]) -> Atoms | None:
    """Return the atoms of several dimensions that are one from here on."""
    first = next((atoms for atoms in meeting if atoms is not None), None)
    if first is None:
        return None
    for atoms in meeting:
        if atoms is not first:
            trace.tie(first, atoms)
    return first


def _view(step: Step) -> list[Labels] | None:
    """Follow channels that keep their dimension, or that are flattened together with others; a split pins them."""
    source, target = step.sources[0].shape, step.outputs[0].shape
    if 0 in source:
        return None
    made: list[Atoms | None] = [None] * len(target)
    left, right = [d for d, n in enumerate(source) if n > 1], [d for d, n in enumerate(target) if n > 1]
    while left:
        ins, outs = [left.pop(0)], [right.pop(0)]
        size_in, size_out = source[ins[0]], target[outs[0]]
        while size_in != size_out:  # the dimensions of both sides that hold the same elements
            if size_in < size_out:
                ins.append(left.pop(0))
                size_in *= source[ins[-1]]
            else:
                outs.append(right.pop(0))
                size_out *= target[outs[-1]]
        labelled = [(d, atoms) for d in ins if (atoms := step.given[0][d]) is not None]
        if not labelled:
            continue
        if len(labelled) > 1 or len(outs) > 1:
            step.trace.mixed.add("aten::view")
            step.trace.pin(*(atoms for _, atoms in labelled))
            continue
        place, atoms = labelled[0]
        along = [source[d] if d == place else 1 for d in ins]
        made[outs[0]] = np.broadcast_to(atoms.reshape(along), [source[d] for d in ins]).reshape(-1)
    return [tuple(made)]


def _same(step: Step) -> list[Labels] | None:
    return [step.given[0] for _ in step.outputs]


def _permute(step: Step) -> list[Labels] | None:
    return [tuple(step.given[0][dim] for dim in step.args[1])]


def _transpose(step: Step) -> list[Labels] | None:
    labels = list(step.given[0])
    first, second = step.args[1:3] if step.args[1:] else (0, len(labels) - 1)
    labels[first], labels[second] = labels[second], labels[first]
    return [tuple(labels)]


def _unsqueeze(step: Step) -> list[Labels] | None:
    dim = step.args[1] % step.outputs[0].dim()
    return [(*step.given[0][:dim], None, *step.given[0][dim:])]


def _squeeze(step: Step) -> list[Labels] | None:
    dims = step.dims(1, tuple(range(step.sources[0].dim())))
    gone = {dim for dim in dims if step.sources[0].shape[dim] == 1}
    return [tuple(atoms for dim, atoms in enumerate(step.given[0]) if dim not in gone)]


def _expand(step: Step) -> list[Labels] | None:
    target = step.outputs[0].shape
    new = len(target) - step.sources[0].dim()
    return [(*((None,) * new), *step.given[0])]  # a dimension that grows has one place, and so no channels


def _along(place: int, *, moves: bool = False) -> Rule:
    """Return the rule of an operator that cuts along one dimension, the argument at `place`, or `moves` things there.

    A forward finds a part of the channels by numbers of its own, so channels that are cut stay.
    """

    def rule(step: Step) -> list[Labels] | None:
        source, labels = step.sources[0], step.given[0]
        dims = step.dims(place, () if moves else (0,))
        if not dims:
            return None
        made: list[Labels] = []
        for output in step.outputs:
            lower = output.dim() < source.dim()
            touched = {d for d in dims if moves or lower or output.shape[d] != source.shape[d]}
            if any(labels[d] is not None for d in touched):
                (step.trace.mixed if moves else step.trace.cut).add("aten::roll" if moves else "aten::slice")
            step.trace.pin(*(labels[d] for d in touched))
            rest = [None if d in touched else atoms for d, atoms in enumerate(labels)]
            made.append(tuple(atoms for d, atoms in enumerate(rest) if not (lower and d in dims)))
        return made

    return rule


def _spatial(last: int) -> Rule:
    """Return the rule of an operator on the `last` dimensions of each channel for itself."""

    def rule(step: Step) -> list[Labels] | None:
        edge = step.sources[0].dim() - last
        step.trace.pin(*step.given[0][edge:])
        return [(*step.given[0][:edge], *((None,) * last)) for _ in step.outputs]

    return rule


def _reduce(step: Step) -> list[Labels] | None:
    """Drop the dimensions that are summed over: fewer channels are summed then."""
    source = step.sources[0]
    gone = step.dims(1, tuple(range(source.dim())))
    if step.outputs[0].dim() == source.dim():
        return [tuple(None if dim in gone else atoms for dim, atoms in enumerate(step.given[0])) for _ in step.outputs]
    return [tuple(atoms for dim, atoms in enumerate(step.given[0]) if dim not in gone) for _ in step.outputs]


def _softmax(step: Step) -> list[Labels] | None:
    """Pin channels that share out a whole among them."""
    step.trace.pin(*(step.given[0][dim] for dim in step.dims(1)))
    return [step.given[0]]


def _cat(step: Step) -> list[Labels] | None:
    """Put channels side by side; along the other dimensions they meet."""
    dims = step.outputs[0].dim()
    dim = next(iter(step.dims(1, (0,))))
    parts = [(s, labels) for s, labels in zip(step.sources, step.given, strict=True) if s.dim() == dims]
    made: list[Atoms | None] = []
    for d in range(dims):
        meeting = [labels[d] for _, labels in parts]
        if d != dim or all(atoms is None for atoms in meeting):
            made.append(_meet(step.trace, meeting))
            continue
        filled = []
        for (source, _), atoms in zip(parts, meeting, strict=True):
            filled.append(step.trace.fresh(source.shape[d]) if atoms is None else atoms)
            if atoms is None:  # places that are no channels, which stay
                step.trace.pin(filled[-1])
        made.append(np.concatenate(filled))
    return [tuple(made)]


def _pad(step: Step) -> list[Labels] | None:
    labels = list(step.given[0])
    for back in range(len(step.args[1]) // 2):
        if any(step.args[1][2 * back : 2 * back + 2]):
            step.trace.pin(labels[-1 - back])
            labels[-1 - back] = None
    return [tuple(labels)]


_PLANES = (
    "aten::max_pool2d_with_indices", "aten::avg_pool2d", "aten::_adaptive_avg_pool2d", "aten::adaptive_max_pool2d",
    "aten::upsample_nearest2d", "aten::upsample_bilinear2d", "aten::upsample_bicubic2d",
)  # fmt: skip
_VOLUMES = ("aten::max_pool3d_with_indices", "aten::avg_pool3d", "aten::_adaptive_avg_pool3d")

RULES: dict[str, Rule] = {
    "pointwise": _pointwise,
    **dict.fromkeys(("aten::view", "aten::_unsafe_view", "aten::reshape", "aten::_reshape_alias"), _view),
    **dict.fromkeys(("aten::clone", "aten::detach", "aten::alias", "aten::_to_copy", "aten::contiguous"), _same),
    "aten::permute": _permute,
    "aten::transpose": _transpose,
    "aten::t": _transpose,
    "aten::unsqueeze": _unsqueeze,
    "aten::squeeze": _squeeze,
    "aten::expand": _expand,
    "aten::slice": _along(1),
    "aten::select": _along(1),
    "aten::split": _along(2),
    "aten::split_with_sizes": _along(2),
    "aten::unbind": _along(1),
    "aten::roll": _along(2, moves=True),
    **dict.fromkeys(_PLANES, _spatial(2)),
    **dict.fromkeys(_VOLUMES, _spatial(3)),
    **dict.fromkeys(("aten::mean", "aten::sum", "aten::amax", "aten::var"), _reduce),
    **dict.fromkeys(("aten::_softmax", "aten::_log_softmax"), _softmax),
    "aten::cat": _cat,
    "aten::constant_pad_nd": _pad,
}
