"""What tells something about a symbol before it is decoded: its row, its column, and its neighbours.

Weight matrices are not i.i.d.: border pixels have no nonzeros, dead neurons neither, and neighbouring pixels have
weights of one sign. A `Plan` says which of these an array's coder looks at; `tables` holds the resulting tables.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from easycompress.codes.tables import (
    FLAG_ONE,
    SIDE_ONE,
    Ints,
    quantize_odds,
    same_class,
)

FARTHEST = 64
"""Neighbours that are looked at: the row of an image of 28 or 32 pixels, a kernel of up to 8 x 8."""

MOST_CLASSES = 8
MOST_LINES = 1 << 16
"""More rows or columns than these are not told apart: their classes would be read one by one."""

SMALLEST = 256
"""Arrays of fewer symbols have no structure that pays for being described."""

SOURCES = ("none", "line", "place", "neighbours")
"""What the table of distances from the common symbol can depend on."""

ACTIVE = np.array([(a > 0) + (b > 0) for a in range(3) for b in range(3)])
"""How many of two neighbours (0 common, 1 below, 2 above; index 3a + b) are not the common symbol."""

TENDENCY = np.array([(a == 2) - (a == 1) + (b == 2) - (b == 1) for a in range(3) for b in range(3)])  # noqa: PLR2004
"""Above minus below among two neighbours: -2..2."""


@dataclass(frozen=True)
class Plan:
    """Contexts of an array of (lines, places): lines are read one after the other, places of a line all at once.

    `lags`: how many lines back the neighbours stand. `line_class` (lines,) and `place_class` (places,), classes below
    `line_classes` and `place_classes`. `source` (of SOURCES) for distances; `widths` of groups below and above.
    """

    turned: bool
    lags: tuple[int, ...]
    line_class: Ints
    place_class: Ints
    line_classes: int = 1
    place_classes: int = 1
    source: str = "none"
    widths: tuple[int, int] = (1, 1)

    @property
    def states(self) -> int:
        """Return how many counts of active neighbours there are."""
        return len(self.lags) + 1


def bare_plan(lines: int, places: int) -> Plan:
    """Return the plan that looks at nothing."""
    return Plan(turned=False, lags=(), line_class=same_class(lines), place_class=same_class(places))


def thin(lines: int, places: int) -> bool:
    """Return whether a line is too short for a call of the decoder of its own; a thousand calls are no matter."""
    return places < 2 * FARTHEST and lines > 16 * FARTHEST


def neighbours(sides: Ints, lags: tuple[int, ...], begin: int = 0, end: int | None = None) -> Ints:
    """Return 3a + b for the lines begin..end of `sides` (lines, places), uint8; common before the first line."""
    end = len(sides) if end is None else end
    code = np.zeros((end - begin, sides.shape[1]), np.uint8)
    for factor, lag in zip((3, 1), lags, strict=False):
        first = max(begin, lag)
        if first < end:
            code[first - begin :] += np.uint8(factor) * sides[first - lag : end - lag]
    return code


def around(sides: Ints, lags: tuple[int, ...]) -> Ints:
    """Return how many neighbours before and after are not common: uint8 (lines, places), at most 4."""
    active = (sides > 0).astype(np.uint8)
    total = np.zeros_like(active)
    for lag in lags:
        total[lag:] += active[:-lag]
        total[:-lag] += active[lag:]
    return total


def distance_context(plan: Plan, sides: Ints, chosen: Ints) -> Ints:
    """Return the context, below `distance_contexts(plan)`, of each symbol at the flat positions `chosen`."""
    places = sides.shape[1]
    if plan.source == "line":
        return np.asarray(plan.line_class[chosen // places])
    if plan.source == "place":
        return np.asarray(plan.place_class[chosen % places])
    if plan.source == "neighbours":
        return around(sides, plan.lags).reshape(-1)[chosen].astype(np.int64)
    return np.zeros(len(chosen), np.int64)


def distance_mask(plan: Plan, sides: Ints, side: int, label: int) -> Ints:
    """Return which symbols (lines, places) stand on a side in one context: what `distance_context` says, as bools."""
    mask = sides == side
    if plan.source == "line":
        mask &= (plan.line_class == label)[:, None]
    elif plan.source == "place":
        mask &= plan.place_class == label
    elif plan.source == "neighbours":
        mask &= around(sides, plan.lags) == label
    return np.asarray(mask)


def distance_contexts(plan: Plan) -> int:
    """Return how many tables of distances a side has."""
    sizes = {"none": 1, "line": plan.line_classes, "place": plan.place_classes, "neighbours": 2 * len(plan.lags) + 1}
    return sizes[plan.source]


@dataclass(frozen=True)
class Counted:
    """How often what happened in each context of a plan, and the bits that coding it takes.

    Flags (line_classes, place_classes, states) and totals of the same shape; sides: below and above by tendency.
    """

    flags: Ints
    totals: Ints
    below: Ints
    either: Ints

    @property
    def cost(self) -> float:
        """Return the bits of flags and sides."""
        flags = quantize_odds(self.flags.reshape(-1), self.totals.reshape(-1), FLAG_ONE)[2]
        return flags + quantize_odds(self.below, self.either, SIDE_ONE)[2]


def count(plan: Plan, sides: Ints, code: Ints) -> Counted:
    """Count `sides` (lines, places), 0 common, 1 below, 2 above, in the contexts of a plan; `code` of `neighbours`."""
    # (line class, place class, neighbours, side): lines are summed first, for their classes are few
    size = plan.place_classes * 27
    offset = (plan.place_class * 27).astype(np.int64)
    table = np.zeros((plan.line_classes, size), np.int64)
    for label in range(plan.line_classes):
        lines = slice(None) if plan.line_classes == 1 else plan.line_class == label
        joint = code[lines] * np.uint8(3) + sides[lines]
        if plan.place_classes == 1:
            table[label] = np.bincount(joint.reshape(-1), minlength=size)
        else:
            table[label] = np.bincount((joint + offset.astype(np.uint16)).reshape(-1), minlength=size)
    full = table.reshape(plan.line_classes, plan.place_classes, 9, 3)
    shape = (plan.line_classes, plan.place_classes, plan.states)
    flags, totals = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    tendencies = 2 * len(plan.lags) + 1
    below, above = np.zeros(tendencies, np.int64), np.zeros(tendencies, np.int64)
    for index in range(9 if plan.lags else 1):
        if ACTIVE[index] >= plan.states:
            continue
        totals[..., ACTIVE[index]] += full[..., index, :].sum(-1)
        flags[..., ACTIVE[index]] += full[..., index, 1:].sum(-1)
        below[TENDENCY[index] + len(plan.lags)] += int(full[..., index, 1].sum())
        above[TENDENCY[index] + len(plan.lags)] += int(full[..., index, 2].sum())
    return Counted(flags, totals, below, below + above)


def side_weights(plan: Plan, flags: Ints, below: Ints) -> Ints:
    """Return float32 (line classes, place classes x 9, 3): integer weights of common, below and above, 2^24 in all."""
    flag = flags.reshape(plan.line_classes, plan.place_classes, plan.states)
    state = np.minimum(ACTIVE, plan.states - 1)
    tendency = np.clip(TENDENCY + len(plan.lags), 0, 2 * len(plan.lags))
    chance, low = flag[:, :, state], below[tendency]
    weights = np.stack([(FLAG_ONE - chance) * SIDE_ONE, chance * low, chance * (SIDE_ONE - low)], axis=-1)
    return weights.reshape(plan.line_classes, -1, 3).astype(np.float32)


def side_table(plan: Plan, weights: Ints, begin: int, end: int, code: Ints, part: slice = slice(None)) -> Ints:
    """Return the weights (symbols, 3) of the lines begin..end, or a part of each, whose neighbours are `code`."""
    index = code + plan.place_class[part] * 9
    if plan.line_classes == 1 or end - begin == 1:
        return np.asarray(weights[plan.line_class[begin]].take(index.reshape(-1), 0))
    index += plan.line_class[begin:end, None] * weights.shape[1]
    return np.asarray(weights.reshape(-1, 3).take(index.reshape(-1), 0))
