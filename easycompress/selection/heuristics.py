"""What the decision rules may ask about: facts of the model, the goal, the data and the means. No tensors."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from easycompress.core.goal import Frozen, Objective
from easycompress.core.profile import ModelProfile  # noqa: TC001 - pydantic reads the field types at run time

if TYPE_CHECKING:
    from easycompress.core.goal import Budget, Goal
    from easycompress.core.profile import Family
    from easycompress.core.task import Metric

Resources = Literal["none", "limited", "ample"]
Backend = Literal["cpu", "gpu"]

MOSTLY = 0.8
"""Share of the parameters and of the operations from which a model counts as mostly linear."""

LIMITED_EPOCHS = 3.0
"""Below so many affordable training epochs the means are limited: the default three prunings get less than one each."""

PRUNABLE: tuple[Family, ...] = ("convolutional", "linear", "attention")
"""Families whose layers have outputs that can be removed."""

LSTM = "LSTM"

RECURRENT = (LSTM, "GRU", "RNN", "LSTMCell", "GRUCell", "RNNCell")
"""Types of recurrent layers: nothing of them is pruned, and of LSTMs alone integers are made."""

RIGHT_OR_WRONG = ("accuracy", "agreement")
"""Metrics that say right or wrong of each position, where a sample has several."""

MOSTLY_OUTSIDE = 0.5
"""Share of what can go from a model with attention that lies outside its blocks, from which channels go instead.

Of MaxViT 52 %: its convolutions, and attention under names of its own. Without them 53 % of its parameters stay at
least, while channels of all layers can be narrowed to 24 %. Others: PVT 47 %, MobileViT 41 %, CvT 37 %, ViT 1 %.
"""

TOO_LOST = 0.1
"""Share of the way from the original's loss to that of a model that answers every sample alike: what training mends.

Measured on MNIST, untrained, batch 1, one thread: channels make LeNet5 3.0 times as fast at 0.2 % of the way and 4.4
times at 3 %, low rank 2.6 times at most; LeNet300 is 1.7 times as fast at 15 % by channels, 2.6 times at 1 % by ranks.
"""

_FEW = 10

_COLOUR_IMAGE = 3  # dimensions of (channels, height, width), and the number of channels


class Heuristics(Frozen):
    """The inputs of every rule.

    `ratio_needed` is baseline / final of the objective that the target asks for, infinite for `max`. `points` is the
    permitted drop in percentage points, for a metric that is no percentage in percent of its baseline.
    `accuracy_like`: each sample is right or wrong. `class_scores`: the outputs are
    logits of classes. `augmented`: the training data is augmented. `packed`: the entropy-coded file is what counts.
    What was tried on copies, each empty where nothing was: `code_losses`: the loss of each scheme of codes, compressed
    directly to the needed size, None while that is put off; `structure_losses`: that of fewer channels and of lower
    ranks at the needed number of operations; where time counts, `structure_speeds`: how many times as fast they become
    before they have lost too much, at most what is needed, and `structure_losses` is the loss there; `lesser_losses`:
    the same where operations count, at a ratio between 1 and what is needed; `integer_losses`:
    the points that each kind of integers loses on *select* on the unchanged model; `narrowing_lost`: the share of what
    the original knows that is gone when channels alone bring a size that integers don't (0 to about 1, infinite where
    they can't), None: not tried.
    `blocks`: how many residual blocks could be removed; 0 where time doesn't count.
    `outside_blocks`: of the parameters that can go from a model with attention, the share that is in none of the
    attention and feed-forward blocks that are understood; 0 for other models.
    """

    profile: ModelProfile
    metric: str
    accuracy_like: bool
    objective: Objective
    ratio_needed: float
    points: float
    resources: Resources
    epochs_affordable: float
    backend: Backend
    labelled: bool
    class_scores: bool
    train_samples: int
    calibration_samples: int
    natural_images: bool
    augmented: bool
    packed: bool
    code_losses: tuple[tuple[str, float], ...] | None = ()
    structure_losses: tuple[tuple[str, float], ...] = ()
    structure_speeds: tuple[tuple[str, float], ...] = ()
    lesser_losses: tuple[tuple[str, float], ...] = ()
    integer_losses: tuple[tuple[str, float], ...] = ()
    narrowing_lost: float | None = None
    blocks: int = 0
    outside_blocks: float = 0.0

    @property
    def hybrid(self) -> bool:
        """Tell whether most of what can go from a model with attention lies elsewhere, so that channels go."""
        return self.outside_blocks > MOSTLY_OUTSIDE

    @property
    def epochs_text(self) -> str:
        """Return the affordable epochs for people: exact where they are few."""
        return f"{self.epochs_affordable:.1f}" if self.epochs_affordable < _FEW else f"{self.epochs_affordable:.0f}"

    @property
    def linear_share(self) -> float:
        """Return the share of the parameters that is in linear and attention layers and embeddings."""
        shares = self.profile.param_share()
        embedded = sum(layer.params for layer in self.profile.layers if layer.type == "Embedding")
        return shares.get("linear", 0.0) + shares.get("attention", 0.0) + embedded / max(self.profile.params, 1)

    @property
    def recurrent_share(self) -> float:
        """Return the share of the parameters that is in recurrent layers."""
        recurrent = sum(layer.params for layer in self.profile.layers if layer.type in RECURRENT)
        return recurrent / max(self.profile.params, 1)

    @property
    def lstm_shares(self) -> tuple[float, float]:
        """Return the shares of the parameters and of the multiply-accumulates that are in LSTM layers."""
        layers = [layer for layer in self.profile.layers if layer.type == LSTM]
        params, macs = sum(layer.params for layer in layers), sum(layer.macs for layer in layers)
        return params / max(self.profile.params, 1), macs / max(self.profile.macs, 1)

    @property
    def linear_macs(self) -> float:
        """Return the share of the multiply-accumulates that is in linear and attention layers."""
        shares = self.profile.mac_share()
        return shares.get("linear", 0.0) + shares.get("attention", 0.0)

    @property
    def removable(self) -> tuple[Family, ...]:
        """Return the families with layers whose outputs can be removed.

        What comes out of the last layer is the model's answer and must stay. Definition order doesn't tell which layer
        is the last, so it goes by number: a lone linear layer is the classifier; a lone convolution is the output
        unless a linear layer follows it.
        """
        layers = [layer.family for layer in self.profile.layers if layer.params]
        count = {family: layers.count(family) for family in PRUNABLE}
        least: dict[Family, int] = {"linear": 2, "convolutional": 1 if count["linear"] else 2, "attention": 1}
        return tuple(family for family in PRUNABLE if count[family] >= least[family])


def gather(
    profile: ModelProfile,
    metric: Metric,
    goal: Goal,
    budget: Budget,
    *,
    baseline_quality: float,
    baseline_objective: float,
    epochs_affordable: float,
    backend: Backend,
    train_samples: int,
    calibration_samples: int,
    labelled: bool,
    class_scores: bool,
    augmented: bool,
) -> Heuristics:
    """Gather what the rules ask about.

    `baseline_quality` in the metric's unit, `baseline_objective` in the objective's (bytes, ms, MACs, mJ).
    `epochs_affordable` estimates the training epochs that the budget's time pays for; a budget in epochs caps it.
    """
    if budget.kind == "none":
        epochs_affordable = 0.0
    elif budget.kind == "epochs":
        epochs_affordable = min(epochs_affordable, budget.value)
    allowed = goal.floor.allowed_drop(baseline_quality, higher_is_better=metric.higher_is_better)
    shape = profile.input_shape
    return Heuristics(
        profile=profile,
        metric=metric.name,
        accuracy_like=metric.binary or metric.name in RIGHT_OR_WRONG,
        objective=goal.objective,
        ratio_needed=goal.target.ratio(baseline_objective),
        points=as_points(allowed, metric, baseline_quality),
        resources=_resources(epochs_affordable),
        epochs_affordable=epochs_affordable,
        backend=backend,
        labelled=labelled,
        class_scores=class_scores,
        train_samples=train_samples,
        calibration_samples=calibration_samples,
        natural_images=len(shape) == _COLOUR_IMAGE and shape[0] == _COLOUR_IMAGE,
        augmented=augmented,
        packed=goal.format == "packed",
    )


def _resources(epochs: float) -> Resources:
    if epochs <= 0:
        return "none"
    return "limited" if epochs < LIMITED_EPOCHS else "ample"


def as_points(drop: float, metric: Metric, baseline: float) -> float:
    """Return a drop in percentage points, of a metric that is no percentage in percent of its baseline."""
    return drop if metric.percent else _percent_of(drop, baseline)


def _percent_of(allowed: float, baseline: float) -> float:
    """Return the permitted drop in percent of the baseline; of a baseline of 0 any drop is infinitely many."""
    if baseline:
        return 100 * allowed / abs(baseline)
    return math.copysign(math.inf, allowed) if allowed else 0.0
