"""How often a certified verdict is wrong, at the boundary where it is the most: the true drop is the floor itself.

`python -m benchmarks.verdicts [--again] [--page docs/verdicts.md]`. Proportions: every possible outcome is judged and
its probability added, so these numbers are exact. Other metrics: samples are drawn, judged by the same function as a
run's, and the wrong ones counted. Finished rows are kept in results/verdicts.json.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import ndtri
from scipy.stats import binom

from benchmarks.verdicts_page import page
from easycompress.measure.resampling import CONFIDENCE
from easycompress.measure.statistics import bootstrap_upper, certain, tango_upper, within

if TYPE_CHECKING:
    from collections.abc import Callable

RESULTS = Path(__file__).parent / "results" / "verdicts.json"

SAMPLES = (100, 300, 1000, 3000)
FLOORS = (0.003, 0.01, 0.02, 0.03)
BETTER = (0.0, 0.002, 0.01, 0.05)
"""Rates of changes for the better; those for the worse are larger by the floor."""

SEEN = 1e-10
"""Outcomes less probable than this are left out."""

MAGNITUDES: dict[str, tuple[Callable[[np.random.Generator, int], np.ndarray[Any, Any]], float]] = {
    "equal": (lambda _, count: np.ones(count), 1.0),
    "uniform": (lambda generator, count: generator.random(count), 0.5),
    "exponential": (lambda generator, count: generator.exponential(1.0, count), 1.0),
    "lognormal": (lambda generator, count: generator.lognormal(0.0, 1.0, count), math.exp(0.5)),
}
"""How much a changed sample's score changes, and the mean of that."""

CHANGES = ((300, 0.15), (600, 0.08), (1000, 0.05), (1000, 0.1), (2000, 0.1))
"""Samples, and the share that changes."""

WORSE = (1.0, 0.8, 0.6)
"""Share of the changes that are for the worse."""

DRAWS = 3000


def wald_upper(worse: int, better: int, n: int) -> float:
    """Return the textbook's bound, whose error is estimated from the counts themselves."""
    rates = worse / n, better / n
    error = math.sqrt(max(0.0, sum(rates) - (rates[0] - rates[1]) ** 2) / n)
    return rates[0] - rates[1] + float(ndtri(CONFIDENCE)) * error


RULES: dict[str, Callable[[int, int, int, float], bool]] = {
    "wald": lambda worse, better, n, floor: within(wald_upper(worse, better, n), floor),
    "tango": lambda worse, better, n, floor: within(tango_upper(worse, better, n), floor),
    "easycompress": certain,
}


def proportions(n: int, floor: float, better: float) -> dict[str, float]:
    """Return by rule the percentage of outcomes that it certifies though the true drop is the floor, no less."""
    wrong = dict.fromkeys(RULES, 0.0)
    counts = np.arange(n + 1)
    for worse in counts[(chances := binom.pmf(counts, n, floor + better)) > SEEN]:
        rest = binom.pmf(counts[: n - worse + 1], n - worse, better / (1 - floor - better))
        for gained in counts[: n - worse + 1][rest * chances[worse] > SEEN]:
            probability = float(chances[worse] * rest[gained])
            for name, rule in RULES.items():
                if rule(int(worse), int(gained), n, floor):
                    wrong[name] += 100 * probability
    return wrong


def resampled(n: int, share: float, worse: float, magnitude: str) -> dict[str, float]:
    """Return the percentage of wrong certificates among the draws that were decided, and that of those undecided."""
    generator = np.random.default_rng(0)
    draw, mean = MAGNITUDES[magnitude]
    true_drop = (2 * worse - 1) * share * mean
    wrong = decided = 0
    for seed in range(DRAWS):
        signs = np.where(generator.random(n) < worse, 1.0, -1.0)
        drops = (generator.random(n) < share) * signs * draw(generator, n)
        upper = bootstrap_upper(np.zeros(n), -drops, higher_is_better=True, seed=seed, resamples=400)
        decided += upper is not None
        wrong += upper is not None and within(upper, true_drop)
    return {"wrong": 100 * wrong / decided if decided else 0.0, "undecided": 100 * (1 - decided / DRAWS)}


def rows() -> dict[str, Callable[[], dict[str, float]]]:
    """Return what makes each row, by its name."""
    made: dict[str, Callable[[], dict[str, float]]] = {}
    for n in SAMPLES:
        for floor in FLOORS:
            for better in BETTER:
                made[f"accuracy {n} {floor} {better}"] = lambda n=n, f=floor, b=better: proportions(n, f, b)  # type: ignore[misc] # mypy can't type a default in a lambda
    for n, share in CHANGES:
        for worse in WORSE:
            for name in MAGNITUDES:
                made[f"mean {name} {n} {share} {worse}"] = lambda n=n, s=share, w=worse, m=name: resampled(n, s, w, m)  # type: ignore[misc] # as above
    return made


def main() -> None:
    """Make what is missing, print every row, and write the page if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--page", type=Path)
    options = parser.parse_args()
    held: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() and not options.again else {}
    for name, make in rows().items():
        if name not in held:
            held[name] = {key: round(value, 2) for key, value in make().items()}
            RESULTS.write_text(json.dumps(held, indent=1) + "\n")
        print(name, held[name], flush=True)
    if options.page:
        options.page.write_text(page(held), encoding="utf-8")


if __name__ == "__main__":
    main()
