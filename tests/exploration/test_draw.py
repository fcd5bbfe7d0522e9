"""Fronts, plans, pictures and the page, from made-up points: nothing is measured here."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree as ET

import nets
import pytest
from hypothesis import given
from hypothesis import strategies as st

from easycompress.core.outcome import CurvePoint, Drop
from easycompress.core.request import Request
from easycompress.exploration.draw import WIDE, measures_of, tradeoff
from easycompress.exploration.draw_figures import lines_of
from easycompress.exploration.labels import _crosses
from easycompress.exploration.outputs import write_outputs
from easycompress.exploration.page import headlines, kept, pick_command
from easycompress.exploration.pareto import Original, front, stand
from easycompress.exploration.plan import CURVES, LC, coarse_first, interleaved, make
from easycompress.exploration.points import Row
from easycompress.exploration.run import usual_epochs
from easycompress.exploration.story import Story
from easycompress.exploration.style import inline
from easycompress.metrics import METRICS

ORIGINAL = Original(size_bytes=1000, macs=100, params=250, quality=90.0, loss=0.1)


def row(curve: str, level: int, size: int, quality: float, **more: object) -> Row:
    drop = Drop(estimate=90 - quality, upper_95=None, n=100, worse=1, better=0, certified=False)
    values = {
        "key": f"{curve}{level}", "part": "curves", "curve": curve, "label": f"level {level}", "level": level,
        "amount": 0.5, "actions": (), "size_bytes": size, "packed_bytes": size // 2, "macs": 100, "params": 250,
        "loss": 0.2, "quality": quality, "drop": drop, "error": 0.2,
    }  # fmt: skip
    return Row.model_validate(values | more)


ROWS = (
    row("quantize", 0, 200, 90.0), row("quantize", 1, 100, 89.5), row("quantize", 2, 50, 60.0),
    row("prune", 0, 210, 89.9), row("prune", 1, 80, 88.0, macs=50),
)  # fmt: skip


def story(rows: tuple[Row, ...] = ROWS, model: str = "net.onnx", **more: object) -> Story:
    request = Request.model_validate({"model": model, "max_drop": "1%", "target": "max", **more})
    standings = tuple(stand(rows, ORIGINAL, {}, higher_is_better=True))
    return Story(request, ORIGINAL, METRICS["accuracy"], "1%", 1.0, 100, rows, standings, epochs=8)


# ---------------------------------------------------------------- fronts

PLACES = st.lists(st.tuples(st.integers(1, 6).map(float), st.integers(0, 6).map(float)), min_size=1, max_size=12)


def dominates(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one[0] >= other[0] and one[1] >= other[1] and one != other


@given(PLACES)
def test_the_front_is_what_nothing_dominates(places: list[tuple[float, float]]) -> None:
    found = front(places)
    assert {places[i] for i in found} == {p for p in places if not any(dominates(q, p) for q in places)}
    assert len({places[i] for i in found}) == len(found)  # of equal places one
    ratios = [places[i][0] for i in found]
    assert ratios == sorted(ratios)


def test_the_original_takes_part_in_every_front() -> None:
    worse = row("prune", 0, 1100, 89.0)
    assert stand([worse], ORIGINAL, {}, higher_is_better=True)[0].fronts == ("packed",)


def test_a_lower_metric_is_better_where_it_says_so() -> None:
    rows = [row("prune", 0, 500, 95.0), row("prune", 1, 500, 80.0)]
    assert [e.row.level for e in stand(rows, ORIGINAL, {}, higher_is_better=True) if "size" in e.fronts] == [0]
    assert [e.row.level for e in stand(rows, ORIGINAL, {}, higher_is_better=False) if "size" in e.fronts] == [1]


def test_the_best_within_the_floor_counts_one_standard_error() -> None:
    best = kept(story(), "size")
    assert best is not None
    assert best.row.key == "quantize1"  # a drop of 0.5 + 0.2 within 1
    tight = (row("quantize", 1, 100, 89.1, error=0.2),)  # 0.9 + 0.2 beyond 1
    assert kept(story(tight), "size") is None
    assert [value for _, value, _ in headlines(story())] == ["10.0x", "20.0x"]


# ---------------------------------------------------------------- plans


@given(st.integers(0, 20))
def test_coarse_first_is_an_order_of_all_that_begins_with_middle_and_ends(count: int) -> None:
    order = coarse_first(count)
    assert sorted(order) == list(range(count))
    if count > 2:
        assert order[:3] == [count // 2, 0, count - 1]


def test_all_curves_are_covered_before_any_is_dense() -> None:
    model = nets.make(nets.Mlp)
    curves = [[make(curve, level, model, "size") for level in range(3)] for curve in CURVES]
    first = interleaved(curves)[: len(CURVES)]
    assert [point.curve for point in first] == [curve.name for curve in CURVES]


@pytest.mark.parametrize("curve", [curve for curve in CURVES if curve.name in LC], ids=lambda curve: curve.name)
def test_labels_say_what_is_stored_and_levels_go_from_gentle_to_strong(curve: object) -> None:
    model = nets.make(nets.Mlp)
    points = [make(curve, level, model, "size") for level in range(len(curve.levels))]  # type: ignore[attr-defined]
    strengths = [point.actions[0].strength for point in points]  # type: ignore[attr-defined]
    assert strengths == sorted(strengths)
    words = {"quantize": "k=", "prune": "% nonzero", "low-rank": "rank ", "entropy": "bits"}
    for part in points[0].curve.split("+"):
        assert words[part] in points[0].label


def test_codebooks_have_the_k_that_they_say() -> None:
    model = nets.make(nets.Mlp)
    curve = next(curve for curve in CURVES if curve.name == "quantize")
    labels = [make(curve, level, model, "size").label for level in range(len(curve.levels))]
    assert labels == ["k=64", "k=16", "k=8", "k=4", "k=2"]


def test_small_data_gets_more_epochs() -> None:
    assert usual_epochs(55_000) == 8
    assert usual_epochs(1_437) == 60
    assert usual_epochs(12_800) == 30


# ---------------------------------------------------------------- pictures


def test_a_measure_that_nothing_moves_has_no_picture() -> None:
    assert measures_of(story()) == ["size", "packed", "compute"]
    assert measures_of(story(ROWS[:3])) == ["size", "packed"]


def test_pictures_of_a_page_take_its_colours_and_no_names_twice() -> None:
    with tradeoff(story(), "size", "error", WIDE, halo=False) as figure:
        one, again = inline(figure, "Error", "a"), inline(figure, "Error", "a")
        other = inline(figure, "Error", "b")
    assert one == again
    assert "var(--c-quantize)" in one
    assert "#0072b2" not in one
    assert 'role="img" aria-label="Error"' in one
    assert ids(one)
    assert ids(one).isdisjoint(ids(other))


def ids(svg: str) -> set[str]:
    """Names of clips and marks: one page holds many pictures."""
    return set(re.findall(r'id="([mp][0-9a-f]{10})"', svg))


@pytest.mark.parametrize(
    ("a", "b", "through"),
    [((0, 0), (4, 4), True), ((0, 3), (3, 0), True), ((0, 2.5), (4, 2.5), False), ((3, 0), (3, 4), False),
     ((1.5, 1.5), (1.6, 1.6), True)],
)  # fmt: skip
def test_a_segment_through_a_box_is_seen(a: tuple[float, float], b: tuple[float, float], through: bool) -> None:  # noqa: FBT001
    box = (1.0, 1.0, 2.0, 2.0)
    assert _crosses(a, b, box) == through == _crosses(b, a, box)


def test_points_of_one_height_have_a_picture() -> None:
    same = story((row("prune", 0, 500, 90.0), row("prune", 1, 250, 90.0)))
    with tradeoff(same, "size", "error", WIDE) as figure:
        low, high = figure.axes[0].get_ylim()
    assert low < 10 < high


def test_figures_are_lines_from_the_original_and_from_what_pruning_left() -> None:
    course = tuple(CurvePoint(part="x", epoch=e, quality=q) for e, q in ((0, 50.0), (1, 80.0), (2, 85.0)))
    rows = (
        row("l1", 1, 500, 70.0, part="degradation", params=0),
        row("l1", 0, 800, 85.0, part="degradation", params=125),
        row("soft", 0, 500, 85.0, part="distillation", course=course),
    )
    assert lines_of(story(rows), "degradation") == {"l1": [(0.0, 90.0), (50.0, 85.0), (100.0, 70.0)]}
    assert lines_of(story(rows), "distillation") == {"soft": [(0.0, 50.0), (1.0, 80.0), (2.0, 85.0)]}
    assert lines_of(story(rows), "recovery") == {}


# ---------------------------------------------------------------- files


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with everything that is written of the made-up points."""
    folder = tmp_path_factory.mktemp("drawn")
    course = tuple(CurvePoint(part="x", epoch=e, quality=80.0 + e) for e in range(3))
    failed = row("int8", 0, 0, 0.0).model_copy(update={"quality": None, "reason": "no luck <today>"})
    rows = (*ROWS, row("soft", 0, 500, 85.0, part="distillation", course=course), failed)
    write_outputs(story(rows, "<b>net</b>.onnx"), folder)
    return folder


@pytest.mark.parametrize("name", ["error-size", "error-packed", "loss-size", "error-compute"])
def test_pictures_name_their_curves(drawn: Path, name: str) -> None:
    assert (drawn / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    text = (drawn / f"{name}.svg").read_text()
    ET.fromstring(text)  # noqa: S314 - our own file
    assert "P: pruning" in text
    assert ("Q: codebook" in text) == (name != "error-compute")  # codes leave the operations as they are


def test_a_figure_names_its_lines(drawn: Path) -> None:
    assert ">soft<" in (drawn / "distillation.svg").read_text()
    assert not (drawn / "recovery.svg").exists()


def test_the_page_stands_alone_sorts_and_escapes(drawn: Path) -> None:
    text = (drawn / "explore.html").read_text()
    assert not re.search(r'(?:src|href)="(?!#)', text)
    assert not re.findall(r"url\((?!#)", text)
    assert 'class="sorts' in text
    assert all(each.key in text for each in ROWS)
    assert "<b>net</b>" not in text
    assert "no luck &lt;today&gt;" in text
    names = re.findall(r'id="([mp][0-9a-f]{10})"', text)
    assert len(names) == len(set(names))


def test_the_command_of_a_pick_can_be_copied() -> None:
    told = story(ROWS[:2], "<b>net</b>.onnx", data="a folder/x.npz", mean=(0.5,))
    assert pick_command(told, Path("out"), "abc") == (
        "easycompress explore '<b>net</b>.onnx' --data 'a folder/x.npz' --mean 0.5 --max-drop 1% --epochs 8 "
        "--pick abc -o out"
    )
