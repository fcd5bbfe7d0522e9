"""How the compressed model learns from the original."""

from __future__ import annotations

from typing import TYPE_CHECKING

from easycompress.selection.budget import split
from easycompress.selection.heuristics import LIMITED_EPOCHS
from easycompress.selection.rules import Answer, Rule
from easycompress.selection.walk import Ask, Leaf

if TYPE_CHECKING:
    from easycompress.selection.heuristics import Heuristics

ROBUST_RATIO = 2.0
"""A student pruned by less than this keeps most of its teacher: it counts as robust."""


def _trains(heuristics: Heuristics) -> Answer:
    answer = "yes" if heuristics.resources != "none" and heuristics.train_samples else "no"
    epochs = heuristics.epochs_affordable
    return answer, f"{heuristics.train_samples} training samples, the budget affords about {epochs:.3g} epochs"


def _labels(heuristics: Heuristics) -> Answer:
    if heuristics.labelled:
        return "yes", "the training data has labels"
    return "no", "the training data has no labels: only the original's answers can teach"


def _limited(heuristics: Heuristics) -> Answer:
    answer = "yes" if heuristics.resources == "limited" else "no"
    return answer, f"the budget affords about {heuristics.epochs_affordable:.3g} epochs"


def _nuanced(heuristics: Heuristics) -> Answer:
    if heuristics.accuracy_like:
        return "no", f"{heuristics.metric} says right or wrong of each sample"
    return "yes", f"{heuristics.metric} is a matter of degree"


def _simple(heuristics: Heuristics) -> Answer:
    architecture = heuristics.profile.architecture
    return "yes" if architecture == "fnn" else "no", f"architecture {architecture}"


def _robust(heuristics: Heuristics) -> Answer:
    ratio = split(heuristics).pruning
    return "yes" if ratio < ROBUST_RATIO else "no", f"pruning must bring about {ratio:.3g}x"


_THESIS = "EasyCompress thesis, section 4.2.3 and figure 8"

D1 = Rule(
    "D1",
    "Can anything be trained?",
    _trains,
    "none: at least one training sample and a budget other than none",
    "ours: without a budget or data there is no recovery; the thesis's code takes hard targets even then",
)
D2 = Rule(
    "D2",
    "Has the training data labels?",
    _labels,
    "none",
    "ours: hard and combined distillation need labels; the thesis takes them for granted",
)
D3 = Rule(
    "D3",
    "Are the means limited?",
    _limited,
    f"fewer than {LIMITED_EPOCHS:g} affordable epochs (LIMITED_EPOCHS)",
    f"{_THESIS}: hard targets converge fastest; the number is ours",
)
D4 = Rule(
    "D4",
    "Is the metric nuanced?",
    _nuanced,
    "none: the score of a sample is something else than right or wrong",
    f"{_THESIS}, which names F1 and perplexity",
)
D5 = Rule("D5", "Is the model a simple one?", _simple, "none: nothing but linear layers", _THESIS)
D6 = Rule(
    "D6",
    "Is the student robust?",
    _robust,
    f"pruning brings less than {ROBUST_RATIO:g}x (ROBUST_RATIO)",
    f"{_THESIS}; it gives no number for robust, this one is ours",
)

DISTILLATION = Ask(
    D1,
    {
        "no": Leaf("none"),
        "yes": Ask(
            D2,
            {
                "no": Leaf("soft"),
                "yes": Ask(
                    D3,
                    {
                        "yes": Leaf("hard"),
                        "no": Ask(
                            D4,
                            {
                                "yes": Leaf("soft"),
                                "no": Ask(
                                    D5,
                                    {
                                        "yes": Leaf("soft"),
                                        "no": Ask(D6, {"yes": Leaf("hard"), "no": Leaf("combined")}),
                                    },
                                ),
                            },
                        ),
                    },
                ),
            },
        ),
    },
)
