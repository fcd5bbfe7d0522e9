"""The trees as they were walked: the real ones, the way taken lit where it went and nowhere else."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest

from easycompress.report import svg
from easycompress.report.svg import NARROW, WIDE
from easycompress.report.tree_drawing import described, draw, shortened
from easycompress.report.trees import Node, Walked, unasked, walked
from easycompress.selection.explain import TREES
from easycompress.selection.walk import Ask, asks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from easycompress.core.outcome import Report
    from easycompress.selection.walk import Tree

SVG = "{http://www.w3.org/2000/svg}"


def ways(tree: Tree) -> Iterator[tuple[tuple[tuple[str, str], ...], str]]:
    """Every way through a tree: its rules with their answers, and the choice at its end."""
    if not isinstance(tree, Ask):
        yield (), tree.value
        return
    for answer, branch in tree.branches.items():
        for rest, choice in ways(branch):
            yield ((tree.rule.name, answer), *rest), choice


def decided(way: tuple[tuple[str, str], ...]) -> list[dict[str, Any]]:
    return [{"rule": rule, "question": "?", "answer": answer, "evidence": f"because {rule}"} for rule, answer in way]


def nodes(node: Node) -> Iterator[Node]:
    yield node
    for branch in node.branches:
        yield from nodes(branch)


EVERY_WAY = [(category, *way) for category, tree in TREES.items() for way in ways(tree)]


@pytest.mark.parametrize(("category", "way", "choice"), EVERY_WAY)
def test_every_way_through_every_tree_is_lit_and_nothing_else(
    category: str, way: tuple[tuple[str, str], ...], choice: str
) -> None:
    walks = walked(decided(way))
    if not way:
        assert walks == []
        return
    (walk,) = walks
    lit = [node for node in nodes(walk.root) if node.lit]
    assert (walk.category, walk.choice) == (category, choice)
    assert [node.rule for node in lit] == [*(rule for rule, _ in way), ""]
    assert [node.answer for node in lit] == ["", *(answer for _, answer in way)]
    assert [node.evidence for node in lit] == [*(f"because {rule}" for rule, _ in way), ""]
    assert sum(1 for node in nodes(walk.root) if node.rule) == len(list(asks(TREES[category])))
    assert walk.root.ends == len(list(ways(TREES[category])))


@pytest.mark.parametrize("width", [WIDE, NARROW])
@pytest.mark.parametrize(("category", "way", "choice"), [way for way in EVERY_WAY if way[1]][::4])
def test_drawings_stay_inside_and_name_everything(
    category: str, way: tuple[tuple[str, str], ...], choice: str, width: int
) -> None:
    (walk,) = walked(decided(way))
    drawing = str(draw(walk, width)).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ')
    root = ET.fromstring(drawing)  # noqa: S314 - our own drawing
    _, _, wide, high = map(float, root.attrib["viewBox"].split())
    assert root.attrib["role"] == "img"
    assert root.findtext(f"{SVG}title") == f"Decision tree: {category}"
    assert root.findtext(f"{SVG}desc") == described(walk)
    assert choice in described(walk)
    said = [text.text or "" for text in root.iter(f"{SVG}text")]
    for rule, answer in way:
        assert rule in said
        assert answer in said
    chosen = [text.text or "" for text in root.iter(f"{SVG}text") if text.attrib["class"] == "chosen"]
    assert " ".join(chosen) == choice  # in several lines where it is long and the drawing narrow
    for text in root.iter(f"{SVG}text"):
        assert float(text.attrib["x"]) + svg.length(text.text or "", 12) <= wide + 1, text.text
    for box in root.iter(f"{SVG}rect"):
        assert 0 <= float(box.attrib["x"]) <= float(box.attrib["x"]) + float(box.attrib["width"]) <= wide
        assert 0 <= float(box.attrib["y"]) <= float(box.attrib["y"]) + float(box.attrib["height"]) <= high
    places = sorted((float(t.attrib["y"]), float(t.attrib["x"]), t.text or "") for t in root.iter(f"{SVG}text"))
    for (y, x, one), (other_y, other_x, other) in itertools.combinations(places, 2):
        assert abs(y - other_y) >= 12 or x + svg.length(one, 12) <= other_x or other_x < x, f"{one} on {other}"


def test_a_rule_asked_in_several_places_is_lit_in_one(full_report: Report) -> None:
    walks = {walk.category: walk for walk in walked(full_report.decisions)}
    assert list(walks) == ["learning-compression", "quantization", "pruning strategy"]
    thirds = [node for node in nodes(walks["pruning strategy"].root) if node.rule == "S5"]
    assert [(node.answer, node.lit) for node in thirds] == [
        ("linear", False),
        ("convolutional", True),
        ("attention", False),
    ]
    assert walks["pruning strategy"].choice == "global"
    assert walks["quantization"].choice == "static-int8"
    assert unasked(list(walks.values())) == [
        "structure",
        "structure below the target",
        "pruning technique",
        "distillation",
    ]


@pytest.mark.parametrize(
    "way",
    [
        [("L1", "yes")],
        [("L1", "perhaps")],
        [("L1", "yes"), ("L3", "yes")],
        [("L2", "no"), ("L1", "no")],
        [("X1", "yes")],
        [],
    ],
)
def test_answers_that_do_not_fit_the_tree_draw_none(way: list[tuple[str, str]]) -> None:
    assert walked(decided(tuple(way))) == []


def test_what_is_not_drawn_is_counted(full_report: Report) -> None:
    walk = walked(full_report.decisions)[1]
    assert walk.category == "quantization"
    drawing = str(draw(walk))
    assert shortened(walk.root)
    assert "(5\u00a0leaves)" in drawing, "what follows without mostly linear layers"
    assert "Q3. Is the file to become smaller?" in drawing


def test_evidence_that_names_a_layer_is_escaped() -> None:
    way = decided((("L1", "no"),))
    way[0]["evidence"] = "<script>alert(1)</script>"
    (walk,) = walked(way)
    assert "<script" not in str(draw(walk))
    assert "&lt;script&gt;" in str(draw(walk))


def test_long_evidence_is_cut_in_the_drawing_and_whole_in_its_text() -> None:
    way = decided((("L1", "no"),))
    way[0]["evidence"] = " ".join(f"word{index}" for index in range(100))
    drawing = str(draw(Walked("learning-compression", walked(way)[0].root)))
    assert drawing.count("word99") == 1
    assert 'class="proof" text-anchor="start">word0 ' in drawing
    assert drawing.count('class="proof"') == 4
