"""Writes docs/decision_trees.md from the trees: `python -m easycompress.selection.documentation [FILE]`."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from easycompress.selection.explain import TREES, rules, where
from easycompress.selection.walk import Ask

if TYPE_CHECKING:
    from easycompress.selection.walk import Tree

DEFAULT = "docs/decision_trees.md"

_HEAD = """# Decision trees

Generated from the code by `python -m easycompress.selection.documentation`; edit the trees in
`easycompress/selection/trees/`, not this file. `easycompress explain RULE` tells a rule on the terminal, and
`easycompress plan` shows every answer for a model with its evidence.
"""


def render() -> str:
    """Return the whole document."""
    parts = [_HEAD]
    for category, tree in TREES.items():
        table = [
            f"| {name} | {rule.question} | {rule.threshold} | {rule.source} | `{where(rule, line=False)}` |"
            for name, (home, rule) in rules().items()
            if home == category
        ]
        parts.append(
            f"## {category.capitalize()}\n\n"
            + "\n".join(["```mermaid", *_drawing(tree), "```", "", *_outline(tree, 0)])
            + "\n\n| rule | question | threshold | source | code |\n|---|---|---|---|---|\n"
            + "\n".join(table)
            + "\n"
        )
    return "\n".join(parts)


def _drawing(tree: Tree) -> list[str]:
    """Return a Mermaid flow chart: questions as rounded boxes, choices as angular ones; equal choices are one box."""
    lines = ["flowchart TD"]
    choices: dict[str, str] = {}
    counter = itertools.count(1)

    def draw(node: Tree) -> str:
        if not isinstance(node, Ask):
            if node.value not in choices:
                choices[node.value] = f"c{len(choices) + 1}"
                lines.append(f'  {choices[node.value]}["{node.value}"]')
            return choices[node.value]
        name = f"q{next(counter)}"
        lines.append(f'  {name}(["{node.rule.name}. {node.rule.question}"])')
        for answer, branch in node.branches.items():
            lines.append(f'  {name} -- "{answer}" --> {draw(branch)}')
        return name

    draw(tree)
    return lines


def _outline(tree: Tree, depth: int, answer: str = "") -> list[str]:
    """Return a nested list: one line a question or choice, indented below the answer that leads to it."""
    lead = "  " * depth + "- " + (f"*{answer}*: " if answer else "")
    if not isinstance(tree, Ask):
        return [f"{lead}**{tree.value}**"]
    lines = [f"{lead}{tree.rule.name}. {tree.rule.question}"]
    for branch_answer, branch in tree.branches.items():
        lines += _outline(branch, depth + 1, branch_answer)
    return lines


def main(arguments: list[str]) -> None:
    """Write the document to the file named first, by default docs/decision_trees.md below the working folder."""
    Path(arguments[0] if arguments else DEFAULT).write_text(render(), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
