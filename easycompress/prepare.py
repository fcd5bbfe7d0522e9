"""Everything before the first change: the goal, the baseline's file and its numbers, the heuristics, the plan."""

from __future__ import annotations

import copy
import math
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import yaml

from easycompress.artifact.onnx_export import export
from easycompress.artifact.slim import slim
from easycompress.artifact.write import check_float_file
from easycompress.core.errors import BadInput, CannotCompress, one_line
from easycompress.core.files import sha256, write_bytes
from easycompress.core.goal import Budget, Goal, parse_budget, parse_floor, parse_objective, parse_target
from easycompress.core.inputs import parts, sample_shape
from easycompress.core.plan import Plan
from easycompress.core.progress import Silent
from easycompress.distillation.settings import Distillation
from easycompress.distillation.technique import missing_labels
from easycompress.executor.trainer import BATCH
from easycompress.measure.files import objective_of
from easycompress.measure.latency import time_files
from easycompress.measure.meter import find_meter, measure
from easycompress.measure.profile import profile
from easycompress.measure.runtime import Runtime, physical_cores, scores_from
from easycompress.metrics import default_loss
from easycompress.selection.heuristics import Heuristics, as_points, gather
from easycompress.selection.probe import losses
from easycompress.selection.select import chooses_codes, integers_in_question, select, structures
from easycompress.selection.trials import count_blocks, integer_losses, structure_losses
from easycompress.technique import Context
from easycompress.techniques import parse_action, technique_for
from easycompress.training.speed import tune

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from easycompress.core.plan import Action
    from easycompress.core.profile import ModelProfile
    from easycompress.core.request import Request
    from easycompress.core.task import Metric, Split, Task
    from easycompress.measure.meter import Meter

CHANCE_ERRORS = 3.0
"""A baseline within so many standard errors of always naming the commonest class makes nothing of its inputs."""

CHECKED = 5
"""Samples on which the original's file is compared with PyTorch: others than it was exported by, and more of them."""

RESERVE_SHARE = 0.05
"""Share of a time budget kept for the last measurements, at least RESERVE_SECONDS."""

RESERVE_SECONDS = 10.0


@dataclass(frozen=True)
class Prepared:
    """A task measured, before anything is changed. `scores` (N,) and `quality` are the baseline's on *select*."""

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

    @property
    def reserve(self) -> float:
        """Return the seconds kept for measuring the result."""
        return max(RESERVE_SECONDS, RESERVE_SHARE * self.budget.value) if self.budget.kind == "time" else 0.0


def make_goal(request: Request, metric: Metric) -> Goal:
    """Parse the request's goal. Raises BadInput for each flag that makes no sense."""
    objective = parse_objective(request.objective)
    if request.target is None:
        raise BadInput("no target given: add --target 10x (ratio), 90% (reduction), an amount such as 120KB, or max")
    target = parse_target(request.target, objective)
    floor = parse_floor(request.max_drop, request.min_quality, percent_metric=metric.percent, metric=metric.name)
    if request.format not in ("onnx", "packed"):
        raise BadInput(f"--format {request.format}: not a format; write onnx, or packed for the smallest file")
    return Goal(objective=objective, target=target, floor=floor, format=request.format)


def prepare(task: Task, request: Request, folder: Path) -> Prepared:
    """Write and measure the baseline into `folder`. Raises where the model can't be exported or knows nothing."""
    goal, budget = make_goal(request, task.metric), parse_budget(request.budget)
    threads = request.threads or physical_cores()
    graph = export(task.model, task.example)
    baseline = write_bytes(folder / "baseline.onnx", slim(graph).SerializeToString())
    runtime = Runtime(baseline, threads)
    others = task.data.select.inputs[-CHECKED:]  # what export froze from the example agrees there
    check_float_file(task.model, others, runtime.run(others))
    outputs = runtime.outputs(task.data.select)
    scores = scores_from(outputs, task.data.select, task.metric)
    quality = task.metric.quality(scores)
    if not math.isfinite(quality):
        raise BadInput(
            f"the model's {task.metric.name} on select is not a finite number; check its outputs, --mean and --std"
        )
    if not request.force:
        _refuse_chance(task, quality, outputs.shape[1])
    facts = profile(task.model, graph, sample_shape(task.example), int(outputs.shape[1]))
    meter = find_meter()
    if goal.objective == "latency":
        value = time_files([baseline], task.example, request.batch, threads)[0].median
    elif goal.objective == "energy" and meter is not None:
        value = measure([baseline], task.example, threads, meter)[0].value
    else:
        value = objective_of(baseline, goal.objective)
    allowed = goal.floor.allowed_drop(quality, higher_is_better=task.metric.higher_is_better)
    if allowed < 0:
        raise BadInput(
            f"--min-quality {goal.floor.text}: the original itself reaches only {quality:.2f} on select; "
            "lower the floor"
        )
    needed = goal.target.ratio(value)
    return Prepared(task, goal, budget, facts, baseline, scores, quality, value, allowed, needed, threads, meter)


def _refuse_chance(task: Task, quality: float, classes: int) -> None:
    targets = task.data.select.targets
    if task.metric.name != "accuracy" or targets is None:
        return
    commonest = int(targets.bincount().max()) / len(targets)
    chance = max(commonest, 1 / classes)
    limit = 100 * (chance + CHANCE_ERRORS * math.sqrt(chance * (1 - chance) / len(targets)))
    if quality <= limit:
        raise BadInput(
            f"the model's accuracy on select is {quality:.2f}%, no better than chance ({100 * chance:.2f}%): usually "
            "--mean and --std are missing or not those of its training, or the labels are in another order; "
            "--force goes on"
        )


def flags_of(request: Request) -> dict[str, Any]:
    """Return the flags that a run's course depends on."""
    keys = ("objective", "target", "max_drop", "min_quality", "format", "budget", "backend", "batch", "threads",
            "certify", "seed", "augment", "metric", "loss", "mean", "std", "recipe")  # fmt: skip
    return request.model_dump(mode="json", include=set(keys))


def fingerprint(prepared: Prepared, request: Request) -> dict[str, Any]:
    """Return what the values of a journal depend on: the flags, the model's file and the data."""
    data = prepared.task.data
    checksums = [_checksum(split) for split in (data.train, data.select, data.report)]
    return flags_of(request) | {"model": sha256(prepared.baseline), "data": checksums}


def _checksum(split: Split) -> int:
    targets = torch.empty(0) if split.targets is None else split.targets
    checksum = 0
    for tensor in (*parts(split.inputs), targets):
        checksum = zlib.crc32(tensor.contiguous().numpy().data, checksum)
    return checksum


def make_heuristics(prepared: Prepared, request: Request, spent: float) -> Heuristics:
    """Gather what the rules ask about; `spent` seconds of the budget are gone."""
    task, budget = prepared.task, prepared.budget
    facts = gather(
        prepared.profile,
        task.metric,
        prepared.goal,
        budget,
        baseline_quality=prepared.quality,
        baseline_objective=prepared.value,
        epochs_affordable=_affordable(prepared, spent),
        backend=request.backend,
        train_samples=len(task.data.train),
        calibration_samples=len(task.data.calibration),
        labelled=task.metric.name != "agreement",
        class_scores=(request.loss or default_loss(task.metric)) == "cross-entropy",
        augmented=task.augment is not None,
    )
    tried: dict[str, Any] = {}
    finite = math.isfinite(prepared.needed)
    if chooses_codes(facts) and finite:
        found = losses(task, prepared.profile, prepared.value / prepared.needed, packed=facts.packed)
        tried["code_losses"] = tuple(found.items())
    if facts.objective == "latency":
        tried["blocks"] = count_blocks(task)
    facts = facts.model_copy(update=tried)
    if compared := structures(facts):
        found = structure_losses(task, prepared.profile, compared, prepared.needed)
        facts = facts.model_copy(update={"structure_losses": tuple(found.items())})
    if integers := integers_in_question(facts):
        found = integer_losses(task, prepared.profile, integers, prepared.scores, prepared.threads)
        points = {name: as_points(loss, task.metric, prepared.quality) for name, loss in found.items()}
        facts = facts.model_copy(update={"integer_losses": tuple(points.items())})
    return facts


def _affordable(prepared: Prepared, spent: float) -> float:
    """Estimate how many epochs of the unpruned model the budget pays for, by timing a few steps."""
    budget, train = prepared.budget, prepared.task.data.train
    if budget.kind == "epochs":
        return budget.value
    if budget.kind == "none" or not len(train):
        return 0.0
    step = tune(prepared.task.model, train, BATCH).step_seconds
    return max(0.0, budget.value - spent - prepared.reserve) / (step * math.ceil(len(train) / BATCH))


def make_plan(prepared: Prepared, request: Request, base: Path, spent: float) -> Plan:
    """Return the recipe's plan, or walk the trees. Raises CannotCompress with every refusal of a technique at once."""
    replayed = request.recipe is not None
    plan = (
        read_recipe(base / request.recipe)
        if request.recipe is not None
        else select(make_heuristics(prepared, request, spent))
    )
    plan = _tried(prepared, plan, replayed=replayed)
    problems = []
    for step in (*plan.quick, *plan.steps):
        refusals = (technique_for(step).refuses(prepared.profile, step), lacking(prepared.task, step))
        problems += [refusal for refusal in refusals if refusal is not None]
    if problems:
        raise CannotCompress("; ".join(problems))
    return plan


def lacking(task: Task, action: Action) -> str | None:
    """Return in one line which data an action needs that isn't there, or None."""
    data, needs = task.data, technique_for(action).needs
    if "training" in needs and not len(data.train):
        return f"{action.kind}: needs training data, and there is none; give a train split, or leave that step out"
    if "calibration" in needs and not len(data.calibration):
        return f"{action.kind}: needs samples to calibrate on, and there are none; give training data"
    return missing_labels(action, data.train) if isinstance(action, Distillation) else None


def _tried(prepared: Prepared, plan: Plan, *, replayed: bool) -> Plan:
    """Try on a copy what a model may resist, and leave it out of the plan, or replace it, where it does: with a note.

    Changes of the structure are tried at strength 0, simulated integers without training. Raises CannotCompress when a
    recipe asks for it all the same, or nothing else is left to do.
    """
    context = Context(prepared.task, prepared.profile, 0, Silent())
    kept = plan
    for step in plan.steps:
        if not (step.restructures or (step.trains and step.integers)):
            continue
        gentle = step.model_copy(update={"strength": 0.0}) if "strength" in type(step).model_fields else step
        try:
            technique_for(step).apply(copy.deepcopy(prepared.task.model), gentle.untrained() or gentle, context)
        except CannotCompress as error:
            instead = step.instead()
            rest = tuple(instead or other if other is step else other for other in kept.steps)
            rest = tuple(other for other in rest if other is not step)
            if not any(other.restructures for other in rest):
                rest = tuple(other for other in rest if not other.recovers)  # there is nothing to recover from
            if replayed or not rest:
                raise
            how = "is left out" if instead is None else f"gives way to {instead.kind}"
            kept = kept.model_copy(update={"steps": rest, "notes": (*kept.notes, f"{step.kind} {how}: {error}")})
    return kept


def read_recipe(path: Path) -> Plan:
    """Read the actions of a recipe.yaml."""
    try:
        data = yaml.safe_load(path.read_text())
    except OSError as error:
        raise BadInput(f"--recipe {path}: can't be read ({error.strerror}); give a recipe.yaml") from error
    except UnicodeDecodeError as error:
        raise BadInput(f"--recipe {path}: not text; give the recipe.yaml of a finished run") from error
    except yaml.YAMLError as error:
        raise BadInput(
            f"--recipe {path}: not valid YAML ({one_line(error)}); use the recipe.yaml of a finished run"
        ) from error
    steps = data.get("steps") if isinstance(data, dict) else None
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        raise BadInput(f"--recipe {path}: has no list `steps`; use the recipe.yaml of a finished run")
    return Plan(steps=tuple(parse_action(step) for step in steps), decisions=(), notes=(f"replayed from {path.name}",))
