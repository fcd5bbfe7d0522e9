"""What both faces read out of a report: the goal as parsed, and the objective's two values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from easycompress.core.goal import Floor, Objective, Target, parse_floor, parse_objective, parse_target
from easycompress.core.request import Request
from easycompress.report import units

if TYPE_CHECKING:
    from collections.abc import Callable

    from easycompress.core.outcome import Latency, Measurement, Report

PERCENT_METRICS = frozenset({"accuracy", "agreement", "top5"})
LOWER_IS_BETTER = frozenset({"mse"})
"""What `metrics.METRICS` says of its own, for reports that don't say it themselves; a test compares the two."""

GAINS: dict[Objective, str] = {
    "size": "smaller",
    "latency": "less time",
    "compute": "fewer MACs",
    "energy": "less energy",
}
"""What both 10x and 90% can stand before."""


@dataclass(frozen=True)
class Reading:
    """A report's goal and numbers. `before` and `after` in the objective's unit, `allowed` in the metric's."""

    request: Request
    objective: Objective
    target: Target
    floor: Floor
    allowed: float
    metric: str
    percent: bool
    higher_is_better: bool
    before: float
    after: float


def read(report: Report) -> Reading:
    """Return what the report's request and measurements say. Raises BadInput when its goal can't be parsed."""
    request = Request.model_validate(report.request)
    objective, metric = parse_objective(request.objective), request.metric
    facts = report.profile.get("metric", {})
    percent = bool(facts.get("percent", metric in PERCENT_METRICS))
    floor = parse_floor(request.max_drop, request.min_quality, percent_metric=percent, metric=metric)
    higher = bool(facts.get("higher_is_better", metric not in LOWER_IS_BETTER))
    return Reading(
        request=request,
        objective=objective,
        target=parse_target(request.target or "max", objective),
        floor=floor,
        allowed=floor.allowed_drop(report.baseline.quality, higher_is_better=higher),
        metric=metric,
        percent=percent,
        higher_is_better=higher,
        before=value_of(report.baseline, objective, request.batch),
        after=value_of(report.final, objective, request.batch),
    )


def value_of(measurement: Measurement, objective: Objective, batch: int) -> float:
    """Return the objective's value: bytes, median ms at `batch`, MACs a sample or mJ."""
    if objective == "latency":
        return judged_at(measurement.latency_ms, batch).median
    if objective == "energy":
        return measurement.energy_mj.value
    return float(measurement.size_bytes if objective == "size" else measurement.macs)


def judged_at(latencies: tuple[Latency, ...], batch: int) -> Latency:
    """Return the latency at `batch`, the first one if that batch was not timed."""
    return next((entry for entry in latencies if entry.batch == batch), latencies[0])


@dataclass(frozen=True)
class Compared:
    """One line of the table of both files, ready to print. `change` is a ratio before / after, or a drop."""

    label: str
    before: str
    after: str
    change: str


def compared(report: Report, reading: Reading) -> list[Compared]:
    """Return every number of both files, the quality first, then bytes, parameters, MACs, latencies and energy."""
    before, after, percent = report.baseline, report.final, reading.percent
    lost = report.drop.estimate
    drop = f"{'better by' if lost < 0 else 'drop'} {units.points(abs(lost), percent=percent)}"
    first, last = (units.quality(each.quality, percent=percent) for each in (before, after))
    rows = [
        Compared(reading.metric, first, last, drop),
        _row("bytes", before.size_bytes, after.size_bytes, units.count),
        _row("parameters", before.params, after.params, units.count),
        _row("MACs a sample", before.macs, after.macs, units.macs),
    ]
    for old in before.latency_ms:
        for new in after.latency_ms:
            if (old.batch, old.threads) == (new.batch, new.threads):
                threads = f"{old.threads} thread{'s' if old.threads > 1 else ''}"
                rows.append(_row(f"latency, batch {old.batch}, {threads}", old.median, new.median, units.milliseconds))
    sources = dict.fromkeys((before.energy_mj.source, after.energy_mj.source))
    label = f"energy ({', then '.join(sources)})"
    return [*rows, _row(label, before.energy_mj.value, after.energy_mj.value, units.energy)]


def _row(label: str, before: float, after: float, shown: Callable[[float], str]) -> Compared:
    change = units.ratio(before / after) if after else units.UNKNOWN
    return Compared(label, shown(before), shown(after), change)


def goal_words(reading: Reading) -> str:
    """Return the goal as a person would say it: `10x smaller, accuracy at most 1 point lower`."""
    target, floor, metric = reading.target, reading.floor, reading.metric
    if target.kind == "absolute":
        wanted = f"at most {target.text}"
    else:
        word = GAINS[reading.objective]
        wanted = f"as much {word} as the floor permits" if target.kind == "max" else f"{target.text} {word}"
    worse = "lower" if reading.higher_is_better else "higher"
    if floor.kind == "level":
        kept = f"{metric} {'at least' if reading.higher_is_better else 'at most'} {floor.text}"
    elif floor.kind == "relative":
        kept = f"{metric} at most {floor.text.removesuffix('rel')} of the original's {worse}"
    else:
        unit = "" if not reading.percent else " point" if floor.value == 1 else " points"
        kept = f"{metric} at most {floor.value:g}{unit} {worse}"
    return f"{wanted}, {kept}{', at 95 % confidence' if reading.request.certify else ''}"
