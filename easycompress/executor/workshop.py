"""Where candidates are made and measured: untrained ones for their bytes and speed, trained ones for the guard."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from safetensors.torch import save

from easycompress.core.files import write_bytes
from easycompress.core.goal import Frozen
from easycompress.core.outcome import Drop, StepRecord
from easycompress.distillation.settings import Distillation
from easycompress.executor.build import Built, build
from easycompress.executor.clock import Allowance
from easycompress.executor.guard import judge
from easycompress.executor.trainer import BATCH, Trainer
from easycompress.measure.files import latency_ratio, objective_of
from easycompress.measure.runtime import scores_of
from easycompress.measure.statistics import paired_drop, paired_error
from easycompress.quantization.settings import StaticInt8

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import nn

    from easycompress.core.goal import Goal
    from easycompress.core.plan import Action

PROBE_SAMPLES = 64
"""Calibration samples of an untrained candidate: its bytes and speed don't depend on the ranges."""


CALIBRATIONS = ("minmax", "percentile", "entropy")
"""Ways to set the ranges of activations; where one breaks the floor the next is tried on the same weights."""


class Probe(Frozen):
    """An untrained candidate: the objective of its real file, the ratio to the baseline, seconds of a training step."""

    value: float
    ratio: float
    step_seconds: float


class Attempt(Frozen):
    """A judged candidate. Its file and weights are in the journal under `tag`.

    `value` is the objective in its own unit, `ratio` baseline / value, `quality` and `drop` those of the written file
    on *select*; `records` rebuild its structure.
    """

    tag: str
    actions: tuple[dict[str, Any], ...]
    value: float
    ratio: float
    quality: float
    drop: Drop
    accepted: bool
    reason: str
    epochs: int
    seconds: float
    records: tuple[dict[str, Any], ...]
    stages: tuple[StepRecord, ...]


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

    def probe(self, actions: Sequence[Action]) -> Probe:
        """Write the candidate without any training and measure what doesn't depend on training."""
        quick = [_quick(action) for action in actions if not isinstance(action, Distillation)]
        key = "probe: " + " + ".join(action.describe() for action in quick)
        return Probe.model_validate(self.trainer.journal.once(key, lambda: self._probe(quick).model_dump()))

    def _probe(self, actions: list[Action]) -> Probe:
        built = build(self.trainer.task, actions, self.trainer.plain_context())
        path = self.trainer.journal.path("probe.onnx")
        built.write(self.trainer.task, path)
        value, ratio = self.measure(path)
        return Probe(value=value, ratio=ratio, step_seconds=self.trainer.step_seconds(built.model))

    def measure(self, path: Path) -> tuple[float, float]:
        """Return a file's objective and its ratio to the baseline, latency in a paired run."""
        if self.goal.objective == "latency":
            return latency_ratio(self.baseline, path, self.trainer.task.example, self.batch, self.threads)
        value = objective_of(path, self.goal.objective)
        return value, self.baseline_value / value

    def attempt(self, number: int, actions: Sequence[Action], share: float, step_seconds: float) -> Attempt:
        """Make the candidate with `share` of what is left to spend, judge its file, and journal the result."""
        journal = self.trainer.journal
        tag = f"attempt {number}"
        fresh = f"{tag}: result" not in journal.entries
        allowance = Allowance.model_validate(
            journal.once(f"{tag}: allowance", lambda: self._allow(actions, share, step_seconds).model_dump())
        )
        attempt = Attempt.model_validate(
            journal.once(f"{tag}: result", lambda: self._attempt(number, tag, actions, allowance).model_dump())
        )
        self.trainer.clock.epochs_used += attempt.epochs
        if fresh:
            for path in journal.folder.glob(f"{tag}.*.checkpoint"):
                path.unlink()
            word = "kept" if attempt.accepted else "rejected"
            self.trainer.progress.say(f"{tag}: {attempt.ratio:.2f}x, {attempt.reason}: {word}")
        return attempt

    def _allow(self, actions: Sequence[Action], share: float, step_seconds: float) -> Allowance:
        if not any(isinstance(action, Distillation) for action in actions):
            return Allowance(epochs=0)
        begin = time.perf_counter()
        self.trainer.evaluate(self.trainer.task.model)
        evaluation = time.perf_counter() - begin
        return self.trainer.clock.allow(share, step_seconds, evaluation, len(self.trainer.train), BATCH)

    def _attempt(self, number: int, tag: str, actions: Sequence[Action], allowance: Allowance) -> Attempt:
        begin = time.perf_counter()
        trainer = self.trainer
        task = trainer.task
        trainer.progress.now(f"{tag}: {', '.join(action.describe() for action in actions)}")
        context = trainer.context(tag, number, actions, allowance)
        heads = [action for action in actions if not isinstance(action, StaticInt8)]
        trained = build(task, heads, context, self._measure_float)
        path = trainer.journal.path(f"{tag}.onnx")
        for tails in _calibrations(actions):
            built = trained.then(tails, context)
            built.write(task, path)
            scores = scores_of(path, task.data.select, task.metric, self.threads)
            drop = paired_drop(trainer.baseline, scores, task.metric, trainer.allowed)
            error = paired_error(trainer.baseline, scores, task.metric)
            verdict = judge(drop, trainer.allowed, error=error, certify=self.certify, report_size=len(task.data.report))
            if verdict.accepted:
                break
        value, ratio = self.measure(path)
        self._keep(tag, built)
        quality = task.metric.quality(scores)
        seconds = time.perf_counter() - begin
        after: dict[str, float | None] = {"objective": value, "quality": quality, "ratio": ratio}
        return Attempt(
            tag=tag,
            actions=tuple(stage.action.model_dump() for stage in built.stages),
            value=value,
            ratio=ratio,
            quality=quality,
            drop=drop,
            accepted=verdict.accepted,
            reason=verdict.reason,
            epochs=built.epochs,
            seconds=seconds,
            records=tuple(built.records),
            stages=self._stages(tag, built, after, verdict.reason),
        )

    def _measure_float(self, model: nn.Module) -> tuple[float, float]:
        """Measure a float model half way through an attempt, as a file like every other."""
        path = self.trainer.journal.path("stage.onnx")
        Built(model).write(self.trainer.task, path)
        return self.measure(path)

    def _stages(self, tag: str, built: Built, result: dict[str, float | None], reason: str) -> tuple[StepRecord, ...]:
        """Describe an attempt action by action: quality in PyTorch until the last one, whose numbers are the file's."""
        quality = self.trainer.task.metric.quality(self.trainer.baseline)
        before: dict[str, float | None] = {"objective": self.baseline_value, "quality": quality, "ratio": 1.0}
        rows = []
        for stage in built.stages:
            last = stage is built.stages[-1]
            after = dict(before)
            if stage.measured is not None:
                after["objective"], after["ratio"] = stage.measured
            if not math.isnan(stage.quality):
                after["quality"] = stage.quality if self.trainer.task.metric.higher_is_better else -stage.quality
            rows.append(
                StepRecord(
                    action=stage.action.kind,
                    settings=stage.action.model_dump(exclude={"kind"}),
                    before=before,
                    after=result if last else after,
                    verdict="kept",
                    seconds=stage.seconds,
                    epochs=stage.epochs,
                    reason=f"{tag}: {reason}" if last else f"{tag}: judged after its last action",
                )
            )
            before = after
        return tuple(rows)

    def _keep(self, tag: str, built: Built) -> None:
        """Save the weights beside the file, coded ones as their arrays."""
        tensors = {name: tensor for name, tensor in built.model.state_dict().items() if name not in built.codes}
        for name, code in built.codes.items():
            tensors |= {f"{name}.{part}": array for part, array in code.arrays().items()}
        path = self.trainer.journal.path(f"{tag}.safetensors")
        write_bytes(path, save({name: tensor.contiguous() for name, tensor in tensors.items()}))


def _calibrations(actions: Sequence[Action]) -> list[list[StaticInt8]]:
    """Return the ways to end an attempt, in order: its own calibration first, others where that breaks the floor."""
    int8 = next((action for action in actions if isinstance(action, StaticInt8)), None)
    if int8 is None:
        return [[]]
    others = [c for c in CALIBRATIONS if c != int8.calibration]
    return [[int8], *[[int8.model_copy(update={"calibration": c})] for c in others]]


def _quick(action: Action) -> Action:
    if isinstance(action, StaticInt8):
        return action.model_copy(update={"samples": min(action.samples, PROBE_SAMPLES), "calibration": "minmax"})
    return action
