"""Extractive question answering: F1 and exact match as SQuAD publishes them.

Rajpurkar et al., SQuAD: 100,000+ Questions for Machine Comprehension of Text, EMNLP 2016, section 6.1, and its
evaluation script; questions without an answer as in that of version 2 (Rajpurkar et al., ACL 2018).
"""

from __future__ import annotations

import re
import string
from collections import Counter
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch

from easycompress.metrics.shapes import SPAN, is_span

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from easycompress.core.references import References

Array: TypeAlias = "np.ndarray[Any, Any]"

LONGEST = 30
"""Tokens of the longest answer that is looked for, as the published baselines have it."""

_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalised(text: str) -> str:
    """Return a text as answers are compared: lower case, no punctuation, no articles, single spaces."""
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text.lower().translate(_PUNCTUATION)).split())


def exact(prediction: str, answer: str) -> float:
    """Return 1.0 where the normalised texts are the same."""
    return float(normalised(prediction) == normalised(answer))


def overlap(prediction: str, answer: str) -> float:
    """Return F1 of the words that two texts share; where one has none, 1.0 if neither has."""
    found, wanted = normalised(prediction).split(), normalised(answer).split()
    if not found or not wanted:
        return float(found == wanted)
    same = sum((Counter(found) & Counter(wanted)).values())
    return 2 * same / (len(found) + len(wanted))


def best_spans(scores: Tensor, inside: Tensor, *, may_refuse: bool) -> list[tuple[int, int] | None]:
    """Return the best begin and end of each sample, both within the context, at most LONGEST tokens.

    scores (N, T, 2), inside (N, T) bool. The best maximises begin's score + end's. `may_refuse`: None where the first
    token's, which stand for no answer, are more; None too without context.
    """
    begin, end = scores.double().masked_fill(~inside[..., None], -torch.inf).unbind(-1)
    length = begin.shape[1]
    best = torch.full((len(scores),), -torch.inf, dtype=torch.float64)
    spans = torch.zeros(len(scores), 2, dtype=torch.int64)
    for more in range(min(LONGEST, length)):
        value, place = (begin[:, : length - more] + end[:, more:]).max(1)
        better = value > best
        best = torch.where(better, value, best)
        spans = torch.where(better[:, None], torch.stack([place, place + more], 1), spans)
    none = best == -torch.inf
    if may_refuse:
        none |= scores[:, 0].double().sum(-1) > best
    return [None if no else (span[0], span[1]) for no, span in zip(none.tolist(), spans.tolist(), strict=True)]


def squad(references: References, compare: Callable[[str, str], float]) -> Callable[[Tensor, Tensor], Array]:
    """Return scores (N,) of outputs (N, T, 2) and targets (N, 3), whose last is the row in the references.

    A sample's score is its best over the accepted answers. That there is none is predicted only where some row of the
    references has no answer.
    """
    may_refuse = not all(references.answers)

    def scores(outputs: Tensor, targets: Tensor) -> Array:
        if not is_span(outputs.shape, targets.shape):
            raise ValueError("squad takes scores of begin and end, (N, T, 2), and targets (N, 3): begin, end, row")
        rows = targets[:, SPAN]
        inside = references.offsets[rows, :, 0] >= 0
        spans = best_spans(outputs, inside, may_refuse=may_refuse)
        found = np.zeros(len(outputs))
        for place, (row, span) in enumerate(zip(rows.tolist(), spans, strict=True)):
            text = "" if span is None else references.text(row, *span)
            found[place] = max(compare(text, answer) for answer in references.answers[row] or ("",))
        return found

    return scores
