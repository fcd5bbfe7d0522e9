"""explore(): plan the points, have them measured, write curves, pictures and the page, and pick one if asked."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import onnx
import torch
from torch import nn

from easycompress.assemble import make_the_task
from easycompress.calling import as_flags, handed, held, name_of, own_randomness, scratch_folder
from easycompress.core.errors import CannotCompress
from easycompress.core.files import read_json
from easycompress.core.goal import parse_floor, parse_objective
from easycompress.core.progress import Progress, Silent
from easycompress.executor.trainer import BATCH
from easycompress.exploration.asking import (
    budget_of,
    check_numbers,
    folder_of,
    names_of,
    with_floor,
    without_goal,
)
from easycompress.exploration.figures import plan_figures
from easycompress.exploration.outputs import write_outputs
from easycompress.exploration.pareto import Original, Standing, stand
from easycompress.exploration.pick import Picked, pick_point
from easycompress.exploration.plan import Point, plan_curves
from easycompress.exploration.points import Bench, Row, Spec
from easycompress.exploration.story import Story
from easycompress.exploration.work import Until, jobs_of, kept_times, known_rows, measure, timed
from easycompress.intake.config import make_request
from easycompress.measure.compute import macs
from easycompress.measure.files import params

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from easycompress.core.request import Request
    from easycompress.exploration.crew import Job

LEAST_EPOCHS, MOST_EPOCHS = 8, 60
"""Training epochs of every point where none are named: the least, and more of small data until LEAST_UPDATES."""

LEAST_UPDATES = 3000
"""Optimizer steps that a point should get: learning-compression alternates every 60 of them (lc.technique)."""


@dataclass(frozen=True)
class Exploration:
    """What explore() returns. `rows` are all points, `standings` those of the curves with ratios and fronts.

    `missing` counts the points that the budget left out; `picked` is the result of `pick`.
    """

    out: Path
    original: Original
    rows: tuple[Row, ...]
    standings: tuple[Standing, ...]
    missing: int
    picked: Picked | None = None

    @property
    def exit_code(self) -> int:
        """Return that of the picked result, else 0."""
        return 0 if self.picked is None else self.picked.exit_code


def explore(
    model: nn.Module | str | Path,
    *,
    train: object = None,
    validation: object = None,
    test: object = None,
    out: str | Path | None = None,
    epochs: int | None = None,
    curves: str | Sequence[str] | None = None,
    figures: bool = False,
    workers: int = 1,
    ray: str | None = None,
    latency: bool = False,
    pick: str | None = None,
    progress: Progress | None = None,
    **flags: Any,  # noqa: ANN401 - the command line's flags with underscores
) -> Exploration:
    """Measure what compression costs: curves of quality against size over techniques, all trained alike.

    `model`, `train`, `validation`, `test` and further keywords as in compress(); no target is needed, and the floor
    (default 1 point) is only drawn. Every point is trained for `epochs` epochs (None: usual_epochs) by one rule, and
    kept under OUT/points: a run that was stopped goes on, a finished point isn't measured again. `curves`: names of
    exploration.plan.CURVES, None: all. `figures`: the thesis's figures 11 to 13 too. `workers` processes, or actors of
    the Ray cluster at `ray` (`local`: one of this machine). `latency`: every file is timed beside the original's, at
    the end. `pick`: a point becomes a result of compress() in OUT/picked, see exploration.pick.
    Raises BadInput and CannotCompress with one line. A point that fails is a row with its reason.
    """
    began = time.monotonic()
    progress = progress or Silent()
    names = names_of(curves)
    check_numbers(epochs, workers)
    splits, flags = handed((train, validation, test), flags)
    budget = budget_of(flags.get("budget"))
    request, base = make_request(name_of(model), as_flags(flags), use_file=not isinstance(model, nn.Module))
    folder = folder_of(model, out)
    request = without_goal(request, folder, splits)
    with scratch_folder() as scratch, held(folder), own_randomness(request.seed):
        task = make_the_task(model, request, base, splits)
        threads = max(1, torch.get_num_threads() // workers)
        subject = model if isinstance(model, nn.Module) else str(model)
        epochs = epochs or usual_epochs(len(task.data.train))
        spec = Spec(subject, request, base, splits, epochs, threads, folder)
        progress.now("measuring the original")
        bench = Bench(spec, scratch, progress, task)
        request = with_floor(request, task.metric)
        story = _begun(bench, request, epochs)
        points, left_out = _planned(bench, request, progress, figures=figures)
        jobs = jobs_of(points, bench, spec)
        found = known_rows(jobs, folder)
        wanted = _wanted(jobs, found, names, only_known=pick is not None)
        if found:
            progress.say(f"{len(found)} points are known already")
        untrained = budget is not None and budget.kind == "none"
        queue = [job for job in wanted if not (untrained and job[0].trains)]
        until = Until(began, budget.value if budget is not None and not untrained else None)
        found |= measure(queue, bench, spec, story, (workers, ray), until, progress)
        missing = sum(job not in found for job in queue)
        if missing:
            progress.say(f"{missing} of {len(jobs)} points are missing; the same command with more --budget goes on")
        rows = [found[job] for job in jobs if job in found] + ([] if figures else _earlier_figures(folder, story))
        times = timed(rows, bench.prepared, request, folder, progress) if latency else kept_times(folder)
        standings = stand(rows, story.original, times, higher_is_better=story.metric.higher_is_better)
        story = replace(
            story, rows=tuple(rows), standings=tuple(standings), left_out=left_out, missing=missing, latencies=times
        )
        if pick is None or wanted or not (folder / "explore.html").exists():
            progress.now("drawing")
            write_outputs(story, folder)
        picked = None if pick is None else pick_point(pick, story, task, request, scratch, folder, progress)
    return Exploration(folder, story.original, story.rows, story.standings, missing, picked)


def _wanted(jobs: list[Job], found: dict[Job, Row], names: tuple[str, ...], *, only_known: bool) -> list[Job]:
    """Return what is to be measured: points of the named curves and of figures that aren't found yet.

    `only_known`: a point is picked of those that are there, if any are, and nothing is trained for it.
    """
    if only_known and found:
        return []
    return [job for job in jobs if job not in found and (job[0].part != "curves" or job[0].curve in names)]


def usual_epochs(samples: int) -> int:
    """Return the training epochs of every point for a training split of that size."""
    updates = max(1, math.ceil(samples / BATCH))
    return min(max(math.ceil(LEAST_UPDATES / updates), LEAST_EPOCHS), MOST_EPOCHS)


def _begun(bench: Bench, request: Request, epochs: int) -> Story:
    """Return what is known before the first point."""
    prepared = bench.prepared
    graph = onnx.load(str(prepared.baseline))
    original = Original(
        size_bytes=prepared.baseline.stat().st_size,
        macs=macs(graph),
        params=params(graph),
        quality=prepared.quality,
        loss=bench.loss(prepared.baseline),
    )
    metric = prepared.task.metric
    floor = parse_floor(request.max_drop, request.min_quality, percent_metric=metric.percent, metric=metric.name)
    allowed = floor.allowed_drop(prepared.quality, higher_is_better=metric.higher_is_better)
    return Story(request, original, metric, floor.text, allowed, len(prepared.task.data.select), epochs=epochs)


def _planned(
    bench: Bench, request: Request, progress: Progress, *, figures: bool
) -> tuple[list[Point], dict[str, str]]:
    """Return all points, and what doesn't fit this model with the reason. Raises CannotCompress where nothing does."""
    task, profile = bench.prepared.task, bench.prepared.profile
    points, left_out = plan_curves(task, profile, parse_objective(request.objective))
    if figures:
        progress.now("planning the figures of pruning and distillation")
        more, without = plan_figures(task, profile)
        points, left_out = [*points, *more], left_out | without
    if not points:
        raise CannotCompress("explore: no curve fits this model: " + "; ".join(left_out.values()))
    for name, reason in left_out.items():
        progress.say(f"left out: {name}: {reason}")
    return points, left_out


def _earlier_figures(folder: Path, story: Story) -> list[Row]:
    """Return the points of the figures that an earlier run of the same model and epochs drew."""
    path = folder / "curves.json"
    if not path.is_file():
        return []
    data = read_json(path)
    same = data.get("original") == story.original.model_dump(mode="json") and data.get("epochs") == story.epochs
    return [Row.model_validate(row) for row in data.get("figures", [])] if same else []
