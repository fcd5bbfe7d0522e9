"""How much the answers change with the weights: what decides which layers, and which rows of a table, get the bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from easycompress.core.inputs import answer, chunks, parts
from easycompress.metrics import CLASS_LOSSES
from easycompress.metrics.shapes import class_dimension

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from easycompress.core.inputs import Inputs
    from easycompress.core.task import Task

SAMPLES = 512
"""Calibration samples that the derivatives are taken at."""

BATCH = 16

UNSEEN = 0.5
"""How often a row that was never asked for counts as asked for (Krichevsky and Trofimov's estimate)."""

EXPONENT = 2 / 3
"""How far the bits follow the sensitivities: 0 not at all, 1 as the derivatives say, which hold for small errors only.

On the answers of LeNet300, LeNet5, ResNet20 and MiniLM at 0.4 to 4 bits a weight, 1/2 and 2/3 were within 5 % of the
best of 0, 1/4, 1/2, 2/3 and 1; at the same bytes their errors were up to 15 % (MiniLM's layers 25 %) smaller than at 0.
"""

TABLE_EXPONENT = 0.9
"""The same for rows of tables, beside the layers: at 2/3 they took bytes that the layers' errors had more need of.

Measured on MiniLM alone: at 2.6 bits a weight the error of the answers on *select* fell from 0.263 to 0.237.
"""

LEAST, MOST = 2.0**-12, 2.0**12
"""The least and the most that a slope is, in units of the geometric mean: no derivative isn't no bits."""


@dataclass(frozen=True)
class Sensitivity:
    """Mean squared derivative of a sample's answer by one weight: of a whole parameter, (), or of each row, (rows,)."""

    values: Tensor

    @property
    def by_row(self) -> bool:
        """Tell whether rows count differently."""
        return self.values.dim() > 0


def sensitivities(model: nn.Module, task: Task, names: Sequence[str]) -> dict[str, Sensitivity]:
    """Return the sensitivity of each parameter, from SAMPLES calibration samples; empty where nothing can be derived.

    The squared Jacobian is estimated by random signs (Hutchinson): E over signs s of (d (s . answers) / d w)^2 sums
    over samples and answers. Scores of classes count without what they have in common. Tables of embeddings are told
    apart by row: a row counts as often as the training data ask for it. The model is in evaluation mode and unchanged.
    """
    inputs = task.data.calibration.inputs[:SAMPLES]
    scores = task.loss in CLASS_LOSSES
    asked = _Asked(model, names)
    sums = {name: torch.zeros_like(model.get_parameter(name)) for name in names}
    weights = [model.get_parameter(name) for name in names]
    before = [weight.requires_grad for weight in weights]
    signs = torch.Generator().manual_seed(0)
    try:
        for weight in weights:
            weight.requires_grad_()
        with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):  # its recurrent layers want training mode
            for batch in chunks(inputs, BATCH):
                answers = answer(model, batch)
                if not answers.requires_grad:
                    return {}
                if scores and answers.dim() > 1:
                    answers = answers - answers.mean(class_dimension(answers.shape), keepdim=True)
                sign = torch.randint(0, 2, answers.shape, generator=signs).to(answers) * 2 - 1
                found = torch.autograd.grad((answers * sign).sum(), weights, allow_unused=True)
                for name, gradient in zip(names, found, strict=True):
                    sums[name] += 0 if gradient is None else gradient.square()
                asked.see(batch)
    finally:
        asked.close()
        for weight, needed in zip(weights, before, strict=True):
            weight.requires_grad_(needed)
    return {
        name: Sensitivity(
            asked.rows(name, total, task) / len(inputs) if asked.knows(name) else total.mean() / len(inputs)
        )
        for name, total in sums.items()
    }


def slopes(found: dict[str, Sensitivity], sizes: dict[str, int]) -> dict[str, Tensor]:
    """Return what the slope between rate and distortion is multiplied by, () or (rows,).

    Where there are no tables their geometric mean a weight is 1. `sizes` are the numbers of weights; those without a
    sensitivity have 1.
    """
    logs = {name: known.values.double().clamp_min(1e-300).log() for name, known in found.items()}
    count = sum(sizes[name] for name in logs)
    middle = sum(float(log.mean()) * sizes[name] for name, log in logs.items()) / max(count, 1)
    ones = {name: torch.ones((), dtype=torch.float64) for name in sizes}
    powers = {name: TABLE_EXPONENT if known.by_row else EXPONENT for name, known in found.items()}
    return ones | {name: (powers[name] * (middle - log)).exp().clamp(LEAST, MOST) for name, log in logs.items()}


class _Asked:
    """How often the rows of tables of embeddings are asked for, by the calibration samples and by the training data."""

    def __init__(self, model: nn.Module, names: Iterable[str]) -> None:
        owners = {name: model.get_submodule(name.rpartition(".")[0]) for name in names}
        tables = {name: owner for name, owner in owners.items() if isinstance(owner, nn.Embedding)}
        self.indices: dict[str, list[Tensor]] = {name: [] for name in tables}
        self.counts = {name: torch.zeros(table.num_embeddings, dtype=torch.float64) for name, table in tables.items()}
        self.places: dict[str, set[int]] = {}
        self.handles: list[Any] = [
            table.register_forward_hook(lambda _, given, __, name=name: self.indices[name].append(given[0].detach()))
            for name, table in tables.items()
        ]

    def see(self, batch: Inputs) -> None:
        """Count what one batch asked for, and take note of which inputs (places among them) hold just these rows."""
        for name, given in self.indices.items():
            same = {i for i, part in enumerate(parts(batch)) if len(given) == 1 and _equal(part, given[0])}
            self.places[name] = same & self.places.get(name, same)
            for rows in given:
                self.counts[name] += torch.bincount(rows.flatten().long().cpu(), minlength=len(self.counts[name]))
            given.clear()

    def close(self) -> None:
        """Take the hooks away."""
        for handle in self.handles:
            handle.remove()

    def knows(self, name: str) -> bool:
        """Tell whether the parameter is a table that was asked."""
        return name in self.counts and bool(self.counts[name].sum() > 0)

    def rows(self, name: str, total: Tensor, task: Task) -> Tensor:
        """Return the summed squared derivative (rows,) of a weight of each row, from `total` (rows, width).

        Where the rows are an input of the model, how often the training data ask for each says more than the few
        samples do; rows that are asked for without effect (padding) count as never asked for. A table that is also
        used otherwise (tied to the output) keeps its measured derivatives.
        """
        seen, measured = self.counts[name], total.double().mean(1)
        alive = measured > 0
        each = float(measured.sum() / seen[alive].sum().clamp_min(1))
        places = self.places.get(name, set())
        if not places or bool((alive & (seen == 0)).any()):
            return measured + UNSEEN * each
        train = parts(task.data.train.inputs)[min(places)]
        if not len(train):
            return measured + UNSEEN * each
        counts = torch.bincount(train.flatten().long(), minlength=len(seen)).double()
        counts[(seen > 0) & ~alive] = 0
        share = len(task.data.calibration.inputs[:SAMPLES]) / len(train)
        return each * (counts + UNSEEN) * share


def _equal(given: Tensor, rows: Tensor) -> bool:
    return given.shape == rows.shape and not given.is_floating_point() and bool((given.cpu() == rows.cpu()).all())
