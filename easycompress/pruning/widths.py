"""How many channels each group keeps at a given strength: the mathematics, on scores alone."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from easycompress.pruning.graph import ChannelGroup

SPREAD = 1.5
"""No group loses more than this times the average share (plus SLACK), so that none collapses long before the rest."""

SLACK = 0.05


def kept_widths(groups: list[ChannelGroup], strength: float, round_to: int) -> dict[str, int]:
    """Return how many channels each root keeps.

    The share `strength` of all channels with the least relative importance goes, at most SPREAD x strength + SLACK of a
    group. Widths are rounded up to multiples of `round_to`, and never fall below min(round_to, width) or 1. Strength 0
    keeps everything; a larger strength never keeps more.
    """
    total = sum(group.width for group in groups)
    to_remove = math.floor(strength * total + 1e-9)
    removed = {group.root: 0 for group in groups}
    limit = {group.root: math.floor(min(1.0, SPREAD * strength + SLACK) * group.width + 1e-9) for group in groups}
    order = sorted(
        (float(score), index, rank)
        for index, group in enumerate(groups)
        for rank, score in enumerate(torch.sort(group.scores).values)
    )
    for _, index, _ in order:
        if to_remove == 0:
            break
        root = groups[index].root
        if removed[root] < limit[root]:
            removed[root] += 1
            to_remove -= 1
    return {group.root: _rounded(group.width, group.width - removed[group.root], round_to) for group in groups}


def _rounded(width: int, kept: int, round_to: int) -> int:
    return min(width, max(1, math.ceil(kept / round_to)) * round_to)


def least_important(scores: torch.Tensor, count: int) -> list[int]:
    """Return the places of the `count` smallest scores, ties by place, sorted."""
    order = torch.sort(scores, stable=True).indices[:count]
    return sorted(order.tolist())
