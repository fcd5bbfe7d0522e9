"""Direct compression of each candidate at the needed size: seconds that tell which codes lose least."""

from __future__ import annotations

import copy
import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from easycompress.artifact.exports import Exports
from easycompress.artifact.write import write_model
from easycompress.core.inputs import answer, chunk_size
from easycompress.core.progress import Silent
from easycompress.lc.settings import DECADES, MOST_BITS, LearningCompression
from easycompress.lc.technique import LearningCompressor
from easycompress.metrics import DETECTION
from easycompress.selection.heuristics import TOO_LOST
from easycompress.selection.trees.lc import SCHEMES
from easycompress.technique import Context

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from easycompress.core.inputs import Inputs
    from easycompress.core.profile import ModelProfile
    from easycompress.core.task import Split, Task

SAMPLES = 1024
"""Training samples, or else select's, that the loss is taken on."""

CORRECTIONS = 3
"""Times that the strength is corrected by the bytes of the file it gave."""

TINY = 1e-9
"""Losses closer than this are alike."""

CLOSE = 0.03
"""Files within this share of the wanted bytes are compared as if they were of one size."""


def losses(task: Task, profile: ModelProfile, wanted_bytes: float, *, packed: bool) -> dict[str, float]:
    """Return the loss of each candidate whose file takes about `wanted_bytes`, nothing trained.

    A candidate that can't be made that small is left out. The loss is infinite where the outputs are no numbers.
    """
    exports = Exports()
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="easycompress-") as folder:
        for scheme in SCHEMES:
            made = _at_size(task, profile, scheme, wanted_bytes, Path(folder), exports, packed=packed)
            if made is not None:
                found[scheme] = loss_of(made, task)
    return found


def _at_size(
    task: Task, profile: ModelProfile, scheme: str, wanted: float, folder: Path, exports: Exports, *, packed: bool
) -> nn.Module | None:
    """Return the model directly compressed so that its file takes about `wanted` bytes; None where it stays larger."""
    context = Context(task, profile, 0, Silent())
    bits = min(8 * wanted / max(profile.params, 1), MOST_BITS)
    model, size = None, math.inf
    for _ in range(CORRECTIONS):
        strength = min(max(math.log2(MOST_BITS / bits) / DECADES, 0.0), 1.0)
        biases = "8-bit" if packed else "float"
        action = LearningCompression.model_validate({"scheme": scheme, "strength": strength, "biases": biases})
        applied = LearningCompressor().apply(copy.deepcopy(task.model), action, context)
        path = folder / "probe.onnx"
        file = write_model(applied.model, task.example, path, codes=applied.codes, packed=packed, exports=exports)
        model, size = applied.model, file.stat().st_size
        if abs(size / wanted - 1) <= CLOSE:
            break
        bits = min(bits * wanted / size, MOST_BITS)
    return model if size <= (1 + 2 * CLOSE) * wanted else None


def loss_of(model: nn.Module, task: Task) -> float:
    """Return the task's loss on up to SAMPLES samples, on the original's answers where there are no labels."""
    return _loss(task, model, lambda inputs: answer(model, inputs).float())


@dataclass(frozen=True)
class Known:
    """What the original knows: the way from `blank`, the loss of what answers every sample alike, to its `own` loss."""

    own: float
    blank: float

    @property
    def most(self) -> float:
        """Return the loss beyond which an untrained copy has lost too much: TOO_LOST of what the original knows."""
        return self.own + TOO_LOST * max(self.blank - self.own, 0.0)

    def lost(self, loss: float) -> float:
        """Return the share that a copy of this loss has lost; infinite where that is no number."""
        share = (loss - self.own) / max(self.blank - self.own, TINY)
        return share if math.isfinite(share) else math.inf


def known(task: Task) -> Known:
    """Return what the original knows. What answers every sample alike answers the mean of the original's answers."""
    total: Tensor | None = None

    def noted(inputs: Inputs) -> Tensor:
        nonlocal total
        outputs = answer(task.model, inputs).float()
        added = outputs.sum(0, keepdim=True)
        total = added if total is None else total + added
        return outputs

    own = _loss(task, task.model, noted)
    if total is None:
        return Known(own, math.inf)
    mean = total / len(_samples(task))
    return Known(own, _loss(task, task.model, lambda inputs: mean.expand(len(inputs), *mean.shape[1:])))


def _samples(task: Task) -> Split:
    """Return what losses are taken on."""
    split = task.data.train if len(task.data.train) else task.data.select
    return split.take(slice(0, SAMPLES))


def _loss(task: Task, model: nn.Module, answered: Callable[[Inputs], Tensor]) -> float:
    """Return the loss of answers, in chunks that `model` can take."""
    split = _samples(task)
    total = 0.0
    with torch.no_grad():
        for inputs, given in split.batches(chunk_size(model, split.inputs)):
            outputs = answered(inputs)
            if given is None:
                targets = answer(task.model, inputs).argmax(1)
            else:
                targets = answer(task.model, inputs) if task.metric.name in DETECTION else given
            total += len(inputs) * float(task.loss(outputs, targets))
    value = total / max(len(split), 1)
    return value if math.isfinite(value) else math.inf
