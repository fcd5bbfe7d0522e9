"""What is told of untrained candidates and of attempts: sentences, and the steps of the report."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from easycompress.core.outcome import StepRecord

if TYPE_CHECKING:
    from easycompress.core.outcome import Trial, Tuning
    from easycompress.core.plan import Action
    from easycompress.executor.attempt import Attempt, Probe
    from easycompress.executor.dial import Dial
    from easycompress.executor.search import Outcome
    from easycompress.executor.workshop import Workshop


def found_words(dial: Dial, strength: float, ratio: float, *, exact: bool) -> str:
    """Say which strength reaches the target untrained; `exact`: no lesser one does."""
    searched = next(action for action in dial.actions if action.searched)
    if strength == 0:
        return f"the target needs no {searched.kind}: untrained, the file reaches {ratio:.2f}x"
    which = "the least" if exact else "not sure to be the least, for lack of time:"
    return f"{which} {searched.kind} that reaches the target is {searched.amount(strength)}: {ratio:.2f}x untrained"


def probe_step(shop: Workshop, dial: Dial, strength: float, *, exact: bool) -> StepRecord:
    """Describe the search among untrained candidates."""
    probe = shop.probe(dial.without_training(strength))
    searched = next(action for action in dial.actions if action.searched)
    settled = searched.model_copy(update={"strength": strength})
    verdict: Literal["kept", "skipped"] = "kept" if strength > 0 else "skipped"
    reason = found_words(dial, strength, probe.ratio, exact=exact)
    return probed_step(shop, settled, probe, verdict, reason).model_copy(update={"action": "search"})


def probed_step(
    shop: Workshop, action: Action, probe: Probe, verdict: Literal["kept", "skipped", "reverted"], reason: str
) -> StepRecord:
    """Describe what an untrained candidate showed."""
    quality = shop.trainer.task.metric.quality(shop.trainer.baseline)
    return StepRecord(
        action=action.kind,
        settings=action.model_dump(mode="json", exclude={"kind"}),
        before={"objective": shop.baseline_value, "quality": quality, "ratio": 1.0},
        after={"objective": probe.value, "quality": None, "ratio": probe.ratio},
        verdict=verdict,
        seconds=0.0,
        epochs=0,
        reason=reason,
    )


def steps_of(outcome: Outcome[Attempt]) -> tuple[StepRecord, ...]:
    """Return every attempt's steps with what became of them; those that another one goes on from are among its own."""
    rows: list[StepRecord] = []
    gone_on = {attempt.goes_on for _, attempt in outcome.tried}
    for index, (_, attempt) in enumerate(outcome.tried):
        if attempt.tag in gone_on:
            continue
        later = outcome.tried[index + 1 :]
        weaker = any(other.ratio < attempt.ratio for _, other in later)
        if attempt is outcome.best:
            verdict = "kept"
        elif attempt.accepted:
            verdict = "surpassed"
        else:
            verdict = "weakened" if weaker else "reverted"
        rows.extend(stage.model_copy(update={"verdict": verdict}) for stage in attempt.stages)
    return tuple(rows)


def obstacle(outcome: Outcome[Attempt], shop: Workshop) -> str:
    """Say what stood in the way: the gentlest attempt beyond the best one that broke the floor."""
    reached = outcome.best.ratio if outcome.best is not None else 1.0
    beyond = [a for _, a in outcome.tried if not a.accepted and a.ratio > reached]
    if not beyond:
        return ""
    nearest: Attempt = min(beyond, key=lambda a: (a.ratio, a.drop.estimate))
    if not math.isfinite(nearest.drop.estimate):
        return f"{nearest.ratio:.1f}x gave scores on select that are not finite numbers"
    unit = " points" if shop.trainer.task.metric.percent else ""
    return f"{nearest.ratio:.1f}x lost {nearest.drop.estimate:.2f}{unit} on select"


def most_words(ratio: float) -> str:
    """Say how far a plan goes at most."""
    return f"the strongest setting of this plan gives a file of {ratio:.2f}x"


def tuning_words(tuning: Tuning, *, percent: bool) -> str:
    """Say in one sentence what a search came to; `percent`: the metric is a percentage."""
    states = [trial.state for trial in tuning.trials]
    counts = f"{len(states)} trials of {tuning.epochs} {'epoch' if tuning.epochs == 1 else 'epochs'}, judged on select"
    if cut := states.count("ended"):
        counts += f", {cut} ended early"
    if failed := states.count("failed"):
        counts += f", {failed} failed"
    if tuning.best is None:
        return f"search: {counts}: none came to an end; the plan's own settings stay"
    if not tuning.best:
        return f"search: {counts}: none did better than the plan's own settings, which stay"
    best = tuning.trials[tuning.best]
    gained = f"gained {best.gain or 0.0:.3g} +- {best.error or 0.0:.2g}{' points' if percent else ''}"
    if not tuning.used:
        return f"search: {counts}: the best {gained}, no more than chance; the plan's own settings stay"
    return f"search: {counts}: the best {gained} over the plan's own settings: {turned_words(tuning.trials[0], best)}"


def turned_words(usual: Trial, trial: Trial) -> str:
    """Return the settings in which a trial differs from the first one."""
    differing = [(name, value) for name, value in trial.values.items() if usual.values.get(name) != value]
    return ", ".join(f"{name} {f'{value:.3g}' if isinstance(value, float) else value}" for name, value in differing)
