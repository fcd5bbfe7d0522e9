"""The executor: carries out a plan within its budget, and returns the best candidate that the floor permits."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from easycompress.core.goal import Frozen
from easycompress.core.outcome import StepRecord
from easycompress.distillation.settings import Distillation
from easycompress.executor.search import MOST_ATTEMPTS, RESOLUTION, Outcome, least_strength, search
from easycompress.executor.trainer import BATCH
from easycompress.executor.workshop import Attempt  # noqa: TC001 - pydantic reads the field types at run time
from easycompress.pruning.settings import StructuredPruning
from easycompress.quantization.settings import StaticInt8

if TYPE_CHECKING:
    from easycompress.core.plan import Action, Plan
    from easycompress.executor.workshop import Probe, Workshop

SIZE_MARGIN = 1.002
"""Bytes aim a little above the target: how many constants two calibrations share can differ by a few dozen bytes."""

LATENCY_MARGIN = 1.05
"""Latency aims this much above the target: two measurements of one file differ by a few percent."""

LEAST_SECONDS = 5.0
"""With less than this left for training, no further attempt is begun."""

WORTHWHILE_EPOCHS = 8
"""Epochs that an attempt should get: with fewer the rate falls before the pruned model has recovered."""

LEAST_ATTEMPTS = 4
"""Attempts that a search is given all the same; the first of them, without pruning, costs nothing."""

NEAR = 3.0
"""A rejected attempt is trained once more, to the end, when its drop is at most this many times the permitted one."""

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

    def everywhere(self) -> _Dial:
        """Return the dial that prunes every layer, whatever family the plan chose."""
        return _Dial(tuple(a.model_copy(update={"strategy": "global"}) if _searched(a) else a for a in self.actions))

    @property
    def fixed(self) -> bool:
        """Tell whether there is nothing to search: a replayed recipe, or a plan without pruning."""
        return not any(_searched(action) for action in self.actions)

    def at(self, strength: float) -> tuple[Action, ...]:
        """Return the actions with that strength."""
        chosen: list[Action] = []
        for action in self.actions:
            if not _searched(action):
                chosen.append(action)
            elif strength > 0:
                chosen.append(action.model_copy(update={"strength": strength}))
        return tuple(chosen)

    def without_training(self, strength: float) -> tuple[Action, ...]:
        """Return the actions that change the model at once; what needs no recovery shouldn't spend time on it."""
        return tuple(a for a in self.at(strength) if strength > 0 or not isinstance(a, Distillation))


def _searched(action: Action) -> bool:
    return isinstance(action, StructuredPruning) and action.strength is None


def execute(plan: Plan, shop: Workshop, needed: float) -> Executed:
    """Carry out `plan` so that the ratio reaches `needed` (infinite: the most within the floor)."""
    dial = _Dial(plan.steps)
    aim = needed * {"latency": LATENCY_MARGIN, "size": SIZE_MARGIN}.get(shop.goal.objective, 1.0)
    if dial.fixed:
        return _fixed(dial, shop, needed)
    progress = shop.trainer.progress
    progress.now("writing untrained candidates to find the least pruning that reaches the target")
    steps: list[StepRecord] = []
    dial = _without_useless_int8(dial, shop, steps)
    dial, least = _least(dial, shop, aim)
    why = ""
    if least is None and needed != float("inf"):
        most = _ratio(shop, dial, 1.0)
        room = "" if most < needed else f", and it takes {aim:.2f}x to be safe from the noise of timing"
        why = f"even with every layer as narrow as this plan makes it the file reaches only {most:.2f}x{room}"
        progress.say(f"{shop.goal.target.text} is out of reach: {why}; looking for the most within the floor")
    elif least is not None:
        progress.say(_found(least, _ratio(shop, dial, least)))
        steps.append(_probe_step(shop, dial, least))
    outcome = _search(dial, shop, least, 0)
    plain = dial.without_int8()
    if outcome.best is None and plain != dial and _may_go_on(shop, len(outcome.tried)):
        progress.say("nothing with int8 keeps the floor; looking for the most that floating point does")
        plain, least = _least(plain, shop, aim)
        rest = _search(plain, shop, least, len(outcome.tried))
        outcome = Outcome(rest.best, [*outcome.tried, *rest.tried])
    steps.extend(_steps(outcome))
    return Executed(best=outcome.best, steps=tuple(steps), why=why or _why(outcome, shop))


def _least(dial: _Dial, shop: Workshop, aim: float) -> tuple[_Dial, float | None]:
    """Return the dial and the least strength that reaches `aim`; a family that can't is widened to all layers."""
    halvings = itertools.count(1)
    least: float | None = None
    for tried in dict.fromkeys((dial, dial.everywhere())):
        least = least_strength(
            lambda s, d=tried: _ratio(shop, d, s),  # type: ignore[misc]  # mypy can't type a default in a lambda
            aim,
            lambda: _may_probe(shop, next(halvings)),
        )
        if least is not None:
            return tried, least
    return max(dict.fromkeys((dial, dial.everywhere())), key=lambda d: _ratio(shop, d, 1.0)), None


def _without_useless_int8(dial: _Dial, shop: Workshop, steps: list[StepRecord]) -> _Dial:
    """Leave int8 out where it makes the file slower here: smaller is not what was asked for."""
    int8 = tuple(action for action in dial.actions if isinstance(action, StaticInt8))
    if shop.goal.objective != "latency" or not int8:
        return dial
    probe = shop.probe(int8)
    if probe.ratio >= 1:
        return dial
    reason = f"int8 alone is slower than float32 in this runtime: {probe.ratio:.2f}x"
    shop.trainer.progress.say(f"{reason}; it is left out")
    steps.append(_probed(shop, int8[0], probe, "reverted", reason))
    return dial.without_int8()


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
        may_insist=lambda first: _near(dial, shop, first),
        most=_most_attempts(dial, shop, number),
    )


def _most_attempts(dial: _Dial, shop: Workshop, number: int) -> int:
    """Return among how many attempts the budget is divided: few that can recover beat many that can't."""
    trainer, clock = shop.trainer, shop.trainer.clock
    if clock.budget.kind == "none" or not dial.trains:
        return MOST_ATTEMPTS

    def affordable() -> float:
        if clock.budget.kind == "epochs":
            return clock.left()
        seconds = shop.probe(dial.without_training(0.5)).step_seconds * math.ceil(len(trainer.train) / BATCH)
        return clock.left() / seconds if seconds else math.inf

    epochs = float(trainer.journal.once(f"after attempt {number}: affordable epochs", affordable))
    return max(LEAST_ATTEMPTS, math.floor(min(epochs / WORTHWHILE_EPOCHS, MOST_ATTEMPTS)))


def _near(dial: _Dial, shop: Workshop, attempt: Attempt) -> bool:
    """Tell whether training to the end could bring a rejected attempt within the floor."""
    stopped_early = attempt.epochs < attempt.planned_epochs
    return dial.trains and stopped_early and attempt.drop.estimate <= NEAR * max(shop.trainer.allowed, 0.0)


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
    probe = shop.probe(dial.without_training(strength))
    pruning = next(action for action in dial.at(max(strength, RESOLUTION)) if isinstance(action, StructuredPruning))
    settled = pruning.model_copy(update={"strength": strength})
    verdict: Literal["kept", "skipped"] = "kept" if strength > 0 else "skipped"
    return _probed(shop, settled, probe, verdict, _found(strength, probe.ratio)).model_copy(update={"action": "search"})


def _probed(
    shop: Workshop, action: Action, probe: Probe, verdict: Literal["kept", "skipped", "reverted"], reason: str
) -> StepRecord:
    """Describe what an untrained candidate showed."""
    quality = shop.trainer.task.metric.quality(shop.trainer.baseline)
    return StepRecord(
        action=action.kind,
        settings=action.model_dump(exclude={"kind"}),
        before={"objective": shop.baseline_value, "quality": quality, "ratio": 1.0},
        after={"objective": probe.value, "quality": None, "ratio": probe.ratio},
        verdict=verdict,
        seconds=0.0,
        epochs=0,
        reason=reason,
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
