"""What goes out of the structure: channels, ranks of layers, or whole blocks besides."""

from __future__ import annotations

from typing import TYPE_CHECKING

from easycompress.selection.rules import Answer, Rule
from easycompress.selection.walk import Ask, Leaf

if TYPE_CHECKING:
    from easycompress.selection.heuristics import Heuristics

STRUCTURES = ("channels", "ranks")
"""What is tried without training: fewer channels (of transformers heads and neurons), and layers of lower rank."""


def _objective(heuristics: Heuristics) -> Answer:
    return heuristics.objective, f"objective {heuristics.objective}"


def _least_loss(heuristics: Heuristics) -> Answer:
    losses = dict(heuristics.structure_losses)
    if not losses:
        return "channels", "nothing was tried"
    best = min(losses, key=lambda name: losses[name])
    return best, "loss: " + ", ".join(f"{name} {loss:.3g}" for name, loss in losses.items())


def _blocks(heuristics: Heuristics) -> Answer:
    count = heuristics.blocks
    amount = {0: "no residual block", 1: "1 residual block"}.get(count, f"{count} residual blocks")
    return "yes" if count else "no", f"{amount} could be removed"


T1 = Rule(
    "T1",
    "What is to fall?",
    _objective,
    "none: low rank saves operations, and for bytes the codes are better",
    "ours: the thesis knows pruning alone",
)
T2 = Rule(
    "T2",
    "What loses least at the needed number of operations, before any training?",
    _least_loss,
    "none: the least loss; channels where nothing could be tried",
    "ours: seconds of either on a copy; the LC comparison (section V) finds that the choice depends on the model",
)
T3 = Rule(
    "T3",
    "Are there whole blocks that can be removed?",
    _blocks,
    "none: at least one residual block that keeps its input's shape",
    "ours, measured: ResNet20 with every layer as narrow as 16 channels and in int8 is 1.7x faster at batch 1; what "
    "remains is the number of operators",
)

_NARROWER = Ask(T2, {name: Leaf(name) for name in STRUCTURES})

STRUCTURE = Ask(
    T1,
    {
        "size": Leaf("channels"),
        "compute": _NARROWER,
        "energy": _NARROWER,
        "latency": Ask(T3, {"yes": Leaf("channels and blocks"), "no": _NARROWER}),
    },
)
