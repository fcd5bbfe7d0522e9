"""The C step over all tasks of a model: one by one where they are alone, by alternation where they add up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from easycompress.codes.composed import Additive
from easycompress.core.ledger import spending
from easycompress.lc.projections.pruned import ConstraintL0, ConstraintL1, PenaltyL0, PenaltyL1
from easycompress.lc.projections.quantized import Binarization, FixedCodebook, Ternarization

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from easycompress.codes.base import Code
    from easycompress.lc.projections.base import Projection
    from easycompress.lc.tasks import Task

MOST_ROUNDS = 30
"""The papers alternate 30 times; warm, one or two rounds are enough."""

SETTLED = 1e-3
"""Alternation ends when a round lowers the squared distance by less than this share of it."""


PRUNINGS = (ConstraintL0, ConstraintL1, PenaltyL0, PenaltyL1)


@dataclass(frozen=True)
class Theta:
    """What all tasks hold: one tuple of codes a task, one code a parameter of that task; `rounds` it took."""

    codes: tuple[tuple[Code, ...], ...]
    rounds: int = 1


def components(tasks: Sequence[Task]) -> list[list[int]]:
    """Return the tasks that share parameters, directly or by others, as lists of indices in order."""
    groups: list[tuple[set[str], list[int]]] = []
    for index, task in enumerate(tasks):
        names, members = set(task.parameters), [index]
        rest = []
        for other, indices in groups:
            if names & other:
                names, members = names | other, indices + members
            else:
                rest.append((other, indices))
        groups = [*rest, (names, members)]
    return [sorted(members) for _, members in groups]


@spending("projection")
def c_step(tasks: Sequence[Task], weights: Mapping[str, Tensor], mu: float, warm: Theta | None = None) -> Theta:
    """Return argmin over Theta of ||w - Delta(Theta)||^2 + (2 / mu) lambda C(Theta) for the tensors `weights`.

    Tasks that share no parameter are solved exactly, as well as their projections do it. Those that add up are
    alternated over (002, equation 4) until the distance settles, from `warm` or from nothing. Where all but one have
    fixed codebooks and that one prunes, one round from nothing is the exact solution (002, Theorem 4.1).
    """
    codes: list[tuple[Code, ...]] = [()] * len(tasks)
    most = 1
    for members in components(tasks):
        if len(members) == 1:
            index = members[0]
            tensors = [weights[name] for name in tasks[index].parameters]
            codes[index] = tuple(tasks[index].projection.project(tensors, mu, warm.codes[index] if warm else None))
            continue
        rounds = _alternate(tasks, members, weights, mu, warm, codes)
        most = max(most, rounds)
    return Theta(tuple(codes), most)


def _alternate(
    tasks: Sequence[Task],
    members: list[int],
    weights: Mapping[str, Tensor],
    mu: float,
    warm: Theta | None,
    codes: list[tuple[Code, ...]],
) -> int:
    """Fill in the codes of tasks that add up; return the rounds."""
    names = dict.fromkeys(name for index in members for name in tasks[index].parameters)
    residual = {name: weights[name].detach().float().clone() for name in names}
    parts: dict[int, list[Tensor]] = {}
    exact = _exact_order(tasks, members)
    for index in members:
        if warm is not None and exact is None:  # the nearest entries are those to w, without earlier corrections
            codes[index] = warm.codes[index]
            parts[index] = [code.dense() for code in codes[index]]
            for name, part in zip(tasks[index].parameters, parts[index], strict=True):
                residual[name] -= part
    rounds = MOST_ROUNDS if exact is None else 1
    before = float("inf")
    for number in range(1, rounds + 1):
        for index in exact or members:
            task = tasks[index]
            if index in parts:
                for name, part in zip(task.parameters, parts[index], strict=True):
                    residual[name] += part
            tensors = [residual[name] for name in task.parameters]
            codes[index] = tuple(task.projection.project(tensors, mu, codes[index] or None))
            parts[index] = [code.dense() for code in codes[index]]
            for name, part in zip(task.parameters, parts[index], strict=True):
                residual[name] -= part
        distance = float(sum(torch.sum(r * r) for r in residual.values()))
        if before - distance <= SETTLED * distance:
            return number
        before = distance
    return rounds


def _exact_order(tasks: Sequence[Task], members: list[int]) -> list[int] | None:
    """Return the order in which one round is exact, by Theorem 4.1: a fixed codebook a parameter, then one pruning.

    The theorem says it for an l0 constraint. Its proof needs only that smaller residuals never cost more, which holds
    for all four prunings. None where it doesn't apply.
    """
    fixed = [index for index in members if _fixed(tasks[index].projection)]
    rest = [index for index in members if index not in fixed]
    named = [name for index in fixed for name in tasks[index].parameters]
    pruned = len(rest) == 1 and isinstance(tasks[rest[0]].projection, PRUNINGS)
    return fixed + rest if pruned and len(named) == len(set(named)) else None


def _fixed(projection: Projection) -> bool:
    """Tell whether the levels are given."""
    unscaled = isinstance(projection, (Binarization, Ternarization)) and not projection.scaled
    return unscaled or isinstance(projection, FixedCodebook)


def dense(tasks: Sequence[Task], theta: Theta) -> dict[str, Tensor]:
    """Return Delta(Theta): the float32 tensor of every compressed parameter."""
    return {name: code.dense() for name, code in by_parameter(tasks, theta).items()}


def by_parameter(tasks: Sequence[Task], theta: Theta) -> dict[str, Code]:
    """Return the code of every compressed parameter, a sum where several tasks name it."""
    found: dict[str, list[Code]] = {}
    for task, codes in zip(tasks, theta.codes, strict=True):
        for name, code in zip(task.parameters, codes, strict=True):
            found.setdefault(name, []).append(code)
    return {name: codes[0] if len(codes) == 1 else Additive(tuple(codes)) for name, codes in found.items()}
