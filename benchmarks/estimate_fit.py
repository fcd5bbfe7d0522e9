"""Short and long recoveries of models that are not judged, and the constants that they give."""

from __future__ import annotations

import math
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import minimize

from benchmarks.zoo import locate
from easycompress.assemble import make_the_task
from easycompress.estimation import bench as benches
from easycompress.estimation.chain import Chain
from easycompress.estimation.law import DECADE, LEAST_DAMAGE
from easycompress.executor.journal import open_journal
from easycompress.intake.config import make_request
from easycompress.planning import make_plan
from easycompress.prepare import prepare

if TYPE_CHECKING:
    import argparse

    from benchmarks.estimate_rows import Row

STEPS = (48, 240, 800, 2000, 5000)

SHORT = 150
"""What follows is predicted from recoveries of at least so many steps, as estimates have them."""

VISIBLE = 2.0
"""Standard errors that a drop must have to tell anything about how it falls."""

PRIOR = {"slope": (0.5, 0.5), "deviation": (0.25, 0.1), "local": (0.5, 0.3), "residual": (0.3, 0.15)}
"""Mean and standard deviation of what is believed of each constant before: there are few settings."""


def recovered(row: Row, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return what files of a row's trained chain show after each number of steps, all samples used."""
    path, flags = locate(row.model, options)
    request, base = make_request(str(path), flags | row.flags)
    with TemporaryDirectory(prefix="easycompress-benchmark-") as folder:
        task = make_the_task(path, request, base, (None, None, None))
        prepared = prepare(task, request, Path(folder))
        plan = make_plan(prepared, request, base, 0.0)
        journal = open_journal(Path(folder) / "probes", {}, resume=False, began=time.monotonic())
        chain = Chain(plan.steps, benches.Bench(prepared, request, journal))
        strength = chain.least(prepared.needed, exactly=True)
        assert strength is not None
        found = []
        for steps in (0, *STEPS):
            seen, ratio = chain.bench.attempt(chain.actions(strength), steps)
            found.append({"steps": seen.steps, "drop": seen.drop, "error": seen.error, "ratio": ratio})
    return found


def pairs(held: dict[str, list[dict[str, Any]]]) -> list[tuple[float, ...]]:
    """Return (ln of the steps between first and short, between short and long, three logarithms, three errors)."""
    found = []
    for rows in held.values():
        first, *later = rows[1:]
        for place, short in enumerate(later):
            if short["steps"] < SHORT or short["drop"] < VISIBLE * short["error"]:
                continue
            for last in later[place + 1 :]:
                logs = [_log(row) for row in (first, short, last)]
                found.append(
                    (
                        math.log(short["steps"] / first["steps"]),
                        math.log(last["steps"] / short["steps"]),
                        *(value for value, _ in logs),
                        *(error for _, error in logs),
                    )
                )
    return found


def _log(row: dict[str, Any]) -> tuple[float, float]:
    drop = max(row["drop"], LEAST_DAMAGE * row["error"])
    return math.log(drop), min(row["error"] / drop, 1.0)


def fitted(held: dict[str, list[dict[str, Any]]]) -> dict[str, float]:
    """Return the constants of easycompress/estimation/law.py that make the long recoveries likeliest."""
    data = pairs(held)

    def surprise(values: np.ndarray[Any, Any]) -> float:
        slope, deviation, local, residual = (abs(float(value)) for value in values)
        total = sum(((abs(v) - m) / s) ** 2 / 2 for v, (m, s) in zip(values, PRIOR.values(), strict=True))
        for near, far, first, short, last, first_error, short_error, last_error in data:
            variance = local**2 + (first_error**2 + short_error**2) / near**2
            weight = deviation**2 / (deviation**2 + variance)
            mean = slope + weight * ((first - short) / near - slope)
            spread = short_error**2 + last_error**2 + deviation**2 * (1 - weight) * far**2
            spread += residual**2 * far / DECADE
            total += (last - short + mean * far) ** 2 / spread / 2 + math.log(spread) / 2
        return float(total)

    start = np.array([mean for mean, _ in PRIOR.values()])
    best = np.abs(minimize(surprise, start, method="Nelder-Mead").x)
    return {name: round(float(value), 2) for name, value in zip(PRIOR, best, strict=True)} | {"pairs": len(data)}
