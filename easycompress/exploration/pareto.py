"""Pareto fronts: the points that no other one beats in both ratio and quality."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from easycompress.core.goal import Frozen
from easycompress.exploration.points import Row  # noqa: TC001 - pydantic reads the field types at run time

if TYPE_CHECKING:
    from collections.abc import Sequence

Measure = Literal["size", "packed", "compute", "latency"]
MEASURES: tuple[Measure, ...] = ("size", "packed", "compute", "latency")

WORDS: dict[Measure, str] = {
    "size": "model.onnx",
    "packed": "model.ecz, packed for transport",
    "compute": "multiply-accumulates",
    "latency": "latency",
}


class Original(Frozen):
    """What all points are compared with: bytes of its ONNX file, MACs a sample, quality on *select*, training loss."""

    size_bytes: int
    macs: int
    params: int
    quality: float
    loss: float | None


class Standing(Frozen):
    """A point with its ratios to the original, larger is better, and which fronts it is on."""

    row: Row
    ratios: dict[Measure, float]
    fronts: tuple[Measure, ...] = ()


def ratios_of(row: Row, original: Original, latency: float | None) -> dict[Measure, float]:
    """Return original / point for everything that was measured. A packed file is held against the plain original."""
    found: dict[Measure, float] = {}
    if row.size_bytes:
        found["size"] = original.size_bytes / row.size_bytes
    if row.packed_bytes:
        found["packed"] = original.size_bytes / row.packed_bytes
    if row.macs:
        found["compute"] = original.macs / row.macs
    if latency is not None:
        found["latency"] = latency
    return found


def front(places: Sequence[tuple[float, float]]) -> list[int]:
    """Return the indices of the places (ratio, goodness), both larger = better, that none dominates, ratio rising.

    One place dominates another when it is at least as good in both and better in one. Of equal places the first stays.
    """
    order = sorted(range(len(places)), key=lambda i: (-places[i][0], -places[i][1], i))
    found: list[int] = []
    best = float("-inf")
    for index in order:
        if places[index][1] > best:
            found.append(index)
            best = places[index][1]
    return found[::-1]


def stand(
    rows: Sequence[Row], original: Original, latencies: dict[str, float], *, higher_is_better: bool
) -> list[Standing]:
    """Return every measured point of the curves with its ratios and fronts.

    The original itself, ratio 1 at its own quality, takes part in every front without being listed: what neither
    shrinks nor improves is on none.
    """
    sign = 1.0 if higher_is_better else -1.0
    rows = [row for row in rows if row.measured and row.part == "curves"]
    found = [Standing(row=row, ratios=ratios_of(row, original, latencies.get(row.key))) for row in rows]
    on: dict[int, list[Measure]] = {}
    for measure in MEASURES:
        held = [index for index, each in enumerate(found) if measure in each.ratios]
        places = [(found[index].ratios[measure], sign * (found[index].row.quality or 0.0)) for index in held]
        for place in front([(1.0, sign * original.quality), *places]):
            if place:
                on.setdefault(held[place - 1], []).append(measure)
    return [each.model_copy(update={"fronts": tuple(on.get(i, ()))}) for i, each in enumerate(found)]
