"""Plans that a recipe says, and what a plan must do without for a model and data at hand."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from easycompress.core.errors import BadInput, CannotCompress, one_line
from easycompress.core.plain import read_yaml
from easycompress.core.plan import Plan
from easycompress.core.progress import Silent
from easycompress.distillation.settings import Distillation
from easycompress.distillation.technique import missing_labels
from easycompress.quantization.settings import WeightOnly
from easycompress.technique import Context
from easycompress.techniques import parse_action, technique_for

if TYPE_CHECKING:
    from pathlib import Path

    from easycompress.core.plan import Action
    from easycompress.core.profile import ModelProfile
    from easycompress.core.task import Task


def read_recipe(path: Path) -> Plan:
    """Read the actions of a recipe.yaml."""
    steps = _parsed(path)["steps"]
    return Plan(steps=tuple(parse_action(step) for step in steps), decisions=(), notes=(f"replayed from {path.name}",))


def seeds_of(path: Path) -> dict[str, int]:
    """Return what a recipe.yaml says of `seed` and `split_seed`: with others the weights would be others."""
    found = {key: value for key, value in _parsed(path).items() if key in ("seed", "split_seed")}
    for key, value in found.items():
        if not isinstance(value, int) or not 0 <= value < 2**32:
            raise BadInput(f"--recipe {path}: {key} {value!r} is no number from 0 to 2**32 - 1; give --seed")
    return found


def _parsed(path: Path) -> dict[str, Any]:
    try:
        data = read_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"--recipe {path}: can't be read ({error.strerror}); give a recipe.yaml") from error
    except UnicodeDecodeError as error:
        raise BadInput(f"--recipe {path}: not text; give the recipe.yaml of a finished run") from error
    except ValueError as error:
        raise BadInput(
            f"--recipe {path}: not valid YAML ({one_line(error)}); use the recipe.yaml of a finished run"
        ) from error
    steps = data.get("steps") if isinstance(data, dict) else None
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        raise BadInput(f"--recipe {path}: has no list `steps`; use the recipe.yaml of a finished run")
    found: dict[str, Any] = data
    return found


def for_large(plan: Plan, *, replayed: bool) -> Plan:
    """Return the part of a plan that needs no copy of the weights, or what stands in for it, with a note.

    Raises CannotCompress where a recipe asks for more.
    """
    others = [
        step.kind for step in (*plan.quick, *plan.steps, *plan.lesser, *plan.last) if not isinstance(step, WeightOnly)
    ]
    if not others:
        return plan
    what = f"{' and '.join(others)}: needs copies of the weights, too much over 2 GB"
    if replayed:
        raise CannotCompress(f"{what}; leave it out, or use weight-only")
    kept = tuple(step for step in plan.steps if isinstance(step, WeightOnly)) or (WeightOnly(bits=4, strength=None),)
    return plan.model_copy(
        update={"quick": (), "lesser": (), "last": (), "steps": kept, "notes": (f"{what}; weight-only instead",)}
    )


def lacking(task: Task, action: Action) -> str | None:
    """Return in one line which data an action needs that isn't there, or None."""
    data, needs = task.data, technique_for(action).needs
    if "training" in needs and not len(data.train):
        return f"{action.kind}: needs training data, and there is none; give a train split, or leave that step out"
    if "calibration" in needs and not len(data.calibration):
        return f"{action.kind}: needs samples to calibrate on, and there are none; give training data"
    return missing_labels(action, data.train) if isinstance(action, Distillation) else None


def tried(task: Task, profile: ModelProfile, plan: Plan, *, replayed: bool) -> Plan:
    """Try on a copy what a model may resist, and leave it out of the plan, or replace it, where it does: with a note.

    Changes of the structure are tried at strength 0, simulated integers without training. Raises CannotCompress when a
    recipe asks for it all the same, or nothing else is left to do.
    """
    context = Context(task, profile, 0, Silent())
    kept = plan
    for step in plan.steps:
        if not (step.restructures or (step.trains and step.integers)):
            continue
        gentle = step.model_copy(update={"strength": 0.0}) if "strength" in type(step).model_fields else step
        try:
            technique_for(step).apply(copy.deepcopy(task.model), gentle.untrained() or gentle, context)
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
