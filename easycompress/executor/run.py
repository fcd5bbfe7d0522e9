"""The executor: carries out a plan within its budget, and returns the best candidate that the floor permits."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from easycompress.core.goal import Frozen
from easycompress.core.outcome import StepRecord
from easycompress.distillation.settings import Distillation
from easycompress.executor.search import Outcome, least_needed, least_strength, search
from easycompress.executor.workshop import Attempt  # noqa: TC001 - pydantic reads the field types at run time
from easycompress.pruning.settings import StructuredPruning
from easycompress.quantization.settings import StaticInt8

if TYPE_CHECKING:
    from easycompress.core.plan import Action, Plan
    from easycompress.executor.workshop import Workshop

LATENCY_MARGIN = 1.05
"""Latency aims this much above the target: two measurements of one file differ by a few percent."""

LEAST_SECONDS = 5.0
"""With less than this left for training, no further attempt is begun."""

PROBING_SHARE = 0.4
"""Share of a time budget that the search among untrained candidates may use; what is left is for training."""


class Executed(Frozen):
    """What a plan came to: the best accepted attempt (None: the original stays), every step, why it missed."""

    best: Attempt | None
    steps: tuple[StepRecord, ...]
    why: str


@dataclass(frozen=True)
class _Dial:
    """The actions of a plan as a function of the pruning strength; at 0 pruning is left out."""

    actions: tuple[Action, ...]

    @property
    def trains(self) -> bool:
        """Tell whether there is an action that trains."""
        return any(isinstance(action, Distillation) for action in self.actions)

    def without_int8(self) -> _Dial:
        """Return the dial of a float model."""
        return _Dial(tuple(action for action in self.actions if not isinstance(action, StaticInt8)))

    @property
    def fixed(self) -> bool:
        """Tell whether there is nothing to search: a replayed recipe, or a plan without pruning."""
        return not any(isinstance(a, StructuredPruning) and a.strength is None for a in self.actions)

    def at(self, strength: float) -> tuple[Action, ...]:
        """Return the actions with that strength."""
        chosen: list[Action] = []
        for action in self.actions:
            if isinstance(action, StructuredPruning) and action.strength is None:
                if strength > 0:
                    chosen.append(action.model_copy(update={"strength": strength}))
            else:
                chosen.append(action)
        return tuple(chosen)

    def without_training(self, strength: float) -> tuple[Action, ...]:
        """Return the actions that change the model at once; what needs no recovery shouldn't spend time on it."""
        return tuple(a for a in self.at(strength) if strength > 0 or not isinstance(a, Distillation))


def execute(plan: Plan, shop: Workshop, needed: float) -> Executed:
    """Carry out `plan` so that the ratio reaches `needed` (infinite: the most within the floor)."""
    dial = _Dial(plan.steps)
    aim = least_needed(needed, measured=shop.goal.objective == "latency", margin=LATENCY_MARGIN)
    if dial.fixed:
        return _fixed(dial, shop, needed)
    progress = shop.trainer.progress
    progress.now("writing untrained candidates to find the least pruning that reaches the target")
    halvings = itertools.count(1)
    least = least_strength(lambda s: _ratio(shop, dial, s), aim, lambda: _may_probe(shop, next(halvings)))
    steps: list[StepRecord] = []
    why = ""
    if least is None and needed != float("inf"):
        most = _ratio(shop, dial, 1.0)
        why = f"even with every prunable layer at its narrowest the file reaches only {most:.1f}x"
        progress.say(f"{shop.goal.target.text} is out of reach: {why}; looking for the most within the floor")
    elif least is not None:
        progress.say(_found(least, _ratio(shop, dial, least)))
        steps.append(_probe_step(shop, dial, least))
    outcome = _search(dial, shop, least, 0)
    plain = dial.without_int8()
    if outcome.best is None and plain != dial and _may_go_on(shop, len(outcome.tried)):
        progress.say("nothing with int8 keeps the floor; looking for the most that floating point does")
        rest = _search(plain, shop, None, len(outcome.tried))
        outcome = Outcome(rest.best, [*outcome.tried, *rest.tried])
    steps.extend(_steps(outcome))
    return Executed(best=outcome.best, steps=tuple(steps), why=why or _why(outcome, shop))


def _search(dial: _Dial, shop: Workshop, least: float | None, number: int) -> Outcome[Attempt]:
    """Search the strengths of `dial`; attempts are counted from `number` on."""

    def attempt(strength: float, share: float, *, insist: bool = False) -> Attempt:
        nonlocal number
        number += 1
        actions = dial.without_training(strength)
        if insist:
            actions = tuple(_to_the_end(action) for action in actions)
        return shop.attempt(number, actions, share, shop.probe(actions).step_seconds)

    return search(
        least,
        attempt,
        lambda s: _ratio(shop, dial, s),
        lambda: _may_go_on(shop, number),
        may_insist=dial.trains and shop.trainer.clock.budget.kind != "none",
    )


def _to_the_end(action: Action) -> Action:
    return action.model_copy(update={"mode": "budget"}) if isinstance(action, Distillation) else action


def _ratio(shop: Workshop, dial: _Dial, strength: float) -> float:
    actions = dial.without_training(strength)
    return shop.probe(actions).ratio if actions else 1.0


def _fixed(dial: _Dial, shop: Workshop, needed: float) -> Executed:
    """Carry out actions whose settings are settled: one attempt."""
    actions = dial.at(0.0)
    seconds = shop.probe(actions).step_seconds
    outcome: Outcome[Attempt] = Outcome()
    outcome.add(0.0, shop.attempt(1, actions, 1.0, seconds))
    short = outcome.best is not None and outcome.best.ratio < needed
    why = "the plan holds nothing that goes further" if short and needed != float("inf") else _why(outcome, shop)
    return Executed(best=outcome.best, steps=_steps(outcome), why=why)


def _may_go_on(shop: Workshop, number: int) -> bool:
    """Tell whether there is time for more after `number` attempts; journalled, so that a resume goes the same way."""
    clock = shop.trainer.clock
    if clock.budget.kind == "none":
        return True
    least = 1 if clock.budget.kind == "epochs" else LEAST_SECONDS
    return bool(shop.trainer.journal.once(f"attempt {number}: may another follow", lambda: clock.left() >= least))


def _may_probe(shop: Workshop, halving: int) -> bool:
    """Tell whether there is time for another untrained candidate; journalled like every answer of the clock."""
    journal, budget = shop.trainer.journal, shop.trainer.clock.budget
    if budget.kind != "time":
        return True
    until = PROBING_SHARE * budget.value
    return bool(journal.once(f"halving {halving}: may it begin", lambda: journal.elapsed() < until))


def _found(strength: float, ratio: float) -> str:
    if strength == 0:
        return f"the target needs no pruning: untrained, the file reaches {ratio:.2f}x"
    return f"the least pruning that reaches the target removes {strength:.1%} of the channels: {ratio:.2f}x untrained"


def _probe_step(shop: Workshop, dial: _Dial, strength: float) -> StepRecord:
    actions = dial.without_training(strength)
    probe = shop.probe(actions)
    none: dict[str, float | None] = {"objective": shop.baseline_value, "quality": None, "ratio": 1.0}
    return StepRecord(
        action="search",
        settings={"strength": strength},
        before=none,
        after={"objective": probe.value, "quality": None, "ratio": probe.ratio},
        verdict="kept" if strength > 0 else "skipped",
        seconds=0.0,
        epochs=0,
        reason=_found(strength, probe.ratio),
    )


def _steps(outcome: Outcome[Attempt]) -> tuple[StepRecord, ...]:
    """Return every attempt's steps with what became of them."""
    rows: list[StepRecord] = []
    for index, (_, attempt) in enumerate(outcome.tried):
        later = outcome.tried[index + 1 :]
        weaker = any(other.ratio < attempt.ratio for _, other in later)
        verdict = "kept" if attempt is outcome.best else "weakened" if weaker else "reverted"
        rows.extend(stage.model_copy(update={"verdict": verdict}) for stage in attempt.stages)
    return tuple(rows)


def _why(outcome: Outcome[Attempt], shop: Workshop) -> str:
    """Say what stood in the way: the gentlest attempt beyond the best one that broke the floor."""
    reached = outcome.best.ratio if outcome.best is not None else 1.0
    beyond = [a for _, a in outcome.tried if not a.accepted and a.ratio > reached]
    if not beyond:
        return ""
    nearest: Attempt = min(beyond, key=lambda a: a.ratio)
    if not math.isfinite(nearest.drop.estimate):
        return f"{nearest.ratio:.1f}x gave scores on select that are not finite numbers"
    unit = " points" if shop.trainer.task.metric.percent else ""
    return f"{nearest.ratio:.1f}x lost {nearest.drop.estimate:.2f}{unit} on select"
