"""The study's methods on batched nets: iterative pruning, HashedNet, small convolutional nets, and LC beside them."""

from __future__ import annotations

import json
import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from benchmarks.comparative_study_nets import (
    RUNS,
    SPEED,
    Convolutional,
    Dense,
    Shape,
    Side,
    accuracies,
    orders,
    summed_loss,
)
from easycompress.artifact.onnx_export import export
from easycompress.artifact.write import write_model
from easycompress.codes.hashed import Hashed
from easycompress.core.progress import Silent
from easycompress.core.task import Split, Splits, Task
from easycompress.lc.free import set_free, settle
from easycompress.lc.projections.entropy import EntropyConstrained
from easycompress.lc.run import Means, Recipe, run
from easycompress.lc.schedule import spread
from easycompress.lc.tasks import weights_of
from easycompress.measure.profile import profile
from easycompress.measure.runtime import scores_of
from easycompress.metrics import LOSSES, METRICS
from easycompress.pruning.unstructured.masks import choose
from easycompress.pruning.unstructured.saliency import obd
from easycompress.pruning.unstructured.schedule import Course
from easycompress.pruning.unstructured.settings import UnstructuredPruning
from easycompress.pruning.unstructured.technique import stored
from easycompress.pruning.unstructured.training import Masked
from easycompress.technique import Context
from easycompress.training.checkpoint import load_tensors, save_tensors
from easycompress.training.fit import Hooks, Schedule, fit
from easycompress.training.terms import Labels

if TYPE_CHECKING:
    from benchmarks.comparative_study_data import Images
    from easycompress.codes.base import Code

PRUNING: dict[str, dict[str, Any]] = {
    "MagL1": {"criterion": "magnitude", "regularization": "l1"},
    "MagL2": {"criterion": "magnitude", "regularization": "l2"},
    "OBD": {"criterion": "obd", "regularization": "none"},
}
"""Settings of the product's own unstructured pruning; penalties are its usual ones."""

BEFORE, FIRST, BETWEEN, AFTER = 5, 15, 2, 6
"""Epochs with the penalty before the first removal, of training the whole net, then a level's: see Pruned."""

HASHED_EPOCHS, CONVOLUTIONAL_EPOCHS = 25, 8

CONVOLUTIONAL_BATCH, CONVOLUTIONAL_RATE, CONVOLUTIONAL_DECAY = 32, 0.02, 1e-3

SHAPES = (Shape(5, 4, 3, 3), Shape(6, 4, 2, 3), Shape(6, 6, 1, 4), Shape(8, 12, 1, 4), Shape(7, 12, 1, 3))
"""About as many weights as the levels leave of the net of 100 hidden units, within the study's ranges."""

BITS = (0.6, 0.3, 0.15, 0.08, 0.04)
"""Bits a weight that LC is given."""

LC = Recipe(spread(1e-4, 1.0, 20), lr=0.1, lr_last=0.01, tune_epochs=6, tune_lr=0.02, batch=256)


@dataclass(frozen=True)
class Bench:
    """One variant of the data, one width of the hidden layer, and where trained nets are kept."""

    images: dict[str, Images]
    width: int
    folder: Path

    def nets(self, make: Any = None) -> Side:  # noqa: ANN401 - a function of nothing that returns a net
        """Return RUNS fresh nets, each from a seed of its own."""
        made = []
        for seed in range(RUNS):
            torch.manual_seed(seed)
            made.append(Dense(self.width) if make is None else make())
        return Side(made, self.images["train"].pixels)

    def quality(self, side: nn.Module) -> float:
        """Return the runs' mean accuracy on the validation images: what a best epoch is chosen by."""
        assert isinstance(side, Side)
        return sum(accuracies(side.nets, self.images["val"])) / len(side.nets)

    def context(self, side: Side) -> Context:
        """Return what the product's techniques ask of a run."""
        train, test = self.images["train"], self.images["test"]
        few = Split(train.pixels[:2], train.labels[:2])
        report = Split(test.pixels, test.labels)
        data = Splits(orders(train, RUNS), few, few, report)
        task = Task(side, data, few.inputs, METRICS["accuracy"], summed_loss)
        facts = profile(side.nets[0], export(side.nets[0], few.inputs), (784,), 10)
        return Context(task, facts, 0, Silent(), epochs=1, speed=SPEED, evaluate=self.quality)


def measured(bench: Bench, side: Side, codes: dict[str, Code]) -> dict[str, Any]:
    """Return each run's accuracy on the test images, of its written file in ONNX Runtime, and the bytes of both files.

    `codes` by the batched model's names.
    """
    test = bench.images["test"]
    split, metric = Split(test.pixels, test.labels), METRICS["accuracy"]
    found: dict[str, Any] = {"test": [], "onnx_bytes": [], "ecz_bytes": [], "weights": []}
    with tempfile.TemporaryDirectory() as folder:
        for index, net in enumerate(side.nets):
            prefix = f"nets.{index}."
            own = {name.removeprefix(prefix): code for name, code in codes.items() if name.startswith(prefix)}
            path = Path(folder) / f"{index}.onnx"
            packed = write_model(net.eval(), test.pixels[:2], path, codes=own, packed=True)
            found["test"].append(metric.quality(scores_of(path, split, metric, 1)))
            found["onnx_bytes"].append(path.stat().st_size)
            found["ecz_bytes"].append(packed.stat().st_size)
            found["weights"].append(_left(net))
    found["select"] = accuracies(side.nets, bench.images["val"])
    return found


def _left(net: nn.Module) -> int:
    """Return the number of weights that aren't zero."""
    return sum(int(torch.count_nonzero(net.get_parameter(name))) for name in weights_of(net))


class Pruned:
    """One course of one method through the levels, 5 runs at once: each level goes on from the net of the one before.

    Half of what a level removes, by the share that stays, goes first, with BETWEEN epochs after it; then the rest, and
    training without penalty to the best of AFTER epochs. Every level's nets are kept in a file.
    """

    def __init__(self, bench: Bench, method: str) -> None:
        self.bench, self.method = bench, method
        self.action = UnstructuredPruning(strength=0.5, technique="hard", **PRUNING[method])
        self.side = bench.nets()
        self.context = bench.context(self.side)
        self.masks: dict[str, Tensor] = {}
        names = [name for name, _ in self.side.named_parameters() if name.endswith("weight")]
        self.names = [[name for name in names if name.startswith(f"nets.{run}.")] for run in range(RUNS)]
        self.training = Masked(
            self.side, {name: self.side.get_parameter(name) for name in names}, self.action, self.context
        )

    def file(self, removed: float) -> Path:
        """Return where the nets of a level are kept."""
        return self.bench.folder / f"{self.method}-{removed:g}.safetensors"

    def load(self, removed: float) -> bool:
        """Take up the nets of a level if they are there."""
        held = load_tensors(self.file(removed))
        if held is None:
            return False
        tensors = held[0]
        self.masks = {name.removeprefix("mask."): t.bool() for name, t in tensors.items() if name.startswith("mask.")}
        self.side.load_state_dict({name: t for name, t in tensors.items() if not name.startswith("mask.")})
        if self.masks:
            self.training.put(self.masks)
        return True

    def save(self, removed: float) -> None:
        """Keep the nets of a level."""
        state = dict(self.side.state_dict())
        save_tensors(self.file(removed), state | {f"mask.{n}": m.to(torch.uint8) for n, m in self.masks.items()}, {})

    def start(self) -> dict[str, Any]:
        """Train the whole nets: with the penalty, then without it."""
        self.training.with_penalty(BEFORE)
        self.training.finish(FIRST)
        self.save(0)
        return measured(self.bench, self.side, {})

    def level(self, removed: float, before: float, *, times: int = 1, keep: bool = True) -> dict[str, Any]:
        """Go from the level `before` (percent removed) to the next, with `times` the epochs; return its numbers."""
        kept, last = 1 - removed / 100, 1 - before / 100
        for index, share in enumerate((math.sqrt(kept * last), kept)):
            self.remove(share)
            if index == 0:
                self.training.between(
                    int(100 * removed),
                    Course(0, 2, times * BETWEEN, len(self.context.task.data.train), times * AFTER),
                )
        self.training.finish(times * AFTER)
        codes = stored(self.training.weights)
        if keep:
            self.save(removed)
        return measured(self.bench, self.side, dict(codes))

    def remove(self, share: float) -> None:
        """Leave a share of the weights of each run."""
        train = self.bench.images["train"]
        masks: dict[str, Tensor] = {}
        for run_, names in enumerate(self.names):
            weights = {name: self.side.get_parameter(name) for name in names}
            if self.action.criterion == "magnitude":
                found = {name: weight.detach().abs() for name, weight in weights.items()}
            else:
                few = torch.randperm(len(train.labels), generator=torch.Generator().manual_seed(run_))
                few = few[: self.action.samples]
                split = Split(train.pixels[few], train.labels[few])
                prefix = f"nets.{run_}."
                own = {name.removeprefix(prefix): weight for name, weight in weights.items()}
                said = obd(self.side.nets[run_], own, split, LOSSES["cross-entropy"])
                found = {prefix + name: value for name, value in said.items()}
            allowed = {name: self.masks[name] for name in names} if self.masks else None
            masks |= choose(found, share, allowed=allowed)
        self.masks = masks
        self.training.put(masks)


def hashed(bench: Bench, removed: float) -> dict[str, Any]:
    """Train HashedNets from nothing: in each layer as many values as the level leaves weights."""
    side = bench.nets()
    codes: dict[str, Code] = {}
    for index, net in enumerate(side.nets):
        for name in weights_of(net):
            weight = net.get_parameter(name).detach()
            buckets = max(round((1 - removed / 100) * weight.numel()), 1)
            values = weight.flatten()[torch.randperm(weight.numel())[:buckets]]
            codes[f"nets.{index}.{name}"] = Hashed(values, tuple(weight.shape), seed=index)
    set_free(side, codes)
    schedule = Schedule(epochs=HASHED_EPOCHS, lr=0.05, weight_decay=0.0)
    fit(side, orders(bench.images["train"], RUNS), Labels(summed_loss), schedule, SPEED, Hooks(bench.quality), None)
    made = settle(side, codes)
    found = measured(bench, side, made)
    return found | {"weights": [sum(len(c.arrays()["values"]) for n, c in made.items() if n.startswith(f"nets.{i}."))
                                for i in range(RUNS)]}  # fmt: skip


def convolutional(bench: Bench, shape: Shape) -> dict[str, Any]:
    """Train small convolutional nets."""
    side = bench.nets(lambda: Convolutional(shape))
    schedule = Schedule(
        epochs=CONVOLUTIONAL_EPOCHS, lr=CONVOLUTIONAL_RATE, batch=CONVOLUTIONAL_BATCH,
        weight_decay=CONVOLUTIONAL_DECAY,
    )  # fmt: skip
    fit(side, orders(bench.images["train"], RUNS), Labels(summed_loss), schedule, SPEED, Hooks(bench.quality), None)
    return measured(bench, side, {})


def entropy(bench: Bench, bits: float) -> dict[str, Any]:
    """Compress the nets that OBD starts from by entropy-constrained LC, each run under a budget of its own."""
    plain = Pruned(bench, "OBD")
    if not plain.load(0):
        plain.start()
    side = plain.side
    tasks = {tuple(names): EntropyConstrained(bits_per_weight=bits) for names in plain.names}
    means = Means(orders(bench.images["train"], RUNS), Labels(summed_loss), SPEED, bench.quality)
    made = run(side, tasks, LC, means)
    return measured(bench, side, dict(made.codes)) | {"epochs": made.epochs}


def settings_of(method: str) -> dict[str, Any]:
    """Return a method's settings, as JSON."""
    if method in PRUNING:
        action = UnstructuredPruning(strength=0.5, technique="hard", **PRUNING[method])
        shown: dict[str, Any] = action.model_dump(include={"criterion", "regularization", "samples", "technique"})
        return shown | {"penalty": action.weight_of_penalty(), "epochs": [BEFORE, FIRST, BETWEEN, AFTER]}
    if method == "HashedNet":
        return {"epochs": HASHED_EPOCHS}
    if method == "convolutional":
        return {"epochs": CONVOLUTIONAL_EPOCHS, "batch": CONVOLUTIONAL_BATCH, "weight_decay": CONVOLUTIONAL_DECAY}
    return dict(json.loads(json.dumps(LC, default=vars)))
