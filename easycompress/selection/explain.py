"""Explains a rule: what it asks, from which threshold on, who says so, where the code stands, where answers lead."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING

from easycompress.core.errors import BadInput
from easycompress.selection.trees.distillation import DISTILLATION
from easycompress.selection.trees.lc import LC
from easycompress.selection.trees.pruning import PRUNING
from easycompress.selection.trees.quantization import QUANTIZATION
from easycompress.selection.trees.strategy import STRATEGY
from easycompress.selection.trees.structure import LESSER, STRUCTURE
from easycompress.selection.walk import Ask, asks

if TYPE_CHECKING:
    from easycompress.selection.rules import Rule
    from easycompress.selection.walk import Tree

TREES: dict[str, Tree] = {
    "pruning strategy": STRATEGY,
    "structure": STRUCTURE,
    "structure below the target": LESSER,
    "pruning technique": PRUNING,
    "distillation": DISTILLATION,
    "quantization": QUANTIZATION,
    "learning-compression": LC,
}
"""Every tree by its category, in the order in which they are told."""

_ROOT = Path(__file__).parents[2]


def rules() -> dict[str, tuple[str, Rule]]:
    """Return category and rule by the rule's name: tree by tree, by number."""
    found: dict[str, tuple[str, Rule]] = {}
    for category, tree in TREES.items():
        for rule in sorted({ask.rule for ask in asks(tree)}, key=lambda rule: int(rule.name[1:])):
            found[rule.name] = category, rule
    return found


def explain(rule: str | None = None) -> str:
    """Return one rule explained over several lines, or without a name all rules, one line each.

    Raises BadInput for an unknown name, with those of its letter, or else the first of every tree.
    """
    known = rules()
    if rule is None:
        return "\n".join(f"{name}  {category}: {entry.question}" for name, (category, entry) in known.items())
    name = rule.strip().upper()
    if name not in known:
        near = [n for n in known if n[0] == name[:1]] or [n for n in known if n.endswith("1")]
        raise BadInput(
            f"explain {rule}: unknown rule; did you mean {', '.join(near)}? `easycompress explain` lists all"
        )
    category, entry = known[name]
    lines = [
        f"{name} ({category})",
        f"question   {entry.question}",
        f"threshold  {entry.threshold}",
        f"source     {entry.source}",
        f"code       {where(entry)}",
    ]
    lines += [f"{answer} -> {' or '.join(places)}" for answer, places in destinations(TREES[category], name).items()]
    return "\n".join(lines)


def where(rule: Rule, *, line: bool = True) -> str:
    """Return file and line of the function that answers a rule, the file relative to the package's parent."""
    path = Path(inspect.getfile(rule.ask)).relative_to(_ROOT).as_posix()
    return f"{path}:{inspect.getsourcelines(rule.ask)[1]}" if line else path


def destinations(tree: Tree, name: str) -> dict[str, list[str]]:
    """Return where each answer of the rule `name` leads, wherever in the tree it is asked."""
    found: dict[str, list[str]] = {}
    for ask in asks(tree):
        if ask.rule.name == name:
            for answer, branch in ask.branches.items():
                place = branch.rule.name if isinstance(branch, Ask) else branch.value
                places = found.setdefault(answer, [])
                if place not in places:
                    places.append(place)
    return found
