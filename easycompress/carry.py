"""From a plan to a delivered result: once, or with several seeds of which one is delivered."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import torch

from easycompress.core.files import copy_file
from easycompress.core.goal import parse_search
from easycompress.core.plan import Plan
from easycompress.core.progress import TimeLeft, tell
from easycompress.deliver import deliver
from easycompress.executor.clock import Clock
from easycompress.executor.executed import Executed
from easycompress.executor.pace import of_budget
from easycompress.executor.repeat import chosen_of, joined, part_of, repeats_of
from easycompress.executor.run import execute
from easycompress.executor.trainer import Trainer
from easycompress.executor.tuning import tune
from easycompress.executor.workshop import Workshop
from easycompress.techniques import parse_action

if TYPE_CHECKING:
    from easycompress.core.outcome import Repeats, Report
    from easycompress.core.progress import Progress
    from easycompress.core.request import Request
    from easycompress.executor.journal import Journal
    from easycompress.executor.run import Tuner
    from easycompress.planning import Later
    from easycompress.prepare import Prepared

CHAINS = ("steps", "quick", "lesser", "last")


def carry_out(
    prepared: Prepared, request: Request, plan: Plan, journal: Journal, progress: Progress, later: Later | None = None
) -> Report:
    """Execute the plan, or the one that the journal holds, with every seed, and deliver what it came to.

    `later` finishes the plan where its quick chain misses the target.
    """
    chosen, book = _journalled(journal, "plan", lambda: plan), journal

    def go_on(later: Later) -> Plan:
        nonlocal chosen
        chosen = _journalled(book, "finished plan", later)
        return chosen

    goes_on = None if later is None else partial(go_on, later)
    executed, repeats = Executed(best=None, steps=(), why=""), None
    if prepared.needed > 1 and (chosen.steps or chosen.quick):
        if request.repeats == 1:
            shop = make_workshop(prepared, request, journal, progress)
            shop.trainer.pacer.tell()
            executed = execute(chosen, shop, prepared.needed, _tuner(request, shop), goes_on)
        else:
            executed, repeats = _repeated(prepared, request, chosen, journal, progress, goes_on)
            journal = journal.part(_label(repeats.delivered))
    progress.now("measuring the result on the report split")
    timed = prepared.budget.kind == "time"
    most = of_budget(prepared.budget.value - journal.elapsed(), prepared.reserve) if timed else None
    tell(progress, TimeLeft(seconds=prepared.reserve, at_most=most))
    return deliver(prepared, request, chosen, executed, journal, journal.out, repeats)


def _repeated(
    prepared: Prepared, request: Request, plan: Plan, journal: Journal, progress: Progress, later: Later | None
) -> tuple[Executed, Repeats]:
    """Carry the plan out with every seed, each with its part of the budget."""
    seeds = range(request.seed, request.seed + request.repeats)
    done: list[Executed] = []
    epochs = 0
    for index, seed in enumerate(seeds):
        progress.say(f"seed {seed}, {index + 1} of {len(seeds)}")
        part, own = journal.part(_label(seed)), request.model_copy(update={"seed": seed})
        began = float(part.once("began", journal.elapsed)) if index else 0.0
        spent = began if prepared.budget.kind == "time" else epochs
        budget = part_of(prepared.budget, index, len(seeds), spent)
        shop = make_workshop(replace(prepared, budget=budget), own, part, progress)
        shop.trainer.clock.start = shop.trainer.pacer.began = began
        shop.trainer.pacer.budget, shop.trainer.pacer.seeds = prepared.budget, len(seeds) - index - 1
        torch.manual_seed(seed)
        done.append(execute(plan, shop, prepared.needed, _tuner(own, shop), later))
        epochs += shop.trainer.clock.epochs_used
    chosen = chosen_of(done, prepared.needed)
    return joined(seeds, done, chosen), repeats_of(seeds, done, chosen, prepared.needed)


def _tuner(request: Request, shop: Workshop) -> Tuner | None:
    """Return what chooses other settings by trials, None unless that was asked for."""
    return None if request.search is None else partial(tune, shop, parse_search(request.search))


def _label(seed: int) -> str:
    return f"seed {seed} "


def make_workshop(prepared: Prepared, request: Request, journal: Journal, progress: Progress) -> Workshop:
    """Set up where candidates are made."""
    kept = journal.path("baseline.onnx")
    copy_file(prepared.baseline, kept)
    clock = Clock(prepared.budget, journal, prepared.reserve)
    trainer = Trainer(
        prepared.task,
        prepared.profile,
        journal,
        clock,
        progress,
        baseline=prepared.scores,
        allowed=prepared.allowed,
        seed=request.seed,
    )
    return Workshop(
        trainer,
        prepared.goal,
        kept,
        prepared.value,
        request.certify,
        request.batch,
        prepared.threads,
        prepared.meter,
    )


def _journalled(journal: Journal, key: str, make: Later) -> Plan:
    """Return the plan that this run began with or went on with: a resumed run must not choose another."""

    def made() -> dict[str, object]:
        plan = make()
        parts = {part: [step.model_dump() for step in getattr(plan, part)] for part in CHAINS}
        return {**parts, "decisions": [d.model_dump() for d in plan.decisions], "notes": list(plan.notes)}

    data = journal.once(key, made)
    chains = {part: tuple(parse_action(step) for step in data.get(part, [])) for part in CHAINS}
    return Plan(decisions=data["decisions"], notes=tuple(data["notes"]), **chains)
