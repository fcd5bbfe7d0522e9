"""The executor: carries out a plan within its budget, and returns the best candidate that the floor permits."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

from easycompress.core.errors import CannotCompress
from easycompress.executor.dial import Dial
from easycompress.executor.executed import Executed
from easycompress.executor.limits import may_go_further, may_go_on, may_place, may_probe, most_attempts
from easycompress.executor.onward import FURTHER_SHARE, can_go_on, near, used, within_reach
from easycompress.executor.search import RESOLUTION, Outcome, gentler, least_strength, search
from easycompress.executor.told import found_words, most_words, obstacle, probe_step, probed_step, steps_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeAlias

    from easycompress.core.outcome import StepRecord, Tuning
    from easycompress.core.plan import Plan
    from easycompress.executor.workshop import Attempt, Workshop

    Tuner: TypeAlias = Callable[[Dial, float | None], tuple[Dial, float | None, Tuning | None]]
    """Returns the dial with better settings and its least strength that reaches the target, and how they were found."""

    Dials: TypeAlias = tuple[Dial, ...]
    """Ways to carry out one plan: at each strength the one counts whose untrained file is the best."""

MEASURED_MARGIN = 1.05
"""What is measured aims this much above the target: two measurements of one file differ by a few percent."""


LAST_SHARE = 0.1
"""Share of a time budget that is kept for a last chain, which trains nothing."""


def execute(
    plan: Plan, shop: Workshop, needed: float, tuner: Tuner | None = None, later: Callable[[], Plan] | None = None
) -> Executed:
    """Carry out `plan` so that the ratio reaches `needed` (infinite: the most within the floor).

    The quick chain goes first; where it meets the goal, or nothing else is planned, the rest isn't done. Otherwise
    `later` may say how the plan goes on. Where there is a lesser chain, the main one is tried at the target alone, and
    where it misses that the lesser one goes on below. The last one follows where the goal is missed, as it takes no
    training. `tuner` may choose other settings for what is trained. Raises what `later` raises, where the quick chain
    came to nothing.
    """
    progress = shop.trainer.progress
    quick = Executed(best=None, steps=(), why="", tried=0)
    if plan.quick:
        shop.trainer.clock.open_end = bool(plan.steps)
        progress.now("trying what needs no training")
        quick = _chain(Dial(plan.quick), shop, needed, 0)
        if not plan.steps or quick.reaches(needed):
            return quick
        shop.trainer.clock.open_end = False
        if later is not None:
            progress.now("trying which codes to train")
            try:
                plan = later()
            except CannotCompress as error:
                if quick.best is None:
                    raise
                return quick.model_copy(update={"why": f"the rest of the plan can't be done: {error}"})
    clock = shop.trainer.clock
    kept = LAST_SHARE * clock.budget.value if plan.last and clock.budget.kind == "time" else 0.0
    clock.reserve += kept
    lesser = Dial(plan.lesser) if plan.lesser else None
    done = quick.then(_chain(Dial(plan.steps), shop, needed, quick.tried, tuner, lesser))
    clock.reserve -= kept
    if not plan.last or done.reaches(needed):
        return done
    progress.say("the steps miss the target; trying what needs no training")
    return done.then(_chain(Dial(plan.last), shop, needed, done.tried))


def _chain(
    dial: Dial, shop: Workshop, needed: float, number: int, tuner: Tuner | None = None, lesser: Dial | None = None
) -> Executed:
    """Carry out one chain of actions; attempts are counted from `number` on.

    With `lesser` it is tried at the target alone, and that one goes on below it.
    """
    objective = shop.goal.objective
    measured = objective == "latency" or (objective == "energy" and shop.meter is not None)
    aim = needed * (MEASURED_MARGIN if measured else dial.slack if objective == "size" else 1.0)
    tuning: Tuning | None = None
    if dial.fixed:
        dial, _, tuning = (dial, None, None) if tuner is None else tuner(dial, 0.0)
        done = _fixed(dial, shop, needed, number).model_copy(update={"tuning": tuning})
        return done if lesser is None or done.reaches(needed) else done.then(_chain(lesser, shop, math.inf, done.tried))
    progress = shop.trainer.progress
    progress.now("writing untrained candidates: what is the least that reaches the target")
    steps: list[StepRecord] = []
    dial = _without_useless_int8(dial, shop, steps)
    dials, least, exact = _least(_ways(dial, shop, aim, steps), shop, aim, number)
    most: float | None = None
    if least is None and needed != float("inf"):
        most = _ratio(shop, dials, 1.0)
        progress.say(
            f"{shop.goal.target.text} is out of reach: {most_words(most)}; looking for the most within the floor"
        )
    elif least is not None:
        best = _best(shop, dials, least)
        progress.say(found_words(best, least, _ratio(shop, dials, least), exact=exact))
        steps.append(probe_step(shop, best, least, exact=exact))
    if tuner is not None and lesser is not None and least is None:
        lesser, _, tuning = tuner(lesser, None)
    elif tuner is not None:
        best = _best(shop, dials, 1.0 if least is None else least)
        tuned, least, tuning = tuner(best, least)
        dials = tuple(tuned if each == best else each for each in dials)
        lesser = None if lesser is None else lesser.taught_as(tuned)
    outcome: Outcome[Attempt] = Outcome()
    if lesser is None or least is not None:
        outcome = _search(dials, shop, least, number, needed, alone=lesser is None)
    if lesser is not None and outcome.best is None and least != 0 and may_go_on(shop, number + len(outcome.tried)):
        progress.say(f"the target is missed; {lesser.actions[0].kind} loses less below it, and goes on")
        rest = _below((lesser,), shop, outcome, number + len(outcome.tried))
        outcome = Outcome(rest.best, [*outcome.tried, *rest.tried])
    floating: Dials = (dials[0].floating(),)
    if outcome.best is None and floating not in (dials, (Dial(()),)) and may_go_on(shop, number + len(outcome.tried)):
        progress.say("nothing with int8 keeps the floor; looking for the most that floating point does")
        floating, least, _ = _least(floating, shop, aim, number + len(outcome.tried))
        rest = _search(floating, shop, least, number + len(outcome.tried), needed)
        outcome = Outcome(rest.best, [*outcome.tried, *rest.tried])
    steps.extend(steps_of(outcome))
    why = obstacle(outcome, shop) if most is None else most_words(max([most, *(a.ratio for _, a in outcome.tried)]))
    return Executed(best=outcome.best, steps=tuple(steps), why=why, tried=number + len(outcome.tried), tuning=tuning)


def _below(dials: Dials, shop: Workshop, missed: Outcome[Attempt], number: int) -> Outcome[Attempt]:
    """Search for as much as the floor permits below what the last attempt has missed, or at all if there was none."""
    begin: tuple[float, float] | None = None
    last = missed.tried[-1][1] if missed.tried else None
    halvings = itertools.count(1)
    dials, most, _ = _least(dials, shop, math.inf if last is None else last.ratio, number, halvings)
    if last is not None:
        wanted = gentler(last.ratio, used(last, shop.trainer.allowed))
        first = least_strength(
            lambda s: _ratio(shop, dials, s), wanted, lambda: may_probe(shop, number, next(halvings))
        )
        begin = (1.0 if first is None else first, 1.0 + RESOLUTION if most is None else most)
    return _search(dials, shop, None, number, math.inf, begin=begin)


def _ways(dial: Dial, shop: Workshop, aim: float, steps: list[StepRecord]) -> Dials:
    """Return the dial, and that without int8 where it becomes the faster one.

    Few channels are soon computed: rounding to integers and back then takes longer than it saves.
    """
    plain = dial.floating()
    if shop.goal.objective != "latency" or plain in (dial, Dial(())) or _ratio(shop, (dial,), 0.0) >= aim:
        return (dial,)
    integers, floats = (_ratio(shop, (each,), 1.0) for each in (dial, plain))
    if floats <= integers:
        return (dial,)
    reason = f"the strongest setting gives {integers:.2f}x with int8 and {floats:.2f}x in floating point"
    reason += "; int8 is left out where it is slower"
    shop.trainer.progress.say(reason)
    int8 = next(action for action in dial.actions if action.integers)
    steps.append(probed_step(shop, int8, shop.probe(dial.without_training(1.0)), "skipped", reason))
    return (plain, dial)


def _least(
    dials: Dials, shop: Workshop, aim: float, number: int, halvings: Iterator[int] | None = None
) -> tuple[Dials, float | None, bool]:
    """Return the dials and the least strength that reaches `aim`; a family that can't is widened to all layers.

    `number` attempts were made before, and `halvings` counts the files since. The last is False where the clock ended
    the search, so that a lesser strength may do as well.
    """
    files = itertools.count(1) if halvings is None else halvings
    least: float | None = None
    exact = True

    def goes_on() -> bool:
        nonlocal exact
        exact = may_probe(shop, number, next(files))
        return exact

    choices = dict.fromkeys((dials, tuple(dial.everywhere() for dial in dials)))
    for tried in choices:
        least = least_strength(
            lambda s, d=tried: _ratio(shop, d, s, aim),  # type: ignore[misc]  # mypy can't type a default in a lambda
            aim,
            goes_on,
        )
        if least is not None:
            return tried, least, exact
    return max(choices, key=lambda tried: _ratio(shop, tried, 1.0)), None, exact


def _without_useless_int8(dial: Dial, shop: Workshop, steps: list[StepRecord]) -> Dial:
    """Leave int8 out where it makes the file slower here: smaller is not what was asked for."""
    int8 = tuple(action for action in dial.actions if action.integers)
    if shop.goal.objective != "latency" or not int8:
        return dial
    probe = shop.probe(int8)
    if probe.ratio >= 1:
        return dial
    reason = f"int8 alone is slower than float32 in this runtime: {probe.ratio:.2f}x"
    shop.trainer.progress.say(f"{reason}; it is left out")
    steps.append(probed_step(shop, int8[0], probe, "reverted", reason))
    return dial.floating()


def _search(
    dials: Dials,
    shop: Workshop,
    least: float | None,
    number: int,
    needed: float,
    *,
    alone: bool = True,
    begin: tuple[float, float] | None = None,
) -> Outcome[Attempt]:
    """Search the strengths of `dials`; attempts are counted from `number` on. `alone` and `begin` as search() says."""
    last: Attempt | None = None
    files = itertools.count(1)

    def attempt(strength: float, share: float, *, insist: bool = False) -> Attempt:
        nonlocal number, last
        number += 1
        actions = _best(shop, dials, strength).without_training(strength)
        before = last if insist and last is not None and can_go_on(last) else None
        if insist:
            actions = tuple(action.insisting() for action in actions)
        if before is not None:
            share = FURTHER_SHARE
        # The least strength ends the search once it is accepted; the others get equal shares of what is left.
        shop.trainer.clock.expect(0 if strength == least else round(1 / share) - 1)
        last = shop.attempt(number, actions, share, shop.probe(actions).step_seconds, before)
        return last

    def goes_on(tried: Attempt) -> bool:
        return within_reach(tried, shop.trainer.allowed) and may_go_further(shop, number, FURTHER_SHARE)

    return search(
        least,
        attempt,
        lambda s: _ratio(shop, dials, s),
        lambda: may_go_on(shop, number, trains=dials[0].trains),
        may_insist=lambda first: near(dials[0], shop, first) or goes_on(first),
        may_further=goes_on,
        used=lambda tried: used(tried, shop.trainer.allowed),
        may_place=lambda: may_place(shop, number, next(files), trains=dials[0].trains),
        most=most_attempts(dials[0], shop, number),
        needed=needed,
        alone=alone,
        begin=begin,
    )


def _ratio(shop: Workshop, dials: Dials, strength: float, enough: float = math.inf) -> float:
    """Return the ratio of the best untrained file at that strength, or of the first that reaches `enough`."""
    best = 0.0
    for dial in dials:
        actions = dial.without_training(strength)
        best = max(best, shop.probe(actions).ratio if actions else 1.0)
        if best >= enough:
            break
    return best


def _best(shop: Workshop, dials: Dials, strength: float) -> Dial:
    """Return the dial whose untrained file is the best at that strength."""
    return dials[0] if len(dials) == 1 else max(dials, key=lambda dial: _ratio(shop, (dial,), strength))


def _fixed(dial: Dial, shop: Workshop, needed: float, number: int) -> Executed:
    """Carry out actions whose settings are settled: one attempt."""
    actions = dial.at(0.0)
    seconds = shop.probe(actions).step_seconds
    outcome: Outcome[Attempt] = Outcome()
    shop.trainer.clock.expect(0)
    outcome.add(0.0, shop.attempt(number + 1, actions, 1.0, seconds))
    short = outcome.best is not None and outcome.best.ratio < needed
    why = "the plan holds nothing that goes further" if short and needed != float("inf") else obstacle(outcome, shop)
    return Executed(best=outcome.best, steps=steps_of(outcome), why=why, tried=number + 1)
