"""How to run training steps fastest on this machine: threads, memory format and precision, by timing a few steps."""

from __future__ import annotations

import contextlib
import copy
import statistics
import time
from typing import TYPE_CHECKING

import torch
from torch import nn

from easycompress.core.goal import Frozen
from easycompress.core.inputs import answer, are_images
from easycompress.core.inputs import channels_last as ordered
from easycompress.core.ledger import spending
from easycompress.core.memory import shrinking
from easycompress.training.lengths import POOL, lengths_of, shortened

if TYPE_CHECKING:
    from collections.abc import Iterator

    from easycompress.core.task import Split

TRIED_STEPS = 6
"""Timed steps a setting, after one that warms up."""

LEAST_STEPS, TRIED_SECONDS = 2, 3.0
"""Where steps are long so few of them are timed as this takes: they vary less, and a search times many candidates."""

CLEARLY = 0.87
"""A setting replaces the simpler one before it only when its steps take at most this share of the time."""


class Speed(Frozen):
    """How to run, and the seconds that one training step took when it was tried."""

    threads: int
    channels_last: bool
    bfloat16: bool
    step_seconds: float

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Use this many threads inside the block."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


@spending("step timing")
def tune(model: nn.Module, split: Split, batch: int, only: Speed | None = None) -> Speed:
    """Time a few training steps for each setting and return the fastest, the simplest among equals.

    With `only` that setting is timed alone: how long its steps take on another model.
    """
    if only is not None:
        return only.model_copy(update={"step_seconds": _seconds_per_step(model, split, batch, only)})
    threads = torch.get_num_threads()
    convolutional = are_images(split.inputs) and any(isinstance(m, nn.Conv2d) for m in model.modules())
    settings = [(threads, False, False), (1, False, False)] if threads > 1 else [(1, False, False)]
    if convolutional:
        settings.append((threads, True, False))
        if has_bfloat16():
            settings.append((threads, True, True))
    elif has_bfloat16() and any(isinstance(m, nn.Linear) for m in model.modules()):
        settings.append((threads, False, True))
    best: Speed | None = None
    for count, channels_last, bfloat16 in settings:
        speed = Speed(threads=count, channels_last=channels_last, bfloat16=bfloat16, step_seconds=0.0)
        seconds = _seconds_per_step(model, split, batch, speed)
        if best is None or seconds < CLEARLY * best.step_seconds:
            best = speed.model_copy(update={"step_seconds": seconds})
    assert best is not None  # noqa: S101 - there is always at least one setting
    return best


def has_bfloat16() -> bool:
    """Tell whether the processor multiplies bfloat16 natively; emulated, it is slower than float32."""
    return bool(torch.cpu._is_avx512_bf16_supported())  # noqa: SLF001 - torch has no public name for it


def _seconds_per_step(model: nn.Module, split: Split, batch: int, speed: Speed) -> float:
    """Return the median seconds of a whole step: gathering, forward, backward, and the optimizer.

    Where memory runs out it is that of as many smaller steps as make up the batch.
    """
    return shrinking(batch, lambda size: _timed(model, split, size, speed) * batch / size)


def _timed(model: nn.Module, split: Split, batch: int, speed: Speed) -> float:
    trial = copy.deepcopy(model).train().requires_grad_(True)  # noqa: FBT003 - as fit does with frozen models
    if speed.channels_last:
        trial = trial.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(trial.parameters(), lr=0.0, momentum=0.9, nesterov=True, foreach=True)
    lengths = lengths_of(model, split) if len(split) > POOL * batch else None
    usual = None if lengths is None else lengths.usual(batch)
    times = []
    with speed.applied(), torch.random.fork_rng(devices=[]):
        for _ in range(TRIED_STEPS + 1):
            begin = time.perf_counter()
            inputs = split.inputs[torch.randperm(len(split))[:batch]]
            if speed.channels_last:
                inputs = ordered(inputs)
            if usual is not None:
                inputs = shortened(inputs, usual)
            with torch.autocast("cpu", torch.bfloat16, enabled=speed.bfloat16):
                loss = answer(trial, inputs).float().square().mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]  # torch's own signature
            optimizer.step()
            times.append(time.perf_counter() - begin)
            if len(times) > LEAST_STEPS and sum(times) > TRIED_SECONDS:
                break
    return statistics.median(times[1:])
