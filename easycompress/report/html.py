"""One self-contained page: no network, no font of its own; light, dark, paper and phone.

All of it can be read without its script, which sorts tables, copies code and unfolds everything for paper.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from easycompress.executor.told import tuning_words, turned_words
from easycompress.report import bars, curves, latencies, layers, tree_drawing, trees, units
from easycompress.report.chart import attempts, chart, floor_on_select
from easycompress.report.reading import compared, disturbed_words, goal_words, read, repeats_words
from easycompress.report.sentence import LABELS, bound, factor
from easycompress.report.snippets import load_snippet, run_snippet, unpack_line
from easycompress.report.svg import NARROW, WIDE

if TYPE_CHECKING:
    from collections.abc import Callable

    from easycompress.core.outcome import Report
    from easycompress.core.request import Request
    from easycompress.report.reading import Reading

TEMPLATE, STYLE, SCRIPT = "report.html.jinja", "report.css", "report.js"

OBJECTIVE_WORDS = {"size": "Size", "latency": "Latency", "compute": "Compute", "energy": "Energy"}


@dataclass(frozen=True)
class Headline:
    """One of the three numbers on top. Without `before` it stands alone."""

    label: str
    before: str | None
    after: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Drawn:
    """One drawing in both widths, below its heading."""

    name: str
    wide: Markup
    narrow: Markup


@dataclass(frozen=True)
class DrawnTree(Drawn):
    """A tree: `name` is its category. `shortened`: the drawing only counts some of its leaves."""

    choice: str
    root: trees.Node
    shortened: bool


def render(report: Report) -> str:
    """Return the whole page. Everything in it that a user wrote is escaped.

    The snippet's input takes its name and dtype from the profile's extra keys `input_name` and `input_dtype`; without
    them it asks the session for the name and assumes float32. Where the extra key `inputs` lists several, it has a line
    for each. Raises BadInput when the request's goal can't be parsed.
    """
    reading = read(report)
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    environment.filters.update(
        typeset=typeset,
        count=units.count,
        seconds=units.seconds,
        settings=units.settings,
        objective=lambda value: units.amount(value, reading.objective),
        quality=lambda value: units.quality(value, percent=reading.percent),
        plain=plain,
        dotted=dotted,
        ratio=units.ratio,
        points=lambda value: units.points(value, percent=reading.percent),
        value=lambda value: "" if value is None or not math.isfinite(value) else repr(value),
    )
    shown = _drawings(report, reading)
    script = _own(SCRIPT)
    return environment.get_template(TEMPLATE).render(
        report=report,
        reading=reading,
        style=_own(STYLE),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        goal=goal_words(reading),
        label=LABELS[report.verdict].capitalize(),
        sentence=report.summary.partition(": ")[2] or report.summary,
        headlines=_headlines(report, reading),
        model=_model_line(report.profile),
        seeds=repeats_words(report, reading),
        disturbed=disturbed_words(report.final.latency_ms),
        tuned="" if report.tuning is None else tuning_words(report.tuning, percent=reading.percent),
        turned=turned_words,
        rows=compared(report, reading),
        asked=_asked(reading.request),
        run=run_snippet(report),
        unpack=unpack_line(report),
        load=load_snippet(reading.request, [artifact.path for artifact in report.artifacts]),
        contents=_contents(report, shown),
        **shown,
    )


def _own(name: str) -> Markup:
    """Return a file of ours that goes into the page as it is."""
    return Markup((Path(__file__).parent / name).read_text(encoding="utf-8"))  # noqa: S704 - nobody else writes it


def _drawings(report: Report, reading: Reading) -> dict[str, Any]:
    """Return what is drawn, by the names that the template has for it; empty where a report has no such data."""
    marks = attempts(report.steps, reading, report.baseline.quality)
    walks, changes = trees.walked(report.decisions), report.changes
    trained = curves.trained(report.steps, reading, floor_on_select(marks, reading))
    timed = latencies.pairs(report.baseline, report.final)
    told = layers.table(changes.layers)
    return {
        "charts": [("wide", chart(marks, reading, WIDE)), ("narrow", chart(marks, reading, NARROW))],
        "attempted": len(marks) > 1,
        "doubted": any(mark.error is not None for mark in marks),
        "trees": [_tree(walk) for walk in walks],
        "unasked": trees.unasked(walks),
        "layers": told,
        "elsewhere": layers.elsewhere(changes.layers, report.baseline.size_bytes, report.final.size_bytes),
        "gains": [_drawn(panel.name, partial(bars.draw, panel)) for panel in bars.panels(changes.course)],
        "training": trained,
        "folded": sum(not step.stays for step in trained),
        "latencies": [_drawn(pair.label, partial(latencies.draw, pair)) for pair in timed],
    }


def _drawn(name: str, draw: Callable[[int], Markup]) -> Drawn:
    return Drawn(name, draw(WIDE), draw(NARROW))


def _tree(walk: trees.Walked) -> DrawnTree:
    wide, narrow = (tree_drawing.draw(walk, width) for width in (WIDE, NARROW))
    return DrawnTree(walk.category, wide, narrow, walk.choice, walk.root, tree_drawing.shortened(walk.root))


def _contents(report: Report, shown: dict[str, Any]) -> list[tuple[str, str]]:
    """Return anchor and title of the page's sections, without those that have nothing to tell."""
    sections = [
        ("attempts", "Attempts", True),
        ("search", "Search", report.tuning),
        ("decisions", "Decisions", True),
        ("before-and-after", "Before and after", True),
        ("layers", "Layers", shown["layers"]),
        ("gains", "Gains", shown["gains"]),
        ("training", "Training", shown["training"]),
        ("latency", "Latency", shown["latencies"]),
        ("seeds", "Seeds", report.repeats),
        ("steps", "Steps", True),
        ("notes", "Notes", report.plan.get("notes")),
        ("use-it", "Use it", True),
        ("files", "Files", True),
        ("what-was-asked", "What was asked", True),
        ("environment", "Environment", True),
    ]
    return [(name, title) for name, title, there in sections if there]


def typeset(text: str) -> str:
    """Return `text` as print wants it: arrows, and spaces that hold a number and its unit together."""
    text = re.sub(r"(?<=\d) (?=\d{3}(?!\d)|%|[KMGT]?B\b|m?s\b|[KMGT]?MACs\b|m?J\b)", "\u202f", text)
    return re.sub(r"(?<=\d)x\b", "\u00d7", text).replace(" -> ", " \u2192 ")


def dotted(name: str) -> Markup:
    """Return a dotted name that may break behind its dots."""
    return Markup(".<wbr>").join(name.split("."))


def plain(value: object) -> str:
    """Return a value of the environment or the request as text for people."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return units.number(value, 4)
    if isinstance(value, dict):
        return "; ".join(f"{name} {plain(each)}" for name, each in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(plain(each) for each in value)
    return str(value)


def _headlines(report: Report, reading: Reading) -> list[Headline]:
    drop, percent, objective = report.drop, reading.percent, reading.objective
    estimate, floor = units.apart(drop.estimate, reading.allowed, percent=percent)
    unit = " points" if percent else ""
    before, after = (units.amount(value, objective) for value in (reading.before, reading.after))
    first, last = (units.quality(each.quality, percent=percent) for each in (report.baseline, report.final))
    changed = f"{units.count(drop.worse)} became worse, {units.count(drop.better)} better"
    return [
        Headline(OBJECTIVE_WORDS[objective], before, after, (factor(report.ratio, objective), _target_note(reading))),
        Headline(
            reading.metric.capitalize(), first, last, (f"on {units.count(drop.n)} samples kept for this", changed)
        ),
        Headline(
            "Drop",
            None,
            f"{estimate}{unit}" if drop.estimate >= 0 else units.drop(drop.estimate, percent=percent),
            (
                bound(drop, reading.allowed, percent=percent),
                f"the floor is {floor}{unit}" if math.isfinite(reading.allowed) else "on random inputs: not judged",
            ),
        ),
    ]


def _target_note(reading: Reading) -> str:
    if reading.target.kind == "max":
        return "asked: the most that the floor permits"
    return f"asked: {'at most ' if reading.target.kind == 'absolute' else ''}{reading.target.text}"


def _model_line(profile: dict[str, Any]) -> str:
    shape = "\u00d7".join(map(str, profile["input_shape"]))
    amounts = f"{units.count(profile['params'])} parameters, {units.macs(profile['macs'])} a sample"
    return f"{profile['architecture']}, {len(profile['layers'])} layers, {amounts}, input {shape}"


def _asked(request: Request) -> dict[str, Any]:
    """Return what was asked for beyond the defaults, with what always matters."""
    always = {"model", "objective", "target", "budget", "backend", "batch", "seed"}
    fields = type(request).model_fields
    values = {name: getattr(request, name) for name in fields}
    return {key: value for key, value in values.items() if key in always or value != fields[key].default}
