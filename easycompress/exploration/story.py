"""All that an exploration knows, for files, pictures and the page."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from easycompress.exploration.plan import CURVES

if TYPE_CHECKING:
    from easycompress.core.request import Request
    from easycompress.core.task import Metric
    from easycompress.exploration.pareto import Measure, Original, Standing
    from easycompress.exploration.points import Row

SCHEMA = "easycompress-explore/1"


@dataclass(frozen=True)
class Story:
    """`floor` in the user's words, `allowed` the drop that it permits, in the metric's unit; `select` counts samples.

    `missing` points were left out for lack of time, `left_out` says why a family isn't there at all.
    """

    request: Request
    original: Original
    metric: Metric
    floor: str
    allowed: float
    select: int
    rows: tuple[Row, ...] = ()
    standings: tuple[Standing, ...] = ()
    left_out: dict[str, str] = field(default_factory=dict)
    latencies: dict[str, float] = field(default_factory=dict)
    missing: int = 0
    epochs: int = 0

    @property
    def sign(self) -> float:
        """Return 1 where larger is better, else -1."""
        return 1.0 if self.metric.higher_is_better else -1.0

    @property
    def floor_quality(self) -> float:
        """Return the quality that the floor stands at."""
        return self.original.quality - self.sign * self.allowed

    def title(self, curve: str) -> str:
        """Return what a curve is called in pictures."""
        return next((known.title for known in CURVES if known.name == curve), curve)

    def along(self, measure: Measure) -> dict[str, list[Standing]]:
        """Return the points of each curve that have a ratio of that measure, from gentle to strong."""
        found: dict[str, list[Standing]] = {}
        for each in sorted(self.standings, key=lambda standing: standing.row.level):
            if measure in each.ratios:
                found.setdefault(each.row.curve, []).append(each)
        return {curve.name: found[curve.name] for curve in CURVES if curve.name in found}

    def failed(self) -> list[Row]:
        """Return the points without numbers."""
        return [row for row in self.rows if not row.measured]

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON, `schema` first."""
        points = [
            each.row.model_dump(mode="json", exclude={"course"}) | {"ratios": each.ratios, "fronts": list(each.fronts)}
            for each in self.standings
        ]
        others = [row.model_dump(mode="json") for row in self.rows if row.part != "curves"]
        return {
            "schema": SCHEMA,
            "request": self.request.model_dump(mode="json", exclude={"out"}),
            "metric": {"name": self.metric.name, "percent": self.metric.percent,
                       "higher_is_better": self.metric.higher_is_better},
            "epochs": self.epochs,
            "select_samples": self.select,
            "floor": {"text": self.floor, "quality": self.floor_quality},
            "original": self.original.model_dump(mode="json"),
            "points": points,
            "figures": others,
            "failed": [row.model_dump(mode="json") for row in self.failed()],
            "left_out": self.left_out,
            "missing": self.missing,
        }  # fmt: skip
