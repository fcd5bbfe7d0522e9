"""Learning-compression in Python, as short as the papers' task syntax: parameters -> (view, compression).

from easycompress.lc.interface import AdaptiveQuantization, ConstraintL0, each, learn, weights_of

names = weights_of(model)
made = learn(model, {**each(names, AdaptiveQuantization(2)), names: ConstraintL0(share=0.01)}, (x, y), epochs=30)
made.write("model.onnx", x[:2])
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from easycompress.artifact.write import write_model
from easycompress.core.errors import BadInput
from easycompress.core.progress import Progress, Silent
from easycompress.core.task import Split
from easycompress.lc.projections.entropy import EntropyConstrained
from easycompress.lc.projections.hashed import HashedSharing
from easycompress.lc.projections.lowrank import LowRankAt, RankSelection
from easycompress.lc.projections.pruned import ConstraintL0, ConstraintL1, PenaltyL0, PenaltyL1
from easycompress.lc.projections.quantized import AdaptiveQuantization, Binarization, FixedCodebook, Ternarization
from easycompress.lc.run import Means, Recipe, run
from easycompress.lc.schedule import Penalty, spread
from easycompress.lc.settings import FIRST_MU, FIRST_RATE, LAST_MU, LAST_RATE, TUNING_RATE
from easycompress.lc.tasks import each, weights_of
from easycompress.lc.technique import BATCH, recipe_for
from easycompress.training.speed import tune
from easycompress.training.terms import Labels

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor, nn

    from easycompress.codes.base import Code
    from easycompress.core.inputs import Inputs

__all__ = [
    "AdaptiveQuantization", "Binarization", "ConstraintL0", "ConstraintL1", "EntropyConstrained", "FixedCodebook",
    "HashedSharing", "Learned", "LowRankAt", "PenaltyL0", "PenaltyL1", "RankSelection", "Ternarization", "each",
    "learn", "weights_of",
]  # fmt: skip


@dataclass(frozen=True)
class Learned:
    """`model` computes with what `codes` say, by parameter. `rows` tell every step: mu, distance, loss, seconds."""

    model: nn.Module
    codes: dict[str, Code]
    rows: tuple[dict[str, float], ...]
    epochs: int

    def write(self, path: str | Path, example: Inputs, *, packed: bool = False) -> Path:
        """Write the self-decoding .onnx file, with `packed` an .ecz beside it; return the one whose bytes count.

        `example` is a small batch (2, ...) of inputs.
        """
        return write_model(self.model, example, Path(path), codes=self.codes, packed=packed)


def learn(
    model: nn.Module,
    tasks: Mapping[Any, Any],
    train: tuple[Inputs, Tensor] | Split,
    *,
    epochs: int = 30,
    penalty: Penalty | None = None,
    lr: tuple[float, float] = (FIRST_RATE, LAST_RATE),
    loss: Callable[[Tensor, Tensor], Tensor] = functional.cross_entropy,
    evaluate: Callable[[nn.Module], float] | None = None,
    augment: Callable[[Any], Any] | None = None,
    checkpoint: str | Path | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Learned:
    """Return a compressed copy of `model`; the caller's is not changed.

    `tasks`: parameter names (one, or a tuple) -> a compression, (view, compression) or a list of these, which are added
    up, as are tasks that share a parameter. `train`: inputs (N, ...) and targets (N, ...). `epochs` of training in all,
    0 for direct compression; a fifth of them tunes what stays free. `penalty` replaces the schedule (each step is then
    an epoch), `lr` the first and last rate. `evaluate(model)` -> a score by which the best epoch of the tuning is
    kept. `checkpoint`: the beginning of file names from which a killed call goes on.
    Raises BadInput for tasks that don't fit the model, one line each.
    """
    split = train if isinstance(train, Split) else Split(*train)
    if epochs < 0:
        raise BadInput(f"lc: {epochs} epochs: must be 0 (direct compression) or more")
    made = copy.deepcopy(model).eval()
    recipe = recipe_for(epochs, len(split), seed)
    if penalty is not None:
        recipe = Recipe(
            penalty, 1, *lr, tune_epochs=max(epochs - penalty.steps, 0), tune_lr=TUNING_RATE, batch=BATCH, seed=seed
        )
    elif lr != (FIRST_RATE, LAST_RATE):
        recipe = Recipe(
            spread(FIRST_MU, LAST_MU, recipe.penalty.steps), recipe.epochs, *lr, recipe.tune_epochs, TUNING_RATE, BATCH,
            recipe.samples, seed=seed,
        )  # fmt: skip
    means = Means(split, Labels(loss), tune(made, split, BATCH), evaluate, augment, progress=progress or Silent())
    stem = None if checkpoint is None else Path(checkpoint)
    files = None if stem is None else lambda part: stem.with_name(f"{stem.name}.{part}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        done = run(made, tasks, recipe, means, files)
    return Learned(made, done.codes, done.rows, done.epochs)
