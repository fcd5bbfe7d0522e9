"""Which weights stay: masks of an exact number of weights, by saliency."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from easycompress.pruning.unstructured.settings import Pattern


FLOOR = 0.1
"""No layer keeps less than this times the average share, nor less than one weight: an empty one cuts the net in two.

One ranking over all layers would empty those whose weights are small merely because their inputs are large.
"""


def largest(saliency: Tensor, count: int) -> Tensor:
    """Solve argmax over masks of `count` places of the saliency (N,) they keep: the largest, the first of equal ones.

    Return a bool mask (N,) with exactly min(max(count, 0), N) true places. Saliencies must not be NaN.
    """
    if count <= 0:
        return torch.zeros(saliency.shape, dtype=torch.bool)
    if count >= len(saliency):
        return torch.ones(saliency.shape, dtype=torch.bool)
    values = saliency.numpy()
    last = float(np.partition(values, len(values) - count)[len(values) - count])  # no sort: much faster on millions
    keep = saliency > last
    missing = count - int(torch.count_nonzero(keep))
    keep[torch.nonzero(saliency == last).flatten()[:missing]] = True
    return keep


def pattern_of(name: Pattern) -> tuple[int, int] | None:
    """Return (N, M) of a pattern's name, None for none."""
    if name == "none":
        return None
    kept, among = name.split(":")
    return int(kept), int(among)


def n_of_m(saliency: Tensor, kept: int, among: int) -> Tensor:
    """Return the mask of the `kept` most salient of every `among` consecutive inputs of each output, the first of ties.

    `saliency` (out, ...): what follows the first dimension is one row of inputs, in stored order. A shorter last group
    keeps at most `kept` as well.
    """
    rows = saliency.flatten(1)
    inputs = rows.shape[1]
    rest = -inputs % among
    padded = torch.nn.functional.pad(rows, (0, rest), value=-torch.inf).reshape(len(rows), -1, among)
    order = padded.argsort(dim=-1, descending=True, stable=True)[..., :kept]
    keep = torch.zeros(padded.shape, dtype=torch.bool).scatter_(-1, order, value=True)
    return keep.flatten(1)[:, :inputs].reshape(saliency.shape)


def choose(
    saliency: Mapping[str, Tensor],
    share: float,
    *,
    allowed: Mapping[str, Tensor] | None = None,
    pattern: tuple[int, int] | None = None,
    by_layer: bool = False,
) -> dict[str, Tensor]:
    """Solve argmax over masks of the saliency they keep, where round(`share` x weights) of the weights may stay.

    The count is over all tensors together, where each keeps at least FLOOR x `share` of its own, or of each `by_layer`;
    either way each keeps one, also where the count is too small for that, unless `share` is 0. With a `pattern` (N, M),
    at most N of M stay as well, and only where `allowed` masks are true, if given: then fewer may be left than the
    count. All three at once is still solved exactly, because the N largest of each group that are allowed are the only
    ones that can be chosen.
    Saliencies are >= 0, of any shape, by parameter; so are the masks returned.
    """
    values = {name: value.double() for name, value in saliency.items()}
    if allowed is not None:
        values = {name: torch.where(allowed[name], value, -1.0) for name, value in values.items()}
    if pattern is not None:
        fitting = {name: n_of_m(value, *pattern) for name, value in values.items()}
        values = {name: torch.where(fitting[name], value, -1.0) for name, value in values.items()}
    least = 1 if share > 0 else 0
    counts = [round((share if by_layer else FLOOR * share) * value.numel()) for value in values.values()]
    flat = [value.flatten() for value in values.values()]
    kept = [largest(v, max(count, least)) & (v >= 0) for v, count in zip(flat, counts, strict=True)]
    if not by_layer:
        kept = _with_rest(kept, flat, share)
    return {name: keep.reshape(v.shape) & (v >= 0) for keep, (name, v) in zip(kept, values.items(), strict=True)}


def _with_rest(sure: list[Tensor], values: list[Tensor], share: float) -> list[Tensor]:
    """Return the masks `sure`, each (N,), with the largest of all other values up to the `share` of all."""
    certain, everything = torch.cat(sure), torch.cat(values)
    missing = round(share * len(everything)) - int(torch.count_nonzero(certain))
    rest = largest(torch.where(certain, -torch.inf, everything), missing)
    return list(torch.split(certain | rest, [len(value) for value in values]))
