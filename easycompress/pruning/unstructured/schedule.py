"""How the removal of weights is spread over rounds and epochs."""

from __future__ import annotations

import math
from dataclasses import dataclass

REMOVING_SHARE = 0.5
"""Share of the epochs that goes into the rounds; the rest trains the weights that stay."""

PENALTY_SHARE = 0.2
"""Share of the epochs that trains with the penalty before the first weight is removed."""


def kept_after(rounds: int, kept: float, curve: float) -> tuple[float, ...]:
    """Return the share of the weights that stays after each of k rounds: 1 - (i / k)^(1 / c) S, S = 1 - `kept`.

    The iterative schedule of the comparative study of pruning methods, section 3.2.1: many weights in early rounds,
    fewer in later ones, as sparse networks are more sensitive. c = `curve` >= 1; the last round ends at `kept`.
    """
    return (*(1 - (i / rounds) ** (1 / curve) * (1 - kept) for i in range(1, rounds)), kept)


@dataclass(frozen=True)
class Course:
    """How E epochs of n samples are spent, in order; all together at most E.

    `before`: epochs with the penalty, nothing removed. Each of `rounds` removals is followed by `each` passes of
    `samples` samples, except the last, which is followed by `after` epochs.
    """

    before: int
    rounds: int
    each: int
    samples: int
    after: int


def course(epochs: int, samples: int, rounds: int, *, penalised: bool) -> Course:
    """Return how to spend `epochs` epochs of `samples` samples. Without epochs all is removed in one round."""
    if epochs < 2 or rounds == 1:  # noqa: PLR2004 - one epoch can't be shared out
        before = round(PENALTY_SHARE * epochs) if penalised and epochs > 1 else 0
        return Course(before, 1, 0, samples, epochs - before)
    removing = min(max(1, round(REMOVING_SHARE * epochs)), epochs - 1)
    before = min(round(PENALTY_SHARE * epochs), epochs - 1 - removing) if penalised else 0
    pauses = rounds - 1
    each = max(removing // pauses, 1)
    part = samples if removing >= pauses else max(math.floor(removing * samples / pauses), 1)
    used = math.ceil(pauses * each * part / max(samples, 1))
    return Course(before, rounds, each, part, epochs - before - min(used, removing))
