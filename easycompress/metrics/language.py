"""What language models and taggers are judged by: perplexity, and F1 of named entities."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch.nn import functional

from easycompress.metrics.classes import positions
from easycompress.metrics.shapes import IGNORED, class_dimension

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

Array: TypeAlias = "np.ndarray[Any, Any]"

_TAG = re.compile(r"([BIESLU])[-_](.+)")
"""A tag of a token in an entity: how it stands in it, and the entity's type. Anything else is outside."""


def surprise(outputs: Tensor, targets: Tensor) -> Array:
    """Return (N, 2): the negative log-likelihood of a sample's tokens, in nats, and how many count.

    outputs (N, T, V), targets (N, T): the token that should come out at each place, IGNORED where none counts.
    """
    scores = outputs.movedim(class_dimension(outputs.shape, targets.shape), 1).float()
    lost = functional.cross_entropy(scores, targets, ignore_index=IGNORED, reduction="none")
    rows = [lost.double().reshape(len(targets), -1).sum(1), (targets != IGNORED).reshape(len(targets), -1).sum(1)]
    return torch.stack([part.double() for part in rows], 1).numpy()


def perplexity(means: Array) -> Array:
    """Return e to the mean negative log-likelihood a token, (...,) of (..., 2)."""
    with np.errstate(over="ignore"):
        found: Array = np.exp(means[..., 0] / means[..., 1])
    return found


def next_tokens(targets: Tensor) -> Tensor:
    """Return what a causal model should answer at each place, (N, T): the next place's token, IGNORED at the last.

    So a language model's own tokens become its targets, as in transformers' ForCausalLMLoss.
    """
    return functional.pad(targets, (0, 1), value=IGNORED)[..., 1:]


def speaks_of_entities(names: Sequence[str]) -> bool:
    """Tell whether class names are tags of entities: `O`, and others such as `B-PER`, `I-PER`."""
    return any(_TAG.fullmatch(name) for name in names) and all(_TAG.fullmatch(n) or n == "O" for n in names)


def entities(tags: Sequence[str]) -> set[tuple[int, int, str]]:
    """Return the entities in a sequence of tags, (first, last, type), as conlleval and seqeval find them.

    One begins at B, S or U, at a change of type, and after what isn't of it; it ends before the next begins.
    """
    found: set[tuple[int, int, str]] = set()
    begin, kind, ended = 0, "", True
    for place, tag in enumerate([*tags, "O"]):
        match = _TAG.fullmatch(tag)
        how, own = (match[1], match[2]) if match else ("O", "")
        if kind and (own != kind or how in "BSU" or ended):
            found.add((begin, place - 1, kind))
            kind = ""
        if own and not kind:
            begin, kind = place, own
        ended = how in "ESLU"
    return found


def entity_counts(names: Sequence[str]) -> Callable[[Tensor, Tensor], Array]:
    """Return scores (N, 3): how many of a sample's entities are rightly found, are found, are there.

    `names` are the classes' by number. Places that are IGNORED, a word's later pieces, are left out of both sequences.
    """

    def scores(outputs: Tensor, targets: Tensor) -> Array:
        predicted, wanted = positions(outputs, targets)
        rows = np.zeros((len(targets), 3))
        for row, (own, right) in enumerate(zip(predicted, wanted, strict=True)):
            counted = right != IGNORED
            found = entities([names[number] for number in own[counted].tolist()])
            there = entities([names[number] for number in right[counted].tolist()])
            rows[row] = len(found & there), len(found), len(there)
        return rows

    return scores


def entity_f1(means: Array) -> Array:
    """Return F1 of all entities together, (...,) of (..., 3): 2 x right / (found + there)."""
    lower = means[..., 1] + means[..., 2]
    f1: Array = np.divide(2 * means[..., 0], lower, out=np.zeros_like(lower), where=lower > 0)
    return f1
