"""The training loop. It is handed what to minimise and how to evaluate; it keeps the best epoch."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch

from easycompress.core.inputs import answer, channels_last
from easycompress.core.progress import Progress, Silent
from easycompress.training.checkpoint import (
    load_tensors,
    optimizer_tensors,
    restore_optimizer,
    save_tensors,
    state_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor, nn

    from easycompress.core.inputs import Inputs
    from easycompress.core.task import Split
    from easycompress.training.speed import Speed
    from easycompress.training.terms import Term

WARM_UP = 0.1
"""Share of the steps over which the rate rises to its peak; then it falls to zero along a cosine."""

ROLLBACKS = 2
"""How often a loss that is not a number sends training back to the best epoch at a tenth of the rate."""


@dataclass(frozen=True)
class Schedule:
    """How long and how fast: `epochs` passes of `samples` samples each (0: the whole split), peak rate `lr`.

    `shape`: a `cycle` rises and falls; a `flat` rate stays what it is: for loops that set the rates of their pieces.
    `optimizer`: `sgd` is SGD with Nesterov `momentum`; `adamw` (Loshchilov and Hutter 2019) scales each step by its
    gradients' size, which transformers need, and takes no `momentum`. Its rates are smaller by orders of magnitude.
    """

    epochs: int
    lr: float
    shape: Literal["cycle", "flat"] = "cycle"
    optimizer: Literal["sgd", "adamw"] = "sgd"
    batch: int = 128
    samples: int = 0
    momentum: float = 0.9
    weight_decay: float = 5e-4
    seed: int = 0


@dataclass
class History:
    """What happened: one row an epoch (`loss`, `quality`, `seconds`), and which epoch's weights the model now has.

    `rollbacks`: how often a loss that was no number, or beyond the bound, cost an epoch.
    """

    epochs: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = -1
    best: float = -math.inf
    rollbacks: int = 0


@dataclass
class Hooks:
    """What the caller wants to know and decide.

    `evaluate(model)` -> a score on *select*, larger is better; None: nobody asks, and the last epoch is kept. `start`
    is the score of the weights as they come, if known: training that doesn't beat it leaves them. `enough(score)` ->
    stop early. `out_of_time(seconds)` -> True when another epoch of that many seconds must not begin. An epoch's mean
    loss above `bound` counts as no number: training has diverged. `after_step(rate)` may change the weights after each
    step of the optimizer; `rate` is the learning rate it had.
    """

    evaluate: Callable[[nn.Module], float] | None
    start: float = -math.inf
    bound: float = math.inf
    enough: Callable[[float], bool] = lambda _: False
    out_of_time: Callable[[float], bool] = lambda _: False
    augment: Callable[[Inputs], Inputs] | None = None
    after_step: Callable[[float], None] | None = None
    progress: Progress = field(default_factory=Silent)
    label: str = "training"


def fit(
    model: nn.Module, split: Split, term: Term, schedule: Schedule, speed: Speed, hooks: Hooks, checkpoint: Path | None
) -> History:
    """Train `model` in place and leave it with the weights of its best epoch (of `evaluate`), in evaluation mode.

    Without `evaluate` it is left with those of its last one.

    With `checkpoint` every epoch is saved there, and a run that finds the file goes on after its last epoch with the
    same numbers as an uninterrupted one. One rise and one cosine fall of the rate.
    """
    run = _Run(model, split, term, schedule, speed, hooks)
    run.restore(checkpoint)
    with speed.applied(), torch.random.fork_rng(devices=[]):
        while run.epoch < schedule.epochs and not run.done:
            run.one_epoch()
            if checkpoint is not None:
                run.save(checkpoint)
    model.load_state_dict(run.best_state)
    model.eval()
    for parameter in run.frozen:
        parameter.requires_grad_(False)  # noqa: FBT003 - torch's own signature
    return run.history


def _optimizer(parameters: list[nn.Parameter], schedule: Schedule) -> torch.optim.Optimizer:
    decay = schedule.weight_decay
    if schedule.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=schedule.lr, weight_decay=decay, foreach=True)
    momentum = schedule.momentum
    return torch.optim.SGD(
        parameters, lr=schedule.lr, momentum=momentum, nesterov=momentum > 0, weight_decay=decay, foreach=True
    )


class _Run:
    """The state of one training run between epochs."""

    def __init__(
        self, model: nn.Module, split: Split, term: Term, schedule: Schedule, speed: Speed, hooks: Hooks
    ) -> None:
        self.model, self.split, self.term = model, split, term
        self.schedule, self.speed, self.hooks = schedule, speed, hooks
        if speed.channels_last:
            model.to(memory_format=torch.channels_last)
        parameters = [p for p in model.parameters() if p.requires_grad] or list(model.parameters())
        self.frozen = [p for p in parameters if not p.requires_grad]  # a model frozen for inference learns as a whole
        for parameter in self.frozen:
            parameter.requires_grad_(True)  # noqa: FBT003 - torch's own signature
        self.optimizer = _optimizer(parameters, schedule)
        self.samples = min(schedule.samples or len(split), len(split))
        self.history = History(best=hooks.start)
        self.best_state = state_of(model)
        self.epoch, self.rollbacks, self.done = 0, 0, False

    def one_epoch(self) -> None:
        """Train and evaluate one epoch."""
        begin = time.perf_counter()
        torch.manual_seed(self.schedule.seed * 100_003 + self.epoch)  # dropout and augmentation, the same on resume
        batches = self._batches()
        self.model.train()
        total = torch.zeros(())
        for step, places in enumerate(batches):
            self._set_rate(self.epoch + step / len(batches))
            total += self._step(places)
        loss = float(total) / len(batches)
        self.model.eval()
        if not loss <= self.hooks.bound or not math.isfinite(loss):
            self._roll_back(time.perf_counter() - begin)
            return
        score = math.nan if self.hooks.evaluate is None else self.hooks.evaluate(self.model)
        seconds = time.perf_counter() - begin
        self.history.epochs.append({"loss": loss, "quality": score, "seconds": seconds})
        if self.hooks.evaluate is None or score > self.history.best:
            self.history.best, self.history.best_epoch = score, self.epoch
            self.best_state = state_of(self.model)
        self.epoch += 1
        seen = "" if self.hooks.evaluate is None else f"{score:.2f} on select, "
        self.hooks.progress.now(
            f"{self.hooks.label}: epoch {self.epoch}/{self.schedule.epochs}, loss {loss:.4f}, {seen}{seconds:.1f} s"
        )
        self.done = self.hooks.enough(score) or self.hooks.out_of_time(seconds)

    def _batches(self) -> list[Tensor]:
        """Shuffle the samples into batches. A lone last one joins its neighbours: batch norm can't learn from one."""
        order = torch.randperm(len(self.split))[: self.samples]
        *batches, last = torch.split(order, self.schedule.batch)
        if batches and len(last) == 1:
            batches[-1] = torch.cat([batches[-1], last])
            return batches
        return [*batches, last]

    def _step(self, places: Tensor) -> Tensor:
        inputs = self.split.inputs[places]
        targets = None if self.split.targets is None else self.split.targets[places]
        if self.hooks.augment is not None:
            inputs = self.hooks.augment(inputs)
        if self.speed.channels_last:
            inputs = channels_last(inputs)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.speed.bfloat16):
            outputs = answer(self.model, inputs)
        loss = self.term(outputs.float(), targets, inputs, places)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own signature
        self.optimizer.step()
        if self.hooks.after_step is not None:
            self.hooks.after_step(float(self.optimizer.param_groups[0]["lr"]))
        return loss.detach()

    def _set_rate(self, position: float) -> None:
        if self.schedule.shape == "flat":
            for group in self.optimizer.param_groups:
                group["lr"] = self.schedule.lr * 0.1**self.rollbacks
            return
        share = position / self.schedule.epochs
        rise = min(WARM_UP, 1 / self.schedule.epochs)
        factor = share / rise if share < rise else 0.5 * (1 + math.cos(math.pi * (share - rise) / (1 - rise + 1e-9)))
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule.lr * max(factor, 1e-3) * 0.1**self.rollbacks

    def _roll_back(self, seconds: float) -> None:
        self.model.load_state_dict(self.best_state)
        self.optimizer.state.clear()
        self.rollbacks += 1
        self.history.rollbacks = self.rollbacks
        self.done = self.rollbacks > ROLLBACKS or self.hooks.out_of_time(seconds)
        self.hooks.progress.say(f"{self.hooks.label}: the loss has diverged; back to the best epoch, rate / 10")

    def save(self, path: Path) -> None:
        """Write everything that the next epoch needs."""
        tensors = {f"model.{n}": t for n, t in state_of(self.model).items()}
        tensors |= {f"best.{n}": t for n, t in self.best_state.items()}
        tensors |= {f"optimizer.{n}": t for n, t in optimizer_tensors(self.optimizer).items()}
        meta: dict[str, Any] = {
            "epoch": self.epoch,
            "rollbacks": self.rollbacks,
            "done": self.done,
            "best": self.history.best if math.isfinite(self.history.best) else None,
            "best_epoch": self.history.best_epoch,
            "epochs": self.history.epochs,
        }
        save_tensors(path, tensors, meta)

    def restore(self, path: Path | None) -> None:
        """Go back to a saved epoch, where there is one."""
        saved = load_tensors(path) if path is not None else None
        if saved is None:
            return
        tensors, meta = saved
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "best": {}, "optimizer": {}}
        for name, value in tensors.items():
            part, _, rest = name.partition(".")
            parts.setdefault(part, {})[rest] = value
        own = {name: value.shape for name, value in self.best_state.items()}
        if any({name: value.shape for name, value in parts[part].items()} != own for part in ("model", "best")):
            return  # another model's: its training can't be gone on with
        self.model.load_state_dict(parts["model"])
        self.best_state = parts["best"]
        restore_optimizer(self.optimizer, parts["optimizer"])
        self.epoch, self.rollbacks, self.done = meta["epoch"], meta["rollbacks"], meta["done"]
        best = -math.inf if meta["best"] is None else meta["best"]
        self.history = History(meta["epochs"], meta["best_epoch"], best, self.rollbacks)
