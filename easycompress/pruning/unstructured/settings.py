"""The settings of unstructured pruning."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from easycompress.core.plan import Action

Criterion = Literal["magnitude", "obd"]
Regularization = Literal["none", "l1", "l2"]
Pattern = Literal["none", "2:4", "4:8", "1:4"]

LEAST_KEPT = 1e-3
"""Share of the weights that strength 1 keeps; the share falls geometrically on the way there."""

USUAL_PENALTY = {"none": 0.0, "l1": 5e-6, "l2": 2e-5}
"""Weight of the penalty where none is given: see benchmarks/unstructured.py, which uses them."""


class UnstructuredPruning(Action):
    """Set single weights to zero, in rounds with training in between, and store the others with their places.

    `strength`: the share of the weights removed is 1 - LEAST_KEPT^strength; None: found by measuring. criterion
    magnitude: |w|; obd: what the loss's second derivative by a weight says its removal costs, over `samples` training
    samples. `regularization`: what is added to the loss until the last weight is removed, `penalty` x the sum of |w|
    or of w^2, None: the usual one. scope global: one ranking over all weights, of which each layer keeps at least
    a tenth of the average share; layer: the same share of each. Every layer keeps a weight.
    `n_m`: of every M consecutive inputs of a row at most N stay, whatever the strength keeps. `rounds`: removals, with
    training in between; `curve`: how many more go in early ones, c of schedule.kept_after. `technique`: what training
    minimises, the task's loss (hard), or that and the original's answers (combined). `epochs` None: as many as the
    budget allows.
    """

    trains: ClassVar[bool] = True
    effort: ClassVar[float] = 3.0
    patience: ClassVar[float] = 3.0
    slack: ClassVar[float] = 1.05

    kind: Literal["unstructured-pruning"] = "unstructured-pruning"
    strength: float | None = Field(default=None, ge=0, le=1)
    criterion: Criterion = "magnitude"
    samples: int = Field(default=256, ge=1)
    regularization: Regularization = "none"
    penalty: float | None = Field(default=None, ge=0)
    scope: Literal["global", "layer"] = "global"
    n_m: Pattern = "none"
    rounds: int = Field(default=20, ge=1)
    curve: float = Field(default=10.0, ge=1)
    technique: Literal["hard", "combined"] = "combined"
    epochs: int | None = Field(default=None, ge=1)

    def amount(self, strength: float) -> str:
        """Return the share of the weights that goes."""
        return f"{1 - kept_at(strength):.2%} of the weights"

    def weight_of_penalty(self) -> float:
        """Return what the penalty is multiplied by; 0 without one."""
        usual = USUAL_PENALTY[self.regularization]
        return usual if self.penalty is None or self.regularization == "none" else self.penalty


def kept_at(strength: float) -> float:
    """Return the share of the weights that a strength in [0, 1] keeps."""
    return float(LEAST_KEPT**strength)
