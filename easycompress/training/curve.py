"""How training went, epoch by epoch, as the report keeps it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from easycompress.core.outcome import CurvePoint

if TYPE_CHECKING:
    from easycompress.training.schedule import History


def curve_of(part: str, history: History, *, higher_is_better: bool) -> tuple[CurvePoint, ...]:
    """Return one point an epoch. The history's scores, larger is better, get the sign of the metric."""
    return tuple(
        CurvePoint(
            part=part,
            epoch=index,
            loss=known(row["loss"]),
            quality=in_unit(row["quality"], higher_is_better=higher_is_better),
        )
        for index, row in enumerate(history.epochs, 1)
    )


def in_unit(score: float, *, higher_is_better: bool) -> float | None:
    """Return a score that is larger when better in the metric's own sign, None where nobody looked."""
    return known(score if higher_is_better else -score)


def known(value: float) -> float | None:
    """Return a number for JSON, which knows no NaN and no infinity."""
    return value if math.isfinite(value) else None
