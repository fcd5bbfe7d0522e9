"""The search for the contexts that an array is coded with: each must pay for its own description."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from easycompress.codes.contexts import (
    FARTHEST,
    MOST_CLASSES,
    MOST_LINES,
    SMALLEST,
    SOURCES,
    Plan,
    bare_plan,
    count,
    distance_context,
    distance_contexts,
    neighbours,
    thin,
)
from easycompress.codes.tables import Ints, classes_cost, quantize_table, table_cost

if TYPE_CHECKING:
    from collections.abc import Iterator

CANDIDATES = 4
"""Best neighbours of which pairs are tried."""

CLASS_COUNTS = (2, 3, 4, 6, MOST_CLASSES)

WIDTHS = (1, 2, 4, 8, 16)
"""Widths of the groups of neighbouring symbols that share one entry of a table."""


def best_plan(sides: Ints, buckets: Ints) -> tuple[Plan, float]:
    """Return the plan of fewest bits for flags and sides, and those bits, the description of its classes included.

    `sides` (rows, columns); `buckets` of the same shape tells symbols apart coarsely: what classes are made of.
    Classes come first, for an empty column looks like a neighbour that tells something; then neighbours; then classes
    again, for neighbours tell some of what classes told.
    """
    bare = bare_plan(*sides.shape)
    nothing = np.zeros_like(sides)
    plain = count(bare, sides, nothing).cost
    if sides.size < SMALLEST:
        return bare, plain
    kinds = int(buckets.max()) + 1
    by_row, by_column = list(_classes(buckets, kinds)), list(_classes(buckets.T, kinds))
    plan, best = _best_classes(bare, plain, sides, nothing, by_row, by_column)
    plan, best = _best_lags(plan, best, sides)
    if not plan.lags:
        return plan, best
    if plan.turned:
        sides, by_row, by_column = np.ascontiguousarray(sides.T), by_column, by_row
    return _best_classes(plan, best, sides, neighbours(sides, plan.lags), by_row, by_column)


def _best_classes(
    plan: Plan, best: float, sides: Ints, code: Ints, by_line: list[Ints], by_place: list[Ints]
) -> tuple[Plan, float]:
    """Return the plan, of cost `best`, with better classes where there are any, and its cost. No class is one too."""
    lines, places = sides.shape
    by_line, by_place = [np.zeros(lines, np.int64), *by_line], [np.zeros(places, np.int64), *by_place]
    for classes in by_place:
        trial = replace(plan, place_class=classes, place_classes=int(classes.max(initial=0)) + 1)
        plan, best = _better(plan, best, trial, sides, code)
    for classes in by_line:
        trial = replace(plan, line_class=classes, line_classes=int(classes.max(initial=0)) + 1)
        plan, best = _better(plan, best, trial, sides, code)
    if plan.line_classes > 1:
        for classes in by_place:
            trial = replace(plan, place_class=classes, place_classes=int(classes.max(initial=0)) + 1)
            plan, best = _better(plan, best, trial, sides, code)
    return plan, best


def _better(plan: Plan, best: float, trial: Plan, sides: Ints, code: Ints) -> tuple[Plan, float]:
    cost = count(trial, sides, code).cost + _side_information(trial)
    return (trial, cost) if cost < best else (plan, best)


def _side_information(plan: Plan) -> float:
    """Return the bits of the classes."""
    return classes_cost(plan.line_class, plan.line_classes) + classes_cost(plan.place_class, plan.place_classes)


def _best_lags(plan: Plan, best: float, sides: Ints) -> tuple[Plan, float]:
    """Return the plan, of cost `best` and without neighbours, with those that help most, in either direction."""
    start = plan
    for turned in (False, True):
        view = np.ascontiguousarray(sides.T) if turned else sides
        if len(view) == 1 or thin(*view.shape):
            continue
        base = start
        if turned:
            base = Plan(
                turned=True,
                lags=(),
                line_class=start.place_class,
                place_class=start.line_class,
                line_classes=start.place_classes,
                place_classes=start.line_classes,
            )
        likely = [lag for _, lag in sorted(_likely_lags(view), reverse=True)[:CANDIDATES]]
        for lags in [*[(lag,) for lag in likely], *[(a, b) for i, a in enumerate(likely) for b in likely[i + 1 :]]]:
            plan, best = _better(plan, best, replace(base, lags=lags), view, neighbours(view, lags))
    return plan, best


def _likely_lags(sides: Ints) -> Iterator[tuple[float, int]]:
    """Yield (bits that a neighbour tells about flag and side, taken alone, lag) for every lag."""
    active, above = sides > 0, sides > 1
    for lag in range(1, min(FARTHEST, len(sides) - 1) + 1):
        both = int(np.count_nonzero(active[lag:] & active[:-lag]))
        one, other = int(np.count_nonzero(active[lag:])), int(np.count_nonzero(active[:-lag]))
        total = active[lag:].size
        gain = _bits(one, total) - _bits(both, other) - _bits(one - both, total - other)
        up, before = above[lag:] & active[:-lag], above[:-lag] & active[lag:]
        agree, ups, befores = (int(np.count_nonzero(x)) for x in (up & before, up, before))
        gain += _bits(ups, both) - _bits(agree, befores) - _bits(ups - agree, both - befores)
        yield gain, lag


def _bits(ones: int, total: int) -> float:
    """Return the entropy of `total` symbols of which `ones` are one."""
    zeros = total - ones
    return -sum(n * math.log2(n / total) for n in (ones, zeros) if n > 0)


def _classes(buckets: Ints, kinds: int) -> Iterator[Ints]:
    """Yield classes (lines,) of the lines of `buckets` (lines, places) by their histograms, for CLASS_COUNTS.

    k-means where the distance is the code length: a line goes to the class whose table codes it in the fewest bits,
    the bits of naming the class included.
    """
    lines = len(buckets)
    if not CLASS_COUNTS[0] < lines <= MOST_LINES:
        return
    histogram = np.stack([np.count_nonzero(buckets == kind, axis=1) for kind in range(kinds)], axis=1)
    order = np.argsort(histogram @ np.arange(kinds), kind="stable")
    for many in CLASS_COUNTS:
        classes = np.empty(lines, np.int64)
        classes[order] = np.arange(lines) * many // lines
        for _ in range(10):
            hot = (classes[:, None] == np.arange(many)).astype(np.float64)
            seen = hot.T @ histogram + 0.3
            share = (hot.sum(0) + 0.5) / (lines + 0.5 * many)
            cost = -(histogram @ np.log2(seen / seen.sum(1, keepdims=True)).T) - np.log2(share)
            fresh = cost.argmin(1)
            if np.array_equal(fresh, classes):
                break
            classes = fresh
        classes = np.unique(classes, return_inverse=True)[1].reshape(-1).astype(np.int64)
        if classes.max() > 0:
            yield classes


def best_distances(plan: Plan, sides: Ints, parts: list[tuple[Ints, Ints, int]]) -> tuple[Plan, float]:
    """Return the plan with the source and widths of fewest bits for the distances, and those bits.

    `parts`: for below and above, flat positions, distances from 0 on, and how many distances there are. `sides` is
    turned as the plan says.
    """
    best: tuple[float, Plan] = (math.inf, plan)
    for source in SOURCES:
        trial = replace(plan, source=source)
        contexts = distance_contexts(trial)
        if source != "none" and (contexts == 1 or sides.size < SMALLEST):
            continue
        costs, widths = 0.0, [1, 1]
        for side, (chosen, distances, size) in enumerate(parts):
            joint = distance_context(trial, sides, chosen) * size + distances
            counts = np.bincount(joint, minlength=contexts * size).reshape(contexts, size) if size > 1 else None
            cost, width = _best_width(counts) if counts is not None else (0.0, 1)
            costs += cost
            widths[side] = width
        if costs < best[0]:
            best = (costs, replace(trial, widths=(widths[0], widths[1])))
    return best[1], best[0]


def _best_width(counts: Ints) -> tuple[float, int]:
    best = (math.inf, 1)
    for width in WIDTHS:
        if width > 1 and counts.shape[1] < 2 * width:
            break
        cost = float(counts.sum()) * math.log2(width)
        for row in grouped(counts, width):
            cost += table_cost(row, *quantize_table(row))
        best = min(best, (cost, width))
    return best


def grouped(counts: Ints, width: int) -> Ints:
    """Return counts (contexts, ceil(size / width)) of groups of `width` neighbouring distances."""
    padded = np.pad(counts, ((0, 0), (0, -counts.shape[1] % width)))
    return np.asarray(padded.reshape(len(counts), -1, width).sum(2))
