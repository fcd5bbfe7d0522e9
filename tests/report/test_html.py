"""The page: well-formed, self-contained, escaped, and its snippet runs."""

from __future__ import annotations

import base64
import hashlib
import itertools
import math
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

import easycompress
from easycompress.core.outcome import Artifact, Latency, Report, StepRecord, Verdict
from easycompress.core.request import Request
from easycompress.report import html
from easycompress.report.chart import Plane, attempts, chart
from easycompress.report.html import render, typeset
from easycompress.report.reading import read
from easycompress.report.snippets import load_snippet, run_snippet, unpack_line
from easycompress.report.svg import NARROW, WIDE

VOID = {"meta", "br", "link", "img", "hr", "input", "wbr"}


class Page(HTMLParser):
    """Reads a page as a tree: fails on a tag that closes another one's, collects texts and attributes."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(text)
        self.close()
        assert self.open == [], f"left open: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> closes another tag"

    def handle_data(self, data: str) -> None:
        if self.open and data.strip():
            self.texts.setdefault(self.open[-1], []).append(data.strip())

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def everything(self) -> str:
        return " ".join(text for tag, texts in self.texts.items() if tag not in ("style", "script") for text in texts)


def changed(report: Report, **request: Any) -> Report:
    return report.model_copy(update={"request": report.request | request})


def many(report: Report, verdict: str, values: list[tuple[float | None, float | None]]) -> Report:
    """The report with one step for each (ratio, quality)."""
    one = report.steps[0]
    steps = [
        StepRecord.model_validate(
            one.model_dump() | {"verdict": verdict, "after": {"objective": 1.0, "ratio": ratio, "quality": quality}}
        )
        for ratio, quality in values
    ]
    return report.model_copy(update={"steps": tuple(steps)})


def test_the_page_is_well_formed_and_tells_the_story(report: Report) -> None:
    page = Page(render(report))
    text = page.everything()
    assert typeset(report.summary.partition(": ")[2])[1:] in text
    assert "Met" in page.texts["span"]
    assert "10\u00d7 smaller, accuracy at most 1 point lower" in page.texts["h1"]
    for decision in report.decisions:
        assert decision["question"] in text
    for step in report.steps:
        assert typeset(step.reason) in text
    for artifact in report.artifacts:
        assert artifact.path in text
        assert artifact.sha256 in text
    assert report.environment["processor"] in text
    headings = page.texts["h2"]
    assert headings == [
        "Attempts",
        "Decisions",
        "Before and after",
        "Steps",
        "Notes",
        "Use it",
        "Files",
        "What was asked",
        "Environment",
    ]


@pytest.mark.parametrize("verdict", ["met", "target-missed", "floor-missed", "undecided"])
def test_the_badge_follows_the_verdict(report: Report, verdict: Verdict) -> None:
    page = Page(render(report.model_copy(update={"verdict": verdict})))
    assert {"class": f"badge {verdict}"} in page.named("span")
    assert verdict.replace("-", " ").capitalize() in page.texts["span"]


def test_what_users_wrote_is_escaped_everywhere(report: Report) -> None:
    nasty = "</td><script>alert(2)</script>"
    step = report.steps[1].model_copy(update={"reason": nasty, "action": nasty, "settings": {nasty: nasty}})
    page = render(
        report.model_copy(
            update={
                "steps": (step,),
                "summary": f"MET: {nasty}",
                "decisions": ({"rule": nasty, "question": nasty, "answer": nasty, "evidence": nasty},),
                "plan": {"steps": [], "notes": [nasty]},
                "environment": {nasty: nasty},
                "profile": report.profile | {"input_name": nasty},
                "request": report.request | {"data": nasty, "out": nasty},
                "artifacts": (Artifact(path=nasty, bytes=1, sha256=nasty),),
            }
        )
    )
    assert page.count("<script") == 1, "our own"
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "alert" not in "".join(Page(page).texts["script"])


@pytest.mark.parametrize(
    "nasty",
    ["<script>alert(3)</script>", "\" onload='alert(3)' x=\"", "]]></style><img src=x onerror=alert(3)>", "{{ 7 * 7 }}",
     "--><svg/onload=alert(3)>", "&lt;b&gt;", "</pre></svg><a href='javascript:alert(3)'>"],
)  # fmt: skip
def test_a_model_s_own_names_stay_text(report: Report, nasty: str) -> None:
    layer = {"name": nasty, "type": nasty, "family": nasty, "params": 1, "macs": 1}
    whole = {
        "architecture": nasty,
        "layers": [layer],
        "inputs": [{"name": nasty, "shape": [3], "dtype": nasty}, {"name": nasty, "shape": [3], "dtype": nasty}],
    }
    step = report.steps[1].model_copy(update={"settings": {"layers": [nasty]}, "reason": nasty, "action": nasty})
    changed = report.model_copy(update={
        "profile": report.profile | whole, "steps": (report.steps[0], step), "why": nasty,
        "request": report.request | {"model": nasty, "out": nasty, "factory": nasty},
    })  # fmt: skip
    before, after = Page(render(report)), Page(render(changed))
    assert {tag for tag, _ in after.tags} <= {tag for tag, _ in before.tags} | {"li"}
    assert not [value for _, attributes in after.tags for key in attributes if (value := key).startswith("on")]
    assert "alert(3)" not in "".join(after.texts["style"])
    assert "49" not in "".join(after.texts["code"]).replace(nasty, "") or "{{" not in nasty
    assert any(nasty in text for texts in after.texts.values() for text in [texts, "".join(texts)])


def test_the_page_needs_no_network(report: Report) -> None:
    text = render(report)
    page = Page(text)
    assert re.findall(r"https?://|//[a-z]|@import|url\(", text) == []
    assert not {"link", "img", "iframe", "object", "embed"} & {tag for tag, _ in page.tags}
    assert all("style" not in attributes and "src" not in attributes for _, attributes in page.tags)
    policy = next(meta for meta in page.named("meta") if "http-equiv" in meta)
    script = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert len(script) == 1
    digest = base64.b64encode(hashlib.sha256(script[0].encode()).digest()).decode()
    assert policy["content"] == f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


def test_the_chart_has_a_text_for_every_mark(report: Report) -> None:
    page = Page(render(report))
    drawings = page.named("svg")
    assert [drawing["role"] for drawing in drawings] == ["img", "img"]
    assert drawings[0]["aria-label"] == "4 attempts, 2 accepted: ratio reached against accuracy"
    titles = page.texts["title"]
    assert titles.count("original: 99.14 %") == 2
    weakened = "1. structured-pruning: 14.5x, 97.61 %, weakened. drop 1.53 + 0.16 points is beyond the floor of 1.00"
    assert titles.count(weakened) == 2
    kinds = [attributes["class"] for attributes in page.named("g")][:5]
    assert kinds == ["mark reverted", "mark weakened", "mark original", "mark kept", "mark kept"]


def test_what_was_accepted_and_then_surpassed_is_in_the_chart_and_the_table(report: Report) -> None:
    steps = tuple(
        step.model_copy(update={"verdict": "surpassed"}) if step.verdict == "kept" and step.epochs else step
        for step in report.steps[:2]
    )
    text = render(report.model_copy(update={"steps": (*steps, *report.steps[2:])}))
    page = Page(text)
    assert page.named("svg")[0]["aria-label"] == "4 attempts, 2 accepted: ratio reached against accuracy"
    assert [group["class"] for group in page.named("g")].count("mark surpassed") == 4, "a mark and a legend, twice"
    assert "accepted, then surpassed" in page.texts["text"]
    assert "outcome surpassed" in [cell.get("class") for cell in page.named("td")]
    assert ".surpassed.outcome::before" in text


def test_accepted_and_rejected_differ_in_shape(report: Report) -> None:
    reading = read(report)
    drawing = str(chart(attempts(report.steps, reading, 99.0), reading))
    shapes = dict(re.findall(r'<g class="mark (\w+)"><title>[^<]*</title><(\w+) ', drawing))
    assert shapes == {"original": "rect", "kept": "circle", "weakened": "path", "reverted": "path"}
    crosses = re.search(r'<g class="mark reverted"><title>[^<]*</title><path d="([^"]*)"', drawing)
    assert crosses is not None
    assert "Z" not in crosses[1]


def test_the_chart_draws_the_floor_and_the_target_where_they_are(report: Report) -> None:
    reading = read(report)
    marks = attempts(report.steps, reading, 99.0)
    plane = Plane(marks, reading, WIDE)
    drawing = str(chart(marks, reading))
    assert plane.floor == pytest.approx(98.14)
    assert plane.target == 10
    assert f'y1="{plane.y(98.14):.1f}" x2="{WIDE - 16:.1f}" y2="{plane.y(98.14):.1f}" class="floor"' in drawing
    assert f'<line x1="{plane.x(10):.1f}"' in drawing
    assert plane.y(99) < plane.y(98.14) < plane.y(97.61)
    assert plane.x(1) < plane.x(3) < plane.x(10) < plane.x(14.5)
    assert plane.x(10) - plane.x(5) == pytest.approx(plane.x(2) - plane.x(1))
    assert "target 10x" in drawing
    assert "floor 98.14 %" in drawing


def test_a_collapsed_attempt_does_not_squeeze_the_others(report: Report) -> None:
    reading = read(report)
    marks = attempts(report.steps, reading, 99.0)
    plane = Plane(marks, reading, WIDE)
    assert plane.off(93.2)
    assert not plane.off(97.61)
    assert plane.y(93.2) == plane.y(10.0)
    assert "4: 93.20 %, off the chart" in str(chart(marks, reading))


def test_with_a_metric_of_errors_better_is_still_up(report: Report) -> None:
    asked = changed(many(report, "kept", [(3.0, 0.11), (9.0, 0.14)]), metric="mse", max_drop="0.02")
    step = asked.steps[0].model_copy(update={"before": {"objective": 1.0, "quality": 0.1, "ratio": 1.0}})
    facts = {"name": "mse", "percent": False, "higher_is_better": False}
    asked = asked.model_copy(
        update={
            "profile": asked.profile | {"metric": facts},
            "steps": (step, *asked.steps[1:]),
            "baseline": report.baseline.model_copy(update={"quality": 0.1}),
            "final": report.final.model_copy(update={"quality": 0.11}),
        }
    )
    reading = read(asked)
    plane = Plane(attempts(asked.steps, reading, 0.1), reading, WIDE)
    assert plane.floor == pytest.approx(0.12)
    assert plane.y(0.1) < plane.y(0.12) < plane.y(0.14)
    assert "mse at most 0.02 higher" in render(asked)


@pytest.mark.parametrize("width", [WIDE, NARROW])
@pytest.mark.parametrize(
    "values",
    [
        [(1.0, 99.14)],
        [(10 + 0.01 * i, 99 + 0.01 * i) for i in range(30)],
        [(0.8, 50.0), (1000.0, 0.0)],
        [(None, None), (math.inf, 99.0), (2.0, math.nan), (0.0, 99.0)],
    ],
)
@pytest.mark.parametrize("target", ["1.5x", "1000x", "max"])
@pytest.mark.parametrize("floor", ["0%", "1%"])
def test_every_mark_and_tick_stays_inside(
    report: Report, width: int, values: list[tuple[float | None, float | None]], target: str, floor: str
) -> None:
    asked = changed(many(report, "kept", values), target=target, max_drop=floor)
    reading = read(asked)
    marks = attempts(asked.steps, reading, 99.14)
    plane = Plane(marks, reading, width)
    drawing = str(chart(marks, reading, width))
    Page(drawing)
    assert "nan" not in drawing
    assert "inf" not in drawing.replace("infinite", "")
    assert ("target max" in drawing) is False
    for mark in marks:
        assert 56 <= plane.x(mark.ratio) <= width - 16
        assert 34 <= plane.y(mark.quality) <= plane.height - 86
    assert 2 <= len(plane.quality_ticks()) <= 9
    assert 1 <= len(plane.ratio_ticks()) <= 12


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_the_legend_has_room_for_every_shape_and_labels_off_the_chart_for_each_other(
    report: Report, width: int
) -> None:
    steps = [
        step
        for verdict, values in (
            ("kept", [(2.0, 99.0)]),
            ("surpassed", [(3.0, 99.0)]),
            ("weakened", [(9.0, 80.0), (9.5, 60.0), (10.0, 40.0)]),
            ("reverted", [(4.0, 98.0)]),
        )
        for step in many(report, verdict, values).steps
    ]
    reading = read(report)
    drawing = str(chart(attempts(steps, reading, 99.14), reading, width))
    height = float(re.findall(r'viewBox="0 0 \d+ (\d+)"', drawing)[0])
    texts = [(float(y), text) for y, text in re.findall(r'<text [^>]*y="([\d.]+)"[^>]*>([^<]*)<', drawing)]
    assert max(y for y, _ in texts) < height
    assert {"original", "accepted", "accepted, then surpassed", "too much, tried weaker", "rejected"} <= {
        text for _, text in texts
    }
    off = [y for y, text in texts if "off the chart" in text]
    assert len(off) == 3
    assert min(abs(one - other) for one, other in itertools.combinations(off, 2)) >= 14


def test_a_run_that_tried_nothing_still_has_a_page(report: Report) -> None:
    bare = report.model_copy(update={"steps": (), "decisions": (), "plan": {"steps": []}, "artifacts": ()})
    text = Page(render(bare)).everything()
    assert "Nothing was tried." in text
    assert "No step was taken." in text
    assert "No rule was asked" in text


def test_a_drop_without_a_bound_says_so(report: Report) -> None:
    drop = report.drop.model_copy(update={"upper_95": None, "worse": 3, "better": 1})
    assert "without a bound (only 4 changed)" in render(report.model_copy(update={"drop": drop}))


@pytest.mark.parametrize(
    ("extra", "request_"),
    [
        ({}, {}),
        ({"input_name": "image"}, {"mean": (0.1307,), "std": (0.3081,)}),
        ({"input_name": "image", "input_dtype": "torch.int64", "input_shape": (8,)}, {}),
    ],
)
def test_the_snippet_runs(
    report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extra: dict[str, Any], request_: dict[str, Any]
) -> None:
    asked = changed(report, **request_).model_copy(update={"profile": report.profile | extra})
    shape = ["N", *asked.profile["input_shape"]]
    kind = TensorProto.INT64 if "input_dtype" in extra else TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("Identity", ["image"], ["scores"])],
        "g",
        [helper.make_tensor_value_info("image", kind, shape)],
        [helper.make_tensor_value_info("scores", kind, shape)],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), tmp_path / "model.onnx"
    )
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(run_snippet(asked), "snippet", "exec"), names)  # noqa: S102 - this is what a reader does with it
    assert names["y"].shape == (1, *asked.profile["input_shape"])
    if request_:
        assert names["y"].flat[0] == pytest.approx(-0.1307 / 0.3081)


def test_a_result_that_is_only_packed_is_unpacked_first(report: Report) -> None:
    packed = report.model_copy(update={"artifacts": (Artifact(path="model.ecz", bytes=1, sha256="0"),)})
    assert run_snippet(packed).startswith("# easycompress unpack model.ecz -o model.onnx\n")
    assert "unpack" not in run_snippet(report)


def test_the_page_of_a_packed_result_says_how_to_unpack_it(report: Report) -> None:
    both = (*report.artifacts, Artifact(path="model.ecz", bytes=52_310, sha256="0" * 64))
    page = Page(render(report.model_copy(update={"artifacts": both})))
    assert "easycompress unpack out/model.ecz -o model.onnx" in page.texts["code"]
    assert "# easycompress unpack" not in run_snippet(report.model_copy(update={"artifacts": both}))
    assert "unpack" not in Page(render(report)).everything()
    elsewhere = changed(report, out="my results/").model_copy(update={"artifacts": both})
    assert unpack_line(elsewhere) == "easycompress unpack 'my results/model.ecz' -o model.onnx"
    only = report.model_copy(update={"artifacts": both[-1:]})
    assert Page(render(only)).texts["code"][0].startswith("# easycompress unpack model.ecz -o model.onnx\n")


def test_the_snippet_back_into_pytorch_names_the_folder() -> None:
    assert load_snippet(Request(model="m", out="my out/")).endswith('model = ec.load("my out/", factory=make_model)')
    assert 'ec.load("./"' in load_snippet(Request(model="m"))


def test_typesetting_holds_numbers_and_units_together() -> None:
    assert typeset("10.3x: 1 725 832 -> 167 KB, 95 %") == "10.3\u00d7: 1\u202f725\u202f832 → 167\u202fKB, 95\u202f%"
    assert typeset("0x10 of 3 models") == "0x10 of 3 models"


def test_a_full_report_has_every_section_and_the_contents_lead_to_them(full_report: Report) -> None:
    page = Page(render(full_report))
    assert page.texts["h2"] == [
        "Attempts",
        "Decisions",
        "Before and after",
        "Layers",
        "What each step brought",
        "Training",
        "Latency",
        "Steps",
        "Notes",
        "Use it",
        "Files",
        "What was asked",
        "Environment",
    ]
    anchors = [link["href"] for link in page.named("a")]
    assert anchors == [f"#{section['id']}" for section in page.named("section")]
    assert all(drawing["role"] == "img" and drawing["aria-label"] for drawing in page.named("svg"))
    assert len(page.texts["desc"]) == len(page.named("svg"))
    assert "The rest of the file" in page.texts["td"]
    assert [row for row in page.named("tr") if row.get("class") == "gone"] == [{"class": "gone"}]


def test_trees_that_chose_nothing_are_folded_and_the_others_shown(full_report: Report) -> None:
    page = Page(render(full_report))
    walks = [each for each in page.named("details") if each.get("class") == "walk"]
    assert ["open" in walk for walk in walks] == [False, True, True]
    assert page.texts["summary"].count("Quantization \u2192") == 1
    assert {"none", "static-int8", "global"} <= set(page.texts["b"])
    assert "Not asked: structure, structure below the target, pruning technique, distillation." in page.everything()
    lit = [item for item in page.named("li") if item.get("class") == "lit"]
    assert len(lit) == 4 + 9 + 5, "questions and choices of the three trees"


def test_answers_of_another_version_are_a_table(report: Report) -> None:
    page = Page(render(report))
    assert [each for each in page.named("details") if each.get("class") == "walk"] == []
    table = next(each for each in page.named("details"))
    assert "open" in table


def test_numbers_in_tables_sort_by_value(full_report: Report) -> None:
    page = Page(render(full_report))
    values = [cell["data-value"] for cell in page.named("td") if "data-value" in cell]
    assert {"12900.0", "8.1", "167552", "41.7", ""} <= set(values)
    for value in values:
        assert value is not None
        assert value == "" or math.isfinite(float(value))


def test_a_full_page_is_light(full_report: Report) -> None:
    assert len(render(full_report).encode()) < 150_000


def test_what_a_curve_and_a_layer_are_called_is_escaped(full_report: Report) -> None:
    nasty = '</title><script>alert("5")</script>'
    changes = full_report.changes
    layer = changes.layers[0].model_copy(update={"name": nasty, "type": nasty})
    form = layer.before.model_copy(update={"form": nasty})
    told = changes.model_copy(
        update={
            "layers": (layer.model_copy(update={"before": form, "after": None}),),
            "course": tuple(each.model_copy(update={"action": nasty}) for each in changes.course),
        }
    )
    step = full_report.steps[0]
    point = step.curve[0].model_copy(update={"part": nasty})
    steps = (step.model_copy(update={"action": nasty, "curve": (point,)}), *full_report.steps[1:])
    profile = full_report.profile | {"changes": told.model_dump(mode="json")}
    text = render(full_report.model_copy(update={"steps": steps, "profile": profile}))
    Page(text)
    assert text.count("<script") == 1
    assert text.count("&lt;/title&gt;") > 8


def test_text_can_be_read_on_every_ground() -> None:
    style = (Path(html.__file__).parent / "report.css").read_text()
    themes = [dict(re.findall(r"--(\w+): (#\w+)", block)) for block in re.findall(r":root \{(.*?)\}", style, re.DOTALL)]
    assert len(themes) == 3, "light, dark, paper"
    for theme in themes:
        for ground in ("paper", "panel"):
            for ink in ("ink", "soft", "good", "warn", "bad", "open"):
                assert contrast(theme[ink], theme[ground]) >= 4.5, (ink, ground, theme)


def contrast(one: str, other: str) -> float:
    """The contrast ratio of WCAG 2.2 between two colours."""
    lights = sorted((luminance(one), luminance(other)), reverse=True)
    return (lights[0] + 0.05) / (lights[1] + 0.05)


def luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    parts = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize(
    ("request_", "files", "factory"),
    [
        ({"factory": "nets.py:make"}, (), "made by nets"),
        ({"factory": "parts.nets:make"}, (), "made by parts"),
        ({"factory": "torchvision:resnet18"}, (), "ResNet"),
        ({"model": "sst2"}, ("pretrained/config.json",), "sst2"),
        ({"model": "m.onnx"}, ("model.pt2",), None),
    ],
)
def test_the_snippet_back_into_pytorch_runs_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request_: dict[str, Any], files: tuple[str, ...], factory: object
) -> None:
    (tmp_path / "nets.py").write_text("def make():\n    return 'made by nets'\n")
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "nets.py").write_text("def make():\n    return 'made by parts'\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("nets", "parts", "parts.nets"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    asked: list[tuple[str, object]] = []
    monkeypatch.setattr(easycompress, "load", lambda out, factory=None: asked.append((out, factory)))
    if request_.get("factory") == "nets.py:make":
        request_ = {"factory": f"{tmp_path}/nets.py:make"}
    code = load_snippet(Request.model_validate({"model": "m", "out": "out"} | request_), files)
    exec(compile(code, "snippet", "exec"), {})  # noqa: S102 - this is what a reader does with it
    ((out, given),) = asked
    assert out == "out/"
    made = given() if callable(given) else given
    assert made == factory or type(made).__name__ == factory


def test_a_disturbed_latency_says_so_beside_its_drawing(report: Report) -> None:
    times = Latency(batch=1, median=3.0, iqr=1.0, threads=2, runs=60, taken=0.94, quantiles=(1, 2, 3, 4, 5))
    before, after = (each.model_copy(update={"latency_ms": (times,)}) for each in (report.baseline, report.final))
    text = Page(render(report.model_copy(update={"baseline": before, "final": after}))).everything()
    assert "While latency was measured other processes took 0.9 cores from the model's 2 threads" in text
    assert "other processes took" not in Page(render(report)).everything()
