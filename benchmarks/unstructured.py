"""Unstructured pruning against the comparative study's tables 1, 3 and 5: a 784-100-10 net on MNIST, 99 % removed.

    python -m benchmarks.unstructured --data DATA [--epochs 30] [--seeds 1] [--json FILE]

DATA holds mnist.npz. The best epoch is chosen on the 5 000 validation images; accuracy is that of the written file in
ONNX Runtime on the 10 000 test images. Resumable: a row that the JSON holds is not run again. Training is plain (hard),
as in the study; `distilled` rows also learn from the reference's answers. Penalties are the product's usual ones.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from easycompress.artifact.onnx_export import export
from easycompress.artifact.write import write_model
from easycompress.core.progress import Silent
from easycompress.core.task import Split, Splits, Task
from easycompress.measure.profile import profile
from easycompress.measure.runtime import scores_of
from easycompress.metrics import LOSSES, METRICS
from easycompress.pruning.unstructured.settings import LEAST_KEPT, UnstructuredPruning
from easycompress.pruning.unstructured.technique import UnstructuredPruner
from easycompress.technique import Context
from easycompress.training.fit import Hooks, Schedule, fit
from easycompress.training.speed import Speed
from easycompress.training.terms import Labels, make_teacher

RESULTS = Path(__file__).parent / "results" / "unstructured.json"

REMOVED = 0.99
REFERENCE_EPOCHS = 15
MEAN, DEVIATION = 0.1307, 0.3081

STUDY = {"MagL1": 94.31, "MagL2": 94.31, "OBD": 93.47}
"""Accuracy on MNIST with 99 % of the edges removed: tables 3, 1 and 5; uncompressed 96.77, 97.65 and 97.71."""

STRENGTH = math.log(1 - REMOVED) / math.log(LEAST_KEPT)

METHODS: dict[str, dict[str, Any]] = {
    "MagL1": {"criterion": "magnitude", "regularization": "l1", "technique": "hard"},
    "MagL2": {"criterion": "magnitude", "regularization": "l2", "technique": "hard"},
    "OBD": {"criterion": "obd", "regularization": "none", "technique": "hard"},
    "MagL1 distilled": {"criterion": "magnitude", "regularization": "l1", "technique": "combined"},
}

SPEED = Speed(threads=1, channels_last=False, bfloat16=False, step_seconds=0.0)


class Net(nn.Module):
    """The study's net."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(784, 100)
        self.output = nn.Linear(100, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, 10) of images (N, 784)."""
        logits: Tensor = self.output(torch.relu(self.hidden(x)))
        return logits


def read(folder: Path) -> Splits:
    """Return MNIST: train, validation and test as they are divided in the file."""
    arrays = np.load(folder / "mnist.npz")

    def split(name: str) -> Split:
        pixels = torch.from_numpy(arrays[f"x_{name}"]).flatten(1).float() / 255
        return Split((pixels - MEAN) / DEVIATION, torch.from_numpy(arrays[f"y_{name}"]).long())

    train = split("train")
    return Splits(train, train.take(slice(0, 1000)), split("val"), split("test"))


def accuracy(model: nn.Module, split: Split) -> float:
    """Return the accuracy in percent."""
    assert isinstance(split.inputs, Tensor)
    assert split.targets is not None
    with torch.no_grad():
        return 100 * float((model(split.inputs).argmax(1) == split.targets).float().mean())


def reference(data: Splits, seed: int, checkpoint: Path) -> Task:
    """Return a trained net as a task; `checkpoint` keeps it."""
    torch.manual_seed(seed)
    model = Net()
    hooks = Hooks(lambda net: accuracy(net, data.select))
    schedule = Schedule(epochs=REFERENCE_EPOCHS, lr=0.05, seed=seed)
    fit(model, data.train, Labels(LOSSES["cross-entropy"]), schedule, SPEED, hooks, checkpoint)
    return Task(model, data, data.train.take(slice(0, 2)).inputs, METRICS["accuracy"], LOSSES["cross-entropy"])


def measured(task: Task, model: nn.Module, codes: dict[str, Any]) -> dict[str, Any]:
    """Return accuracy on the test images and the bytes of both files."""
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "model.onnx"
        packed = write_model(model, task.example, plain, codes=codes, packed=True)
        scores = scores_of(plain, task.data.report, task.metric, 1)
        return {
            "test": task.metric.quality(scores),
            "select": accuracy(model, task.data.select),
            "onnx_bytes": plain.stat().st_size,
            "ecz_bytes": packed.stat().st_size,
        }


def prune(task: Task, action: UnstructuredPruning, epochs: int, seed: int) -> dict[str, Any]:
    """Return one row."""
    graph = export(task.model, task.example)
    context = Context(
        task, profile(task.model, graph, (784,), 10), seed, Silent(), epochs=epochs, speed=SPEED,
        evaluate=lambda model: accuracy(model, task.data.select),
        teacher=lambda: make_teacher(task.model, task.data.train, cache=True),
    )  # fmt: skip
    begin = time.perf_counter()
    applied = UnstructuredPruner().apply(copy.deepcopy(task.model), action, context)
    seconds = time.perf_counter() - begin
    row = {"epochs": applied.epochs, "seconds": round(seconds, 1)}
    return row | applied.record | measured(task, applied.model, dict(applied.codes))


def action_of(method: str) -> UnstructuredPruning:
    """Return a method's settings."""
    return UnstructuredPruning(strength=STRENGTH, **METHODS[method])


def asked(method: str, seed: int, epochs: int) -> dict[str, Any]:
    """Return what makes a row the one that is wanted."""
    if method == "reference":
        return {"method": method, "seed": seed, "asked": REFERENCE_EPOCHS, "settings": {}}
    settings = action_of(method)
    shown = settings.model_dump(exclude={"kind"}) | {"penalty": settings.weight_of_penalty()}
    return {"method": method, "seed": seed, "asked": epochs, "settings": shown}


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of mnist.npz")
    parser.add_argument("--epochs", type=int, default=30, help="of each method, after the reference's")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--work", type=Path, default=Path("out/unstructured"), help="folder of the trained reference")
    parser.add_argument("--json", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = json.loads(options.json.read_text()) if options.json.exists() else []
    for seed in range(options.seeds):
        task: Task | None = None
        for method in ("reference", *METHODS):
            key = asked(method, seed, options.epochs)
            if any(all(row[k] == v for k, v in key.items()) for row in rows):
                continue
            begin = time.perf_counter()
            task = task or reference(read(options.data), seed, options.work / f"reference-{seed}.safetensors")
            seconds = {"seconds": round(time.perf_counter() - begin, 1)}
            if method == "reference":
                rows.append(key | seconds | measured(task, task.model, {}))
            else:
                rows.append(key | prune(task, action_of(method), options.epochs, seed))
            options.json.write_text(json.dumps(rows, indent=1) + "\n")
    for row in rows:
        say(row)


def say(row: dict[str, Any]) -> None:
    """Print one row."""
    study = f"the study {STUDY[row['method']]:.2f}" if row["method"] in STUDY else ""
    print(
        f"{row['method']:16s} seed {row['seed']} epochs {row['asked']:3d} kept {row.get('kept', 1.0):8.3%} "
        f"test {row['test']:.2f} select {row['select']:.2f} onnx {row['onnx_bytes']:7d} ecz {row['ecz_bytes']:7d} "
        f"{row['seconds']:6.1f} s {study}",
        flush=True,
    )


if __name__ == "__main__":
    main()
