"""The decision trees as they were walked: the real trees, with what a report's answers say of the way taken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from easycompress.selection.explain import TREES, rules
from easycompress.selection.walk import Ask

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from easycompress.selection.walk import Tree

Answered = tuple[str, str]
"""An answer and its evidence."""


@dataclass(frozen=True)
class Node:
    """A question, or a choice when `rule` is empty. `answer` leads here; `lit`: the way taken comes through here."""

    answer: str
    rule: str
    text: str
    lit: bool
    evidence: str
    branches: tuple[Node, ...]

    @property
    def outcomes(self) -> tuple[str, ...]:
        """Every choice below, once, in order of appearance."""
        if not self.rule:
            return (self.text,)
        return tuple(dict.fromkeys(name for branch in self.branches for name in branch.outcomes))

    @property
    def ends(self) -> int:
        """How many leaves are below, this one included."""
        return sum(branch.ends for branch in self.branches) if self.rule else 1

    @property
    def answer_taken(self) -> str:
        """The answer along which the way goes on; empty where it doesn't."""
        return next((branch.answer for branch in self.branches if branch.lit), "")

    @property
    def questions(self) -> int:
        """How many questions are asked here and below."""
        return 1 + sum(branch.questions for branch in self.branches) if self.rule else 0

    def path(self) -> tuple[Node, ...]:
        """Return the way taken, from here to the choice."""
        following = next((branch for branch in self.branches if branch.lit), None)
        return (self, *(following.path() if following else ()))


@dataclass(frozen=True)
class Walked:
    """One tree that was walked: its category, all of it, and what it chose."""

    category: str
    root: Node

    @property
    def choice(self) -> str:
        """The choice the way ended at."""
        return self.root.path()[-1].text


def walked(decisions: Sequence[dict[str, Any]]) -> list[Walked]:
    """Return the trees that these decisions went through, in the order of their first questions.

    A tree in which the answers don't lead to a choice, because another version of it was asked, is left out.
    """
    homes = {name: category for name, (category, _) in rules().items()}
    asked: dict[str, list[dict[str, Any]]] = {}
    for decision in decisions:
        if (category := homes.get(str(decision.get("rule")))) is not None:
            asked.setdefault(category, []).append(decision)
    found = []
    for category, mine in asked.items():
        answers = _answers(TREES[category], mine)
        if answers is not None:
            found.append(Walked(category, _node(TREES[category], "", iter(answers))))
    return found


def unasked(walks: Sequence[Walked]) -> list[str]:
    """Return the categories of the trees that were not walked."""
    return [category for category in TREES if category not in {walk.category for walk in walks}]


def _answers(tree: Tree, decisions: Sequence[dict[str, Any]]) -> list[Answered] | None:
    """Return the answers from the root to a choice; None where they don't fit this tree or stop on the way."""
    answers: list[Answered] = []
    for decision in decisions:
        if not isinstance(tree, Ask):
            break
        if decision["rule"] != tree.rule.name or decision["answer"] not in tree.branches:
            return None
        answers.append((decision["answer"], str(decision["evidence"])))
        tree = tree.branches[decision["answer"]]
    return None if isinstance(tree, Ask) else answers


def _node(tree: Tree, answer: str, answers: Iterator[Answered] | None) -> Node:
    """Return a tree as nodes. `answers` from here on; None off the way.

    What is lit is a matter of the place and not of the rule: a tree asks the same rule in several places.
    """
    if not isinstance(tree, Ask):
        return Node(answer, "", tree.value, lit=answers is not None, evidence="", branches=())
    given, evidence = next(answers) if answers is not None else ("", "")
    branches = tuple(
        _node(branch, name, answers if answers is not None and name == given else None)
        for name, branch in tree.branches.items()
    )
    rule = tree.rule
    return Node(answer, rule.name, rule.question, lit=answers is not None, evidence=evidence, branches=branches)
