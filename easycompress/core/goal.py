"""What the user wants, parsed once. Past this module there is no bare "10%"."""

from __future__ import annotations

import math
import re
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict

from easycompress.core.errors import BadInput

Objective = Literal["size", "latency", "compute", "energy"]
OBJECTIVES: tuple[Objective, ...] = get_args(Objective)

UNITS: dict[Objective, dict[str, float]] = {
    "size": {"B": 1.0, "KB": 1e3, "MB": 1e6, "GB": 1e9},
    "latency": {"us": 1e-3, "ms": 1.0, "s": 1e3},
    "compute": {"MACs": 1.0, "KMACs": 1e3, "MMACs": 1e6, "GMACs": 1e9},
    "energy": {"uJ": 1e-3, "mJ": 1.0, "J": 1e3},
}
"""Suffixes of an absolute target, each with its factor to the objective's own unit (bytes, ms, MACs, mJ)."""

OBJECTIVE_UNIT: dict[Objective, str] = {"size": "bytes", "latency": "ms", "compute": "MACs", "energy": "mJ"}

_NUMBER = r"([-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[-+]?\d+)?)"
"""`10`, `0.5`, `.5`, `1e3`; no NaN, no infinity."""


class Frozen(BaseModel):
    """A value that crosses a boundary: validated, immutable, JSON-able."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Target(Frozen):
    """How far to go. `text` repeats the user's own words.

    kind `ratio`: baseline / final must reach `value`. kind `absolute`: the objective must be at most `value`
    (bytes, ms, MACs or mJ). kind `max`: the most that the floor permits; `value` is unused.
    """

    kind: Literal["ratio", "absolute", "max"]
    value: float = math.inf
    text: str

    def ratio(self, baseline: float) -> float:
        """Return the ratio baseline / final that is needed; infinite for `max`."""
        if self.kind == "absolute":
            return baseline / self.value
        return self.value


class Floor(Frozen):
    """How much quality may be lost. `text` repeats the user's own words.

    kind `points`: absolute, in the metric's unit (percentage points for accuracy). kind `relative`: a share of the
    baseline's quality, 0.01 for `1%rel`. kind `level`: the quality that must be kept, in the metric's unit. kind
    `none`: there is no data to judge quality by.
    """

    kind: Literal["points", "relative", "level", "none"]
    value: float
    text: str

    def allowed_drop(self, baseline_quality: float, *, higher_is_better: bool = True) -> float:
        """Return the largest permitted drop in the metric's unit, positive = worse; infinite for `none`."""
        if self.kind == "none":
            return math.inf
        if self.kind == "points":
            return self.value
        if self.kind == "relative":
            return self.value * abs(baseline_quality)
        return baseline_quality - self.value if higher_is_better else self.value - baseline_quality


NO_FLOOR = Floor(kind="none", value=0.0, text="none")


class Goal(Frozen):
    """An objective, a target, a floor, and the file whose bytes count."""

    objective: Objective
    target: Target
    floor: Floor
    format: Literal["onnx", "packed"] = "onnx"


class Budget(Frozen):
    """What may be spent: wall seconds of the whole command, or training epochs over all attempts, or no training."""

    kind: Literal["time", "epochs", "none"]
    value: float = 0.0
    text: str


def parse_objective(text: str) -> Objective:
    """Parse `size`, `latency`, `compute` or `energy`."""
    for objective in OBJECTIVES:
        if text == objective:
            return objective
    raise BadInput(f"--objective {text}: unknown; use one of {', '.join(OBJECTIVES)}")


def parse_target(text: str, objective: Objective) -> Target:
    """Parse `10x` (ratio), `90%` (reduction), `120KB`, `3ms`, `40MMACs`, `2mJ` (absolute) or `max`."""
    text = text.strip()
    where = f"--target {text}"
    if text == "max":
        return Target(kind="max", text=text)
    match = re.fullmatch(_NUMBER + r"\s*([A-Za-z]+|%)", text)
    if not match:
        raise BadInput(f"{where}: not a target; write a ratio (10x), a reduction (90%), an amount (120KB) or max")
    number, unit = _finite(match[1], where), match[2]
    if unit in ("x", "X"):
        if number <= 0:
            raise BadInput(f"{where}: a ratio must be positive; 10x means ten times smaller")
        if number < 1:
            raise BadInput(f"{where}: below 1x the result would be larger than the original; write {1 / number:g}x?")
        return Target(kind="ratio", value=number, text=text)
    if unit == "%":
        if not 0 <= number < 100:  # noqa: PLR2004 - percent
            raise BadInput(f"{where}: a reduction lies between 0% and 100% (90% means ten times smaller)")
        return Target(kind="ratio", value=1 / (1 - number / 100), text=text)
    factors = {name.lower(): factor for name, factor in UNITS[objective].items()}
    if unit.lower() not in factors:
        known = ", ".join(UNITS[objective])
        raise BadInput(f"{where}: unknown unit for --objective {objective}; use x, % or one of {known}")
    if number <= 0:
        raise BadInput(f"{where}: an amount must be positive")
    return Target(kind="absolute", value=_finite(match[1], where, factors[unit.lower()]), text=text)


def parse_floor(max_drop: str | None, min_quality: str | None, *, percent_metric: bool, metric: str) -> Floor:
    """Parse `--max-drop` (`1%`, `1%rel`, `0.5`) or `--min-quality` (`98%`, `0.9`).

    `percent_metric` says whether the metric is itself a percentage: only then is a bare `1%` unambiguous.
    """
    if min_quality is not None:
        if max_drop is not None:
            raise BadInput("--max-drop and --min-quality both state the floor; give one of them")
        return _parse_level(min_quality.strip(), percent_metric=percent_metric, metric=metric)
    if max_drop is None:
        raise BadInput("no floor given: add --max-drop 1% (percentage points) or --min-quality 98%")
    text = max_drop.strip()
    where = f"--max-drop {text}"
    match = re.fullmatch(_NUMBER + r"\s*(%rel|%)?", text)
    if not match:
        raise BadInput(f"{where}: not a drop; write 1% (percentage points), 1%rel (of the baseline) or 0.5")
    number, unit = _finite(match[1], where), match[2] or ""
    if number < 0:
        raise BadInput(f"{where}: a drop can't be negative; 0% keeps the baseline's quality")
    if unit and number >= 100:  # noqa: PLR2004 - percent
        raise BadInput(f"{where}: a drop of {number:g}% leaves nothing; the floor must lie below 100%")
    if unit == "%rel":
        return Floor(kind="relative", value=number / 100, text=text)
    if unit == "%" and not percent_metric:
        raise BadInput(f"{where}: {metric} is not a percentage; write {number:g}%rel, or an absolute drop such as 0.5")
    if percent_metric and number >= 100:  # noqa: PLR2004 - percent
        raise BadInput(f"{where}: {metric} is at most 100; the floor must lie below that")
    return Floor(kind="points", value=number, text=text)


def _parse_level(text: str, *, percent_metric: bool, metric: str) -> Floor:
    where = f"--min-quality {text}"
    match = re.fullmatch(_NUMBER + r"\s*(%)?", text)
    if not match:
        raise BadInput(f"{where}: not a level; write 98% or a number in the unit of {metric}")
    number, unit = _finite(match[1], where), match[2]
    if unit and not percent_metric:
        raise BadInput(f"{where}: {metric} is not a percentage; write the level without %")
    if percent_metric and not 0 <= number <= 100:  # noqa: PLR2004 - percent
        raise BadInput(f"{where}: {metric} lies between 0% and 100%")
    return Floor(kind="level", value=number, text=text)


def parse_budget(text: str) -> Budget:
    """Parse `20min`, `90s`, `2h` (wall time of the command), `30ep` (epochs), `none` or `0` (no training)."""
    text = text.strip()
    where = f"--budget {text}"
    if text in ("none", "0"):
        return Budget(kind="none", text=text)
    match = re.fullmatch(_NUMBER + r"\s*(s|min|h|ep)", text)
    if not match or float(match[1]) <= 0:
        raise BadInput(f"{where}: not a budget; write 20min, 90s, 2h, 30ep or none")
    number, unit = _finite(match[1], where), match[2]
    if unit == "ep":
        if number != int(number):
            raise BadInput(f"{where}: epochs are whole; write {int(number) or 1}ep")
        return Budget(kind="epochs", value=number, text=text)
    return Budget(kind="time", value=_finite(match[1], where, {"s": 1, "min": 60, "h": 3600}[unit]), text=text)


class Search(Frozen):
    """How much tuning: `value` trials, or seconds. `text` repeats the user's own words."""

    kind: Literal["trials", "time"]
    value: float
    text: str


MOST_TRIALS = 1000


def parse_search(text: str) -> Search:
    """Parse `20` (trials) or `10min`, `90s`, `2h` (time for trials)."""
    text = text.strip()
    where = f"--search {text}"
    match = re.fullmatch(_NUMBER + r"\s*(s|min|h)?", text)
    number = _finite(match[1], where) if match else 0.0
    if not match or number <= 0 or (not match[2] and number != int(number)):
        raise BadInput(f"{where}: not a search; write how many trials (20) or their time (10min)")
    if match[2]:
        return Search(kind="time", value=_finite(match[1], where, {"s": 1, "min": 60, "h": 3600}[match[2]]), text=text)
    if number > MOST_TRIALS:
        raise BadInput(f"{where}: too many trials; write at most {MOST_TRIALS}, or their time (10min)")
    return Search(kind="trials", value=number, text=text)


def _finite(text: str, where: str, factor: float = 1.0) -> float:
    """Return the number that `text` spells, times `factor`. Raises BadInput for one that no float holds, as 1e999."""
    number = float(text) * factor
    if math.isinf(number):
        raise BadInput(f"{where}: too large a number; write a smaller one")
    return number
