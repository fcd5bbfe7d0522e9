"""How weights and activations become integers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from easycompress.selection.heuristics import LIMITED_EPOCHS
from easycompress.selection.rules import Answer, Rule
from easycompress.selection.walk import Ask, Leaf

if TYPE_CHECKING:
    from easycompress.selection.heuristics import Heuristics

GENEROUS_POINTS = 2.0
"""Permitted drop in points above which the ranges of activations may be fixed in advance."""


def _operations(heuristics: Heuristics) -> Answer:
    answer = "yes" if heuristics.objective == "compute" else "no"
    return answer, f"objective {heuristics.objective}"


def _backend(heuristics: Heuristics) -> Answer:
    return heuristics.backend, f"backend {heuristics.backend}"


def _calibration(heuristics: Heuristics) -> Answer:
    count = heuristics.calibration_samples
    return "yes" if count else "no", f"{count} calibration samples"


def _ample(heuristics: Heuristics) -> Answer:
    answer = "yes" if heuristics.resources == "ample" else "no"
    return answer, f"the budget affords about {heuristics.epochs_text} epochs"


def _generous(heuristics: Heuristics) -> Answer:
    return "yes" if heuristics.points > GENEROUS_POINTS else "no", f"{heuristics.points:.3g} points are permitted"


_THESIS = "EasyCompress thesis, section 4.2.4 and figure 9"

Q1 = Rule(
    "Q1",
    "Is the number of operations to fall?",
    _operations,
    "none: objective compute",
    "ours: integers are cheaper operations, not fewer; the thesis's code quantizes here and counts them as gone",
)
Q2 = Rule("Q2", "Where will the result run?", _backend, "none", f"{_THESIS}: quantized models run on processors only")
Q3 = Rule(
    "Q3",
    "Is there data to calibrate activations on?",
    _calibration,
    "none: at least one calibration sample",
    "ours: the thesis takes training data for granted",
)
Q4 = Rule(
    "Q4",
    "Are there means to train with simulated integers?",
    _ample,
    f"at least {LIMITED_EPOCHS:g} affordable epochs (LIMITED_EPOCHS)",
    f"{_THESIS}; the number is ours",
)
Q5 = Rule(
    "Q5",
    "Is a generous drop permitted?",
    _generous,
    f"more than {GENEROUS_POINTS:g} points (GENEROUS_POINTS)",
    _THESIS,
)

QUANTIZATION = Ask(
    Q1,
    {
        "yes": Leaf("none"),
        "no": Ask(
            Q2,
            {
                "gpu": Leaf("none"),
                "cpu": Ask(
                    Q3,
                    {
                        "no": Leaf("none"),
                        "yes": Ask(
                            Q4,
                            {
                                "yes": Leaf("qat-int8"),
                                "no": Ask(Q5, {"yes": Leaf("static-int8"), "no": Leaf("dynamic-int8")}),
                            },
                        ),
                    },
                ),
            },
        ),
    },
)
