"""What both faces read out of a report: the goal as parsed, and the objective's two values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from easycompress.core.errors import BadInput
from easycompress.core.goal import NO_FLOOR, Floor, Objective, Target, parse_floor, parse_objective, parse_target
from easycompress.core.request import Request
from easycompress.measure.others import NOTICED
from easycompress.report import units

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from easycompress.core.outcome import Latency, Measurement, Report

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
    """Return what the report's request, profile and measurements say.

    Raises BadInput when its goal can't be parsed, or its profile doesn't say what the metric's numbers mean.
    """
    request = Request.model_validate(report.request)
    objective = parse_objective(request.objective)
    facts = report.profile.get("metric")
    if facts is None:
        raise BadInput("report.json: its profile has no metric, so an earlier version wrote it; compress anew")
    metric, percent, higher = str(facts["name"]), bool(facts["percent"]), bool(facts["higher_is_better"])
    floor = NO_FLOOR
    if request.max_drop is not None or request.min_quality is not None:
        floor = parse_floor(request.max_drop, request.min_quality, percent_metric=percent, metric=metric)
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


PAPER_RATIOS = (
    ("storage by the papers' formula", "rho_storage_formula"),
    ("additions by their formula", "rho_additions"),
    ("multiplications by their formula", "rho_multiplications"),
)
"""Label and key of each (Idelbayev and Carreira-Perpinan, additive combinations, appendix B)."""


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
                label = f"latency, batch {old.batch}, {units.threads(old.threads)}"
                rows.append(_row(label, old.median, new.median, units.milliseconds))
    sources = dict.fromkeys((before.energy_mj.source, after.energy_mj.source))
    label = f"energy ({', then '.join(sources)})"
    rows.append(_row(label, before.energy_mj.value, after.energy_mj.value, units.energy))
    return [*rows, *_by_formula(report)]


def _by_formula(report: Report) -> list[Compared]:
    """Return the papers' ratios of the codes in the result, named as what they are: numbers that no file has."""
    known = next((s.after for s in reversed(report.steps) if s.verdict == "kept" and PAPER_RATIOS[0][1] in s.after), {})
    found = [(label, known.get(key)) for label, key in PAPER_RATIOS]
    return [Compared(label, "", "", units.ratio(value)) for label, value in found if value is not None]


def _row(label: str, before: float, after: float, shown: Callable[[float], str]) -> Compared:
    change = units.ratio(before / after) if after else units.UNKNOWN
    return Compared(label, shown(before), shown(after), change)


def repeats_words(report: Report, reading: Reading) -> str:
    """Return how far the seeds' results lie apart, in one sentence; empty for a run with one seed."""
    repeats = report.repeats
    if repeats is None:
        return ""
    kept = sum(row.ratio is not None for row in repeats.rows)
    said = f"{len(repeats.rows)} seeds, {kept} within the floor"
    if repeats.ratio is not None:
        said += f": {units.ratio(repeats.ratio.least)} to {units.ratio(repeats.ratio.most)}"
    if repeats.drop is not None:
        least, most, mean, deviation = (
            units.points(value, percent=reading.percent)
            for value in (repeats.drop.least, repeats.drop.most, repeats.drop.mean, repeats.drop.deviation)
        )
        said += f"; drop on select from {least} to {most}, mean {mean}, standard deviation {deviation}"
    return f"{said}; seed {repeats.delivered} is delivered"


def disturbed_words(latencies: Sequence[Latency]) -> str:
    """Return what other processes took from the timed threads, in one sentence; empty where the machine was quiet."""
    timed = max(latencies, key=lambda latency: latency.taken or 0.0, default=None)
    if timed is None or timed.taken is None or timed.taken <= NOTICED:
        return ""
    return (
        f"while latency was measured other processes took {timed.taken:.1f} cores from the model's "
        f"{units.threads(timed.threads)}: on a quiet machine it may come out otherwise"
    )


def goal_words(reading: Reading) -> str:
    """Return the goal as a person would say it: `10x smaller, accuracy at most 1 point lower`."""
    floor = floor_words(reading.floor, percent=reading.percent, higher_is_better=reading.higher_is_better)
    sure = ", at 95 % confidence" if reading.request.certify else ""
    return f"{target_words(reading.target, reading.objective)}, {reading.metric} {floor}{sure}"


def target_words(target: Target, objective: Objective) -> str:
    """Return what is asked of the objective: `10x smaller`, `at most 120KB`."""
    if target.kind == "absolute":
        return f"at most {target.text}"
    word = GAINS[objective]
    return f"as much {word} as the floor permits" if target.kind == "max" else f"{target.text} {word}"


def floor_words(floor: Floor, *, percent: bool, higher_is_better: bool) -> str:
    """Return what is asked of the metric: `at most 1 point lower`, `at least 98%`."""
    worse = "lower" if higher_is_better else "higher"
    if floor.kind == "level":
        return f"{'at least' if higher_is_better else 'at most'} {floor.text}"
    if floor.kind == "none":
        return "on random inputs, not judged"
    if floor.kind == "relative":
        return f"at most {floor.text.removesuffix('rel')} of the original's {worse}"
    unit = "" if not percent else " point" if floor.value == 1 else " points"
    return f"at most {floor.value:g}{unit} {worse}"
