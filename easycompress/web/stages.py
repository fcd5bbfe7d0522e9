"""The three things that a job does: look at a model, plan, compress. Each returns what the page shows of it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml

from easycompress.api import compress, plan
from easycompress.assemble import make_the_task
from easycompress.core.files import write_text
from easycompress.executor.journal import state_of
from easycompress.intake.config import make_request
from easycompress.measure.latency import time_files
from easycompress.prepare import prepare
from easycompress.report.brief import Brief
from easycompress.techniques import technique_for
from easycompress.web.store import OUT, RECIPE
from easycompress.web.watch import finite

if TYPE_CHECKING:
    from easycompress.core.plan import Action
    from easycompress.core.progress import Progress
    from easycompress.core.task import Metric
    from easycompress.prepare import Prepared
    from easycompress.web.store import Run

SPLITS = ("train", "calibration", "select", "report")

NO_GOAL = {
    "objective": "size", "target": "max", "min_quality": None, "format": "onnx", "budget": "none", "certify": False,
    "also": None, "recipe": None, "force": True,
}  # fmt: skip
"""What stands for a goal while a model is only looked at. A model no better than chance is shown, and refused later."""


def look(run: Run, progress: Progress) -> dict[str, Any]:
    """Read model and data, measure the original, and return its profile and what the settings beside it ask for."""
    request, base = make_request(str(run.flags["model"]), _flags(run.flags))
    asked = request.model_dump(mode="json", exclude_defaults=True, exclude={"model", "out", "trust_pickle"})
    blind = request.data is None
    request = request.model_copy(update={**NO_GOAL, "max_drop": None if blind else "0", "out": None})
    progress.now("reading model and data")
    with tempfile.TemporaryDirectory(prefix="easycompress-") as scratch:
        torch.manual_seed(request.seed)
        task = make_the_task(str(run.flags["model"]), request, base, (None, None, None))
        progress.now("measuring the original")
        prepared = prepare(task, request, Path(scratch))
        latency = None
        if prepared.described is None:
            latency = time_files([prepared.baseline], task.example, request.batch, prepared.threads)[0].median
    facts = prepared.profile
    return _json({
        "asked": asked,
        "profile": facts.model_dump(mode="json"),
        "metric": None if task.blind else _metric(task.metric),
        "quality": None if task.blind else prepared.quality,
        "size": prepared.value,
        "latency": latency,
        "threads": prepared.threads,
        "samples": _samples(prepared),
        "notes": [task.data.note, *task.notes],
    })  # fmt: skip


def make_plan(run: Run, progress: Progress) -> dict[str, Any]:
    """Return the plan, every decision behind it, and the form of each step's settings."""
    progress.now("measuring the original, and asking every rule")
    flags = _flags({**run.flags, **run.goal})
    chosen, prepared = plan(str(run.flags["model"]), **flags)
    request, _ = make_request(str(run.flags["model"]), flags)
    brief = Brief(
        request=request, goal=prepared.goal, metric=prepared.task.metric, budget=prepared.budget,
        quality=prepared.quality, value=prepared.value, allowed=prepared.allowed, needed=prepared.needed,
        epochs=chosen.epochs, threads=prepared.threads, samples=_samples(prepared),
        notes=(prepared.task.data.note, *prepared.task.notes),
    )  # fmt: skip
    return _json({
        "rows": brief.rows(),
        "reached": prepared.needed <= 1,
        "decisions": [decision.model_dump() for decision in chosen.decisions],
        "steps": [_step(step) for step in chosen.steps],
        "quick": [step.describe() for step in chosen.quick],
        "lesser": [step.describe() for step in chosen.lesser],
        "last": [step.describe() for step in chosen.last],
        "notes": [*brief.notes, *chosen.notes],
    })  # fmt: skip


def carry_out(run: Run, place: Path, progress: Progress) -> dict[str, Any]:
    """Compress, or go on with it, and return the verdict."""
    out = place / OUT
    flags = _flags({**run.flags, **run.goal})
    if run.steps is not None:
        write_recipe(place / RECIPE, run.steps)
        flags["recipe"] = str(place / RECIPE)
    resume = state_of(out) in ("interrupted", "finished")
    result = compress(str(run.flags["model"]), out=out, resume=resume, progress=progress, **flags)
    report = result.report
    return {"code": result.exit_code, "verdict": report.verdict, "line": report.summary}


def write_recipe(path: Path, steps: tuple[dict[str, Any], ...]) -> None:
    """Write the steps of an edited plan as a recipe. One that is there is left as it is: the journal rests on it."""
    if not path.exists():
        write_text(path, yaml.safe_dump({"steps": list(steps)}, sort_keys=False))


def _flags(flags: dict[str, Any]) -> dict[str, Any]:
    found = {name: value for name, value in flags.items() if name != "model"}
    return found | {name: tuple(found[name]) for name in ("mean", "std") if found.get(name) is not None}


def _step(action: Action) -> dict[str, Any]:
    technique = technique_for(action)
    return {
        "kind": action.kind,
        "settings": action.model_dump(mode="json"),
        "line": action.describe(),
        "brief": action.brief(),
        "trains": action.trains,
        "schema": type(action).model_json_schema(),
        "source": technique.source,
    }


def _metric(metric: Metric) -> dict[str, Any]:
    return {"name": metric.name, "percent": metric.percent, "higher_is_better": metric.higher_is_better}


def _samples(prepared: Prepared) -> dict[str, int]:
    return {name: len(getattr(prepared.task.data, name)) for name in SPLITS}


def _json(value: dict[str, Any]) -> dict[str, Any]:
    """Return values as JSON holds them: what is infinite is None."""
    found: dict[str, Any] = finite(value)
    return found
