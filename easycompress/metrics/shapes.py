"""Which dimension of a model's outputs is that of the classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from easycompress.core.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

IGNORED = -100
"""The target of positions that don't count, as in torch's cross-entropy: padding, mostly."""

SPAN = 2
"""Scores a token in question answering: to begin the answer, and to end it."""

TOKENS = 3
"""Dimensions of one row of class scores a token, (N, T, C)."""


def class_dimension(outputs: Sequence[int], targets: Sequence[int] | None = None) -> int:
    """Return which dimension of outputs of that shape holds the scores of the classes.

    It is the one that targets of class indices lack: 1 of (N, C) against (N,), of dense (N, C, H, W) against (N, H, W)
    and of question answering's (N, T, 2) against (N, 2), or (N, 3) with the question's number behind begin and end,
    where the tokens are the classes; 2 of (N, T, C) against (N, T). Without targets, and where they leave it open, the
    last of three dimensions, of others the one after the samples. Raises BadInput for one score a sample, (N,).
    """
    if len(outputs) == 1:
        raise BadInput(
            "distillation: the model gives one number a sample, no scores of classes; use technique hard, "
            "or outputs values"
        )
    usual = 2 if len(outputs) == TOKENS else 1
    if targets is None:
        return usual
    if is_span(outputs, targets):
        return 1
    fitting = [i for i in range(1, len(outputs)) if (*outputs[:i], *outputs[i + 1 :]) == tuple(targets)]
    return usual if usual in fitting or not fitting else fitting[-1]


def is_span(outputs: Sequence[int], targets: Sequence[int]) -> bool:
    """Tell whether these are question answering's scores (N, T, 2) and targets (N, 3): begin, end, the row's number."""
    return len(outputs) == TOKENS and outputs[-1] == SPAN and tuple(targets) == (outputs[0], SPAN + 1)


def span_targets(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return targets without what only a metric reads, the rows' numbers: (N, 2) of a span, others as they are."""
    return targets[:, :SPAN] if is_span(outputs.shape, targets.shape) else targets
