"""From what was measured to a plan: the heuristics, what is tried on copies, and the trees or the recipe."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from easycompress.core.errors import CannotCompress
from easycompress.core.ledger import spending
from easycompress.executor.run import MEASURED_MARGIN
from easycompress.executor.trainer import BATCH
from easycompress.metrics import CLASS_LOSSES, OWN_ANSWERS, UNTAUGHT
from easycompress.selection.heuristics import Heuristics, as_points, gather
from easycompress.selection.probe import losses
from easycompress.selection.recipe import for_large, lacking, read_recipe, tried
from easycompress.selection.select import channels_in_question, chooses_codes, integers_in_question, select, structures
from easycompress.selection.speeds import Stopwatch, structure_speeds
from easycompress.selection.trials import (
    count_blocks,
    integer_losses,
    lesser_losses,
    narrowing_lost,
    outside_blocks,
    structure_losses,
)
from easycompress.techniques import technique_for
from easycompress.training.speed import tune

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from easycompress.core.plan import Action, Plan
    from easycompress.core.request import Request
    from easycompress.prepare import Prepared

    Later: TypeAlias = Callable[[], Plan]


def make_heuristics(prepared: Prepared, request: Request, spent: float) -> Heuristics:
    """Gather what the rules ask about, the losses of codes put off (None); `spent` seconds of the budget are gone."""
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
        labelled=task.metric.name not in (OWN_ANSWERS if request.loss else UNTAUGHT),
        class_scores=task.loss in CLASS_LOSSES,
        augmented=task.augment is not None,
    )
    if prepared.described is not None:
        return facts  # nothing can be tried on copies
    facts = facts.model_copy(update={"outside_blocks": outside_blocks(task.model, prepared.profile)})
    found_out: dict[str, Any] = {}
    if asked := channels_in_question(facts):
        found_out["narrowing_lost"] = narrowing_lost(task, prepared.profile, *asked)
        facts = facts.model_copy(update=found_out)
    if chooses_codes(facts) and math.isfinite(prepared.needed):
        found_out["code_losses"] = None
    if facts.objective == "latency":
        found_out["blocks"] = count_blocks(task)
    facts = facts.model_copy(update=found_out)
    if compared := structures(facts):
        facts = facts.model_copy(update=_compared(prepared, compared, request.batch))
    if integers := integers_in_question(facts):
        found = integer_losses(task, prepared.profile, integers, prepared.scores, prepared.threads)
        points = {name: as_points(loss, task.metric, prepared.quality) for name, loss in found.items()}
        facts = facts.model_copy(update={"integer_losses": tuple(points.items())})
    return facts


def _compared(prepared: Prepared, actions: dict[str, Action], batch: int) -> dict[str, Any]:
    """Return what changes of the structure lose on copies; where time counts, at the speed that they reach."""
    task, needed = prepared.task, prepared.needed
    if prepared.goal.objective != "latency":
        found = structure_losses(task, prepared.profile, actions, needed)
        lesser = lesser_losses(task, prepared.profile, actions, needed)
        return {"structure_losses": tuple(found.items()), "lesser_losses": tuple(lesser.items())}
    faster = Stopwatch(prepared.baseline, task.example, batch, prepared.threads).faster
    speeds, lost = structure_speeds(task, prepared.profile, actions, MEASURED_MARGIN * needed, faster)
    return {"structure_speeds": tuple(speeds.items()), "structure_losses": tuple(lost.items())}


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
    plan, later = begin_plan(prepared, request, base, spent)
    return plan if later is None else later()


@spending("planning")
def begin_plan(prepared: Prepared, request: Request, base: Path, spent: float) -> tuple[Plan, Later | None]:
    """Return the plan to begin with, and what finishes it once its quick chain has missed the target.

    The codes that are trained then are found out only then: that takes minutes, and most targets never need it. None
    where nothing was put off. Raises as make_plan().
    """
    if request.recipe is not None:
        plan, epochs = read_recipe(base / request.recipe), _affordable(prepared, spent)
        return _possible(prepared, plan, epochs, replayed=True), None
    facts = make_heuristics(prepared, request, spent)
    plan = _possible(prepared, select(facts), facts.epochs_affordable, replayed=False)
    return plan, partial(_finished, prepared, facts) if facts.code_losses is None and plan.quick else None


@spending("planning")
def _finished(prepared: Prepared, facts: Heuristics) -> Plan:
    """Return the plan once every candidate of codes was tried at the needed size."""
    found = losses(prepared.task, prepared.profile, prepared.value / prepared.needed, packed=facts.packed)
    facts = facts.model_copy(update={"code_losses": tuple(found.items())})
    return _possible(prepared, select(facts), facts.epochs_affordable, replayed=False)


def _possible(prepared: Prepared, plan: Plan, epochs: float, *, replayed: bool) -> Plan:
    """Return what of a plan can be done with this model. Raises CannotCompress where a step can't be replaced."""
    if prepared.described is not None:
        plan = for_large(plan, replayed=replayed)
    plan = plan.model_copy(update={"epochs": epochs})
    plan = tried(prepared.task, prepared.profile, plan, replayed=replayed)
    possible = tuple(step for step in plan.last if technique_for(step).refuses(prepared.profile, step) is None)
    lesser = (*plan.lesser[:1], *(step for step in plan.steps if not step.restructures)) if plan.lesser else ()
    refused = any(technique_for(step).refuses(prepared.profile, step) is not None for step in lesser)
    plan = plan.model_copy(update={"last": possible, "lesser": () if refused else lesser})
    problems = []
    for step in (*plan.quick, *plan.steps):
        refusals = (technique_for(step).refuses(prepared.profile, step), lacking(prepared.task, step))
        problems += [refusal for refusal in refusals if refusal is not None]
    if problems:
        raise CannotCompress("; ".join(problems))
    return plan
