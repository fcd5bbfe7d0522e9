"""Draws a walked tree: the way taken goes straight down, what was not taken leaves it sideways and dim.

On a phone the ways not taken stand below their question instead of beside it. Those with many outcomes are one line.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from easycompress.report import svg

if TYPE_CHECKING:
    from collections.abc import Sequence

    from markupsafe import Markup

    from easycompress.report.trees import Node, Walked

CARD = 380
"""Width in px of a question on the way taken, in the wide drawing."""

SPINE = 26
"""Where the way taken leaves a question, px from the left edge."""

DROP = 38
"""Length in px of the way from one question to the next."""

MOST_ENDS = 3
"""Ways not taken with more leaves than this are not drawn further, only counted."""

MOST_PROOF = 4
"""Lines of evidence shown in the drawing."""

_LINE, _FINE, _PAD, _ROW, _RAIL = 18, 16, 10, 30, 14
BOLD = 1.1
"""How much wider bold letters are."""

_BADGE = 38
_QUESTION, _SMALL = 14, 12


@dataclass
class _Sheet:
    """Where the drawing has come to, from the top; what follows comes not before `until`."""

    width: int
    y: float = 1.0
    until: float = 0.0
    parts: list[Markup] = field(default_factory=list)

    @property
    def beside(self) -> bool:
        """Whether there is room for ways beside a question."""
        return self.width >= svg.WIDE

    @property
    def card(self) -> float:
        """Width of a question on the way taken."""
        return CARD if self.beside else self.width - 2


def draw(walk: Walked, width: int = svg.WIDE) -> Markup:
    """Return the drawing of a tree, `width` px wide; it is as tall as it has to be."""
    sheet = _Sheet(width)
    for node in walk.root.path():
        if node.answer:
            _way(sheet, node.answer)
        if node.rule:
            _question(sheet, node)
        else:
            _choice(sheet, node)
    return svg.drawing((width, sheet.y + 1), f"Decision tree: {walk.category}", described(walk), sheet.parts, "tree")


def described(walk: Walked) -> str:
    """Return the way taken in a sentence."""
    asked = [node for node in walk.root.path() if node.rule]
    answers = [node.answer for node in walk.root.path()[1:]]
    turns = "; ".join(f"{node.rule}. {node.text} {answer}" for node, answer in zip(asked, answers, strict=True))
    others = len(walk.root.outcomes) - 1
    return f"{turns}; so the choice is {walk.choice}, of {others + 1} that this tree knows"


def shortened(node: Node) -> bool:
    """Return whether the drawing leaves out something of a tree."""
    return any(
        (not each.lit and bool(each.rule) and each.ends > MOST_ENDS) or shortened(each) for each in node.branches
    )


def _way(sheet: _Sheet, answer: str) -> None:
    """Draw the lit way down, with the answer that leads along it."""
    end = max(sheet.y + DROP, sheet.until)
    named = sheet.y + DROP / 2 if sheet.beside else end - DROP / 2
    sheet.parts += [
        svg.segment(SPINE, sheet.y, SPINE, end - 2, "lit"),
        svg.line([(SPINE - 5, end - 8), (SPINE, end - 2), (SPINE + 5, end - 8)], "lit"),
        svg.text(SPINE + 14, named + 5, answer, "taken"),
    ]
    sheet.y = end


def _question(sheet: _Sheet, node: Node) -> None:
    room = sheet.card - _BADGE - 2 * _PAD
    lines, proof = svg.wrapped(node.text, room, _QUESTION), _cut(svg.wrapped(node.evidence, room, _SMALL))
    ways = [branch for branch in node.branches if not branch.lit]
    top, left = sheet.y, _BADGE + _PAD
    height = 2 * _PAD + _LINE * len(lines) + _FINE * len(proof)
    parts = [svg.box(1, top, sheet.card, height, "card", 7), svg.text(_PAD + 2, top + _PAD + 13, node.rule, "rule")]
    y = top + _PAD + 13
    for kind, step, words in (("question", _LINE, lines), ("proof", _FINE, proof)):
        for each in words:
            parts.append(svg.text(left, y, each, kind))
            y += step
    sheet.parts.append(svg.titled(f"{node.rule}. {node.text} {node.answer_taken}: {node.evidence}", "asked", parts))
    sheet.y = top + height
    if sheet.beside:
        below, last = _ways(sheet, ways, CARD + 1 if len(ways) == 1 else CARD + _RAIL, top + 3)
        if len(ways) > 1:
            sheet.parts.append(svg.segment(CARD + 1, top + 3 + _ROW / 2, CARD + _RAIL, top + 3 + _ROW / 2, "dim"))
            sheet.parts.append(svg.segment(CARD + _RAIL, top + 3 + _ROW / 2, CARD + _RAIL, last, "dim"))
        sheet.until = below + DROP / 4
    else:
        sheet.until = _ways(sheet, ways, SPINE, sheet.y + 6)[0] + DROP


def _choice(sheet: _Sheet, node: Node) -> None:
    lines = svg.wrapped(node.text, sheet.width - 2 * 16 - 4, _QUESTION)
    wide = max(svg.length(line, _QUESTION) for line in lines) * BOLD + 2 * 16
    height = 2 * _PAD - 4 + _LINE * len(lines)
    sheet.parts.append(svg.box(1, sheet.y, max(wide, 2 * SPINE), height, "choice", min(height / 2, 17)))
    for index, line in enumerate(lines):
        sheet.parts.append(svg.text(17, sheet.y + _PAD + 11 + _LINE * index, line, "chosen"))
    sheet.y += height


def _ways(sheet: _Sheet, ways: Sequence[Node], x: float, y: float) -> tuple[float, float]:
    """Draw ways not taken, one below the other, each leaving a line at `x`; return where they and the last one end."""
    answers = max((svg.length(each.answer, _SMALL) for each in ways), default=0.0)
    last = y
    for way in ways:
        last = y + _ROW / 2
        sheet.parts.append(svg.segment(x, last, x + 9, last, "dim"))
        sheet.parts.append(svg.text(x + 12, last + 4, way.answer, "answer"))
        y = _node(sheet, way, x + answers + 22, y)
    return y, last


def _node(sheet: _Sheet, node: Node, x: float, y: float) -> float:
    """Draw a node off the way with what follows it, and return where that ends."""
    room = sheet.width - x - 4
    if not node.rule:
        lines = svg.wrapped(node.text, room - 20, _SMALL)
        wide = max(svg.length(line, _SMALL) for line in lines) + 20
        height = 8 + _FINE * len(lines)
        sheet.parts.append(svg.box(x, y + 3, wide, height, "other", 12))
        sheet.parts += [svg.text(x + 10, y + 19 + _FINE * i, line, "off") for i, line in enumerate(lines)]
        return y + height + 6
    counted = node.ends > MOST_ENDS
    more = f" ({node.ends}\u00a0leaves)" if counted else ""
    lines = svg.wrapped(f"{node.rule}. {node.text}{more}", room, _SMALL)
    sheet.parts += [svg.text(x, y + 19 + _FINE * i, line, "off") for i, line in enumerate(lines)]
    end = y + 14 + _FINE * len(lines)
    if counted:
        return end
    below, last = _ways(sheet, node.branches, x + 8, end - 2)
    sheet.parts.append(svg.segment(x + 8, end - 4, x + 8, last, "dim"))
    return below


def _cut(lines: list[str]) -> list[str]:
    """Return the first lines of a long text, which stands in full elsewhere."""
    return lines if len(lines) <= MOST_PROOF else [*lines[: MOST_PROOF - 1], f"{lines[MOST_PROOF - 1]} ..."]
