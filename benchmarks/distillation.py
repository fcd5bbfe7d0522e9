"""How well the three distillation techniques recover a pruned model: what the distillation rules can be held against.

One pruned student a model, the same epochs, rate and seeds for each technique; quality on the validation split.
Resumable: a row that the JSON holds is not run again.
"""

from __future__ import annotations

import argparse
import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.zoo import add_folders, chosen, load_task
from easycompress.artifact.onnx_export import export
from easycompress.core.progress import Silent
from easycompress.distillation.settings import Distillation
from easycompress.distillation.technique import Distiller
from easycompress.measure.profile import profile
from easycompress.pruning.settings import StructuredPruning
from easycompress.pruning.technique import StructuredPruner
from easycompress.technique import Context
from easycompress.training.speed import tune
from easycompress.training.terms import make_teacher

if TYPE_CHECKING:
    from easycompress.core.task import Task

PRUNED = {
    "digits": StructuredPruning(strategy="global", importance="l1", strength=0.6, steps=1),
    "lenet5": StructuredPruning(strategy="global", importance="l1", strength=0.6, steps=1),
    "resnet20": StructuredPruning(strategy="global", importance="group-norm", strength=0.3, steps=1),
}


def student(task: Task, action: StructuredPruning, context: Context) -> torch.nn.Module:
    """Return a pruned, untrained copy."""
    return StructuredPruner().apply(copy.deepcopy(task.model), action, context).model


def run(name: str, task: Task, technique: str, epochs: int, seed: int) -> dict[str, Any]:
    """Return one row: the student's best quality on *select*."""
    graph = export(task.model, task.example)
    context = Context(task, profile(task.model, graph, tuple(task.example.shape[1:]), 10), seed, Silent())
    model = student(task, PRUNED[name], context)
    select = task.data.select
    targets = select.targets
    assert targets is not None

    def evaluate(trained: torch.nn.Module) -> float:
        with torch.no_grad():
            outputs = torch.cat([trained(inputs) for inputs, _ in select.batches(500)])
        return task.metric.quality(task.metric.scores(outputs, targets))

    before = evaluate(model)
    speed = tune(task.model, task.data.train, 128)
    teacher = make_teacher(task.model, task.data.train, cache=True)
    context = replace(context, epochs=epochs, speed=speed, teacher=lambda: teacher, evaluate=evaluate)
    applied = Distiller().apply(model, Distillation.model_validate({"technique": technique, "mode": "budget"}), context)
    assert applied.history is not None
    return {
        "model": name, "technique": technique, "epochs": epochs, "seed": seed, "original": evaluate(task.model),
        "pruned": before, "recovered": applied.history.best,
        "seconds": sum(epoch["seconds"] for epoch in applied.history.epochs),
    }  # fmt: skip


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_folders(parser)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/distillation.json"))
    options = parser.parse_args()
    rows: list[dict[str, Any]] = json.loads(options.json.read_text()) if options.json.exists() else []
    options.json.parent.mkdir(parents=True, exist_ok=True)
    for name in chosen(options):
        task = load_task(name, options)
        for seed in range(options.seeds):
            for technique in ("hard", "soft", "combined"):
                key = {"model": name, "technique": technique, "epochs": options.epochs, "seed": seed}
                if not any(all(row[k] == v for k, v in key.items()) for row in rows):
                    rows.append(run(name, task, technique, options.epochs, seed))
                    options.json.write_text(json.dumps(rows, indent=2) + "\n")
    print(f"{'model':10s} {'technique':10s} epochs seed  original  pruned  recovered  seconds")
    for row in rows:
        print(
            f"{row['model']:10s} {row['technique']:10s} {row['epochs']:6d} {row['seed']:4d}  {row['original']:8.2f} "
            f"{row['pruned']:7.2f} {row['recovered']:10.2f} {row['seconds']:8.1f}"
        )


if __name__ == "__main__":
    main()
