"""Everything before the plan: the goal, the baseline's file and its numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from easycompress.artifact.also import parse_also
from easycompress.artifact.large import describe_large, is_large, named_graph
from easycompress.artifact.onnx_export import export
from easycompress.artifact.slim import slim
from easycompress.artifact.write import check_float_file
from easycompress.core.errors import BadInput
from easycompress.core.files import SCRATCH_REMEDY, write_bytes
from easycompress.core.goal import NO_FLOOR, Budget, Goal, parse_budget, parse_floor, parse_objective, parse_target
from easycompress.core.inputs import answer, sample_shape
from easycompress.measure.chance import refuse_chance
from easycompress.measure.files import objective_of
from easycompress.measure.latency import time_files
from easycompress.measure.meter import find_meter, measure
from easycompress.measure.modules import Module
from easycompress.measure.profile import profile
from easycompress.measure.runtime import Runtime, physical_cores
from easycompress.metrics.shapes import class_dimension

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from easycompress.core.profile import ModelProfile
    from easycompress.core.request import Request
    from easycompress.core.task import Metric, Task
    from easycompress.measure.meter import Meter

CHECKED = 5
"""Samples on which the original's file is compared with PyTorch: others than it was exported by, and more of them."""

RESERVE_SHARE = 0.05
"""Share of a time budget kept for the last measurements, at least RESERVE_SECONDS."""

RESERVE_SECONDS = 10.0

LARGE_NOTE = (
    "the weights take over 2 GB: the original's file is counted to the byte but not written, the original is judged in "
    "PyTorch, no latency is measured and nothing is trained"
)


@dataclass(frozen=True)
class Prepared:
    """A task measured, before anything is changed. `scores` (N,) and `quality` are the baseline's on *select*.

    `described` are the bytes of a large model's file and data: `baseline` is then its graph without them, and the
    original is judged in PyTorch. None for others, whose file is written.
    """

    task: Task
    goal: Goal
    budget: Budget
    profile: ModelProfile
    baseline: Path
    scores: np.ndarray[Any, Any]
    quality: float
    value: float
    allowed: float
    needed: float
    threads: int
    meter: Meter | None = None
    described: int | None = None

    @property
    def original(self) -> Runtime:
        """What the original's answers come from: its file, or a large model itself."""
        if self.described is None:
            return Runtime(self.baseline, self.threads)
        return Module(self.task.model, self.task.example)

    @property
    def reserve(self) -> float:
        """Return the seconds kept for measuring the result."""
        return max(RESERVE_SECONDS, RESERVE_SHARE * self.budget.value) if self.budget.kind == "time" else 0.0


def make_goal(request: Request, metric: Metric, *, blind: bool = False) -> Goal:
    """Parse the request's goal; without data (`blind`) there is no floor. Raises BadInput for a senseless flag."""
    objective = parse_objective(request.objective)
    if request.target is None:
        raise BadInput("no target given: add --target 10x (ratio), 90% (reduction), an amount such as 120KB, or max")
    target = parse_target(request.target, objective)
    floor = NO_FLOOR
    if not blind:
        floor = parse_floor(request.max_drop, request.min_quality, percent_metric=metric.percent, metric=metric.name)
    if request.format not in ("onnx", "packed"):
        raise BadInput(f"--format {request.format}: not a format; write onnx, or packed for the smallest file")
    return Goal(objective=objective, target=target, floor=floor, format=request.format)


def prepare(task: Task, request: Request, folder: Path) -> Prepared:
    """Write and measure the baseline into `folder`. Raises where the model can't be exported or knows nothing."""
    goal, budget = make_goal(request, task.metric, blind=task.blind), parse_budget(request.budget)
    parse_also(request.also, task.model)
    if is_large(task.model):
        return _prepare_large(task, request, goal, folder)
    threads = request.threads or physical_cores()
    graph = export(task.model, task.example)
    baseline = write_bytes(folder / "baseline.onnx", slim(graph).SerializeToString(), SCRATCH_REMEDY)
    runtime = Runtime(baseline, threads)
    others = task.data.select.inputs[-CHECKED:]  # what export froze from the example agrees there
    answers = runtime.run(others)
    check_float_file(task.model, others, answers)
    scores, quality = _judged(task, runtime, request, _width(answers.shape))
    facts = profile(task.model, graph, sample_shape(task.example), _width(answers.shape))
    meter = find_meter()
    value = _value(goal, task, baseline, request.batch, threads, meter)
    allowed = _allowed(goal, task, quality)
    needed = goal.target.ratio(value)
    return Prepared(task, goal, budget, facts, baseline, scores, quality, value, allowed, needed, threads, meter)


def _value(goal: Goal, task: Task, baseline: Path, batch: int, threads: int, meter: Meter | None) -> float:
    """Return the original's objective in its own unit."""
    if goal.objective == "latency":
        return time_files([baseline], task.example, batch, threads)[0].median
    if goal.objective == "energy" and meter is not None:
        return measure([baseline], task.example, threads, meter)[0].value
    return objective_of(baseline, goal.objective)


def aimed(prepared: Prepared, request: Request) -> Prepared:
    """Return what was measured, with the goal of another request for the same task. Raises BadInput as prepare()."""
    task, old = prepared.task, prepared.goal
    goal = make_goal(request, task.metric, blind=task.blind)
    value = prepared.value
    if goal.objective != old.objective:
        value = _value(goal, task, prepared.baseline, request.batch, prepared.threads, prepared.meter)
    allowed = _allowed(goal, task, prepared.quality)
    return replace(prepared, goal=goal, value=value, allowed=allowed, needed=goal.target.ratio(value))


def _judged(task: Task, runtime: Runtime, request: Request, classes: int) -> tuple[np.ndarray[Any, Any], float]:
    """Return the original's scores and quality on *select*. Raises BadInput where it knows nothing."""
    scores, _ = runtime.judged(task.data.select, task.metric)
    quality = task.metric.quality(scores)
    if not math.isfinite(quality):
        raise BadInput(
            f"the model's {task.metric.name} on select is not a finite number; check its outputs, --mean and --std"
        )
    if not request.force:
        refuse_chance(task, quality, classes)
    return scores, quality


def _allowed(goal: Goal, task: Task, quality: float) -> float:
    allowed = goal.floor.allowed_drop(quality, higher_is_better=task.metric.higher_is_better)
    if allowed < 0:
        raise BadInput(
            f"--min-quality {goal.floor.text}: the original itself reaches only {quality:.2f} on select; "
            "lower the floor"
        )
    return allowed


def _prepare_large(task: Task, request: Request, goal: Goal, folder: Path) -> Prepared:
    """Describe and judge a model over 2 GB without a second copy of its weights. Raises BadInput for what needs one."""
    if goal.objective != "size" or goal.format != "onnx":
        what = f"--format {goal.format}" if goal.objective == "size" else f"--objective {goal.objective}"
        raise BadInput(f"{what}: not for weights over 2 GB, which only become fewer bits; use size, and format onnx")
    task = replace(task, notes=(*task.notes, LARGE_NOTE))
    width = _width(tuple(answer(task.model, task.example).shape))
    path = folder / "model.onnx"  # its data's name is part of the bytes
    described = describe_large(task.model, task.example, path)
    scores, quality = _judged(task, Module(task.model, task.example), request, width)
    facts = profile(task.model, named_graph(task.model, task.example), sample_shape(task.example), width)
    value, allowed = float(described), _allowed(goal, task, quality)
    needed = goal.target.ratio(value)
    threads = request.threads or physical_cores()
    nothing = parse_budget("none")
    return Prepared(
        task, goal, nothing, facts, path, scores, quality, value, allowed, needed, threads, described=described
    )


def _width(answers: tuple[int, ...]) -> int:
    """Return how many classes or values a model answers with at each place; 1 for one number a sample."""
    return int(answers[class_dimension(answers)]) if len(answers) > 1 else 1
