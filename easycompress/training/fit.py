"""The training loop. It is handed what to minimise and how to evaluate; it keeps the best epoch."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

import torch

from easycompress.core.errors import BadInput
from easycompress.core.inputs import channels_last
from easycompress.core.ledger import spending
from easycompress.core.memory import is_exhausted
from easycompress.core.progress import EpochDone, tell
from easycompress.training.checkpoint import (
    load_tensors,
    optimizer_tensors,
    restore_optimizer,
    save_tensors,
    state_of,
)
from easycompress.training.curve import in_unit
from easycompress.training.lengths import POOL, lengths_of
from easycompress.training.norms import has_norms
from easycompress.training.parallel import processes
from easycompress.training.schedule import History, Hooks, Schedule

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

    from easycompress.core.task import Split
    from easycompress.training.speed import Speed
    from easycompress.training.terms import Term

__all__ = ["History", "Hooks", "Schedule", "fit"]

WARM_UP = 0.1
"""Share of the steps over which the rate rises to its peak; then it falls to zero along a cosine."""

ROLLBACKS = 2
"""How often a loss that is not a number sends training back to the best epoch; the next time ends it."""

CALMER = 0.1
"""What each such return multiplies the rate of all later steps by."""


@spending("training")
def fit(
    model: nn.Module, split: Split, term: Term, schedule: Schedule, speed: Speed, hooks: Hooks, checkpoint: Path | None
) -> History:
    """Train `model` in place and leave it with the weights of its best epoch (of `evaluate`), in evaluation mode.

    Without `evaluate` it is left with those of its last one.

    With `checkpoint` every epoch is saved there, and a run that finds the file goes on after its last epoch with the
    same numbers as an uninterrupted one. One rise and one cosine fall of the rate.

    Where memory runs out the epoch begins anew with half as many samples at a time, whose gradients add up to the
    batch's. Raises BadInput where it doesn't suffice for the least that a step takes.
    """
    run = _Run(model, split, term, schedule, speed, hooks, checkpoint)
    try:
        run.restore(checkpoint)
        with speed.applied(), torch.random.fork_rng(devices=[]):
            while run.epoch < schedule.epochs and not run.done:
                run.one_epoch()
                if checkpoint is not None:
                    run.save(checkpoint)
    finally:
        run.ways.end()
    hooks.troubles.diverged += run.rollbacks
    hooks.troubles.ended += run.rollbacks > ROLLBACKS
    hooks.troubles.hopeless += run.hopeless()
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
        self,
        model: nn.Module,
        split: Split,
        term: Term,
        schedule: Schedule,
        speed: Speed,
        hooks: Hooks,
        checkpoint: Path | None = None,
    ) -> None:
        self.model, self.split, self.term = model, split, term
        self.schedule, self.speed, self.hooks, self.checkpoint = schedule, speed, hooks, checkpoint
        if speed.channels_last:
            model.to(memory_format=torch.channels_last)
        parameters = [p for p in model.parameters() if p.requires_grad] or list(model.parameters())
        self.frozen = [p for p in parameters if not p.requires_grad]  # a model frozen for inference learns as a whole
        for parameter in self.frozen:
            parameter.requires_grad_(True)  # noqa: FBT003 - torch's own signature
        self.ways = processes(model)
        self.optimizer = _optimizer(self.ways.learning(parameters), schedule)
        self.ways.prepare(self.optimizer)
        self.samples = min(schedule.samples or len(split), len(split))
        self.history = History(best=hooks.start)
        self.best_state = state_of(model)
        self.epoch, self.rollbacks, self.done = 0, 0, False
        self.least = 2 if has_norms(model) else 1  # batch norm can't learn from one sample
        many = len(split) > POOL * schedule.batch  # fewer would all be in order of length, and of what goes with it
        self.lengths = lengths_of(model, split) if many and hooks.augment is None and self.least == 1 else None

    def one_epoch(self) -> None:
        """Train and evaluate one epoch."""
        begin = time.perf_counter()
        loss = self._pass()
        while loss is None:
            self._take_less()
            loss = self._pass()
        self.ways.fetch()
        self.model.eval()
        if not loss <= self.hooks.bound or not math.isfinite(loss) or not self._finite():
            self._roll_back(time.perf_counter() - begin)
            return
        score = math.nan if self.hooks.evaluate is None else self.hooks.evaluate(self.model)
        seconds = time.perf_counter() - begin
        self.history.epochs.append({"loss": loss, "quality": score, "seconds": seconds})
        if self.hooks.evaluate is None or score > self.history.best:
            self.history.best, self.history.best_epoch = score, self.epoch
            self.best_state = state_of(self.model)
        self.epoch += 1
        self._tell(loss, in_unit(score, higher_is_better=self.hooks.higher_is_better), seconds)
        self.done = self.hooks.enough(score) or self.hopeless() or self.hooks.out_of_time(seconds)

    def hopeless(self) -> bool:
        """Tell whether there is no point in going on."""
        return self.hooks.hopeless([row["quality"] for row in self.history.epochs], self.schedule.epochs)

    def _tell(self, loss: float, quality: float | None, seconds: float) -> None:
        """Tell of the epoch that is over, in words and as values."""
        label, epoch, epochs = self.hooks.label, self.epoch, self.schedule.epochs
        seen = "" if quality is None else f"{quality:.2f} on select, "
        self.hooks.progress.now(f"{label}: epoch {epoch}/{epochs}, loss {loss:.4f}, {seen}{seconds:.1f} s")
        done = EpochDone(
            label=label, epoch=epoch, epochs=epochs, seconds=seconds, loss=loss, quality=quality, samples=self.samples
        )
        tell(self.hooks.progress, done)

    def _pass(self) -> float | None:
        """Train on all batches once; return the mean loss, or None where memory ran out."""
        torch.manual_seed(self.schedule.seed * 100_003 + self.epoch)  # dropout and augmentation, the same on resume
        batches = self._batches()
        self.ways.live.train()
        total = torch.zeros(())
        try:
            for step, places in enumerate(batches):
                self._set_rate(self.epoch + step / len(batches))
                total += self._step(places)
        except (MemoryError, RuntimeError) as error:
            if not is_exhausted(error):
                raise
            if self.ways.size > 1 or self.hooks.troubles.parts >= self.schedule.batch // self.least:
                raise BadInput(
                    f"{self.hooks.label}: out of memory, a batch in {self.hooks.troubles.parts} parts included; close "
                    "other programs or use a larger machine: the same command with --resume goes on"
                ) from error
            return None  # what the error's frames hold is free only after this block
        return self.ways.total(float(total)) / len(batches)

    def _take_less(self) -> None:
        """Go back to where the epoch began, and take half as many samples at a time from now on."""
        troubles = self.hooks.troubles
        troubles.halve()
        self.hooks.progress.say(f"{self.hooks.label}: out of memory; batches in {troubles.parts} parts from now on")
        self.optimizer.zero_grad(set_to_none=True)
        if not self.restore(self.checkpoint):
            self._back()

    def _finite(self) -> bool:
        """Tell whether the weights are numbers: a last step may have ruined what the loss was still finite for."""
        return all(bool(torch.isfinite(parameter).all()) for parameter in self.model.parameters())

    def _batches(self) -> list[Tensor]:
        """Shuffle the samples into batches. A lone last one joins its neighbours: batch norm can't learn from one."""
        order = torch.randperm(len(self.split))[: self.samples]
        if self.lengths is not None:
            return self.lengths.batches(order, self.schedule.batch)
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
        if self.lengths is not None:
            inputs = self.lengths.cut(inputs, places)
        if self.speed.channels_last:
            inputs = channels_last(inputs)
        self.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros(())
        mine, weight = self.ways.share(len(places))
        for part in mine.tensor_split(self._parts(len(mine))):
            whole = len(part) == len(places)
            x, at = (inputs, places) if whole else (inputs[part], places[part])
            y = targets if whole or targets is None else targets[part]
            loss = self.term(self.ways.answers(x, self.speed), y, x, at) * (weight * len(part) / len(places))
            self.ways.backward(loss)
            total += loss.detach()
        self.ways.step(self.hooks.after_step, float(self.optimizer.param_groups[0]["lr"]))
        return total

    def _parts(self, samples: int) -> int:
        """Return into how many parts to divide a batch, each of at least `least` samples."""
        return max(1, min(self.hooks.troubles.parts, samples // self.least))

    def _set_rate(self, position: float) -> None:
        if self.schedule.shape == "flat":
            for group in self.optimizer.param_groups:
                group["lr"] = self.schedule.lr * CALMER**self.rollbacks
            return
        share = position / self.schedule.epochs
        rise = min(WARM_UP, 1 / self.schedule.epochs)
        factor = share / rise if share < rise else 0.5 * (1 + math.cos(math.pi * (share - rise) / (1 - rise + 1e-9)))
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule.lr * max(factor, 1e-3) * CALMER**self.rollbacks

    def _back(self) -> None:
        self.model.load_state_dict(self.best_state)
        self.ways.put()
        self.optimizer.state.clear()

    def _roll_back(self, seconds: float) -> None:
        self._back()
        self.rollbacks += 1
        self.history.rollbacks = self.rollbacks
        self.done = self.rollbacks > ROLLBACKS or self.hooks.out_of_time(seconds)
        self.hooks.progress.say(f"{self.hooks.label}: the loss has diverged; back to the best epoch, rate / 10")

    def save(self, path: Path) -> None:
        """Write everything that the next epoch needs."""
        tensors = {f"model.{n}": t for n, t in state_of(self.model).items()}
        tensors |= {f"best.{n}": t for n, t in self.best_state.items()}
        if not self.ways.sharded:  # no process has all of it: a resume begins with none
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

    def restore(self, path: Path | None) -> bool:
        """Go back to a saved epoch; return whether there is one."""
        saved = load_tensors(path) if path is not None else None
        if saved is None:
            return False
        tensors, meta = saved
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "best": {}, "optimizer": {}}
        for name, value in tensors.items():
            part, _, rest = name.partition(".")
            parts.setdefault(part, {})[rest] = value
        own = {name: value.shape for name, value in self.best_state.items()}
        if any({name: value.shape for name, value in parts[part].items()} != own for part in ("model", "best")):
            return False  # another model's: its training can't be gone on with
        self.model.load_state_dict(parts["model"])
        self.ways.put()
        self.best_state = parts["best"]
        restore_optimizer(self.optimizer, parts["optimizer"])
        self.epoch, self.rollbacks, self.done = meta["epoch"], meta["rollbacks"], meta["done"]
        best = -math.inf if meta["best"] is None else meta["best"]
        self.history = History(meta["epochs"], meta["best_epoch"], best, self.rollbacks)
        return True
