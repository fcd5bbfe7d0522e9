"""The points of the thesis's figures 11 to 13: what pruning costs, how it recovers, and by which teaching."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, get_args

from easycompress.core.errors import CannotCompress
from easycompress.core.progress import Silent
from easycompress.distillation.settings import Distillation
from easycompress.exploration.plan import Point, interleaved, refusal
from easycompress.pruning.settings import Importance, StructuredPruning
from easycompress.technique import Context
from easycompress.techniques import technique_for

if TYPE_CHECKING:
    from easycompress.core.plan import Action
    from easycompress.core.profile import ModelProfile
    from easycompress.core.task import Task

SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Shares of the channels that figure 11 removes."""

HALF = 0.5
"""Share of the parameters that the pruned models of figures 12 and 13 keep (section 6.1)."""

HALVINGS = 9
"""Tries to find the strength that keeps HALF."""

TEACHINGS = {
    "fine-tuning": Distillation(technique="hard", mode="budget"),
    "soft": Distillation(technique="soft", mode="budget"),
    "combined": Distillation(technique="combined", mode="budget"),
    "combined + attention": Distillation(technique="combined", mode="budget", features=100.0),
}
"""Figure 13: hard labels alone are fine-tuning; the last one adds attention transfer between blocks."""


def plan_figures(task: Task, profile: ModelProfile) -> tuple[list[Point], dict[str, str]]:
    """Return the points of the three figures, and why a technique is left out."""
    left_out: dict[str, str] = {}
    degraded: list[list[Point]] = []
    recovered: list[list[Point]] = []
    for importance in get_args(Importance):
        if importance == "bn-scale" and not profile.has_batch_norm:
            left_out["pruning by bn-scale"] = "the model has no batch normalisation, whose scales it ranks by"
            continue
        try:
            strength = strength_for(HALF, importance, task, profile)
        except CannotCompress as error:
            left_out[f"pruning by {importance}"] = str(error)
            continue
        chain = (_pruning(importance, strength), TEACHINGS["combined"])
        reason = refusal(chain, task, profile)
        degraded.append([_point("degradation", importance, level, s, (_pruning(importance, s),))
                         for level, s in enumerate(SHARES)])  # fmt: skip
        if reason is None:
            recovered.append([_point("recovery", importance, 0, strength, chain)])
        else:
            left_out[f"recovery by {importance}"] = reason
    taught: list[list[Point]] = []
    if degraded:
        strength = strength_for(HALF, "random", task, profile)
        for name, teaching in TEACHINGS.items():
            chain = (_pruning("random", strength), teaching)
            reason = refusal(chain, task, profile)
            if reason is None:
                taught.append([_point("distillation", name, 0, strength, chain)])
            else:
                left_out[f"distillation {name}"] = reason
    return [*interleaved(degraded), *interleaved(recovered), *interleaved(taught)], left_out


def strength_for(kept: float, importance: Importance, task: Task, profile: ModelProfile) -> float:
    """Return the least strength that leaves at most the share `kept` of the parameters, 0.95 where none does."""
    context = Context(task, profile, 0, Silent())
    total = sum(parameter.numel() for parameter in task.model.parameters())

    def left(strength: float) -> float:
        action = _pruning(importance, strength)
        applied = technique_for(action).apply(copy.deepcopy(task.model), action, context)
        return sum(parameter.numel() for parameter in applied.model.parameters()) / total

    low, high = 0.0, 0.95
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if left(middle) > kept else (low, middle)
    return round(high, 4)


def _pruning(importance: Importance, strength: float) -> StructuredPruning:
    return StructuredPruning(strength=strength, importance=importance, steps=1)


def _point(part: str, curve: str, level: int, amount: float, actions: tuple[Action, ...]) -> Point:
    return Point(part=part, curve=curve, label=f"{amount:.0%} of channels", level=level, amount=amount, actions=actions)  # type: ignore[arg-type]  # one of the literals
