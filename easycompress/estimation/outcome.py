"""What an estimate says."""

from __future__ import annotations

from typing import Any

from easycompress.core.goal import Frozen, Objective

SCHEMA = "easycompress-estimate/1"

LEVEL = 90
"""Percent of the cases that an interval is made to hold."""


class Interval(Frozen):
    """A prediction: the median, and the bounds between which LEVEL % of the cases should lie."""

    low: float
    middle: float
    high: float


class AtTarget(Frozen):
    """What `compress` with this target would come to.

    `drop` is that of the file at the target on *report*, in the metric's unit, positive = worse, whether or not the
    guard then accepts it; None where no setting of the plan reaches the target. `chance` is the probability that the
    run ends with `met`: target and floor. `ratio` is baseline / file, `most` that of the plan's strongest setting,
    `untrained` the drop measured on *select* before any training, `epochs` what the first attempt may train.
    `measured`: no training was extrapolated. `limit` says in words what stands in the way, and on what that rests.
    """

    objective: Objective
    format: str
    target: str
    needed: float
    drop: Interval | None
    chance: float
    ratio: float | None
    most: float
    untrained: float | None
    epochs: float
    measured: bool
    plan: tuple[str, ...]
    limit: str


class WithinFloor(Frozen):
    """The ratio that `compress --target max` would deliver with this floor; 1 where nothing is accepted.

    `allowed` is the permitted drop in the metric's unit. `capped`: the strongest setting of the plan keeps the floor.
    """

    objective: Objective
    format: str
    floor: str
    allowed: float
    ratio: Interval
    capped: bool
    plan: tuple[str, ...]


class Estimates(Frozen):
    """Every answer, on what it rests, and how well such answers have held.

    `quality` is the original's on *select*, `allowed` the floor as the largest permitted drop, both in the metric's
    unit. `summary` is the answer to one question in one sentence, empty for a table.
    """

    schema_: str = SCHEMA
    request: dict[str, Any]
    metric: str
    percent: bool
    quality: float
    floor: str
    allowed: float
    targets: tuple[AtTarget, ...]
    floors: tuple[WithinFloor, ...]
    notes: tuple[str, ...]
    calibration: str
    seconds: float
    summary: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form, `schema` first."""
        data = self.model_dump(mode="json")
        return {"schema": data.pop("schema_"), **data}
