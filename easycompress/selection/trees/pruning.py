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


def _data(heuristics: Heuristics) -> Answer:
    return "yes" if heuristics.train_samples else "no", f"{heuristics.train_samples} training samples"


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

P4 = Rule(
    "P4",
    "Is there data to measure gradients on?",
    _data,
    "none: at least one training sample",
    "ours: the thesis takes group norms; a gradient tells heads apart whose weights are of one size (Molchanov et al., "
    "CVPR 2019)",
)

PRUNING = Ask(
    P1,
    {
        "yes": Ask(P4, {"yes": Leaf("taylor"), "no": Leaf("group-norm")}),
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
