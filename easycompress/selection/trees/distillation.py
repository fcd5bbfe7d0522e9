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
    return (
        answer,
        f"{heuristics.train_samples} training samples, the budget affords about {heuristics.epochs_text} epochs",
    )


def _labels(heuristics: Heuristics) -> Answer:
    if heuristics.labelled:
        return "yes", "the training data has labels"
    return "no", "the training data has no labels: only the original's answers can teach"


def _limited(heuristics: Heuristics) -> Answer:
    answer = "yes" if heuristics.resources == "limited" else "no"
    return answer, f"the budget affords about {heuristics.epochs_text} epochs"


def _nuanced(heuristics: Heuristics) -> Answer:
    if heuristics.accuracy_like:
        return "no", f"{heuristics.metric} says right or wrong of each sample"
    return "yes", f"{heuristics.metric} is a matter of degree"


def _simple(heuristics: Heuristics) -> Answer:
    architecture = heuristics.profile.architecture
    return "yes" if architecture == "fnn" else "no", f"architecture {architecture}"


def _robust(heuristics: Heuristics) -> Answer:
    ratio = split(heuristics).pruning
    return "yes" if ratio < ROBUST_RATIO else "no", f"the change of its structure must bring about {ratio:.3g}x"


def _class_scores(heuristics: Heuristics) -> Answer:
    if heuristics.class_scores:
        return "yes", "the loss takes logits"
    return "no", f"metric {heuristics.metric}: the outputs are no logits, so they have no softmax"


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
    "Are the outputs the scores of classes?",
    _class_scores,
    "none: the loss is the cross-entropy of logits",
    "ours: the thesis distils classifiers only; values are imitated by their squared error, beside the task's loss",
)
D3 = Rule(
    "D3",
    "Has the training data labels?",
    _labels,
    "none",
    "ours: hard and combined distillation need labels; the thesis takes them for granted",
)
D4 = Rule(
    "D4",
    "Are the means limited?",
    _limited,
    f"fewer than {LIMITED_EPOCHS:g} affordable epochs (LIMITED_EPOCHS)",
    f"{_THESIS}: hard targets converge fastest; the number is ours",
)
D5 = Rule(
    "D5",
    "Is the metric nuanced?",
    _nuanced,
    "none: the score of a sample is something else than right or wrong",
    f"{_THESIS}, which names F1 and perplexity",
)
D6 = Rule("D6", "Is the model a simple one?", _simple, "none: nothing but linear layers", _THESIS)
D7 = Rule(
    "D7",
    "Is the student robust?",
    _robust,
    f"pruning brings less than {ROBUST_RATIO:g}x (ROBUST_RATIO)",
    f"{_THESIS}: hard targets for accuracy on robust students; the number is ours. One that lost more learns from both",
)

_TAUGHT = Ask(
    D3,
    {
        "no": Leaf("soft"),
        "yes": Ask(
            D4,
            {
                "yes": Leaf("hard"),
                "no": Ask(
                    D5,
                    {
                        "yes": Leaf("soft"),
                        "no": Ask(
                            D6, {"yes": Leaf("soft"), "no": Ask(D7, {"yes": Leaf("hard"), "no": Leaf("combined")})}
                        ),
                    },
                ),
            },
        ),
    },
)

DISTILLATION = Ask(
    D1,
    {
        "no": Leaf("none"),
        "yes": Ask(D2, {"no": Ask(D3, {"no": Leaf("soft"), "yes": Leaf("combined")}), "yes": _TAUGHT}),
    },
)
