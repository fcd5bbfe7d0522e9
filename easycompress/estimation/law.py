"""From what short recoveries showed to what a full one will: damage falls as a power of the optimizer steps.

damage(T) = damage(t) (t / T)^b. Two short recoveries say little about b by themselves, so they correct what was seen
on another model (SLOPE). SLOPE, FITTED_DEVIATION, LOCAL and FITTED_RESIDUAL are what `python -m benchmarks.estimate
--only-print` prints as constants: five settings of LeNet300 on MNIST, up to 5 000 steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from easycompress.estimation.bench import Point, Seen

SLOPE = 0.45
"""Mean of b from the longest short recovery to a full one."""

OTHER_MODELS = 1.5
"""The fitted deviations are widened so much, as one model's settings differ less than models do."""

FITTED_DEVIATION = 0.16

SLOPE_DEVIATION = OTHER_MODELS * FITTED_DEVIATION
"""Standard deviation of b between settings."""

LOCAL = 0.55
"""Standard deviation of the b of two short recoveries around that of what follows, measurement noise apart."""

FITTED_RESIDUAL = 0.27

RESIDUAL = OTHER_MODELS * FITTED_RESIDUAL
"""Standard deviation of the logarithm of the damage around the law, a decade of steps away; it grows with the root."""

GAIN = 0.5
"""Standard deviation of what a full training changes beside the damage, in standard errors of the short one."""

LEAST_DAMAGE = 0.5
"""A drop counts as at least so many of its standard errors before its logarithm is taken."""

INTERPOLATED = 0.2
"""Standard deviation of the relative error of a drop between two strengths that were tried."""

DECADE = math.log(10.0)

Draws = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Law:
    """What is believed of one point's damage: the last thing seen, and draws of how it goes on, each (draws,).

    `level` is the damage after its steps, with the noise of what was seen, `slope` the b, `shift` what is added in the
    end. Noise is added and not multiplied: a drop that was seen may well be none.
    """

    seen: Seen
    level: Draws
    slope: Draws
    residual: Draws
    shift: Draws

    def damage(self, steps: int) -> Draws:
        """Return draws (draws,) of the damage after `steps` steps, in the metric's unit."""
        if not self.seen.steps:
            return self.level
        far = math.log(max(steps, 1) / self.seen.steps)
        width = RESIDUAL * math.sqrt(abs(far) / DECADE)
        return np.asarray(self.level * np.exp(width * self.residual - self.slope * far) + self.shift)


def draw(points: Sequence[Point], count: int, generator: np.random.Generator) -> list[Law]:
    """Return each point's law; what makes one setting recover well makes its neighbours recover well too."""
    slopes, residuals = generator.standard_normal((2, count))
    return [_law(point, slopes, residuals, generator) for point in points]


def _law(point: Point, slopes: Draws, residuals: Draws, generator: np.random.Generator) -> Law:
    last = point.seen[-1]
    count = len(slopes)
    noise = generator.standard_normal(count)
    level = last.drop + last.error * noise
    if not last.steps:  # measured, not extrapolated
        return Law(last, level, slopes, residuals, np.zeros(count))
    mean, width = slope_of(point)
    shift = GAIN * last.error * generator.standard_normal(count)
    return Law(last, level, mean + width * slopes, residuals, shift)


def slope_of(point: Point) -> tuple[float, float]:
    """Return mean and standard deviation of b: what other models showed, corrected by two short recoveries."""
    trained = [seen for seen in point.seen if seen.steps]
    if len(trained) < 2:  # noqa: PLR2004 - a slope takes two
        return SLOPE, SLOPE_DEVIATION
    (early, early_width), (late, late_width) = _log(trained[-2]), _log(trained[-1])
    far = math.log(trained[-1].steps / trained[-2].steps)
    local = (early - late) / far
    variance = LOCAL**2 + (early_width**2 + late_width**2) / far**2
    weight = SLOPE_DEVIATION**2 / (SLOPE_DEVIATION**2 + variance)
    return SLOPE + weight * (local - SLOPE), SLOPE_DEVIATION * math.sqrt(1 - weight)


def _log(seen: Seen) -> tuple[float, float]:
    """Return the logarithm of a drop and its standard error; a drop that noise hides counts as a part of the noise."""
    drop = max(seen.drop, LEAST_DAMAGE * seen.error)
    return math.log(drop), min(seen.error / drop, 1.0)
