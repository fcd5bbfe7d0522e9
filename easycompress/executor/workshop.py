"""Where candidates are made and measured: untrained ones for their bytes and speed, trained ones for the guard."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from easycompress.artifact.exports import Exports
from easycompress.artifact.write import PACKED, move_model
from easycompress.core.errors import CannotCompress
from easycompress.core.progress import AttemptBegun, tell
from easycompress.executor.attempt import Attempt, Probe
from easycompress.executor.build import Built, build
from easycompress.executor.clock import Allowance
from easycompress.executor.dial import endings, settled
from easycompress.executor.guard import Judgement, judge
from easycompress.executor.journal import RESULT, stage_file
from easycompress.executor.onward import TRAINED, earlier_rows, further, heads_of, keep, start_of
from easycompress.executor.rows import rows_of
from easycompress.executor.together import leading
from easycompress.executor.trainer import BATCH, Trainer
from easycompress.measure.files import energy_ratio, latency_ratio, objective_of
from easycompress.measure.runtime import scores_of
from easycompress.measure.statistics import paired_drop, paired_error
from easycompress.training.curve import known

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from easycompress.core.goal import Goal
    from easycompress.core.outcome import Drop
    from easycompress.core.plan import Action
    from easycompress.measure.meter import Meter
    from easycompress.technique import Context

__all__ = ["Attempt", "Probe", "Workshop"]


@dataclass(frozen=True)
class _Judged:
    """A finished candidate and what the guard said of its file."""

    built: Built
    drop: Drop
    verdict: Judgement
    quality: float
    error: float


@dataclass(frozen=True)
class Workshop:
    """What every candidate of one run shares. `baseline` is the original's file, `baseline_value` its objective."""

    trainer: Trainer
    goal: Goal
    baseline: Path
    baseline_value: float
    certify: bool
    batch: int
    threads: int
    meter: Meter | None = None
    exports: Exports = field(default_factory=Exports)

    def probe(self, actions: Sequence[Action]) -> Probe:
        """Write the candidate without any training and measure what doesn't depend on training.

        How long its training steps take is measured where any of `actions` trains.
        """
        quick = [quick for action in actions if (quick := action.untrained()) is not None]
        trains = any(action.trains for action in actions)
        key = ("probe: " if trains else "probe without steps: ") + " + ".join(action.describe() for action in quick)
        made = self.trainer.journal.once(key, lambda: self._probe(quick, trains=trains).model_dump())
        probe = Probe.model_validate(made)
        self.trainer.clock.finished_in(probe.seconds)
        return probe

    def _probe(self, actions: list[Action], *, trains: bool) -> Probe:
        begin = time.perf_counter()
        built = build(self.trainer.task, actions, self.trainer.plain_context())
        path = self.trainer.journal.path("probe.onnx")
        value, ratio = self.measure(
            path, built.write(self.trainer.task, path, packed=self.packed, exports=self.exports)
        )
        seconds = time.perf_counter() - begin
        step = self.trainer.step_seconds(built.model) if trains else 0.0
        return Probe(value=value, ratio=ratio, seconds=seconds, step_seconds=step)

    @property
    def packed(self) -> bool:
        """Tell whether the entropy-coded file is what is asked for."""
        return self.goal.format == "packed"

    def measure(self, path: Path, counted: Path) -> tuple[float, float]:
        """Return the objective of an .onnx file and its ratio to the baseline, time and energy in a paired run.

        `counted` is the file whose bytes are the size: itself, or the packed one beside it.
        """
        objective, example = self.goal.objective, self.trainer.task.example
        if objective == "latency":
            return latency_ratio(self.baseline, path, example, self.batch, self.threads)
        if objective == "energy" and self.meter is not None:
            return energy_ratio(self.baseline, path, example, self.threads, self.meter)
        value = objective_of(counted if objective == "size" else path, objective)
        return value, self.baseline_value / value

    def attempt(
        self,
        number: int,
        actions: Sequence[Action],
        share: float,
        step_seconds: float,
        before: Attempt | None = None,
    ) -> Attempt:
        """Make the candidate with `share` of what is left to spend, judge its file, and journal the result.

        With `before`, an attempt with the same `actions`, its training goes on instead of beginning anew.
        """
        if before is not None:
            actions = further(actions)
        journal = self.trainer.journal
        tag = f"attempt {number}"
        fresh = not journal.holds(f"{tag}{RESULT}")
        allowance = Allowance.model_validate(
            journal.once(f"{tag}: allowance", lambda: self.allow(actions, share, step_seconds).model_dump())
        )
        what = _words(actions, before)
        if fresh:
            tell(self.trainer.progress, AttemptBegun(number=number, what=what, epochs=allowance.epochs))
            self.trainer.pacer.begin(allowance, math.ceil(len(self.trainer.train) / BATCH) * step_seconds)
        attempt = Attempt.model_validate(
            journal.once(f"{tag}{RESULT}", lambda: self._attempt(tag, actions, allowance, before).model_dump())
        )
        self.trainer.learn(attempt)
        self.trainer.clock.epochs_used += attempt.epochs
        self.trainer.clock.finished_in(attempt.finishing)
        if fresh:
            done_with = not (attempt.accepted or attempt.heads)  # another attempt may go on from this one
            for path in [*journal.checkpoints(tag), *(journal.stages(tag) if done_with else [])]:
                path.unlink()
            word = "kept" if attempt.accepted else "rejected"
            self.trainer.progress.say(f"{tag}: {attempt.ratio:.2f}x, {attempt.reason}: {word}")
        tell(self.trainer.progress, attempt.done(number, what))
        self.trainer.pacer.end(attempt.seconds)
        return attempt

    def allow(self, actions: Sequence[Action], share: float, step_seconds: float) -> Allowance:
        """Return what a candidate may train that gets `share` of what is left to spend."""
        training = [action for action in actions if action.trains]
        if not training:
            return Allowance(epochs=0)
        clock = self.trainer.clock
        said: list[int] = [epochs for action in training if (epochs := getattr(action, "epochs", None)) is not None]
        patience = max(action.patience for action in training) * (len(said) if len(said) == len(training) else 1)
        allowance = clock.allow(
            share, step_seconds, self.trainer.evaluation_seconds, len(self.trainer.train), BATCH, patience
        )
        if len(said) < len(training):
            return allowance
        return allowance.model_copy(update={"epochs": min(allowance.epochs, sum(said))})

    def _attempt(self, tag: str, actions: Sequence[Action], allowance: Allowance, before: Attempt | None) -> Attempt:
        begin = time.perf_counter()
        trainer, journal = self.trainer, self.trainer.journal
        trainer.progress.now(f"{tag}: {_words(actions, before)}")
        actions = settled(actions, allowance.epochs)
        context = trainer.context(tag, actions, allowance)
        heads = [action for action in actions if not action.finishes]
        earlier = () if before is None else earlier_rows(before, tag)
        start = start_of(trainer.task, before, journal)
        with leading(trainer, tag, actions, allowance, None if before is None else start):
            trained = start.then(heads, context, partial(self._look, tag, len(earlier) + len(actions)))
        end_of_training = time.perf_counter()
        trainer.pacer.training_ended()
        path = journal.path(f"{tag}.onnx")
        judged = self._judged(trained, actions, context, path)
        reason = f"{judged.verdict.reason}{context.troubles.told()}"
        value, ratio = self.measure(path, path.with_suffix(PACKED) if self.packed else path)
        self._keep(tag, judged.built)
        count = heads_of(trained)
        if count and not judged.verdict.accepted:
            keep(journal.path(f"{tag}{TRAINED}"), trained.model.state_dict())
        after: dict[str, float | None] = {"objective": value, "quality": known(judged.quality), "ratio": ratio}
        after["error"] = known(judged.error)
        end = time.perf_counter()
        done = () if before is None else before.actions[: before.heads]
        return Attempt(
            tag=tag,
            actions=(*done, *(stage.action.model_dump(mode="json") for stage in judged.built.stages)),
            value=value,
            ratio=ratio,
            quality=judged.quality,
            drop=judged.drop,
            accepted=judged.verdict.accepted,
            reason=reason,
            epochs=judged.built.epochs,
            seconds=end - begin,
            finishing=end - end_of_training,
            records=tuple(judged.built.records),
            codes={name: {"form": c.form, "meta": c.meta()} for name, c in judged.built.codes.items()},
            stages=(*earlier, *rows_of(self, judged.built, f"{tag}: {reason}", after, end - begin, earlier)),
            planned_epochs=allowance.epochs,
            heads=count,
            goes_on="" if before is None else before.tag,
        )

    def _judged(self, trained: Built, actions: Sequence[Action], context: Context, path: Path) -> _Judged:
        """Finish a trained candidate, write it to `path` and judge it.

        Where int8 breaks the floor it is calibrated in other ways; the file is then that of the least drop.
        """
        task, baseline, allowed = self.trainer.task, self.trainer.baseline, self.trainer.allowed
        best: _Judged | None = None
        ways = endings(actions)
        for tails in ways:
            built = trained.then(tails, context, final=True)
            built.write(task, path, packed=self.packed, exports=self.exports)
            scores = scores_of(path, task.data.select, task.metric, self.threads)
            drop = paired_drop(baseline, scores, task.metric, allowed)
            error = paired_error(baseline, scores, task.metric)
            verdict = judge(drop, allowed, error=error, certify=self.certify, report_size=len(task.data.report))
            if best is None or verdict.accepted or drop.estimate < best.drop.estimate:
                best = _Judged(built, drop, verdict, task.metric.quality(scores), error)
                if len(ways) > 1:
                    move_model(path, _aside(path))
            if verdict.accepted or self._lost_before(trained):
                break
        assert best is not None  # noqa: S101 - there is always at least one way to end
        if len(ways) > 1:
            move_model(_aside(path), path)
        return best

    def _lost_before(self, trained: Built) -> bool:
        """Tell whether the float model misses the floor already, so that no calibration can help."""
        if not trained.stages or math.isnan(trained.stages[-1].quality):
            return False
        metric = self.trainer.task.metric
        sign = 1 if metric.higher_is_better else -1
        return sign * metric.quality(self.trainer.baseline) - trained.stages[-1].quality > self.trainer.allowed

    def _look(self, tag: str, last: int, built: Built, action: Action) -> tuple[float, float] | None:
        """Write the file of a model half way through an attempt; measure it where its structure has changed."""
        place = len(built.records)
        if place == last:
            return None  # what follows is the attempt's own file
        path = self.trainer.journal.path(stage_file(tag, place))
        try:
            counted = built.write(self.trainer.task, path, packed=self.packed, exports=self.exports)
        except CannotCompress:
            return None  # it need not be a file until the last action is done
        return self.measure(path, counted) if action.restructures else None

    def _keep(self, tag: str, built: Built) -> None:
        """Save the weights beside the file, coded ones as their arrays."""
        tensors = {name: tensor for name, tensor in built.model.state_dict().items() if name not in built.codes}
        for name, code in built.codes.items():
            tensors |= {f"{name}.{part}": array for part, array in code.arrays().items()}
        keep(self.trainer.journal.path(f"{tag}.safetensors"), tensors)


def _words(actions: Sequence[Action], before: Attempt | None) -> str:
    """Say what an attempt does."""
    words = [action.brief() for action in actions]
    return ", ".join(words if before is None else [f"{before.tag} goes on", *words])


def _aside(path: Path) -> Path:
    """Return where a candidate's file waits while others are made under its name."""
    return path.with_name(f"best {path.name}")
