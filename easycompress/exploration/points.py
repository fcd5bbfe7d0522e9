"""One point: a fixed setting carried out, written as files, and measured on *select*. A finished point is kept."""

from __future__ import annotations

import hashlib
import json
import math
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import onnx
import torch
from pydantic import Field

from easycompress.artifact.external import bytes_of
from easycompress.artifact.write import PACKED
from easycompress.assemble import make_the_task
from easycompress.carry import make_workshop
from easycompress.core.files import read_json, sha256, write_json
from easycompress.core.goal import NO_FLOOR, Frozen
from easycompress.core.outcome import CurvePoint, Drop
from easycompress.executor.clock import Allowance
from easycompress.executor.journal import open_journal
from easycompress.executor.trainer import LARGE_MACS
from easycompress.fingerprint import hash_of
from easycompress.measure.compute import macs
from easycompress.measure.decoded import decoded
from easycompress.measure.files import params
from easycompress.measure.runtime import Runtime
from easycompress.prepare import prepare
from easycompress.training.speed import Speed, has_bfloat16

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from easycompress.core.plan import Action
    from easycompress.core.progress import Progress
    from easycompress.core.request import Request
    from easycompress.core.task import Task
    from easycompress.executor.workshop import Attempt
    from easycompress.exploration.plan import Point
    from easycompress.prepare import Prepared

SCHEMA = "easycompress-point/1"
"""Part of every key: a version that measures otherwise has another one."""

POINTS, POINT = "points", "point.json"
"""The folder in OUT of all points, and the result in a point's own folder."""

LOSS_SAMPLES = 10_000
"""Training samples, the first ones, that the training loss of a point's file is the mean over."""

NUMBER, TAG = 1, "attempt 1"
"""A point is the first and only attempt of its journal."""

HALF_MACS = 1_000_000
"""Multiply-accumulates a sample from which a convolutional net trains in bfloat16, channels last.

LeNet5 (2.3 million), 55 000 images, one thread: 5.9 s an epoch, 8.8 s in float32. LeNet300 (0.3 million) stays float32.
"""


class Row(Frozen):
    """One measured point. Bytes are those of the files, `macs` a sample, `quality` and `drop` those of *select*.

    `loss` is the mean training loss of the file; `papers` are ratios by the papers' formulas; `course` is how training
    went. Without numbers the point failed, for the `reason`.
    """

    key: str
    part: str
    curve: str
    label: str
    level: int
    amount: float
    actions: tuple[dict[str, Any], ...]
    reason: str = ""
    size_bytes: int | None = None
    packed_bytes: int | None = None
    macs: int | None = None
    params: int | None = None
    loss: float | None = None
    quality: float | None = None
    drop: Drop | None = None
    error: float | None = None
    epochs: int = 0
    seconds: float = 0.0
    threads: int = 1
    papers: dict[str, float] = Field(default_factory=dict)
    course: tuple[CurvePoint, ...] = ()

    @property
    def measured(self) -> bool:
        """Tell whether there are numbers."""
        return self.quality is not None and self.size_bytes is not None


@dataclass(frozen=True)
class Murmur:
    """Tells what is being done within a point, under its name, and keeps what a guard without a floor says."""

    progress: Progress
    name: str

    def say(self, text: str) -> None:
        """Keep it: the point's row will say what came out."""

    def now(self, text: str) -> None:
        """Tell what is being tried."""
        self.progress.now(f"{self.name}: {text.removeprefix(f'{TAG}: ')}")


@dataclass(frozen=True)
class Spec:
    """All that a process needs to measure points. `out` is the exploration's folder, `threads` what it may use."""

    model: nn.Module | str
    request: Request
    base: Path
    splits: tuple[object, ...]
    epochs: int
    threads: int
    out: Path


class Bench:
    """A task that is read and measured once, and the points that are then measured on it."""

    def __init__(self, spec: Spec, scratch: Path, progress: Progress, task: Task | None = None) -> None:
        self.spec, self.progress = spec, progress
        self.memo: dict[str, Any] = {}
        torch.set_num_threads(spec.threads)
        task = task or make_the_task(spec.model, spec.request, spec.base, spec.splits)
        self.prepared = prepared_for(task, spec.request, scratch)
        small = self.prepared.profile.macs < LARGE_MACS
        self.threads = 1 if small else spec.threads
        self.prepared = replace(self.prepared, threads=self.threads)
        torch.set_num_threads(self.threads)  # the same sums in the same order, however many processes there are

    def measure(self, point: Point, key: str) -> Row:
        """Return the point, measured now or earlier."""
        folder = self.spec.out / POINTS / key
        known = read_row(folder, point)
        if known is not None:
            return known
        begin = time.monotonic()
        journal = open_journal(folder, {"key": key}, resume=True, began=begin)
        try:
            told = Murmur(self.progress, f"{point.curve}, {point.label}")
            shop = make_workshop(self.prepared, self.spec.request, journal, told)
            shop.trainer.speed, shop.trainer.memo = self.speed, self.memo
            epochs = self.spec.epochs if point.trains else 0
            journal.once(f"{TAG}: allowance", lambda: Allowance(epochs=epochs).model_dump())
            torch.manual_seed(self.spec.request.seed)
            attempt = shop.attempt(NUMBER, point.actions, 1.0, 0.0)
            row = self._row(point, key, attempt, journal.path(f"{TAG}.onnx"))
            row = row.model_copy(update={"seconds": round(journal.elapsed(), 2)})
            write_json(folder / POINT, row.model_dump(mode="json"))
        finally:
            journal.close()
        return row

    @property
    def speed(self) -> Speed:
        """How every point is trained: by a rule, never by the clock, so that the same seed gives the same weights."""
        facts = self.prepared.profile
        convolutional = facts.architecture == "cnn" and facts.macs >= HALF_MACS
        half = has_bfloat16() and (convolutional or (facts.architecture == "transformer" and facts.macs >= LARGE_MACS))
        return Speed(threads=self.threads, channels_last=convolutional, bfloat16=half, step_seconds=0.0)

    def _row(self, point: Point, key: str, attempt: Attempt, path: Path) -> Row:
        """Gather the numbers of an attempt and of its files."""
        graph = decoded(onnx.load(str(path)))
        last = attempt.stages[-1]
        numbers = {name: value for name, value in last.after.items() if name.startswith("rho") and value is not None}
        return blank(point, key).model_copy(
            update={
                "reason": attempt.reason.partition("; ")[2],  # troubles in training; the rest is of a floor
                "size_bytes": bytes_of(path),
                "packed_bytes": path.with_suffix(PACKED).stat().st_size,
                "macs": macs(graph),
                "params": params(graph),
                "loss": self.loss(path),
                "quality": attempt.quality if math.isfinite(attempt.quality) else None,
                "drop": attempt.drop if math.isfinite(attempt.drop.estimate) else None,
                "error": last.after.get("error"),
                "epochs": attempt.epochs,
                "threads": self.threads,
                "papers": numbers,
                "course": tuple(place for stage in attempt.stages for place in _course(stage)),
            }
        )

    def loss(self, path: Path) -> float | None:
        """Return the mean training loss of a file over LOSS_SAMPLES, None without labels or where it is not finite."""
        task = self.prepared.task
        train = task.data.train.take(slice(0, LOSS_SAMPLES))
        if not len(train) or train.targets is None:
            return None
        runtime, total = Runtime(path, self.prepared.threads), 0.0
        for inputs, targets in train.batches(runtime.batch):
            outputs = torch.from_numpy(runtime.run(inputs))
            total += float(task.loss(outputs, targets)) * len(inputs) if targets is not None else math.nan
        mean = total / len(train)
        return mean if math.isfinite(mean) else None


def _course(stage: Any) -> list[CurvePoint]:  # noqa: ANN401 - a StepRecord
    """Return how a stage's training went; of one without training, what came of it, as epoch 0."""
    if stage.curve:
        return list(stage.curve)
    return [CurvePoint(part=stage.action, epoch=0, quality=stage.after.get("quality"))]


def prepared_for(task: Task, request: Request, scratch: Path) -> Prepared:
    """Measure the original as all points need it: without a target and without a floor, so that none depends on one."""
    changes = {"objective": "size", "format": "packed", "target": "max", "max_drop": "0", "min_quality": None}
    plain = request.model_copy(update=changes | {"threads": 1, "also": None})
    prepared = prepare(task, plain, scratch)
    goal = prepared.goal.model_copy(update={"floor": NO_FLOOR})
    return replace(prepared, goal=goal, allowed=math.inf)


def common(prepared: Prepared, request: Request) -> dict[str, Any]:
    """Return what every point depends on: hashes of the model and of what it learns from and is judged by, and flags.

    The report split is no part of it: nothing of a point is measured there.
    """
    data = prepared.task.data
    flags = request.model_dump(mode="json", include={"seed", "augment", "metric", "loss"})
    hashes = {"train": hash_of(data.train), "select": hash_of(data.select), "calibration": hash_of(data.calibration)}
    return {"schema": SCHEMA, "model": sha256(prepared.baseline)} | hashes | flags


def key_of(shared: dict[str, Any], actions: tuple[Action, ...], epochs: int) -> str:
    """Return the name of a point's folder: a hash of all that its numbers depend on."""
    trains = any(action.trains for action in actions)
    content = shared | {"actions": [action.model_dump(mode="json") for action in actions]}
    text = json.dumps(content | {"epochs": epochs if trains else 0}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def blank(point: Point, key: str, reason: str = "") -> Row:
    """Return a point without numbers."""
    return Row(
        key=key,
        part=point.part,
        curve=point.curve,
        label=point.label,
        level=point.level,
        amount=point.amount,
        actions=tuple(action.model_dump(mode="json") for action in point.actions),
        reason=reason,
    )


def read_row(folder: Path, point: Point) -> Row | None:
    """Return the kept result of a point, under the name that it has today; None where there is none."""
    path = folder / POINT
    if not path.is_file():
        return None
    return renamed(Row.model_validate(read_json(path)), point)


def renamed(row: Row, point: Point) -> Row:
    """Return a row under the name of a point: the same actions may belong to several."""
    names = {"part": point.part, "curve": point.curve, "label": point.label, "level": point.level}
    return row.model_copy(update=names | {"amount": point.amount})
