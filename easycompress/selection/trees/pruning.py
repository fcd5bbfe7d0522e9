"""By which importance channels are ranked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from easycompress.selection.rules import Answer, Rule
from easycompress.selection.trees.strategy import STRATEGY
from easycompress.selection.walk import Ask, Leaf, walk

if TYPE_CHECKING:
    from easycompress.selection.heuristics import Heuristics


def _transformer(heuristics: Heuristics) -> Answer:
    architecture = heuristics.profile.architecture
    return "yes" if architecture == "transformer" else "no", f"architecture {architecture}"


def _strategy(heuristics: Heuristics) -> Answer:
    strategy = walk(STRATEGY, heuristics)[0]
    return strategy if strategy in ("linear", "convolutional") else "other", f"strategy {strategy}"


def _batch_norm(heuristics: Heuristics) -> Answer:
    if heuristics.profile.has_batch_norm:
        return "yes", "there are batch normalisations, whose scales rank the channels"
    return "no", "there is no batch normalisation"


P1 = Rule(
    "P1",
    "Is the model a transformer?",
    _transformer,
    "none: it contains attention",
    "EasyCompress thesis, section 4.2.2 and figure 7; its third factor, the objective, decides the strategy here",
)
P2 = Rule(
    "P2",
    "Which layers does the strategy prune?",
    _strategy,
    "none: the outcome of the strategy tree",
    "EasyCompress thesis, section 4.2.2 and figure 7",
)
P3 = Rule(
    "P3",
    "Does the model have batch normalisation?",
    _batch_norm,
    "none: at least one such layer",
    "EasyCompress thesis, section 4.2.2, which takes batch-norm scales (SLIM) for every convolutional network; without "
    "batch normalisation there are none, and its code takes the group norm",
)

PRUNING = Ask(
    P1,
    {
        "yes": Leaf("group-norm"),
        "no": Ask(
            P2,
            {
                "linear": Leaf("l1"),
                "convolutional": Ask(P3, {"yes": Leaf("bn-scale"), "no": Leaf("group-norm")}),
                "other": Leaf("lamp"),
            },
        ),
    },
)
