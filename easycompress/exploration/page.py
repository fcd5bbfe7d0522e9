"""The page of an exploration: one self-contained file in the look of report.html."""

from __future__ import annotations

import base64
import hashlib
import math
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

import easycompress.report
from easycompress.core.request import Request
from easycompress.exploration.draw import NARROW, WIDE, measures_of, tradeoff
from easycompress.exploration.draw_figures import SIZE, TITLES, lines_of, plot
from easycompress.exploration.pareto import MEASURES, WORDS
from easycompress.exploration.style import LOOKS, drawing, inline, variable_of
from easycompress.measure.statistics import within
from easycompress.report import units

if TYPE_CHECKING:
    from easycompress.exploration.pareto import Measure, Standing
    from easycompress.exploration.story import Story

TEMPLATE = "explore.html.jinja"

NOT_SAID = {"model", "out", "target", "budget", "force"}
"""Fields of a request that the command of a pick doesn't repeat."""


@dataclass(frozen=True)
class Picture:
    """One picture of the page: its heading, the drawings for a desk and a phone, and what it shows in words."""

    anchor: str
    heading: str
    wide: Markup
    narrow: Markup
    note: str
    loss: Picture | None = None


def render(story: Story, folder: Path) -> str:
    """Return the whole page. Everything in it that a user wrote is escaped."""
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    percent = story.metric.percent
    environment.filters.update(
        ratio=units.ratio,
        size=units.size,
        macs=units.macs,
        number=units.number,
        quality=lambda value: units.quality(value, percent=percent),
        value=lambda value: "" if value is None or not math.isfinite(value) else repr(float(value)),
    )
    script = _report_file("report.js")
    standings = sorted(story.standings, key=lambda each: -each.ratios.get("size", 0.0))
    return environment.get_template(TEMPLATE).render(
        story=story,
        name=Path(story.request.model).stem,
        style=_report_file("report.css"),
        colours=[(variable_of(name), look.light, look.dark) for name, look in LOOKS.items()],
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        headlines=headlines(story),
        sentence=sentence(story),
        pictures=_pictures(story),
        measures=[measure for measure in MEASURES if any(measure in each.ratios for each in standings)],
        standings=standings,
        picks=[(each, _amounts(each), pick_command(story, folder, each.row.key)) for each in _fronts(story)],
        chosen=[best for measure in MEASURES if (best := kept(story, measure)) is not None],
        failed=story.failed(),
        variable=variable_of,
    )


def _report_file(name: str) -> Markup:
    """Return the report's style or script, which go into the page as they are."""
    path = Path(easycompress.report.__file__).parent / name
    return Markup(path.read_text(encoding="utf-8"))  # noqa: S704 - nobody else writes it


def kept(story: Story, measure: Measure) -> Standing | None:
    """Return the point of the largest ratio whose drop and one standard error of it keep the floor."""
    good = [
        each
        for each in story.standings
        if measure in each.ratios
        and each.row.drop is not None
        and within(each.row.drop.estimate + (each.row.error or 0.0), story.allowed)
    ]
    best = max(good, key=lambda each: each.ratios[measure], default=None)
    return best if best is not None and best.ratios[measure] > 1 else None


def headlines(story: Story) -> list[tuple[str, str, str]]:
    """Return up to three: what the ratio is of, the furthest one within the floor, how it was reached."""
    order: tuple[Measure, ...] = ("latency", "size", "packed", "compute")
    labels: dict[Measure, str] = {"size": "Smaller file", "packed": "Packed for transport",
                                  "compute": "Fewer operations", "latency": "Faster"}  # fmt: skip
    found = []
    for measure in order:
        best = kept(story, measure)
        if best is not None:
            drop = 0.0 if best.row.drop is None else best.row.drop.estimate
            how = f"{story.title(best.row.curve)}, {best.row.label}; drop {units.number(drop)}"
            found.append((labels[measure], units.ratio(best.ratios[measure]), how))
    return sorted(found[:3], key=lambda each: list(labels.values()).index(each[0]))


def sentence(story: Story) -> str:
    """Return what the page shows, in one or two sentences."""
    curves = len({each.row.curve for each in story.standings})
    text = (
        f"{len(story.standings)} points on {curves} curves, each trained for {story.epochs} epochs in the same way and "
        f"measured from its written file on {story.select} samples of select."
    )
    if story.missing:
        text += f" {story.missing} more points are missing for lack of time."
    return text


def _pictures(story: Story) -> list[Picture]:
    """Return the pictures of every measure that moves, each with that of the training loss, and the figures."""
    found = []
    for measure in measures_of(story):
        loss = None if story.original.loss is None else _tradeoff(story, measure, "loss", None)
        found.append(_tradeoff(story, measure, "error", loss))
    for part, title in TITLES.items():
        lines = lines_of(story, part)
        if lines:
            drawings = []
            for size in (SIZE, NARROW):
                with drawing(*size) as figure:
                    plot(figure, story, part, lines, halo=False)
                    drawings.append(Markup(inline(figure, title, f"{part}-{size[0]}")))  # noqa: S704 - it escapes texts
            found.append(Picture(part, title, drawings[0], drawings[1], "The horizontal line is the original."))
    return found


def _tradeoff(story: Story, measure: Measure, kind: str, loss: Picture | None) -> Picture:
    what = "Error" if kind == "error" else "Training loss"
    heading = f"{what} against {'size of ' if measure in ('size', 'packed') else ''}{WORDS[measure]}"
    drawings = []
    for size in (WIDE, NARROW):
        with tradeoff(story, measure, kind, size, halo=False) as figure:
            name = f"{kind}-{measure}-{size[0]}"
            drawings.append(Markup(inline(figure, heading, name)))  # noqa: S704 - matplotlib escapes its texts
    return Picture(f"{kind}-{measure}", heading, drawings[0], drawings[1], _picture_note(kind), loss)


def _picture_note(kind: str) -> str:
    if kind == "loss":
        return "Mean loss of the written files over the first 10 000 training samples. Open marks lie off the picture."
    return (
        "Ringed points are on the Pareto front (the broad band): none is better in both. Bars are one standard error "
        "of the paired drop. Open marks on the upper edge lie off the picture."
    )


def _fronts(story: Story) -> list[Standing]:
    """Return the points that are on a front, by falling size ratio."""
    found = [each for each in story.standings if each.fronts]
    return sorted(found, key=lambda each: -each.ratios.get("size", 0.0))


def _amounts(each: Standing) -> str:
    return ", ".join(f"{measure} {units.ratio(each.ratios[measure])}" for measure in each.fronts)


def pick_command(story: Story, folder: Path, key: str) -> str:
    """Return the command that makes a result of a point."""
    request = story.request
    words = ["easycompress", "explore", request.model]
    for name, field in Request.model_fields.items():
        value: Any = getattr(request, name)
        if name in NOT_SAID or value == field.default or value is None:
            continue
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            words.append(flag)
        else:
            words += [flag, ",".join(f"{part:g}" for part in value) if isinstance(value, tuple) else str(value)]
    return shlex.join([*words, "--epochs", str(story.epochs), "--pick", key, "-o", str(folder)])
