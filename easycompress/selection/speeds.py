"""How fast each change of the structure makes a copy, nothing trained, before it has lost what training can't mend."""

from __future__ import annotations

import copy
import math
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from easycompress.artifact.write import write_model
from easycompress.core.errors import CannotCompress
from easycompress.core.inputs import repeated
from easycompress.core.ledger import spending
from easycompress.core.progress import Silent
from easycompress.measure.latency import block
from easycompress.measure.runtime import Runtime
from easycompress.selection.probe import known, loss_of
from easycompress.selection.trials import HALVINGS, MOST
from easycompress.technique import Context
from easycompress.techniques import technique_for

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import nn

    from easycompress.core.inputs import Inputs
    from easycompress.core.plan import Action
    from easycompress.core.profile import ModelProfile
    from easycompress.core.task import Task

SECONDS = 1.0
"""What the timing of one candidate takes, unless FEWEST blocks take longer."""

FEWEST = 3
"""Alternating blocks a file at least."""

RUNS = 5
"""Counted runs a block, after one that isn't."""

SESSIONS = 2
"""Times that fresh sessions are made: where the system puts a session's threads stays."""


@dataclass(frozen=True)
class Stopwatch:
    """Times candidates against the original's file, briefly: to compare structures by, not to report."""

    baseline: Path
    example: Inputs
    batch: int
    threads: int

    @spending("latency")
    def faster(self, model: nn.Module) -> float:
        """Return how many times as fast as the original a model's file is."""
        with tempfile.TemporaryDirectory(prefix="easycompress-") as folder:
            path = Path(folder) / "structure.onnx"
            write_model(model, self.example, path)
            ratios = [self._ratio(path) for _ in range(SESSIONS)]
        return math.sqrt(math.prod(ratios))

    def _ratio(self, path: Path) -> float:
        inputs = repeated(self.example, self.batch)
        runtimes = [Runtime(file, self.threads) for file in (self.baseline, path)]
        times: list[list[float]] = [[] for _ in runtimes]
        begin, done = time.perf_counter(), 0
        while done < FEWEST or time.perf_counter() - begin < SECONDS / SESSIONS:
            for runtime, kept in zip(runtimes, times, strict=True):
                kept.extend(block(runtime, runtime.feeds(inputs), 1, RUNS))
            done += 1
        before, after = (float(np.median(kept)) for kept in times)
        return before / after


def structure_speeds(
    task: Task,
    profile: ModelProfile,
    actions: Mapping[str, Action],
    ratio: float,
    faster: Callable[[nn.Module], float],
) -> tuple[dict[str, float], dict[str, float]]:
    """Return how many times as fast each action makes an untrained copy, at most `ratio`, and each copy's loss.

    It is the least treated copy that is so fast, else the fastest that has not lost too much. One that the model
    doesn't permit is left out. `faster` times a copy.
    """
    knows = known(task)
    speeds, lost = {}, {}
    for name, action in actions.items():
        try:
            made = _fastest(task, action, Context(task, profile, 0, Silent()), min(ratio, MOST), knows.most, faster)
        except CannotCompress:
            continue
        speeds[name], lost[name] = made or (1.0, knows.own)
    return speeds, lost


def _fastest(
    task: Task, action: Action, context: Context, wanted: float, most: float, faster: Callable[[nn.Module], float]
) -> tuple[float, float] | None:
    """Return speed and loss of the best copy whose loss is at most `most`, None where no copy gains anything."""
    best: tuple[float, float] | None = None
    low, high, strength = 0.0, 1.0, 1.0
    for _ in range(HALVINGS + 1):
        settled = action.model_copy(update={"strength": strength})
        made = technique_for(action).apply(copy.deepcopy(task.model), settled, context).model.eval()
        loss = loss_of(made, task)
        speed = min(faster(made), wanted) if loss <= most else 0.0
        if speed > 1 and (best is None or speed >= best[0]):
            best = speed, loss
        if 0 < speed < wanted:
            low = strength
        else:
            high = strength
        if low == high:
            break  # the strongest that there is
        strength = (low + high) / 2
    return best
