"""What a task is judged by: the metric that goes with data and model, and the targets that it reads."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from easycompress.core.errors import BadInput
from easycompress.core.inputs import TWINS, Bundle, answer, call, chunk_size, parts
from easycompress.core.task import Metric, Split, Splits
from easycompress.metrics import DETECTION, METRICS, OWN_ANSWERS, Facts, default_loss, fitted
from easycompress.metrics.language import next_tokens
from easycompress.metrics.shapes import IGNORED, class_dimension
from easycompress.metrics.values import spread

if TYPE_CHECKING:
    from collections.abc import Callable

    from easycompress.core.inputs import Inputs
    from easycompress.core.references import References

UNLABELLED = OWN_ANSWERS | {"mse", "mae", "rmse", "r2"}
"""Metrics that can compare with the original's own answers, or an autoencoder's with its inputs."""

_TOKENS = 3  # dimensions of (N, T, C)
_DENSE = 4  # dimensions of (N, C, H, W)


@dataclass(frozen=True)
class Judged:
    """Splits with the targets that the metric reads, the metric, the name of the loss that goes with it, and notes."""

    splits: Splits
    metric: Metric
    loss: str
    notes: tuple[str, ...]


def judged(
    model: nn.Module, splits: Splits, outputs: Tensor, metric: Metric | None, references: References | None
) -> Judged:
    """Settle what a task is judged by. `metric` None: chosen. `outputs` (2, ...) answer *select*'s first samples.

    A language model's own tokens become the next tokens; without labels the targets are an autoencoder's inputs, or
    the original's own answers. Raises BadInput where nothing fits.
    """
    notes: list[str | None] = []
    if metric is None:
        name, note = _choose(model, splits.select, outputs, references)
        metric = METRICS[name]
        notes.append(note)
    if metric.name in OWN_ANSWERS or (splits.select.targets is None and metric.name in UNLABELLED):
        own, note = _own_targets(model, splits.select.inputs, outputs, metric)
        splits = _each(splits, own)
        notes += [] if notes else [note]
    elif metric.name in DETECTION:
        splits = _taught_by_answers(model, splits)
    elif _repeats_its_input(splits.select, outputs):
        splits = _each(splits, lambda split: None if split.targets is None else next_tokens(split.targets))
        notes.append("the targets are the texts' own tokens: each place is judged by the next place's token")
    metric, note = fitted(metric, _facts(model, splits, outputs, metric, references))
    notes.append(note)
    return Judged(splits, metric, _loss_of(metric, splits), tuple(note for note in notes if note))


def _choose(model: nn.Module, select: Split, outputs: Tensor, references: References | None) -> tuple[str, str | None]:
    """Return the metric's name where nobody named one, and why, where it isn't accuracy."""
    targets = select.targets
    if targets is None:
        return _choose_unlabelled(select.inputs, outputs)
    if references is not None:
        return "squad-f1", "quality is F1 of the answers' words, as SQuAD has it (--metric squad-em: exact matches)"
    if getattr(model, "detections", None) is not None:
        return "map", "quality is the mean average precision of the boxes, as COCO has it"
    if not targets.is_floating_point():
        return _choose_for_classes(select, targets, outputs)
    if outputs.dim() == _TOKENS and targets.dim() == 1:
        return "spearman", "quality is the rank correlation of the embeddings' cosines with the targets"
    return "mse", "the targets are numbers: quality is the mean squared error (or --metric mae, rmse, r2)"


def _choose_for_classes(select: Split, targets: Tensor, outputs: Tensor) -> tuple[str, str | None]:
    if _repeats_its_input(select, outputs):
        return "perplexity", "quality is the perplexity of the next token"
    if outputs[0].numel() == 1:
        if bool(((targets == 0) | (targets == 1)).all()):
            raise BadInput(
                "the model gives one number a sample, and the targets are 0 and 1: what it must exceed to mean 1 is "
                "yours to say; give --metric file.py:function and --loss file.py:function"
            )
        return "mse", "the model gives one number a sample: quality is the mean squared error (or --metric mae, r2)"
    return "accuracy", None


def _choose_unlabelled(inputs: Inputs, outputs: Tensor) -> tuple[str, str | None]:
    if _reproduces(inputs, outputs):
        return "mse", "no labels, and the outputs have the inputs' shape: quality is how well the inputs are reproduced"
    if _are_values(inputs, outputs):
        return "fidelity", (
            "the data has no labels: quality is the share of the variance of the original model's own answers that is "
            "explained"
        )
    return "agreement", "the data has no labels: quality is agreement with the original model's own answers"


def _reproduces(inputs: Inputs, outputs: Tensor) -> bool:
    """Tell whether a model answers in the shape of its only input: an autoencoder, as far as anyone can see."""
    return isinstance(inputs, Tensor) and inputs.is_floating_point() and inputs.shape[1:] == outputs.shape[1:]


def _are_values(inputs: Inputs, outputs: Tensor) -> bool:
    """Guess, by the shapes alone, whether outputs are values and no scores of classes."""
    if outputs[0].numel() == 1:
        return True
    given = parts(inputs)
    if outputs.dim() == _TOKENS:
        return all(tensor.is_floating_point() for tensor in given)
    if outputs.dim() == _DENSE:
        return given[0].dim() != _DENSE or given[0].shape[2:] != outputs.shape[2:]
    return outputs.dim() > _DENSE


def _repeats_its_input(select: Split, outputs: Tensor) -> bool:
    """Tell whether targets (N, T) that count are the input's own tokens: a causal language model's, not yet shifted."""
    targets = select.targets
    if targets is None or targets.dim() != 2 or outputs.dim() != _TOKENS or targets.is_floating_point():  # noqa: PLR2004 - (N, T)
        return False
    counted = targets != IGNORED
    same = [t for t in parts(select.inputs) if t.shape == targets.shape and not t.is_floating_point()]
    return bool(counted.any()) and any(torch.equal(tokens[counted].long(), targets[counted]) for tokens in same)


def _own_targets(
    model: nn.Module, inputs: Inputs, outputs: Tensor, metric: Metric
) -> tuple[Callable[[Split], Tensor | None], str | None]:
    """Return what makes a split's targets where it has none or they don't count, and a note."""
    if metric.name not in OWN_ANSWERS and _reproduces(inputs, outputs):
        return _inputs_again, "no labels: the targets are the inputs"
    if metric.name != "agreement":
        note = None if metric.name in OWN_ANSWERS else "no labels: the targets are the original model's own answers"
        return lambda split: _answers(model, split), note
    dim = 1 if _answers_spans(model, inputs) else class_dimension(outputs.shape) if outputs.dim() > 1 else 0
    if not dim or outputs.shape[dim] == 1:
        raise BadInput(
            "--metric agreement: takes scores of classes, but the model gives one number a sample; use --metric "
            "fidelity, which compares values with the original's own"
        )
    return lambda split: _hidden(_answers(model, split, dim), split.inputs), None


def _inputs_again(split: Split) -> Tensor:
    return parts(split.inputs)[0]


def _answers_spans(model: nn.Module, inputs: Inputs) -> bool:
    """Tell whether the model answers by begin and end of a span: its places are the classes."""
    with torch.no_grad():
        made: Any = call(model, inputs[:1])
    return hasattr(made, "keys") and any(set(twins) <= set(made.keys()) for twins in TWINS)


def _answers(model: nn.Module, split: Split, dim: int | None = None) -> Tensor:
    """Return the model's own answers to a split, of classes (the largest along `dim`) or values."""
    found = []
    with torch.no_grad():
        size = chunk_size(model, split.inputs)
        for inputs, _ in split.batches(size):
            outputs = answer(model, inputs).float()
            found.append(outputs if dim is None else outputs.argmax(dim))
        if not found:
            return torch.empty(0, dtype=torch.float32 if dim is None else torch.int64)
    return torch.cat(found)


def _hidden(targets: Tensor, inputs: Inputs) -> Tensor:
    """Return targets with the places that the inputs' own mask leaves out IGNORED."""
    if isinstance(inputs, Bundle) and "attention_mask" in inputs.names:
        mask = inputs.tensors[inputs.names.index("attention_mask")]
        if mask.shape == targets.shape:
            return targets.masked_fill(mask == 0, IGNORED)
    return targets


def _taught_by_answers(model: nn.Module, splits: Splits) -> Splits:
    """Give the training data the original's own answers; what a detector is judged by stays boxes."""
    train, calibration = (
        replace(split, targets=_answers(model, split)) for split in (splits.train, splits.calibration)
    )
    return replace(splits, train=train, calibration=calibration)


def _each(splits: Splits, make: Callable[[Split], Tensor | None]) -> Splits:
    """Return the splits with the targets that `make` makes of each."""
    made = [
        replace(split, targets=make(split))
        for split in (splits.train, splits.calibration, splits.select, splits.report)
    ]
    return Splits(made[0], made[1], made[2], made[3], splits.note)


def _facts(model: nn.Module, splits: Splits, outputs: Tensor, metric: Metric, references: References | None) -> Facts:
    names = getattr(getattr(model, "config", None), "id2label", None) or {}
    targets = splits.select.targets
    return Facts(
        shape=tuple(outputs.shape),
        references=references,
        names=tuple(str(names[i]) for i in range(len(names))) if set(names) == set(range(len(names))) else (),
        spread=spread(targets) if metric.name == "fidelity" and targets is not None else 1.0,
        decode=getattr(model, "detections", None),
    )


def _loss_of(metric: Metric, splits: Splits) -> str:
    """Return the loss that goes with the metric; with a user's own, the one that goes with the targets."""
    if metric.name in METRICS:
        return default_loss(metric)
    targets = splits.select.targets
    return "mse" if targets is not None and targets.is_floating_point() else "cross-entropy"
