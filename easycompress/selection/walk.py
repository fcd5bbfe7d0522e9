"""Decision trees as literals, and the one way to go through them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from easycompress.core.plan import Decision

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from easycompress.selection.heuristics import Heuristics
    from easycompress.selection.rules import Rule


@dataclass(frozen=True)
class Leaf:
    """A choice."""

    value: str


@dataclass(frozen=True)
class Ask:
    """A rule and, for every answer it can give here, what follows."""

    rule: Rule
    branches: Mapping[str, Tree]


Tree: TypeAlias = Ask | Leaf


def walk(tree: Tree, heuristics: Heuristics) -> tuple[str, tuple[Decision, ...]]:
    """Return the chosen leaf's value and the decisions on the way to it, in order."""
    decisions: list[Decision] = []
    while isinstance(tree, Ask):
        answer, evidence = tree.rule.ask(heuristics)
        decisions.append(Decision(rule=tree.rule.name, question=tree.rule.question, answer=answer, evidence=evidence))
        tree = tree.branches[answer]
    return tree.value, tuple(decisions)


def asks(tree: Tree) -> Iterator[Ask]:
    """Yield every question of a tree, from the root down."""
    if isinstance(tree, Ask):
        yield tree
        for branch in tree.branches.values():
            yield from asks(branch)


def leaves(tree: Tree) -> tuple[str, ...]:
    """Return every choice of a tree once, in order of appearance."""
    if isinstance(tree, Leaf):
        return (tree.value,)
    return tuple(dict.fromkeys(leaf for branch in tree.branches.values() for leaf in leaves(branch)))
