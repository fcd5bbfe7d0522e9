"""What the training loop is told, and what it tells."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from easycompress.core.progress import Progress, Silent
from easycompress.training.troubles import Troubles

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import nn

    from easycompress.core.inputs import Inputs


@dataclass(frozen=True)
class Schedule:
    """How long and how fast: `epochs` passes of `samples` samples each (0: the whole split), peak rate `lr`.

    `shape`: a `cycle` rises and falls; a `flat` rate stays what it is: for loops that set the rates of their pieces.
    `optimizer`: `sgd` is SGD with Nesterov `momentum`; `adamw` (Loshchilov and Hutter 2019) scales each step by its
    gradients' size, which transformers need, and takes no `momentum`. Its rates are smaller by orders of magnitude.
    """

    epochs: int
    lr: float
    shape: Literal["cycle", "flat"] = "cycle"
    optimizer: Literal["sgd", "adamw"] = "sgd"
    batch: int = 128
    samples: int = 0
    momentum: float = 0.9
    weight_decay: float = 5e-4
    seed: int = 0


@dataclass
class History:
    """What happened: one row an epoch (`loss`, `quality`, `seconds`), and which epoch's weights the model now has.

    `rollbacks`: how often a loss that was no number, or beyond the bound, cost an epoch.
    """

    epochs: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = -1
    best: float = -math.inf
    rollbacks: int = 0


@dataclass
class Hooks:
    """What the caller wants to know and decide.

    `evaluate(model)` -> a score on *select*, larger is better; None: nobody asks, and the last epoch is kept. `start`
    is the score of the weights as they come, if known: training that doesn't beat it leaves them. `enough(score)` ->
    stop early; so does `hopeless(scores, epochs)`, of the scores so far. `out_of_time(seconds)` -> True when another
    epoch of that many seconds must not begin. An epoch's mean loss above `bound` counts as no number: training has
    diverged. `after_step(rate)` may change the weights after each step of the optimizer; `rate` is the learning rate it
    had. `higher_is_better` is the metric's own: scores are told in its sign. `troubles` takes note of what goes wrong.
    """

    evaluate: Callable[[nn.Module], float] | None
    start: float = -math.inf
    bound: float = math.inf
    enough: Callable[[float], bool] = lambda _: False
    hopeless: Callable[[Sequence[float], int], bool] = lambda _, __: False
    out_of_time: Callable[[float], bool] = lambda _: False
    augment: Callable[[Inputs], Inputs] | None = None
    after_step: Callable[[float], None] | None = None
    progress: Progress = field(default_factory=Silent)
    label: str = "training"
    higher_is_better: bool = True
    troubles: Troubles = field(default_factory=Troubles)
