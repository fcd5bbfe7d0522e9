"""Splits a target over the actions, by arithmetic. A guess to plan with: what counts is measured on the file."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from easycompress.selection.trees.quantization import QUANTIZATION
from easycompress.selection.walk import walk

if TYPE_CHECKING:
    from easycompress.selection.heuristics import Heuristics

INT8_SIZE_RATIO = 4.0
"""int8 stores 8 bits of 32, so it divides the size by at most 4; scales, biases and the graph cost a little of that."""

MEASURED_ONLY = ("latency", "energy")
"""Objectives that no arithmetic predicts: they depend on the processor and the runtime."""


@dataclass(frozen=True)
class Split:
    """How a ratio is shared out. `needed` = `int8` x `pruning`; `pruning` is infinite for `max`.

    `channels` is the share of channels in [0, 1) that pruning must remove, None when the target is `max`.
    """

    needed: float
    int8: float
    pruning: float
    channels: float | None


def channels_for(ratio: float, *, alone: bool = False) -> float:
    """Return the share p of channels whose removal divides parameters and MACs by about `ratio` >= 1.

    A layer between two pruned ones keeps (1 - p) of its inputs and of its outputs: (1 - p)^2 = 1 / ratio. One that is
    pruned `alone`, between layers that stay, keeps 1 - p.
    """
    kept = 1 / max(ratio, 1.0)
    return 1 - kept if alone else 1 - math.sqrt(kept)


def split(heuristics: Heuristics) -> Split:
    """Share the needed ratio out between int8 and pruning.

    int8 goes first: it costs the least quality. It is counted for size only. It changes no number of operations, and
    how much time it saves depends on the processor, so for latency and energy pruning is planned as if it saved none.
    """
    needed = max(heuristics.ratio_needed, 1.0)
    counts = heuristics.objective == "size" and walk(QUANTIZATION, heuristics)[0] != "none"
    int8 = min(INT8_SIZE_RATIO, needed) if counts else 1.0
    pruning = needed / int8
    return Split(needed, int8, pruning, channels_for(pruning) if math.isfinite(pruning) else None)


def explain_split(heuristics: Heuristics, *, prunes: bool, quantizes: bool, alone: bool = False) -> str:
    """Return one sentence on who must bring what; `prunes` and `quantizes` say what the plan holds.

    `alone`: only one layer is pruned, between layers that stay.
    """
    share = split(heuristics)
    if alone and share.channels is not None:
        share = replace(share, channels=channels_for(share.pruning, alone=True))
    objective = heuristics.objective
    who = " and ".join(name for name, used in (("pruning", prunes), ("int8", quantizes)) if used)
    if objective in MEASURED_ONLY:
        sentence = f"how much {objective} {who} can save is measured on this machine, not assumed"
        if prunes and share.channels is not None:
            sentence += f"; without int8 pruning would have to bring {_channels(share)}"
        return sentence
    if share.channels is None:
        return f"the most within the floor is sought: how far {who} can go is measured"
    if not prunes:
        reach = "is out of reach: int8 alone" if share.pruning > 1 else "is left to int8, which"
        return f"{share.needed:.3g}x {reach} brings at most {INT8_SIZE_RATIO:g}x, and no layer can be pruned"
    if share.int8 == 1:
        return f"nothing but pruning lowers {objective} here: it must bring {_channels(share)}"
    if share.pruning == 1:
        return (
            f"int8 brings at most {INT8_SIZE_RATIO:g}x and {share.needed:.3g}x is needed: "
            "pruning is left out if the written file shows that int8 suffices"
        )
    return f"int8 brings at most {share.int8:g}x of the {share.needed:.3g}x; pruning must bring {_channels(share)}"


def _channels(share: Split) -> str:
    return f"about {share.pruning:.3g}x: about {share.channels:.0%} of the channels"
