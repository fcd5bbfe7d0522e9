"""How weights and activations become integers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from easycompress.selection.heuristics import LIMITED_EPOCHS, MOSTLY
from easycompress.selection.rules import Answer, Rule
from easycompress.selection.walk import Ask, Leaf

if TYPE_CHECKING:
    from easycompress.selection.heuristics import Heuristics

GENEROUS_POINTS = 2.0
"""Permitted drop in points above which the ranges of activations may be fixed in advance."""

HARMLESS_SHARE = 0.5
"""Share of the permitted drop that calibrated integers may cost before it is worth training with them."""

EIGHT_BITS = 3.7
"""Up to this ratio 8 bits a weight in blocks suffice where most parameters are linear: a small BERT 3.74x."""

FOUR_BITS = 5.0
"""Up to this ratio 4 bits a weight in blocks, and 8 in the embeddings, suffice where most parameters are linear."""


def _operations(heuristics: Heuristics) -> Answer:
    answer = "yes" if heuristics.objective == "compute" else "no"
    return answer, f"objective {heuristics.objective}"


def _backend(heuristics: Heuristics) -> Answer:
    return heuristics.backend, f"backend {heuristics.backend}"


def _bytes(heuristics: Heuristics) -> Answer:
    return "yes" if heuristics.objective == "size" else "no", f"objective {heuristics.objective}"


def _linear(heuristics: Heuristics) -> Answer:
    shares = (heuristics.linear_share, heuristics.linear_macs)
    both = tuple(lstm + linear for lstm, linear in zip(heuristics.lstm_shares, shares, strict=True))
    evidence = "{:.0%} of the parameters and {:.0%} of the operations are in linear layers".format(*shares)
    if min(shares) >= MOSTLY or not heuristics.lstm_shares[0]:
        return "yes" if min(shares) >= MOSTLY else "no", evidence
    evidence += ", {:.0%} and {:.0%} with LSTM layers".format(*both)
    return "with LSTMs" if min(both) >= MOSTLY else "no", evidence


def _bits(heuristics: Heuristics) -> Answer:
    needed = heuristics.ratio_needed
    if heuristics.objective != "size":
        return "no", f"objective {heuristics.objective}"
    evidence = f"{needed:.3g}x is needed"
    if needed > FOUR_BITS:
        return "no", evidence
    return "8 bits" if needed <= EIGHT_BITS else "4 bits", evidence


def _calibration(heuristics: Heuristics) -> Answer:
    count = heuristics.calibration_samples
    return "yes" if count else "no", f"{count} calibration samples"


def _harmless(heuristics: Heuristics) -> Answer:
    losses = dict(heuristics.integer_losses)
    if "static-int8" not in losses:
        return "not tried", "nothing was tried"
    loss = losses["static-int8"]
    answer = "yes" if loss <= HARMLESS_SHARE * heuristics.points else "no"
    return answer, f"they cost the unchanged model {loss:.2f} points; {_harmless_up_to(heuristics)}"


def _best(heuristics: Heuristics) -> Answer:
    losses = dict(heuristics.integer_losses)
    if not losses:
        return "not tried", "nothing was tried"
    best = min(sorted(losses), key=lambda name: losses[name])  # in the order of the names: dynamic ranges among equals
    evidence = "points that the unchanged model loses: " + ", ".join(f"{n} {loss:.2f}" for n, loss in losses.items())
    answer = best if losses[best] <= HARMLESS_SHARE * heuristics.points else "neither"
    return answer, f"{evidence}; {_harmless_up_to(heuristics)}"


def _harmless_up_to(heuristics: Heuristics) -> str:
    return f"up to {HARMLESS_SHARE * heuristics.points:.3g} are harmless, {HARMLESS_SHARE:.0%} of what is permitted"


def _ample(heuristics: Heuristics) -> Answer:
    possible = heuristics.resources == "ample" and heuristics.train_samples > 0
    return "yes" if possible else "no", f"the budget affords about {heuristics.epochs_text} epochs"


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
Q2 = Rule(
    "Q2",
    "Where will the result run?",
    _backend,
    "none",
    f"{_THESIS}: quantized models run on processors only",
)
Q3 = Rule(
    "Q3",
    "Is the file to become smaller?",
    _bytes,
    "none: objective size",
    "ours: float16 halves a file for a GPU; how fast that runs can't be measured here",
)
Q4 = Rule(
    "Q4",
    "Is the model mostly linear layers?",
    _linear,
    f"at least {MOSTLY:.0%} of the parameters and of the multiply-accumulates (MOSTLY)",
    "ours, measured: ranges fixed at each run slow convolutions down (LeNet5: 0.155, not 0.058 ms), linear layers not; "
    "they make an LSTM of 128 units 1.8 times as fast as in float32, one of 512 units 4 times",
)
Q5 = Rule(
    "Q5",
    "Do bytes alone count, and do fewer bits of the weights alone bring enough?",
    _bits,
    f"8 bits up to {EIGHT_BITS:g}x of size (EIGHT_BITS), 4 up to {FOUR_BITS:g}x (FOUR_BITS)",
    "ours, measured: blocks of 8 bits move a small BERT's answers 20 times less (divergence 0.0001) than integers do",
)
Q6 = Rule(
    "Q6",
    "Is there data to calibrate activations on?",
    _calibration,
    "none: at least one calibration sample",
    "ours: the thesis takes training data for granted",
)
Q7 = Rule(
    "Q7",
    "Are calibrated integers harmless, without any training?",
    _harmless,
    f"at most {HARMLESS_SHARE:.0%} of the permitted drop (HARMLESS_SHARE), measured on the unchanged model",
    f"ours; {_THESIS}, trains with integers wherever there are means, which on LeNet5 and ResNet20 buys nothing",
)
Q8 = Rule(
    "Q8",
    "Are there means to train with simulated integers?",
    _ample,
    f"at least {LIMITED_EPOCHS:g} affordable epochs (LIMITED_EPOCHS)",
    f"{_THESIS}; the number is ours",
)
Q9 = Rule(
    "Q9",
    "Is a generous drop permitted?",
    _generous,
    f"more than {GENEROUS_POINTS:g} points (GENEROUS_POINTS)",
    _THESIS,
)

Q10 = Rule(
    "Q10",
    "Which integers lose less, without any training, and are harmless?",
    _best,
    f"at most {HARMLESS_SHARE:.0%} of the permitted drop (HARMLESS_SHARE), measured on the unchanged model",
    f"ours; {_THESIS}, takes dynamic ranges up to 2 points, static ones beyond. Measured on a small BERT: divergence "
    "0.002 from the original with dynamic ranges, 0.033 with static ones",
)

_TRAINED = Ask(Q8, {"yes": Leaf("qat-int8"), "no": Leaf("static-int8")})

_LINEAR_UNTRAINED = Ask(Q9, {"yes": Leaf("static-int8"), "no": Leaf("dynamic-int8")})

_LINEAR = Ask(
    Q5,
    {
        "8 bits": Leaf("weight-only-8"),
        "4 bits": Leaf("weight-only-4"),
        "no": Ask(
            Q6,
            {
                "no": Leaf("dynamic-int8"),
                "yes": Ask(
                    Q10,
                    {
                        "static-int8": Leaf("static-int8"),
                        "dynamic-int8": Leaf("dynamic-int8"),
                        "neither": Ask(Q8, {"yes": Leaf("qat-int8"), "no": _LINEAR_UNTRAINED}),
                        "not tried": _LINEAR_UNTRAINED,
                    },
                ),
            },
        ),
    },
)

_OTHERS = Ask(
    Q6,
    {
        "no": Leaf("none"),
        "yes": Ask(Q7, {"yes": Leaf("static-int8"), "no": _TRAINED, "not tried": Leaf("static-int8")}),
    },
)

QUANTIZATION = Ask(
    Q1,
    {
        "yes": Leaf("none"),
        "no": Ask(
            Q2,
            {
                "gpu": Ask(Q3, {"yes": Leaf("float16"), "no": Leaf("none")}),
                "cpu": Ask(Q4, {"yes": _LINEAR, "with LSTMs": Leaf("dynamic-int8"), "no": _OTHERS}),
            },
        ),
    },
)
