"""A point of the curves becomes a result: its kept files are judged on *report*, nothing is trained again."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from easycompress.artifact.write import PACKED
from easycompress.core.errors import BadInput
from easycompress.core.files import copy_file, read_json
from easycompress.core.outcome import Report, exit_code
from easycompress.core.plan import Plan
from easycompress.deliver import deliver
from easycompress.executor.executed import Executed
from easycompress.executor.journal import FILE as JOURNAL
from easycompress.executor.journal import RESULT, check_out, open_journal
from easycompress.executor.workshop import Attempt
from easycompress.exploration.points import POINTS, TAG
from easycompress.fingerprint import fingerprint
from easycompress.measure.files import latency_ratio, objective_of
from easycompress.measure.statistics import within
from easycompress.prepare import prepare
from easycompress.techniques import parse_action

if TYPE_CHECKING:
    from pathlib import Path

    from easycompress.core.progress import Progress
    from easycompress.core.request import Request
    from easycompress.core.task import Task
    from easycompress.executor.journal import Journal
    from easycompress.exploration.pareto import Measure, Standing
    from easycompress.exploration.story import Story
    from easycompress.prepare import Prepared

PICKED = "picked"
"""The folder in OUT of the results that were picked, each under its point's key."""


@dataclass(frozen=True)
class Picked:
    """A delivered point: its folder, the report, and the exit code of its verdict."""

    standing: Standing
    out: Path
    report: Report
    exit_code: int


def pick_point(
    what: str, story: Story, task: Task, request: Request, scratch: Path, folder: Path, progress: Progress
) -> Picked:
    """Turn a point into a result folder with the verdict of compress().

    `what` is a point's key, or the beginning of one; `best`: the largest ratio of the request's objective whose drop on
    *select* plus one standard error keeps the floor; `10x`: of the points with at least that ratio the one of the best
    quality, and the verdict's target too. The report split is read here and nowhere else.
    """
    measure = measure_of(request)
    chosen = choose(what, story, measure)
    progress.say(f"picked {chosen.row.curve}, {chosen.row.label} ({chosen.row.key}): {chosen.ratios[measure]:.2f}x")
    if re.fullmatch(r"[\d.]+x", what):
        request = request.model_copy(update={"target": what})
    out = folder / PICKED / chosen.row.key
    request = request.model_copy(update={"out": str(out)})
    small = scratch / PICKED
    small.mkdir(exist_ok=True)
    prepared = prepare(task, request, small)
    check_out(out, resume=False, force=True)
    journal = open_journal(out, fingerprint(prepared, request), resume=False, began=time.monotonic())
    try:
        progress.now("measuring the result on the report split")
        report = _deliver(chosen, prepared, request, folder, journal)
    finally:
        journal.close()
    return Picked(chosen, out, report, exit_code(report.verdict))


def measure_of(request: Request) -> Measure:
    """Return which ratio the request's objective is about. Raises BadInput for energy, which no point knows."""
    if request.objective == "size":
        return "packed" if request.format == "packed" else "size"
    if request.objective == "compute":
        return "compute"
    if request.objective == "latency":
        return "latency"
    raise BadInput(f"--objective {request.objective}: explore measures size, compute and latency; pick by one of these")


def choose(what: str, story: Story, measure: Measure) -> Standing:
    """Return the point that `what` names. Raises BadInput with what there is instead."""
    points = [each for each in story.standings if measure in each.ratios]
    if not points:
        hint = "; add --latency" if measure == "latency" else ""
        raise BadInput(f"--pick {what}: no point has a ratio of {measure}{hint}")
    if what == "best":
        good = [each for each in points if _keeps(each, story.allowed)]
        if not good:
            raise BadInput(
                f"--pick best: no point keeps the floor of {story.floor} on select; give its key, or a wider floor"
            )
        return max(good, key=lambda each: each.ratios[measure])
    if match := re.fullmatch(r"(\d+(?:\.\d+)?)x", what):
        far = [each for each in points if each.ratios[measure] >= float(match[1])]
        if not far:
            most = max(each.ratios[measure] for each in points)
            raise BadInput(f"--pick {what}: no point goes that far; the furthest is {most:.1f}x")
        return max(far, key=lambda each: (story.sign * (each.row.quality or 0.0), each.ratios[measure]))
    named = [each for each in points if each.row.key.startswith(what)] if what else []
    if len(named) != 1:
        found = "several points" if named else "no point"
        raise BadInput(
            f"--pick {what}: {found} of that key; curves.csv lists the keys, or give best, or a ratio as 10x"
        )
    return named[0]


def _keeps(each: Standing, allowed: float) -> bool:
    drop = each.row.drop
    return drop is not None and within(drop.estimate + (each.row.error or 0.0), allowed)


def _deliver(chosen: Standing, prepared: Prepared, request: Request, folder: Path, journal: Journal) -> Report:
    """Copy the point's files into the result's journal, and deliver them as a run's best attempt."""
    source = folder / POINTS / chosen.row.key / "journal"
    entries = read_json(source / JOURNAL)["entries"]
    attempt = Attempt.model_validate(entries[f"{TAG}{RESULT}"])
    for suffix in (".onnx", PACKED, ".safetensors"):
        copy_file(source / f"{TAG}{suffix}", journal.path(f"{TAG}{suffix}"))
    if request.format != "packed":
        journal.path(f"{TAG}{PACKED}").unlink()
    copy_file(prepared.baseline, journal.path("baseline.onnx"))
    attempt = _in_unit(attempt, prepared, request, journal)
    why = "that is the point that was picked"
    executed = Executed(best=attempt, steps=attempt.stages, why=why, tried=1)
    steps = tuple(parse_action(action) for action in attempt.actions)
    notes = (f"picked from an exploration: {chosen.row.curve}, {chosen.row.label}, {chosen.row.epochs} epochs",)
    return deliver(prepared, request, Plan(steps=steps, decisions=(), notes=notes), executed, journal, journal.out)


def _in_unit(attempt: Attempt, prepared: Prepared, request: Request, journal: Journal) -> Attempt:
    """Return the attempt with its objective and ratios in the request's own unit; what is not known stays out."""
    path = journal.path(f"{TAG}.onnx")
    example, objective = prepared.task.example, prepared.goal.objective
    if objective == "latency":
        value, ratio = latency_ratio(prepared.baseline, path, example, request.batch, prepared.threads)
    else:
        packed = objective == "size" and request.format == "packed"
        value = objective_of(path.with_suffix(PACKED) if packed else path, objective)
        ratio = prepared.value / value
    stages = []
    for index, stage in enumerate(attempt.stages):
        last = index == len(attempt.stages) - 1
        own = {"objective": value, "ratio": ratio} if last else {"objective": None, "ratio": None}
        before = {"objective": prepared.value, "ratio": 1.0} if not index else {"objective": None, "ratio": None}
        stages.append(
            stage.model_copy(update={"before": stage.before | before, "after": stage.after | own, "verdict": "kept"})
        )
    return attempt.model_copy(update={"value": value, "ratio": ratio, "stages": tuple(stages)})
