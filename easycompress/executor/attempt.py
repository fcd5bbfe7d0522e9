"""What became of a candidate: an untrained one, and one that was judged."""

from __future__ import annotations

from typing import Any

from easycompress.core.goal import Frozen
from easycompress.core.outcome import Drop, StepRecord  # noqa: TC001 - pydantic reads the field types at run time
from easycompress.core.progress import AttemptDone
from easycompress.training.curve import known


class Probe(Frozen):
    """An untrained candidate: the objective of its real file and the ratio to the baseline.

    `seconds` is what making it took, `step_seconds` what one step of its training does.
    """

    value: float
    ratio: float
    seconds: float
    step_seconds: float


class Attempt(Frozen):
    """A judged candidate. Its file and weights are in the journal under `tag`.

    `actions` are what was carried out, their open settings filled in. `value` is the objective in its own unit, `ratio`
    baseline / value, `quality` and `drop` those of the written file on *select*; `records` rebuild its structure,
    `codes` hold form and meta of every coded parameter.
    `seconds` is all that it took, `finishing` what came after its training. The first `heads` actions made the trained
    model, 0 where its training can't go on; `goes_on` is the tag of the attempt whose training this one went on with:
    `epochs` and `seconds` are then what it took besides.
    """

    tag: str
    actions: tuple[dict[str, Any], ...]
    value: float
    ratio: float
    quality: float
    drop: Drop
    accepted: bool
    reason: str
    epochs: int
    seconds: float
    finishing: float
    records: tuple[dict[str, Any], ...]
    codes: dict[str, dict[str, Any]]
    stages: tuple[StepRecord, ...]
    planned_epochs: int = 0
    heads: int = 0
    goes_on: str = ""

    def done(self, number: int, what: str) -> AttemptDone:
        """Return what a listener is told of it."""
        return AttemptDone(
            number=number,
            what=what,
            objective=self.value,
            ratio=self.ratio,
            quality=known(self.quality),
            drop=known(self.drop.estimate),
            error=self.stages[-1].after.get("error") if self.stages else None,
            accepted=self.accepted,
            reason=self.reason,
            epochs=self.epochs,
            seconds=self.seconds,
        )
