"""Layers, bars, curves and distributions: the numbers where they belong, and nothing where there is no data."""

from __future__ import annotations

import itertools
import math
import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest

from easycompress.core.outcome import Course, CurvePoint, Latency
from easycompress.report import bars, curves, latencies, layers, svg
from easycompress.report.chart import attempts, chart
from easycompress.report.html import render
from easycompress.report.reading import read
from easycompress.report.svg import NARROW, WIDE

if TYPE_CHECKING:
    from markupsafe import Markup

    from easycompress.core.outcome import Report

SVG = "{http://www.w3.org/2000/svg}"


def parsed(drawing: Markup) -> ET.Element:
    """The drawing as XML, with what every drawing has to have."""
    text = str(drawing).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    root = ET.fromstring(text)  # noqa: S314 - our own drawing
    assert root.attrib["role"] == "img"
    assert root.findtext(f"{SVG}title")
    assert root.findtext(f"{SVG}desc")
    assert "nan" not in str(drawing)
    return root


def boxes(root: ET.Element, kind: str) -> list[tuple[float, float]]:
    """Left edge and width of every rectangle of a kind."""
    found = [box for box in root.iter(f"{SVG}rect") if box.attrib["class"] == kind]
    return [(float(box.attrib["x"]), float(box.attrib["width"])) for box in found]


def said(root: ET.Element) -> list[str]:
    return [text.text or "" for text in root.iter(f"{SVG}text")]


def inside(root: ET.Element) -> None:
    _, _, wide, high = map(float, root.attrib["viewBox"].split())
    for text in root.iter(f"{SVG}text"):
        x, long = float(text.attrib["x"]), svg.length(text.text or "", 11)
        left = {"start": x, "middle": x - long / 2, "end": x - long}[text.attrib["text-anchor"]]
        assert -8 <= left <= left + long <= wide + 8, text.text
        assert 0 <= float(text.attrib["y"]) <= high
    for line in root.iter(f"{SVG}polyline"):
        for x, y in (point.split(",") for point in line.attrib["points"].split()):
            assert 0 <= float(x) <= wide
            assert 0 <= float(y) <= high


# What each step brought


def course(*entries: tuple[str, int, float | None]) -> tuple[Course, ...]:
    return tuple(Course(action=action, size_bytes=size, latency=latency) for action, size, latency in entries)


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_bars_are_as_long_as_the_numbers(full_report: Report, width: int) -> None:
    size, time = bars.panels(full_report.changes.course)
    root = parsed(bars.draw(size, width))
    inside(root)
    stays, off = boxes(root, "stays"), boxes(root, "taken-off")
    assert [long for _, long in stays] == pytest.approx(
        [(width - 2) * value / 1_725_832 for value in (1_725_832, 548_730, 167_552)], abs=0.1
    )
    assert off[0][0] + off[0][1] == pytest.approx(width - 1, abs=0.2), "what is off begins where the rest ends"
    assert off[1] == pytest.approx((stays[2][1] + 1, stays[1][1] - stays[2][1]), abs=0.2)
    assert "549 KB (\u22121.18 MB, 3.14x less)" in said(root) or width == NARROW
    assert "549 KB (3.14x less)" in said(root) or width == WIDE
    assert "0.0322 ms" in (parsed(bars.draw(time, width)).findtext(f"{SVG}desc") or "")


def test_what_grew_is_drawn_as_such() -> None:
    (panel,) = bars.panels(course(("original", 1000, None), ("low-rank", 1500, 0.1)))
    root = parsed(bars.draw(panel))
    assert boxes(root, "taken-off") == []
    assert boxes(root, "grew")[0] == pytest.approx((1 + 798 * 2 / 3, 798 / 3), abs=0.1)
    assert "1.50 KB (+500 B, 1.50x more)" in said(root)


def test_a_course_of_one_or_none_is_not_drawn() -> None:
    assert bars.panels(()) == []
    assert bars.panels(course(("original", 1000, 0.1))) == []
    assert bars.panels(course(("original", 0, 0.0), ("x", 0, 0.0))) == []
    (panel,) = bars.panels(course(("original", 1000, 0.1), ("x", 1000, None)))
    assert panel.name == "Size of the file"
    assert "1.00 KB (no change)" in said(parsed(bars.draw(panel)))


# Layers


def test_layers_tell_before_and_after(full_report: Report) -> None:
    table = layers.table(full_report.changes.layers)
    assert table is not None
    assert table.heads == ("Outputs", "Rank", "Bits", "Bytes", "MACs")
    conv, fc, gone = table.rows[1], table.rows[2], table.rows[3]
    assert [(cell.text, cell.was, cell.value) for cell in conv.cells] == [
        ("24", "50", 24.0),
        ("\u2013", "", None),
        ("8.10", "32.0", 8.1),
        ("12 900", "100 200", 12_900.0),
        ("768 KMACs", "1.60 MMACs", 768_000.0),
    ]
    assert (fc.cells[0].text, fc.cells[0].was, fc.cells[1].text) == ("500", "", "24")
    assert (gone.gone, gone.form.text, gone.cells[3].was) == (True, "gone", "20 040")
    assert [cell.text for cell in table.sums] == ["111 760", "1.11 MMACs"]
    root = parsed(conv.bars)
    assert boxes(root, "before")[0] == pytest.approx((0.0, 72 * 100_200 / 1_602_000), abs=0.1)
    assert boxes(root, "after") == [(0.0, 1.0)], "what is there can be seen"
    assert boxes(parsed(gone.bars), "after") == [(0.0, 0.0)]


def test_ranks_have_a_column_only_where_there_are_any(full_report: Report) -> None:
    table = layers.table(full_report.changes.layers[:2])
    assert table is not None
    assert "Rank" not in table.heads
    assert layers.table(()) is None


def test_what_no_layer_owns_is_the_rest_of_the_file(full_report: Report) -> None:
    found = full_report.changes.layers
    rest = layers.elsewhere(found, full_report.baseline.size_bytes, full_report.final.size_bytes)
    assert rest is not None
    assert (rest.was, rest.text) == ("1 512", "55 792")
    assert layers.elsewhere(found, 10, 10) is None
    assert layers.elsewhere((), 10, 10) is None


# Training


def test_curves_show_loss_quality_and_penalty(full_report: Report) -> None:
    steps = curves.trained(full_report.steps, read(full_report), 98.14)
    assert [(step.index, step.stays, step.epochs, len(step.drawings)) for step in steps] == [
        (1, False, 8, 3),
        (2, True, 3, 2),
    ]
    assert steps[0].parts == "1 to 6: L step; 7 to 8: fine-tuning"
    loss, quality, penalty = (parsed(drawing) for drawing in steps[0].drawings)
    for root in (loss, quality, penalty):
        inside(root)
    assert "loss 0.300 \u2192 0.0190" in said(loss)
    assert "accuracy on select 98.00 % \u2192 98.95 %" in said(quality)
    assert "floor" in said(quality)
    lines = [line.attrib["points"].split() for line in quality.iter(f"{SVG}polyline")]
    assert [len(points) for points in lines] == [5], "three L steps were looked at, and two epochs"
    assert {"\u2016w \u2212 \u0394(\u0398)\u2016", "\u03bc", "0.01", "0.1", "1"} <= set(said(penalty))
    distance, mu = ([float(p.split(",")[1]) for p in line.attrib["points"].split()]
                    for line in penalty.iter(f"{SVG}polyline"))  # fmt: skip
    assert distance == sorted(distance), "it falls"
    assert mu == sorted(mu, reverse=True), "it rises"
    falls = [after - before for before, after in itertools.pairwise(distance)]
    assert max(falls) - min(falls) < 0.2, "a halving each step is a straight line on the logarithmic axis"


@pytest.mark.parametrize(
    "points",
    [
        [CurvePoint(part="a", epoch=1, loss=0.5, quality=99.0)],
        [CurvePoint(part="a", epoch=i, loss=0.5, quality=99.0) for i in range(1, 4)],
        [CurvePoint(part="a", epoch=i, loss=0.0, distance=0.0, mu=0.0) for i in range(1, 4)],
        [CurvePoint(part="a", epoch=i, loss=math.nan if i == 2 else 1e9, distance=1e-9) for i in range(1, 4)],
        [CurvePoint(part=str(i), epoch=1, loss=-float(i), quality=100.0 - i) for i in range(200)],
    ],
)
def test_odd_curves_are_drawn_too(full_report: Report, points: list[CurvePoint]) -> None:
    step = full_report.steps[0].model_copy(update={"curve": tuple(points)})
    for drawing in curves.trained([step], read(full_report), 98.14)[0].drawings:
        inside(parsed(drawing))


def test_steps_that_trained_nothing_have_no_curves(report: Report) -> None:
    assert curves.trained(report.steps, read(report), 98.14) == []


# Latency


def latency(*quantiles: float, median: float) -> Latency:
    return Latency(batch=1, median=median, iqr=0.1, threads=2, runs=100, quantiles=quantiles)


def test_quantiles_are_read_straight_between_them() -> None:
    values = (1.0, 2.0, 4.0)
    assert [latencies.quantile(values, share) for share in (0, 0.25, 0.5, 0.75, 1)] == [1.0, 1.5, 2.0, 3.0, 4.0]


def test_runs_are_most_frequent_where_quantiles_are_close() -> None:
    heights = latencies.density((1.0, 1.9, 2.0, 2.1, 3.0), [1.0, 1.5, 2.0, 2.5, 3.0])
    assert heights.index(max(heights)) == 2
    assert heights[1] == pytest.approx(heights[3], rel=1e-6)


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_distributions_mark_the_medians_and_name_the_slowest(full_report: Report, width: int) -> None:
    pairs = latencies.pairs(full_report.baseline, full_report.final)
    assert [pair.label for pair in pairs] == ["batch 1, 2 threads", "batch 64, 2 threads"]
    root = parsed(latencies.draw(pairs[0], width))
    inside(root)
    assert "before: median 0.0581 ms; up to 5% beyond, to 9 ms" in said(root)
    medians = {line.attrib["class"]: float(line.attrib["x1"]) for line in root.iter(f"{SVG}line")
               if line.attrib["class"].startswith("median")}  # fmt: skip
    ticks = [(float(t.attrib["x"]), float((t.text or "").removesuffix(" ms"))) for t in root.iter(f"{SVG}text")
             if t.attrib["class"] == "tick" and t.attrib["text-anchor"] == "middle"]  # fmt: skip
    (x, one), (other_x, other) = ticks[0], ticks[-1]
    for kind, value in (("median before", 0.0581), ("median after", 0.0322)):
        assert medians[kind] == pytest.approx(x + (value - one) / (other - one) * (other_x - x), abs=0.2)


def test_a_busy_machine_does_not_squeeze_the_distributions() -> None:
    slow = (*(1 + 0.01 * i for i in range(18)), 40.0, 50.0, 100.0)
    root = parsed(latencies.draw(latencies.Pair(latency(*slow, median=1.1), latency(*slow, median=1.1))))
    assert "before: median 1.10 ms; up to 15% beyond, to 100 ms" in said(root)
    ticks = [float(text.removesuffix(" ms")) for text in said(root) if re.fullmatch(r"[\d.]+ ms", text)]
    assert max(ticks) < 2


@pytest.mark.parametrize(
    ("before", "after"),
    [((0.1,) * 21, (0.1,) * 21), ((0.0,) * 21, (0.0,) * 21), ((1.0, 1.0, 1.0, 1.0, 50.0), (0.1, 0.2, 0.3, 0.4, 0.5))],
)
def test_odd_distributions_are_drawn_too(before: tuple[float, ...], after: tuple[float, ...]) -> None:
    pair = latencies.Pair(latency(*before, median=before[2]), latency(*after, median=after[2]))
    inside(parsed(latencies.draw(pair)))


def test_without_quantiles_there_is_no_drawing(report: Report) -> None:
    assert latencies.pairs(report.baseline, report.final) == []


# Error bars


def test_error_bars_reach_one_standard_error_to_either_side(full_report: Report) -> None:
    reading = read(full_report)
    marks = attempts(full_report.steps, reading, 99.14)
    assert [mark.error for mark in marks] == [None, 0.16, None, None, 0.16]
    drawing = str(chart(marks, reading))
    uprights = re.findall(r'<line x1="([\d.]+)" y1="([\d.]+)" x2="\1" y2="([\d.]+)" class="error (\w+)"/>', drawing)
    assert [kind for *_, kind in uprights] == ["weakened"], "the collapsed one is off the chart"
    ticks = re.findall(r'y="([\d.]+)" class="tick" text-anchor="end">([\d.]+)<', drawing)
    (y, value), (other_y, other) = ((float(a), float(b)) for a, b in (ticks[0], ticks[-1]))
    pixels = abs((other_y - y) / (other - value))
    assert float(uprights[0][2]) - float(uprights[0][1]) == pytest.approx(2 * 0.16 * pixels, abs=0.3)
    assert "Upright lines: one standard error" in render(full_report)
