"""One technique on one architecture: what comes of it, from the settings to the files and back."""

from __future__ import annotations

import copy
import functools
import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from safetensors.torch import save_file

import easycompress
from easycompress.artifact.exports import Exports
from easycompress.artifact.onnx_export import export
from easycompress.artifact.slim import slim
from easycompress.core.errors import CannotCompress, EasyCompressError
from easycompress.core.inputs import answer, sample_shape, unbundled
from easycompress.core.progress import Silent
from easycompress.core.task import Split, Splits, Task
from easycompress.executor.build import Built
from easycompress.executor.replay import load, record_json
from easycompress.intake.computed import plain_weights
from easycompress.intake.task import copied
from easycompress.measure.profile import profile
from easycompress.measure.runtime import Runtime
from easycompress.metrics import LOSSES, METRICS
from easycompress.metrics.shapes import class_dimension
from easycompress.technique import Context
from easycompress.techniques import technique_for, technique_named
from easycompress.training.speed import Speed
from easycompress.training.terms import make_teacher

from .nets import KINDS

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from easycompress.core.inputs import Inputs
    from easycompress.core.plan import Action, Plan
    from easycompress.core.profile import ModelProfile

    from .nets import Kind

TRAIN, SELECT = 96, 64
EPOCHS, STRENGTH = 2, 0.4
BATCHES = (1, 2, 5)

FLOAT, HALF = 1e-3, 2e-2
"""Largest difference between file and module, relative to the largest answer, in float32 and in float16."""

INTEGER, AGREE = 0.15, 0.9
"""In integers: root mean square difference in standard deviations of the answers, and share of equal classes.

Not the largest: a value outside the range that calibration saw is cut off, and one sample in fifty has one.
"""

SPEED = Speed(threads=1, channels_last=False, bfloat16=False, step_seconds=0.0)

State = Literal["works", "refused", "wrong", "crash"]


@dataclass(frozen=True)
class Cell:
    """`reason` of a refusal or a fault; `ratio`: the original's bytes over the file's; `off`: the file's difference."""

    state: State
    reason: str = ""
    ratio: float = math.nan
    off: float = math.nan


@dataclass(frozen=True)
class Bench:
    """An architecture set up to be compressed; its own answers are the targets."""

    kind: Kind
    task: Task
    profile: ModelProfile
    bytes: int
    exports: Exports = field(default_factory=Exports)
    memo: dict[str, Any] = field(default_factory=dict)

    def context(self) -> Context:
        """Return a context that trains a little."""
        return Context(
            self.task, self.profile, 0, Silent(), epochs=EPOCHS, speed=SPEED,
            teacher=lambda: make_teacher(self.task.model, self.task.data.train, cache=True),
            evaluate=self.evaluate, memo=self.memo,
        )  # fmt: skip

    def evaluate(self, model: nn.Module) -> float:
        """Return the quality on *select*, larger is better."""
        select, metric = self.task.data.select, self.task.metric
        assert select.targets is not None
        with torch.no_grad():
            quality = metric.quality(metric.scores(answer(model, select.inputs), select.targets))
        return quality if metric.higher_is_better else -quality


def split(kind: Kind, model: nn.Module, count: int, seed: int) -> Split:
    """Return samples with the model's own answers, or their classes, as targets."""
    inputs = kind.draw(count, seed)
    with torch.no_grad():
        outputs = answer(model, inputs)
    return Split(inputs, outputs if kind.values else outputs.argmax(1))


@functools.cache
def bench(name: str) -> Bench:
    """Return an architecture's task, profile and the bytes of its file. Raises CannotCompress without an export."""
    kind = KINDS[name]
    model = copied(kind.make())
    plain_weights(model)
    train, select = split(kind, model, TRAIN, 1), split(kind, model, SELECT, 2)
    data = Splits(train, train, select, select)
    metric = METRICS["mse" if kind.values else "accuracy"]
    task = Task(model, data, train.inputs[:2], metric, LOSSES["mse" if kind.values else "cross-entropy"])
    graph = export(model, task.example)
    with torch.no_grad():
        shape = tuple(answer(model, task.example).shape)
    facts = profile(model, graph, sample_shape(task.example), int(shape[class_dimension(shape)]))
    return Bench(kind, task, facts, len(slim(graph).SerializeToString()))


def action_of(technique: str, kind: Kind) -> Action:
    """Return the technique's action at a middle strength, for answers of this kind."""
    settings = technique_named(technique).settings
    given: dict[str, Any] = {}
    if "strength" in settings.model_fields:
        given["strength"] = STRENGTH
    if kind.values and "outputs" in settings.model_fields:
        given["outputs"] = "values"
    if kind.values and technique in ("lc", "unstructured-pruning"):
        given["technique"] = "hard"
    return settings(**given)


def cell(architecture: str, technique: str, folder: Path) -> Cell:
    """Compress, write, read back and compare."""
    try:
        work = bench(architecture)
        action = action_of(technique, work.kind)
        refusal = technique_for(action).refuses(work.profile, action)
        if refusal is not None:
            return Cell("refused", refusal)
        if action.restructures:  # as the plan does, which leaves out what then says no
            technique_for(action).apply(
                copy.deepcopy(work.task.model), action.model_copy(update={"strength": 0.0}), work.context()
            )
        built = Built(copy.deepcopy(work.task.model)).then([action], work.context())
        path = built.write(work.task, folder / "model.onnx", exports=work.exports)
        return _judged(work, action, built, path)
    except EasyCompressError as error:
        return Cell("refused" if isinstance(error, CannotCompress) else "wrong", str(error))
    except Exception as error:  # noqa: BLE001 - whatever escapes is what the matrix is to find
        return Cell("crash", f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")


def _judged(work: Bench, action: Action, built: Built, path: Path) -> Cell:
    """Return what is to be said of a written file."""
    runtime = Runtime(path, 1)
    inputs = work.task.data.select.inputs
    with torch.no_grad():
        module = answer(built.model, inputs).numpy()
    ratio = work.bytes / path.stat().st_size
    allowed = HALF if action.kind == "float16" else INTEGER if action.integers else FLOAT
    whole = runtime.run(inputs)
    if whole.shape != module.shape:
        return Cell("wrong", f"the file answers in {whole.shape}, the module in {module.shape}", ratio)
    exact = not action.integers or action.kind == "float16"
    off = _off(whole, module) if exact else float(np.sqrt(np.square(whole - module).mean()) / module.std())
    if off > allowed:
        return Cell("wrong", f"file and module are {off:.3g} apart", ratio, off)
    if not exact and not work.kind.values and (whole.argmax(1) == module.argmax(1)).mean() < AGREE:
        return Cell("wrong", "file and module name other classes", ratio, off)
    alike = INTEGER if action.kind == "dynamic-int8" else max(allowed, FLOAT) if exact else FLOAT
    for size in BATCHES:
        apart = _off(runtime.run(inputs[:size]), whole[:size])
        if apart > alike:
            return Cell("wrong", f"a batch of {size} is answered {apart:.3g} apart from a larger one", ratio, off)
    fault = _unloaded(work, built, path.parent) or _unchanged(work, action, ratio)
    return Cell("wrong", fault, ratio, off) if fault else Cell("works", "", ratio, off)


def _off(made: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> float:
    if made.shape != expected.shape:
        return math.inf
    return float(np.abs(made - expected).max() / max(float(np.abs(expected).max()), 1e-9))


def _unloaded(work: Bench, built: Built, folder: Path) -> str:
    """Return how what `load` gives back differs from the module, "" where it doesn't."""
    codes = {name: {"form": code.form, "meta": code.meta()} for name, code in built.codes.items()}
    tensors = {n: t.contiguous().clone() for n, t in built.model.state_dict().items() if n not in codes}
    for name, code in built.codes.items():
        tensors |= {f"{name}.{part}": array.contiguous().clone() for part, array in code.arrays().items()}
    save_file(tensors, str(folder / "model.safetensors"))
    record = record_json(tuple(built.records), codes, work.task.example)
    (folder / "record.json").write_text(json.dumps(record, allow_nan=False))
    loaded = load(folder, work.kind.make)
    inputs: Inputs = work.task.data.select.inputs
    with torch.no_grad():
        left, right = answer(loaded, inputs), answer(built.model, inputs)
    return "" if torch.equal(left, right) else f"the loaded module is {_off(left.numpy(), right.numpy()):.3g} off"


def _unchanged(work: Bench, action: Action, ratio: float) -> str:
    """Return in words that nothing was compressed, "" where something was."""
    if action.kind == "distillation":  # it makes nothing smaller: a good student stays as it is
        return ""
    return "" if ratio > 1 else f"nothing was compressed: {work.bytes} bytes became {work.bytes / ratio:.0f}"


def planned(architecture: str, objective: str) -> tuple[Literal["works", "refused", "crash"], str]:
    """Return the kinds of the steps that the plan for 2x takes, or why there is none."""
    try:
        made = plan_of(architecture, objective)
        return "works", " + ".join(step.kind for step in (*made.quick, *made.steps))
    except EasyCompressError as error:
        return "refused", str(error)
    except Exception as error:  # noqa: BLE001 - whatever escapes is what the matrix is to find
        return "crash", f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def plan_of(architecture: str, objective: str) -> Plan:
    """Return the plan that makes an architecture half as large, slow or laborious, without training."""
    kind = KINDS[architecture]
    model = kind.make()
    sizes = {"train": 160, "validation": 120, "test": 120}
    data = {part: split(kind, model, count, seed) for seed, (part, count) in enumerate(sizes.items())}
    given: dict[str, Any] = {part: (unbundled(made.inputs), made.targets) for part, made in data.items()}
    goal = {"metric": "mse", "max_drop": "0.01"} if kind.values else {"metric": "accuracy", "max_drop": "5%"}
    made, _ = easycompress.plan(
        model, **given, **goal, objective=objective, target="2x", budget="none", threads=1, force=True
    )
    return made
