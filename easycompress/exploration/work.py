"""The points of one exploration, measured as far as the budget goes, and timed."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from easycompress.core.files import read_json, write_json
from easycompress.exploration.cluster import hired
from easycompress.exploration.points import POINTS, TAG, Bench, Row, Spec, common, key_of, read_row, renamed
from easycompress.measure.files import latency_ratio
from easycompress.measure.runtime import physical_cores
from easycompress.report import units

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from easycompress.core.progress import Progress
    from easycompress.core.request import Request
    from easycompress.exploration.crew import Crew, Job
    from easycompress.exploration.plan import Point
    from easycompress.exploration.story import Story
    from easycompress.prepare import Prepared


def jobs_of(points: Sequence[Point], bench: Bench, spec: Spec) -> list[Job]:
    """Return every point with its key."""
    shared = common(bench.prepared, spec.request)
    return [(point, key_of(shared, point.actions, spec.epochs)) for point in points]


def known_rows(jobs: Sequence[Job], out: Path) -> dict[Job, Row]:
    """Return the points that were measured earlier."""
    rows = {(point, key): read_row(out / POINTS / key, point) for point, key in jobs}
    return {job: row for job, row in rows.items() if row is not None}


def measure(
    queue: Sequence[Job], bench: Bench, spec: Spec, story: Story, hands: tuple[int, str | None], until: Until,
    progress: Progress,
) -> dict[Job, Row]:  # fmt: skip
    """Return the points of `queue` that were measured in time. `hands` are the workers, and Ray's address if any.

    Points of the same actions are measured once.
    """
    same: dict[str, list[Point]] = {}
    for point, key in queue:
        same.setdefault(key, []).append(point)
    found: dict[Job, Row] = {}
    if not same:
        return found
    workers, ray = hands
    with hired(spec, min(workers, len(same)), ray, bench) as crew:
        for row in _worked_off([(points[0], key) for key, points in same.items()], crew, until):
            found |= {(point, row.key): renamed(row, point) for point in same[row.key]}
            progress.say(_line(row, story, len(found), len(queue)))
    return found


@dataclass(frozen=True)
class Until:
    """When no further point is begun: after `seconds` from `began` (monotonic clock); None: never."""

    began: float
    seconds: float | None

    def allows(self, taken: list[float]) -> bool:
        """Tell whether another point is likely to end in time, going by the seconds that others took."""
        if self.seconds is None:
            return True
        typical = sorted(taken)[len(taken) // 2] if taken else 0.0
        return time.monotonic() - self.began + typical < self.seconds


def _worked_off(queue: list[Job], crew: Crew, until: Until) -> Iterator[Row]:
    """Yield rows as they come. No point is begun that is not likely to end in time."""
    seconds: list[float] = []
    flying = 0
    while queue or flying:
        while queue and flying < crew.size and until.allows(seconds):
            crew.give(queue.pop(0))
            flying += 1
        if not flying:
            return
        row = crew.next()
        flying -= 1
        if row.measured:
            seconds.append(row.seconds)
        yield row


def _line(row: Row, story: Story, done: int, total: int) -> str:
    head = f"{done}/{total} {row.curve}, {row.label}:"
    if row.quality is None or row.size_bytes is None:
        return f"{head} {row.reason}"
    ratio = story.original.size_bytes / row.size_bytes
    quality = units.quality(row.quality, percent=story.metric.percent)
    return f"{head} {units.ratio(ratio)}, {quality}, {row.seconds:.0f} s"


def kept_times(folder: Path) -> dict[str, float]:
    """Return the ratios of latency that were measured earlier, by key."""
    path = folder / "latency.json"
    return {str(key): float(value) for key, value in read_json(path).items()} if path.is_file() else {}


def timed(
    rows: Sequence[Row], prepared: Prepared, request: Request, folder: Path, progress: Progress
) -> dict[str, float]:
    """Time every point's file beside the original's, one after the other while nothing else runs here."""
    known = kept_times(folder)
    threads = request.threads or physical_cores()
    for row in rows:
        path = folder / POINTS / row.key / "journal" / f"{TAG}.onnx"
        if row.part == "curves" and row.measured and row.key not in known and path.is_file():
            progress.now(f"latency of {row.curve}, {row.label}")
            known[row.key] = latency_ratio(prepared.baseline, path, prepared.task.example, request.batch, threads)[1]
            write_json(folder / "latency.json", known)
    return known
