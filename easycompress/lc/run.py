"""LC from a trained model to codes: the loop, then the fine-tuning of what stays free."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import torch

from easycompress.core.inputs import answer
from easycompress.core.outcome import CurvePoint
from easycompress.core.progress import EpochDone, Progress, Silent, Words, tell
from easycompress.lc.algorithm import Loop, Pull, Watch, codes, learning_compression, put
from easycompress.lc.checkpoint import load_loop, save_loop
from easycompress.lc.free import set_free, settle
from easycompress.lc.tasks import parse_tasks
from easycompress.training.checkpoint import state_of
from easycompress.training.curve import curve_of, in_unit, known
from easycompress.training.fit import History, Hooks, Schedule, fit
from easycompress.training.norms import Seen, correct, observed
from easycompress.training.troubles import Troubles

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from typing import Any

    from torch import nn

    from easycompress.codes.base import Code
    from easycompress.core.inputs import Inputs
    from easycompress.core.task import Split
    from easycompress.lc.schedule import Penalty
    from easycompress.training.speed import Speed
    from easycompress.training.terms import Term


NORM_SAMPLES = 1536
"""Training samples that say how going from the last L step's weights to the code changes what batch norm is given."""


FIRST_SAMPLES = 256

DIVERGED = 20.0
"""An L step whose mean loss is this many times the first one (at least 1) is taken back and done at a calmer rate."""

CALMER = 0.3
"""What each such step multiplies the rate of all later ones by."""


@dataclass(frozen=True)
class Recipe:
    """How to train. `epochs` an L step at a rate that falls from `lr` to `lr_last` over the steps, geometrically.

    Then `tune_epochs` epochs of fine-tuning with the peak rate `tune_lr`. `samples` limits an epoch of the first kind,
    `tune_samples` one of the second (0: all), whose steps `optimizer` takes.
    """

    penalty: Penalty
    epochs: int = 1
    lr: float = 0.05
    lr_last: float = 0.005
    tune_epochs: int = 0
    tune_lr: float = 0.005
    batch: int = 128
    samples: int = 0
    tune_samples: int = 0
    weight_decay: float = 0.0
    seed: int = 0
    optimizer: Literal["sgd", "adamw"] = "sgd"

    def rate(self, step: int) -> float:
        """Return the learning rate of an L step."""
        last = max(self.penalty.steps - 1, 1)
        return float(self.lr * (self.lr_last / self.lr) ** (step / last))

    @property
    def total_epochs(self) -> int:
        """Return the epochs of a run that isn't cut short."""
        return self.epochs * self.penalty.steps + self.tune_epochs


@dataclass(frozen=True)
class Means:
    """What training needs beside the recipe; the fields that training.fit.Hooks has too are as they are there.

    `watch_every` L steps the compressed net is evaluated, 0: never.
    """

    data: Split
    term: Term
    speed: Speed
    evaluate: Callable[[nn.Module], float] | None = None
    augment: Callable[[Inputs], Inputs] | None = None
    out_of_time: Callable[[float], bool] = lambda _: False
    progress: Progress = field(default_factory=Silent)
    watch_every: int = 0
    higher_is_better: bool = True
    troubles: Troubles = field(default_factory=Troubles)


@dataclass(frozen=True)
class Compressed:
    """`codes` by parameter name; the model holds their dense values. `rows` as in algorithm.Loop.

    `epochs` counts passes of the recipe's `samples`, an interrupted run's included.
    """

    codes: dict[str, Code]
    rows: tuple[dict[str, float], ...]
    tuning: History
    epochs: int


def run(
    model: nn.Module,
    tasks: Mapping[Any, Any],
    recipe: Recipe,
    means: Means,
    checkpoint: Callable[[str], Path] | None = None,
) -> Compressed:
    """Compress `model`, in place, so that its parameters are what the codes of `tasks` say.

    `tasks` as tasks.parse_tasks reads them. `checkpoint(part)` names files that let a killed run go on: at most one
    epoch is lost, and the result is the same. Files of another model or other tasks are not used.
    """
    parsed = parse_tasks(model, tasks)
    loop = load_loop(checkpoint("lc"), model, parsed) if checkpoint is not None else None
    if loop is None and checkpoint is not None:  # what later parts left belongs to a run that can't go on
        for part in (*(f"lc-{step}" for step in range(1, recipe.penalty.steps)), "lc-tune"):
            checkpoint(part).unlink(missing_ok=True)
    tuned = checkpoint is not None and checkpoint("lc-tune").exists()  # the loop was over, be it for lack of time

    bound = (
        DIVERGED * max(1.0, _first_loss(model, means)) if loop is None else float(loop.rows[0].get("bound", math.inf))
    )
    rollbacks = 0.0 if loop is None else sum(row.get("rollbacks", 0.0) for row in loop.rows)
    means.troubles.diverged += int(rollbacks)  # of the steps that a resume doesn't take again

    def l_step(net: nn.Module, step: int, pull: Pull) -> float:
        nonlocal rollbacks
        schedule = Schedule(
            epochs=recipe.epochs, lr=recipe.rate(step) * CALMER**rollbacks, shape="flat", batch=recipe.batch,
            samples=recipe.samples, weight_decay=recipe.weight_decay, seed=recipe.seed + step,
        )  # fmt: skip
        label = f"learning-compression: step {step + 1}/{recipe.penalty.steps}"
        hooks = Hooks(
            None, bound=bound, augment=means.augment, after_step=pull, progress=Words(means.progress), label=label,
            troubles=means.troubles,
        )  # fmt: skip
        file = None if checkpoint is None else checkpoint(f"lc-{step}")
        history = fit(net, means.data, means.term, schedule, means.speed, hooks, file if recipe.epochs > 1 else None)
        if file is not None:
            file.unlink(missing_ok=True)
        rollbacks += history.rollbacks
        return history.epochs[-1]["loss"] if history.epochs else math.nan

    def save(state: Loop) -> None:
        before = sum(row.get("rollbacks", 0.0) for row in state.rows[:-1])
        state.rows[-1] |= {"rollbacks": rollbacks - before, "bound": bound}
        if checkpoint is not None:
            save_loop(checkpoint("lc"), model, state)
        tell_step(means, recipe, state.rows)

    done = 0 if loop is None else loop.step
    few = means.data.inputs[:NORM_SAMPLES]
    seen: Seen = {}
    watch = Watch(
        _every(means, done), save, lambda state: tuned or _late(means, state), lambda: seen.update(observed(model, few))
    )
    loop = learning_compression(model, parsed, recipe.penalty, l_step, watch, loop)
    made = codes(parsed, loop)
    correct(model, seen, few)
    tuning = History()
    if recipe.tune_epochs and not (means.out_of_time(_epoch_seconds(loop, recipe))):
        made, tuning = tune(model, made, recipe, means, checkpoint)
    model.eval()
    return Compressed(made, tuple(loop.rows), tuning, loop.step * recipe.epochs + len(tuning.epochs))


def _first_loss(model: nn.Module, means: Means) -> float:
    """Return the loss that training begins with, on a few samples: what a diverged one is told by."""
    if not len(means.data):
        return 0.0
    few = means.data.take(slice(0, FIRST_SAMPLES))
    with torch.no_grad():
        loss = means.term(answer(model, few.inputs).float(), few.targets, few.inputs, torch.arange(len(few)))
    return float(loss)


def tune(
    model: nn.Module, made: Mapping[str, Code], recipe: Recipe, means: Means, checkpoint: Callable[[str], Path] | None
) -> tuple[dict[str, Code], History]:
    """Train what is free: code values, biases, batch norm. Keeps the best epoch, the start included.

    What is kept is judged as it is stored: values that are rounded to float16 once more may be worse than they were.
    """
    put({name: model.get_parameter(name) for name in made}, {name: code.dense() for name, code in made.items()})
    model.eval()
    start = -math.inf if means.evaluate is None else means.evaluate(model)
    before = state_of(model)
    set_free(model, made)
    schedule = Schedule(
        epochs=recipe.tune_epochs, lr=recipe.tune_lr, batch=recipe.batch, samples=recipe.tune_samples,
        weight_decay=0.0, seed=recipe.seed + 10_000, optimizer=recipe.optimizer,
    )  # fmt: skip
    hooks = Hooks(
        means.evaluate, start=start, augment=means.augment, out_of_time=means.out_of_time, progress=means.progress,
        label="LC fine-tuning", higher_is_better=means.higher_is_better, troubles=means.troubles,
    )  # fmt: skip
    file = None if checkpoint is None else checkpoint("lc-tune")
    history = fit(model, means.data, means.term, schedule, means.speed, hooks, file)
    tuned = settle(model, made)
    if means.evaluate is not None and (history.best_epoch < 0 or means.evaluate(model) < start):
        model.load_state_dict(before)
        return dict(made), history
    return tuned, history


def points_of(compressed: Compressed, *, higher_is_better: bool) -> tuple[CurvePoint, ...]:
    """Return one point an L step (the compressed net's quality, where it was evaluated), then those of fine-tuning."""
    steps = [
        CurvePoint(
            part="L step",
            epoch=index,
            loss=known(row["loss"]),
            quality=in_unit(row["quality"], higher_is_better=higher_is_better),
            distance=known(row["distance"]),
            mu=row["mu"],
        )
        for index, row in enumerate(compressed.rows, 1)
    ]
    return (*steps, *curve_of("fine-tuning", compressed.tuning, higher_is_better=higher_is_better))


def tell_step(means: Means, recipe: Recipe, rows: Sequence[dict[str, float]]) -> None:
    """Tell of the L step that is over, and the C step after it."""
    row = rows[-1]
    done = EpochDone(
        label="learning-compression",
        epoch=len(rows),
        epochs=recipe.penalty.steps,
        seconds=row["l_seconds"] + row["c_seconds"],
        loss=known(row["loss"]),
        quality=in_unit(row["quality"], higher_is_better=means.higher_is_better),
        distance=known(row["distance"]),
        mu=row["mu"],
        samples=recipe.epochs * min(recipe.samples or len(means.data), len(means.data)),
    )
    tell(means.progress, done)


def _every(means: Means, count: int) -> Callable[[nn.Module], float] | None:
    """Return the evaluation of the compressed net, for every `watch_every`-th step only; NaN for the others.

    `count` steps were taken before.
    """
    if not means.watch_every or means.evaluate is None:
        return None
    evaluate = means.evaluate

    def now_and_then(model: nn.Module) -> float:
        nonlocal count
        count += 1
        return evaluate(model) if count % means.watch_every == 0 else math.nan

    return now_and_then


def _epoch_seconds(loop: Loop, recipe: Recipe) -> float:
    return loop.rows[-1]["l_seconds"] / max(recipe.epochs, 1) if loop.rows else 0.0


def _late(means: Means, loop: Loop) -> bool:
    """Tell whether another L step would be too late. The first one always fits: its length isn't known."""
    return bool(loop.rows) and means.out_of_time(loop.rows[-1]["l_seconds"] + loop.rows[-1]["c_seconds"])
