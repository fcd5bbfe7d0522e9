"""The report's rows of one attempt: what each of its actions did."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from easycompress.core.outcome import StepRecord
from easycompress.training.curve import known

if TYPE_CHECKING:
    from collections.abc import Sequence

    from easycompress.executor.build import Built
    from easycompress.executor.workshop import Workshop


def rows_of(
    shop: Workshop,
    built: Built,
    reason: str,
    result: dict[str, float | None],
    seconds: float,
    earlier: Sequence[StepRecord] = (),
) -> tuple[StepRecord, ...]:
    """Describe an attempt action by action: quality in PyTorch until the last one, whose numbers are the file's.

    `result` is what the attempt came to after `seconds` and `reason` what was said of it; `earlier` are the rows of the
    attempt that it goes on from.
    """
    metric = shop.trainer.task.metric
    quality = metric.quality(shop.trainer.baseline)
    before: dict[str, float | None] = {"objective": shop.baseline_value, "quality": quality, "ratio": 1.0}
    if earlier:
        before = earlier[-1].after
    tag = reason.partition(":")[0]
    rows: list[StepRecord] = []
    for stage in built.stages:
        last = stage is built.stages[-1]
        after = dict(result) if last else dict(before)
        after |= stage.papers
        if stage.measured is not None and not last:
            after["objective"], after["ratio"] = stage.measured
        if not math.isnan(stage.quality) and not last:
            sign = 1 if metric.higher_is_better else -1
            after["quality"] = known(sign * stage.quality)
        rows.append(
            StepRecord(
                action=stage.action.kind,
                settings=stage.action.model_dump(mode="json", exclude={"kind"}),
                before=before,
                after=after,
                verdict="kept",
                seconds=seconds - sum(row.seconds for row in rows) if last else stage.seconds,
                epochs=stage.epochs,
                reason=reason if last else f"{tag}: judged after its last action",
                curve=stage.curve,
            )
        )
        before = after
    return tuple(rows)
