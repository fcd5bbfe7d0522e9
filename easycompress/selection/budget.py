"""Splits a target over the actions, by arithmetic. A guess to plan with: what counts is measured on the file."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from easycompress.selection.trees.quantization import QUANTIZATION
from easycompress.selection.walk import walk

if TYPE_CHECKING:
    from easycompress.selection.heuristics import Heuristics

SIZE_RATIOS = {
    "none": 1.0,
    "float16": 2.0,
    "static-int8": 4.0,
    "dynamic-int8": 4.0,
    "qat-int8": 4.0,
    "weight-only-8": 3.7,
    "weight-only-4": 6.0,
}
"""What each quantization divides the size by at most: 32 bits by those that it stores.

Scales, biases and the graph cost a little of that; blocks of 4 bits leave 8 to the embeddings.
"""

MEASURED_ONLY = ("latency", "energy")
"""Objectives that no arithmetic predicts: they depend on the processor, the runtime, and what a byte costs."""


@dataclass(frozen=True)
class Split:
    """How a ratio is shared out. `needed` = `int8` x `pruning`; `pruning` is infinite for `max`.

    `int8` is what integers, or float16, are counted for, `most` the most that they can bring. `channels` is the share
    of channels in [0, 1) that pruning must remove, None when the target is `max`.
    """

    needed: float
    int8: float
    pruning: float
    channels: float | None
    most: float = 1.0


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
    most = SIZE_RATIOS[walk(QUANTIZATION, heuristics)[0]]
    int8 = min(most, needed) if heuristics.objective == "size" else 1.0
    pruning = needed / int8
    return Split(needed, int8, pruning, channels_for(pruning) if math.isfinite(pruning) else None, most)


def explain_split(
    heuristics: Heuristics, *, prunes: bool, quantizes: bool, alone: bool = False, structure: str = "pruning"
) -> str:
    """Return one sentence on who must bring what; `prunes` and `quantizes` say what the plan holds.

    `alone`: only one layer is pruned, between layers that stay. `structure` is what pruning is called.
    """
    share = split(heuristics)
    if alone and share.channels is not None:
        share = replace(share, channels=channels_for(share.pruning, alone=True))
    objective = heuristics.objective
    quantizer = {2.0: "float16", 3.7: "8-bit storage", 6.0: "4-bit storage"}.get(share.most, "int8")
    who = " and ".join(name for name, used in ((structure, prunes), (quantizer, quantizes)) if used)
    if objective in MEASURED_ONLY:
        how = "measured on this machine" if objective == "latency" else "read from every file"
        sentence = f"how much {objective} {who} can save is {how}, not assumed"
        if prunes and share.channels is not None:
            alone_it = f"without int8, {structure} would have" if quantizes else f"{structure} has"
            sentence += f"; {alone_it} to bring {_amount(share, structure)}"
        return sentence
    if share.channels is None:
        return f"the most within the floor is sought: how far {who} can go is measured"
    if not prunes:
        reach = f"is out of reach: {quantizer} alone" if share.pruning > 1 else f"is left to {quantizer}, which"
        why = ": nothing has to be pruned" if heuristics.removable else ", and no layer can be pruned"
        return f"{share.needed:.3g}x {reach} brings at most {share.most:g}x{why}"
    if share.int8 == 1:
        return f"nothing but {structure} lowers {objective} here: it must bring {_amount(share, structure)}"
    if share.pruning == 1:
        return (
            f"{quantizer} brings at most {share.most:g}x and {share.needed:.3g}x is needed: "
            f"{structure} is left out if the written file shows that {quantizer} suffices"
        )
    needed = f"{share.int8:g}x of the {share.needed:.3g}x"
    return f"{quantizer} brings at most {needed}; {structure} must bring {_amount(share, structure)}"


def _amount(share: Split, structure: str) -> str:
    if structure != "pruning":
        return f"about {share.pruning:.3g}x"
    return f"about {share.pruning:.3g}x: about {share.channels:.0%} of the channels"
