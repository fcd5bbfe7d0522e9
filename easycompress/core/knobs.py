"""What a tuning may turn: the settings of an action with the values that they may take."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

Value: TypeAlias = float | int | str

LARGEST_TILT = 1.5
"""Largest tilt and bow: e^3 = 20 between the first and the last layer."""


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, drawn evenly, or by their logarithm with `log`. `usual`: where nobody turned it."""

    low: float
    high: float
    usual: float
    log: bool = False

    def within(self) -> float:
        """Return the usual value moved into the range: a recipe's own may lie outside."""
        return min(max(self.usual, self.low), self.high)


@dataclass(frozen=True)
class Choice:
    """One of several values; the `usual` one is among them."""

    values: tuple[Value, ...]
    usual: Value


Knob: TypeAlias = Range | Choice


def around(usual: float, factor: float) -> Range:
    """Return the range from `usual` / `factor` to `usual` x `factor`, by its logarithm."""
    return Range(usual / factor, usual * factor, usual, log=True)


def answer_knobs(technique: str, temperature: float, alpha: float, *, logits: bool) -> dict[str, Knob]:
    """Return what weighs a teacher's answers: `temperature` of logits, `alpha`, the labels' share of both together."""
    found: dict[str, Knob] = {}
    if technique != "hard" and logits:
        found["temperature"] = Range(1.0, 8.0, temperature, log=True)
    if technique == "combined":
        found["alpha"] = Range(0.0, 1.0, alpha)
    return found


def tilt_knobs(tilt: float | None, bow: float | None) -> dict[str, Range]:
    """Return the knobs that say how much more some layers count than others, see emphasis()."""
    return {name: Range(-LARGEST_TILT, LARGEST_TILT, value or 0.0) for name, value in (("tilt", tilt), ("bow", bow))}


def emphasis(count: int, tilt: float | None, bow: float | None) -> tuple[float, ...]:
    """Return a factor for each of `count` layers in order: e^(tilt x + bow (2 x^2 - 1)), x from -1 (first) to 1 (last).

    Two numbers thus say how a share of pruning or of bits is spread over any number of layers; None is 0.
    """
    places = [2 * index / (count - 1) - 1 for index in range(count)] if count > 1 else [0.0] * count
    return tuple(math.exp((tilt or 0.0) * x + (bow or 0.0) * (2 * x * x - 1)) for x in places)
