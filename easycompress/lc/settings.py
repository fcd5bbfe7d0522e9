"""The settings of learning-compression and of its training-free half."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from easycompress.core.knobs import answer_knobs, around, tilt_knobs
from easycompress.core.plan import Action

if TYPE_CHECKING:
    from typing_extensions import Self

    from easycompress.core.knobs import Knob

Scheme = Literal[
    "entropy", "quantize", "prune", "low-rank", "quantize+prune", "quantize+low-rank", "low-rank+prune",
    "quantize+low-rank+prune",
]  # fmt: skip

MOST_BITS = 8.0
"""Bits a weight at strength 0, where a code stops to be worth it."""

DECADES = 7.0
"""Strength 1 divides MOST_BITS by 2 to this power: 0.0625 bits a weight."""

FIRST_MU, LAST_MU = 1e-4, 1.0
"""Between these the penalty parameter grows geometrically: from free weights to weights that are the code's.

Found on LeNet300 at 0.5 bits a weight, 24 epochs: 1e-4 to 1 ends 0.2 to 0.3 points above 1e-3 to 1 and 1e-2 to 3.
"""

FIRST_RATE, LAST_RATE = 0.05, 0.005

TUNING_RATE = 0.01

TEMPERATURE, ALPHA = 2.0, 0.3

RATE_FACTOR, MU_FACTOR = 4.0, 30.0
"""How far from the usual rates and from the usual first mu `--search` goes, either way."""


class Coded(Action):
    """What actions that store weights as codes share: the strength sets the bits a weight, geometrically."""

    strength: float | None = Field(default=None, ge=0, le=1)

    def amount(self, strength: float) -> str:
        """Return the bits a weight."""
        return f"{bits_at(strength):.3g} bits a weight"


class EntropyQuantization(Coded):
    """Store every weight on few levels whose code length is part of the choice; nothing is trained.

    method nearest: each weight goes to the level of least error^2 + slope x bits, one slope for all layers. feedback:
    each column's error is made up for by the columns after it, by the second moments of the layers' inputs over
    `samples` calibration samples; layers have slopes by how much the answers change with them, and so have the rows of
    tables of embeddings, by how often the training data ask for them. biases: whether they are stored in 8 bits as
    well.
    """

    finishes: ClassVar[bool] = True
    slack: ClassVar[float] = 1.02

    kind: Literal["entropy-quantization"] = "entropy-quantization"
    method: Literal["nearest", "feedback"] = "nearest"
    samples: int = Field(default=1024, ge=1)
    biases: Literal["float", "8-bit"] = "float"

    def untrained(self) -> Self | None:
        """Return the quick method: at the same bits a weight its file is about as large."""
        return self.model_copy(update={"method": "nearest"})

    def variants(self) -> tuple[Self, ...]:
        """Return the other method as the second choice."""
        other = "feedback" if self.method == "nearest" else "nearest"
        return (self, self.model_copy(update={"method": other}))


class TunedQuantization(EntropyQuantization):
    """Quantize in the same way, then train what stays free: values of the levels, biases, norms.

    The level that a weight is on stays. For models whose own training is long beside the budget, where
    learning-compression has no time to find better levels. `technique` is what the training minimises: the task's loss
    (hard), the original's answers (soft), or both (combined). `epochs` None: as many as the budget allows. None for the
    peak rate `tuning_rate`, `temperature` and `alpha`: as usual, by the constants above.
    """

    trains: ClassVar[bool] = True
    finishes: ClassVar[bool] = False

    kind: Literal["tuned-quantization"] = "tuned-quantization"  # type: ignore[assignment]  # another name, same dial
    method: Literal["nearest", "feedback"] = "feedback"
    technique: Literal["hard", "soft", "combined"] = "combined"
    epochs: int | None = Field(default=None, ge=1)
    tuning_rate: float | None = Field(default=None, gt=0)
    temperature: float | None = Field(default=None, gt=0)
    alpha: float | None = Field(default=None, ge=0, le=1)

    def untrained(self) -> Self:
        """Return the quick method, and nothing that only training reads."""
        nothing = dict.fromkeys(("epochs", "tuning_rate", "temperature", "alpha"))
        return self.model_copy(update={"method": "nearest", **nothing})

    def variants(self) -> tuple[Self, ...]:
        """Return the action alone: it takes its time."""
        return (self,)

    def knobs(self) -> dict[str, Knob]:
        """Return the rate and what weighs the original's answers."""
        alpha = ALPHA if self.alpha is None else self.alpha
        return {
            "tuning_rate": around(self.tuning_rate or TUNING_RATE, RATE_FACTOR),
            **answer_knobs(self.technique, self.temperature or TEMPERATURE, alpha, logits=True),
        }


class LearningCompression(Coded):
    """Alternate training and compressing until the weights are what the code says, then train what stays free.

    `scheme`: which forms the weights of convolutions and linear layers take; what stands with + is added up. entropy:
    levels under a budget of code length. quantize: a codebook a layer. prune: nonzeros over all layers. low-rank: a
    rank a layer. `technique` is what the L step minimises: the task's loss (hard), or that and the original's answers
    (combined). `ranks` of low rank: the same share of its parameters for every layer (even), or those that one price a
    stored number buys at the least squared error over all layers (priced). `biases`: whether they are stored in 8 bits
    as well. `epochs` None: as many as the budget allows.

    What is None is as usual, by the constants above: `rate` of the first L step, which falls in proportion; `mu` of the
    first step; the peak rate `tuning_rate` of fine-tuning; `temperature` and `alpha` of the original's answers. `tilt`
    and `bow` say by core.knobs.emphasis how much more a squared distance counts in some layers than in others, so that
    entropy gives them more of the bits; other schemes have no use for them.
    """

    trains: ClassVar[bool] = True
    effort: ClassVar[float] = 3.0
    patience: ClassVar[float] = 3.0
    slack: ClassVar[float] = 1.03

    kind: Literal["lc"] = "lc"
    scheme: Scheme = "entropy"
    technique: Literal["hard", "combined"] = "combined"
    ranks: Literal["even", "priced"] = "even"
    biases: Literal["float", "8-bit"] = "float"
    epochs: int | None = Field(default=None, ge=1)
    rate: float | None = Field(default=None, gt=0)
    mu: float | None = Field(default=None, gt=0, le=LAST_MU)
    tuning_rate: float | None = Field(default=None, gt=0)
    temperature: float | None = Field(default=None, gt=0)
    alpha: float | None = Field(default=None, ge=0, le=1)
    tilt: float | None = None
    bow: float | None = None

    def untrained(self) -> Self:
        """Return the action without what only training reads."""
        training = ("rate", "mu", "tuning_rate", "temperature", "alpha")
        return self.model_copy(update=dict.fromkeys(training))

    def knobs(self) -> dict[str, Knob]:
        """Return rates, penalty, what weighs the original's answers, and how the bits are spread over the layers."""
        alpha = ALPHA if self.alpha is None else self.alpha
        found: dict[str, Knob] = {
            "rate": around(self.rate or FIRST_RATE, RATE_FACTOR),
            "mu": around(self.mu or FIRST_MU, MU_FACTOR),
            "tuning_rate": around(self.tuning_rate or TUNING_RATE, RATE_FACTOR),
            **answer_knobs(self.technique, self.temperature or TEMPERATURE, alpha, logits=True),
        }
        if self.scheme == "entropy":
            found.update(tilt_knobs(self.tilt, self.bow))
        return found


def bits_at(strength: float) -> float:
    """Return the bits a weight of a strength in [0, 1]."""
    return float(MOST_BITS * 2.0 ** (-DECADES * strength))
