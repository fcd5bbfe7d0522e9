"""What easycompress costs beyond the training itself.

Prints, for the demo's model or those of a zoo, the samples a second of the product's training loop and of a bare
PyTorch loop in turn, their ratio, and for one whole `compress` the seconds in training and outside it.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from benchmarks.zoo import add_folders, chosen, load_task, locate
from easycompress.api import compress
from easycompress.distillation import technique
from easycompress.executor import trainer
from easycompress.executor.trainer import BATCH
from easycompress.training.fit import History, Hooks, Schedule, fit
from easycompress.training.speed import Speed, tune
from easycompress.training.terms import Labels

if TYPE_CHECKING:
    from easycompress.core.task import Split, Task


def bare(task: Task, split: Split, speed: Speed) -> float:
    """Return the seconds of one epoch of the loop that anyone would write, at the same precision and format."""
    model = copy.deepcopy(task.model).train()
    if speed.channels_last:
        model = model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9, nesterov=True, weight_decay=5e-4)
    assert split.targets is not None
    begin = time.perf_counter()
    order = torch.randperm(len(split))
    for start in range(0, len(split), BATCH):
        places = order[start : start + BATCH]
        inputs, targets = split.inputs[places], split.targets[places]
        if speed.channels_last:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=speed.bfloat16):
            outputs = model(inputs)
        loss = functional.cross_entropy(outputs.float(), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return time.perf_counter() - begin


def ours(task: Task, split: Split, speed: Speed) -> float:
    """Return the seconds of one epoch of the product's loop, evaluation apart."""
    model = copy.deepcopy(task.model)
    begin = time.perf_counter()
    fit(model, split, Labels(task.loss), Schedule(epochs=1, lr=1e-4), speed, Hooks(lambda _: 0.0), None)
    return time.perf_counter() - begin


def throughput(name: str, task: Task, rounds: int, samples: int) -> dict[str, float]:
    """Time both loops in turn and return the medians."""
    split = task.data.train.take(slice(0, samples))
    speed = tune(task.model, split, BATCH)
    rows: list[tuple[float, float]] = []
    with speed.applied():
        bare(task, split, speed)
        rows.extend((bare(task, split, speed), ours(task, split, speed)) for _ in range(rounds))
    ratio = statistics.median(b / o for b, o in rows)
    rate_bare = len(split) / statistics.median(b for b, _ in rows)
    rate_ours = len(split) / statistics.median(o for _, o in rows)
    print(f"{name}: {speed.threads} threads, channels-last {speed.channels_last}, bfloat16 {speed.bfloat16}")
    print(f"  bare PyTorch loop {rate_bare:8.0f} samples/s")
    print(f"  easycompress      {rate_ours:8.0f} samples/s   ratio {ratio:.3f} (median of {rounds} pairs)")
    return {"bare": rate_bare, "easycompress": rate_ours, "ratio": ratio}


class _CountedFit:
    """Adds up the seconds inside the training loop, wherever the run calls it."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __enter__(self) -> None:
        def timed(*arguments: Any) -> History:  # noqa: ANN401 - whatever fit takes
            begin = time.perf_counter()
            history = fit(*arguments)
            self.seconds += time.perf_counter() - begin
            return history

        trainer.fit = technique.fit = timed

    def __exit__(self, *_: object) -> None:
        trainer.fit = technique.fit = fit


def outside(name: str, options: argparse.Namespace) -> dict[str, float]:
    """Run one whole compression and split its seconds into those of training epochs and all others."""
    path, flags = locate(name, options)
    counted = _CountedFit()
    with tempfile.TemporaryDirectory() as folder, counted:
        begin = time.perf_counter()
        result = compress(
            path,
            out=Path(folder) / "out",
            objective="size",
            target="10x",
            max_drop="1%",
            budget=options.budget,
            **flags,
        )
        total = time.perf_counter() - begin
    training = counted.seconds
    epochs = sum(step.epochs for step in result.report.steps)
    print(f"{name}: compress to 10x, {result.report.verdict}: {total:.1f} s in all")
    print(f"  {training:.1f} s in {epochs} epochs of training, {total - training:.1f} s outside")
    return {"total": total, "training": training, "outside": total - training, "epochs": epochs}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_folders(parser)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--budget", default="3min")
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/overhead.json"))
    options = parser.parse_args()
    results: dict[str, dict[str, dict[str, float]]] = {}
    for name in chosen(options):
        task = load_task(name, options)
        results[name] = {"throughput": throughput(name, task, options.rounds, options.samples)}
    first = chosen(options)[0]
    results[first]["compress"] = outside(first, options)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
