"""Whether weights are stored as codes, and which: learning-compression, or quantization under a code length."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from easycompress.selection.heuristics import MOSTLY, TOO_LOST
from easycompress.selection.rules import Answer, Rule
from easycompress.selection.walk import Ask, Leaf

if TYPE_CHECKING:
    from easycompress.selection.heuristics import Heuristics

SCHEMES = ("entropy", "quantize+prune", "prune", "low-rank+prune")
"""What is probed: the rate-distortion optimum, the papers' best for lean nets, and for over-parameterised ones."""

INTEGERS_SUFFICE = 3.8
"""Up to this ratio int8 alone reaches a size; measured: LeNet5 3.8x, ResNet20 3.1x of 4x."""

INTEGERS_SAVE = 0.75
"""What 8 bits save of a float32 weight's bytes."""

CODES_BEYOND = 12.0
"""From this ratio on pruning and int8 together take most of the channels: LeNet5 at 10x keeps three in five."""


def _objective(heuristics: Heuristics) -> Answer:
    return "yes" if heuristics.objective == "size" else "no", f"objective {heuristics.objective}"


def _packed(heuristics: Heuristics) -> Answer:
    return "yes" if heuristics.packed else "no", "format packed" if heuristics.packed else "format onnx"


def _trains(heuristics: Heuristics) -> Answer:
    possible = heuristics.resources != "none" and heuristics.train_samples > 0
    evidence = f"the budget affords about {heuristics.epochs_text} epochs of {heuristics.train_samples} samples"
    return "yes" if possible else "no", evidence


def _little(heuristics: Heuristics) -> Answer:
    answer = "yes" if heuristics.ratio_needed <= INTEGERS_SUFFICE else "no"
    evidence = f"{heuristics.ratio_needed:.3g}x is needed"
    if beyond := _recurrent(heuristics):
        return "no", f"{evidence}, and {beyond}"
    if not heuristics.calibration_samples and min(heuristics.linear_share, heuristics.linear_macs) < MOSTLY:
        return "no", f"{evidence}, and there are no samples to calibrate integers on"
    return answer, evidence


def _much(heuristics: Heuristics) -> Answer:
    evidence = f"{heuristics.ratio_needed:.3g}x is needed"
    if beyond := _recurrent(heuristics):
        return "yes", f"{evidence}, and {beyond}"
    return "yes" if heuristics.ratio_needed > CODES_BEYOND else "no", evidence


def _dear(heuristics: Heuristics) -> Answer:
    lost = heuristics.narrowing_lost
    if lost is None:
        return "no", "nothing was tried"
    if math.isinf(lost):
        return "yes", "channels alone can't make the rest up"
    return "yes" if lost > TOO_LOST else "no", f"with {max(lost, 0.0):.1%} of what the model knows, before any training"


def _recurrent(heuristics: Heuristics) -> str:
    """Return how much is for codes to make smaller, "" where integers reach what is needed without it."""
    share = heuristics.recurrent_share
    limit = 1 / (1 - INTEGERS_SAVE * (1 - share))
    if not share or heuristics.ratio_needed <= limit:
        return ""
    return f"{share:.0%} of the parameters are in recurrent layers, where codes leave alone what runs through them"


def _learns(heuristics: Heuristics) -> Answer:
    architecture = heuristics.profile.architecture
    return "no" if architecture == "transformer" else "yes", f"architecture {architecture}"


def _least_loss(heuristics: Heuristics) -> Answer:
    if heuristics.code_losses is None:
        return "entropy", "not tried: that follows where quantization without training misses the target"
    losses = dict(heuristics.code_losses)
    if not losses:
        return "entropy", "no candidate was tried, or none became that small"
    best = min(losses, key=lambda scheme: losses[scheme])
    return best, "loss: " + ", ".join(f"{scheme} {loss:.3g}" for scheme, loss in losses.items())


_PAPERS = "Idelbayev and Carreira-Perpinan: lean nets are best quantized, with corrections; the threshold is ours"

L1 = Rule(
    "L1",
    "Is the size of the file to fall?",
    _objective,
    "none: objective size",
    "ours: a code makes a file smaller, not faster",
)
L2 = Rule(
    "L2",
    "Is the file entropy coded?",
    _packed,
    "none: --format packed",
    "ours: a fraction of a bit a weight is real only there",
)
L3 = Rule("L3", "Can anything be trained?", _trains, "none: a budget and training data", "ours")
L4 = Rule(
    "L4",
    "Is so little needed that integers suffice?",
    _little,
    f"at most {INTEGERS_SUFFICE:g}x (INTEGERS_SUFFICE), with samples to calibrate on or weights mostly linear",
    "ours, measured: int8 is also faster, a code is not",
)
L5 = Rule(
    "L5",
    "Is more needed than pruning and integers bring easily?",
    _much,
    f"more than {CODES_BEYOND:g}x (CODES_BEYOND)",
    _PAPERS,
)

L6 = Rule(
    "L6",
    "Which codes lose least at this size, before any training?",
    _least_loss,
    "none: the least loss; entropy where nothing could be tried",
    "ours: direct compression (mu = 0) of each candidate at the needed bytes, seconds to minutes, once quantization "
    "without training has missed the target; the papers' finding that the choice depends on the model (LC comparison, "
    "section V)",
)

L7 = Rule(
    "L7",
    "Can the model learn better levels within a budget?",
    _learns,
    "none: not a transformer",
    "ours, measured in 11 minutes on MiniLM at 2.1 bits a weight: of 89.0 % on select learning-compression leaves "
    "50.9 %; quantization 88.3 %, which one epoch of its values did not raise",
)

L8 = Rule(
    "L8",
    "What integers can't bring: does it go with channels that know too much?",
    _dear,
    f"more than {TOO_LOST:g} (TOO_LOST of selection.heuristics) of the way from the original's loss to that of a model "
    "that answers every sample alike",
    "ours, measured: at 10x 0.6 % goes with LeNet5's channels; with ResNet20's 94 %, "
    "where 26 minutes of training came to 4.4x and codes without any to 10.2x",
)

WITHOUT_TRAINING = Leaf("entropy-quantization")
LEARNED = Ask(L6, {scheme: Leaf(f"entropy-quantization, then lc {scheme}") for scheme in SCHEMES})
WITH_TRAINING = Ask(L7, {"yes": LEARNED, "no": Leaf("entropy-quantization, then tuned-quantization")})

LC = Ask(
    L1,
    {
        "no": Leaf("none"),
        "yes": Ask(
            L2,
            {
                "yes": Ask(L3, {"yes": WITH_TRAINING, "no": WITHOUT_TRAINING}),
                "no": Ask(
                    L4,
                    {
                        "yes": Leaf("none"),
                        "no": Ask(
                            L3,
                            {
                                "yes": Ask(
                                    L5,
                                    {
                                        "yes": WITH_TRAINING,
                                        "no": Ask(L8, {"yes": WITH_TRAINING, "no": Leaf("none")}),
                                    },
                                ),
                                "no": WITHOUT_TRAINING,
                            },
                        ),
                    },
                ),
            },
        ),
    },
)
