"""How many channels each group keeps at a given strength: the mathematics, on scores alone."""

from __future__ import annotations

import heapq
import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from easycompress.pruning.graph import ChannelGroup

SPREAD = 1.5
"""No group loses more than this times the average share (plus SLACK), so that none collapses long before the rest."""

SLACK = 0.05


EIGHTY = 0.8
"""No group loses more than this share until all have lost it: the thesis's 80 % rule."""


def kept_widths(
    groups: list[ChannelGroup], strength: float, round_to: int, costs: Sequence[Sequence[float]] | None = None
) -> dict[str, int]:
    """Return how many channels each root keeps.

    The share `strength` of all channels goes: those with the least scores, at most SPREAD x strength + SLACK of a
    group; or, given `costs` (one row a group, for its 1st, 2nd, ... channel, never falling), those that cost the least,
    however they are spread. Either way no group loses more than EIGHTY while another has lost less.
    Widths are rounded up to multiples of `round_to`, and never fall below min(round_to, width) or 1. Strength 0
    keeps everything; in no group does a larger strength keep more: channels go one by one, in an order that the limits
    alone shape, and `strength` says only where to stop. (Limits of the final strength would let a generous one take
    from one group what a smaller strength takes from another.)
    """
    total = sum(group.width for group in groups)
    removed = [0] * len(groups)
    ordered = costs or [torch.sort(group.scores).values.tolist() for group in groups]
    easy = sum(_easy(group.width) for group in groups)

    def earliest(index: int) -> int:
        """Return how many channels must go before the group may lose its next one."""
        width, place = groups[index].width, removed[index] + 1
        spread = 0 if costs else math.ceil((place / width - SLACK) * total / SPREAD - 1e-9)
        return max(spread, 0 if place <= _easy(width) else easy + 1)

    waiting = [(earliest(index), index) for index in range(len(groups))]
    heapq.heapify(waiting)
    ready: list[tuple[float, int]] = []
    gone = 0
    for count in range(1, math.floor(strength * total + 1e-9) + 1):
        while waiting and waiting[0][0] <= count:
            _, index = heapq.heappop(waiting)
            heapq.heappush(ready, (ordered[index][removed[index]], index))
        while ready and gone < count:
            _, index = heapq.heappop(ready)
            removed[index] += 1
            gone += 1
            if removed[index] == groups[index].width:
                continue
            heapq.heappush(waiting, (earliest(index), index))
            if waiting[0][0] <= count:
                _, index = heapq.heappop(waiting)
                heapq.heappush(ready, (ordered[index][removed[index]], index))
    return {
        group.root: rounded(group.width, group.width - lost, round_to)
        for group, lost in zip(groups, removed, strict=True)
    }


def _easy(width: int) -> int:
    """Return how many of a group's channels go before any group is emptied further."""
    return min(width, max(1, math.floor(EIGHTY * width + 1e-9)))


def rounded(width: int, kept: int, round_to: int) -> int:
    """Return `kept` rounded up to a multiple of `round_to`, at most `width`."""
    return min(width, max(1, math.ceil(kept / round_to)) * round_to)


def least_important(scores: torch.Tensor, count: int) -> list[int]:
    """Return the places of the `count` smallest scores, ties by place, sorted."""
    order = torch.sort(scores, stable=True).indices[:count]
    return sorted(order.tolist())
