"""One self-contained page: no network, no script, no font of its own; light, dark, paper and phone."""

from __future__ import annotations

import json
import math
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from easycompress.core.request import Request
from easycompress.report import units
from easycompress.report.chart import NARROW, WIDE, attempts, chart
from easycompress.report.reading import compared, goal_words, read, repeats_words
from easycompress.report.sentence import LABELS, bound, factor

if TYPE_CHECKING:
    from easycompress.core.outcome import Report
    from easycompress.report.reading import Reading

TEMPLATE = "report.html.jinja"

PACKED = "model.ecz"

IMAGE_DIMENSIONS = 3
"""Dimensions of one sample that make it an image: channels, height, width."""

OBJECTIVE_WORDS = {"size": "Size", "latency": "Latency", "compute": "Compute", "energy": "Energy"}


@dataclass(frozen=True)
class Headline:
    """One of the three numbers on top. Without `before` it stands alone."""

    label: str
    before: str | None
    after: str
    notes: tuple[str, ...]


def render(report: Report) -> str:
    """Return the whole page. Everything in it that a user wrote is escaped.

    The snippet's input takes its name and dtype from the profile's extra keys `input_name` and `input_dtype`; without
    them it asks the session for the name and assumes float32. Where the extra key `inputs` lists several, it has a line
    for each. Raises BadInput when the request's goal can't be parsed.
    """
    reading = read(report)
    marks = attempts(report.steps, reading, report.baseline.quality)
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
        ratio=units.ratio,
        points=lambda value: units.points(value, percent=reading.percent),
    )
    return environment.get_template(TEMPLATE).render(
        report=report,
        reading=reading,
        goal=goal_words(reading),
        label=LABELS[report.verdict].capitalize(),
        sentence=report.summary.partition(": ")[2] or report.summary,
        headlines=_headlines(report, reading),
        model=_model_line(report.profile),
        charts=[("wide", chart(marks, reading, WIDE)), ("narrow", chart(marks, reading, NARROW))],
        attempted=len(marks) > 1,
        seeds=repeats_words(report, reading),
        rows=compared(report, reading),
        asked=_asked(reading.request),
        run=run_snippet(report),
        unpack=unpack_line(report),
        load=load_snippet(reading.request),
    )


def run_snippet(report: Report) -> str:
    """Return Python code that runs the result on one sample of zeros, in the folder that holds `model.onnx`."""
    profile, request = report.profile, Request.model_validate(report.request)
    if len(profile.get("inputs", ())) > 1:
        return _several_inputs(report)
    shape = tuple(profile["input_shape"])
    dtype = str(profile.get("input_dtype", "float32")).removeprefix("torch.")
    image = len(shape) == IMAGE_DIMENSIONS and dtype == "float32"
    name = json.dumps(profile["input_name"]) if profile.get("input_name") else "session.get_inputs()[0].name"
    scaled = ", scaled to 0..1" if request.mean and request.std else ""
    what = f"your images{scaled}: batch, channels, height, width" if image else "your samples, batch first"
    lines = [
        "import numpy as np",
        "import onnxruntime as ort",
        "",
        'session = ort.InferenceSession("model.onnx")',
        f"x = np.zeros({(1, *shape)}, dtype=np.{dtype})  # {what}",
    ]
    if image and request.mean and request.std:
        for key, values in (("mean", request.mean), ("std", request.std)):
            lines.append(f"{key} = np.array({list(values)}, dtype=np.{dtype}).reshape(-1, 1, 1)")
        lines.append("x = (x - mean) / std  # the file holds no normalisation")
    outputs = profile["outputs"]
    lines.append(f"y = session.run(None, {{{name}: x}})[0]  # {outputs} output{'' if outputs == 1 else 's'} a sample")
    unpack = [f"# easycompress unpack {PACKED} -o model.onnx"] if _only_packed(report) else []
    return "\n".join(unpack + lines)


def _several_inputs(report: Report) -> str:
    """Return the same for a model that takes several tensors."""
    outputs = report.profile["outputs"]
    lines = [f"# easycompress unpack {PACKED} -o model.onnx"] if _only_packed(report) else []
    lines += ["import numpy as np", "import onnxruntime as ort", "", 'session = ort.InferenceSession("model.onnx")']
    lines.append("inputs = {  # your samples, batch first")
    for value in report.profile["inputs"]:
        shape, dtype = (1, *value["shape"]), str(value["dtype"])
        lines.append(f"    {json.dumps(value['name'])}: np.zeros({shape}, dtype=np.{dtype}),")
    lines += ["}", f"y = session.run(None, inputs)[0]  # {outputs} output{'' if outputs == 1 else 's'} a sample"]
    return "\n".join(lines)


def load_snippet(request: Request) -> str:
    """Return Python code that loads the result back into PyTorch."""
    folder = json.dumps(f"{(request.out or '.').rstrip('/')}/")
    return "\n".join(
        [
            "import easycompress as ec",
            "",
            "# make_model() returns the original module, as before compression; its weights don't matter",
            f"model = ec.load({folder}, factory=make_model)",
        ]
    )


def unpack_line(report: Report) -> str | None:
    """Return the command that makes an ONNX file of the packed one, from where the run was started; None if none."""
    if not any(artifact.path == PACKED for artifact in report.artifacts):
        return None
    path = f"{(Request.model_validate(report.request).out or '.').rstrip('/')}/{PACKED}"
    return f"easycompress unpack {shlex.quote(path)} -o model.onnx"


def typeset(text: str) -> str:
    """Return `text` as print wants it: arrows, and spaces that hold a number and its unit together."""
    text = re.sub(r"(?<=\d) (?=\d{3}(?!\d)|%|[KMGT]?B\b|m?s\b|[KMGT]?MACs\b|m?J\b)", "\u202f", text)
    return re.sub(r"(?<=\d)x\b", "\u00d7", text).replace(" -> ", " \u2192 ")


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


def _only_packed(report: Report) -> bool:
    names = {artifact.path for artifact in report.artifacts}
    return PACKED in names and "model.onnx" not in names
