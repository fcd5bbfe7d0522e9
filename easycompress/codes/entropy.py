"""Lossless coding of arrays of small integers, near the entropy that their rows, columns and neighbours leave.

A symbol is coded in up to three parts: is it the commonest one (a flag); if not, below or above it (a side); and how
far from it (a distance). Flags depend on classes of rows and columns and on neighbours, sides on neighbours, distances
on one of these (see `contexts`). Everything, the description of the contexts and the tables included, is one range
coder stream. Tables are integers, and so are the sums that make probabilities of them: decoding doesn't depend on the
machine. The contexts are searched, and each is kept only where it pays for its own description.
"""

from __future__ import annotations

import math
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
    distance_mask,
    neighbours,
    side_table,
    side_weights,
    thin,
)
from easycompress.codes.search import WIDTHS, best_distances, best_plan, grouped
from easycompress.codes.tables import (
    FLAG_ONE,
    SIDE_ONE,
    Ints,
    Reader,
    Writer,
    odds,
    quantize_odds,
    quantize_table,
    read_classes,
    read_odds,
    read_table,
    weights_of,
    write_classes,
    write_odds,
    write_table,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_SYMBOLS = 256

TRIMMED, MOST_CUT = 4096, 7
"""Streams of at most so many symbols are tried with up to so many bytes less: the coder ends on whole words of 4."""

HEADER_BITS = 20
"""About what a plan without contexts takes."""

EVEN_SHARE, EVEN_SPARE = 16, 1 << 20
"""Bits of evenly coded symbols for each bit of a stream, and beyond. Zeros at its end aren't stored, and so many zeros
would never be coded evenly: more symbols are a lie that takes long to decode."""

BLOCK = 1 << 19
"""Symbols that are coded at once where no neighbours matter: bounds the memory of their probabilities."""


def code_length(symbols: Ints, k: int) -> float:
    """Return the ideal code length in bits of symbols below k taken as i.i.d.: their number x their entropy."""
    counts = np.bincount(np.asarray(symbols).reshape(-1), minlength=k)
    used = counts[counts > 0]
    return float(-(used * np.log2(used / used.sum())).sum())


def encode(symbols: Ints, k: int) -> bytes:
    """Return a stream from which `decode` rebuilds `symbols`, integers of 0..k - 1, any shape, 1 <= k <= 256.

    An array of several dimensions counts as a matrix (first axis x rest). Raises ValueError where a symbol or k is out
    of range.
    """
    values = np.asarray(symbols)
    _check(k)
    if values.size and (int(values.min()) < 0 or int(values.max()) >= k):
        raise ValueError(f"symbols from {values.min()} to {values.max()}, expected 0 to {k - 1}")
    matrix = values.astype(np.uint8).reshape(_matrix(values.shape))
    if k == 1 or not matrix.size:
        return b""
    data = _encode(matrix, k)
    if matrix.size <= TRIMMED:
        for cut in range(min(len(data), MOST_CUT), 0, -1):
            short = data[:-cut]
            # zeros follow: the number that the stream is gets smaller, or larger with one more in the last place
            more = (int.from_bytes(short, "big") + 1).to_bytes(len(short) + 1, "big")
            for trial in (short, more[1:]):
                if _same(trial, matrix, k):
                    return trial
    return data


def _same(data: bytes, matrix: Ints, k: int) -> bool:
    try:
        return np.array_equal(decode(data, matrix.shape, k), matrix)
    except ValueError:
        return False


def _encode(matrix: Ints, k: int) -> bytes:
    """Return the stream of a uint8 matrix that isn't empty, k > 1."""
    common = int(np.bincount(matrix.reshape(-1)).argmax())
    sides = np.choose(np.sign(matrix.astype(np.int16) - common) + 1, (1, 0, 2)).astype(np.uint8)
    plan, cost = best_plan(sides, _buckets(k, common)[matrix])
    if plan.turned:
        sides, matrix = np.ascontiguousarray(sides.T), np.ascontiguousarray(matrix.T)
    sizes = [int(common - matrix.min()), int(matrix.max()) - common]
    flat = matrix.reshape(-1).astype(np.int64)
    parts = []
    for side, size in enumerate(sizes, start=1):
        chosen = np.flatnonzero(sides == side)
        parts.append((chosen, np.abs(flat[chosen] - common) - 1, size))
    plan, distances = best_distances(plan, sides, parts)
    writer = Writer()
    modelled = HEADER_BITS + 3 * math.log2(k) + cost + distances < matrix.size * math.log2(k)
    writer.number(int(modelled), 2)
    if not modelled:
        writer.symbols(matrix.T.reshape(-1) if plan.turned else matrix.reshape(-1), np.ones(k))
        return writer.finish()
    writer.number(common, k)
    for size in sizes:
        writer.number(size, k)
    if matrix.size >= SMALLEST:
        _write_plan(writer, plan)
    _write_sides(writer, plan, sides)
    _write_distances(writer, plan, sides, parts)
    return writer.finish()


def decode(data: bytes, shape: tuple[int, ...], k: int) -> Ints:
    """Return the uint8 array of `shape` that `encode` was given. Takes about ten bytes a symbol at its peak.

    Raises ValueError on a stream that no encoder writes; a stream for another shape or k may also decode to nonsense.
    """
    _check(k)
    rows, columns = _matrix(shape)
    if k == 1 or not rows * columns:
        return np.zeros(shape, np.uint8)
    reader = Reader(data)
    if not reader.number(2):
        if rows * columns * math.log2(k) > EVEN_SHARE * 8 * len(data) + EVEN_SPARE:
            raise ValueError("a stream shorter than its symbols")
        return _read_symbols(reader, rows * columns, np.ones(k)).reshape(shape)
    common = reader.number(k)
    sizes = [reader.number(k) for _ in range(2)]
    if sizes[0] > common or sizes[1] > k - 1 - common:
        raise ValueError("symbols beyond their range")
    plan = _read_plan(reader, rows, columns) if rows * columns >= SMALLEST else bare_plan(rows, columns)
    sides = _read_sides(reader, plan)
    flat = np.full(rows * columns, common, np.uint8)
    _read_distances(reader, plan, sides, common, sizes, flat)
    matrix = flat.reshape(sides.shape)
    return np.ascontiguousarray(matrix.T if plan.turned else matrix).reshape(shape)


def _check(k: int) -> None:
    if not 1 <= k <= MOST_SYMBOLS:
        raise ValueError(f"{k} symbols, expected 1 to {MOST_SYMBOLS}")


def _matrix(shape: tuple[int, ...]) -> tuple[int, int]:
    return (shape[0], math.prod(shape[1:])) if len(shape) > 1 else (1, math.prod(shape))


def _buckets(k: int, common: int) -> Ints:
    """Return for each symbol (k,) how far from the common one it is: 0, or 2 log2 distance + 1, + 1 if above."""
    distance = np.arange(k) - common
    logs = np.frexp(np.abs(distance).astype(np.float64))[1]
    return np.where(distance == 0, 0, 2 * logs - 1 + (distance > 0)).astype(np.uint8)


def _write_plan(writer: Writer, plan: Plan) -> None:
    writer.number(int(plan.turned), 2)
    writer.number(len(plan.lags), 3)
    for lag in plan.lags:
        writer.number(lag - 1, FARTHEST)
    for many in (plan.line_classes, plan.place_classes):
        writer.number(many - 1, MOST_CLASSES)
    for classes, many in ((plan.line_class, plan.line_classes), (plan.place_class, plan.place_classes)):
        if many > 1:
            write_classes(writer, classes, many)
    writer.number(SOURCES.index(plan.source), len(SOURCES))


def _read_plan(reader: Reader, rows: int, columns: int) -> Plan:
    turned = bool(reader.number(2))
    lines, places = (columns, rows) if turned else (rows, columns)
    lags = tuple(reader.number(FARTHEST) + 1 for _ in range(reader.number(3)))
    if lags and (max(lags) >= lines or thin(lines, places)):
        raise ValueError("neighbours beyond the array")
    line_classes, place_classes = (reader.number(MOST_CLASSES) + 1 for _ in range(2))
    if (line_classes > 1 and lines > MOST_LINES) or (place_classes > 1 and places > MOST_LINES):
        raise ValueError("classes of too many lines")
    line_class = read_classes(reader, lines, line_classes)
    place_class = read_classes(reader, places, place_classes)
    source = SOURCES[reader.number(len(SOURCES))]
    return Plan(turned, lags, line_class, place_class, line_classes, place_classes, source)


def _steps(plan: Plan) -> Iterator[tuple[int, int]]:
    """Yield the (begin, end) of lines that are coded at once: BLOCK symbols or one line, neighbours all known."""
    lines, places = len(plan.line_class), len(plan.place_class)
    step = min([max(1, BLOCK // places), *plan.lags])
    yield from ((begin, min(begin + step, lines)) for begin in range(0, lines, step))


def _write_sides(writer: Writer, plan: Plan, sides: Ints) -> None:
    counted = count(plan, sides, neighbours(sides, plan.lags))
    flags, flag_bits, _ = quantize_odds(counted.flags.reshape(-1), counted.totals.reshape(-1), FLAG_ONE)
    below, side_bits, _ = quantize_odds(counted.below, counted.either, SIDE_ONE)
    write_odds(writer, flags, flag_bits)
    write_odds(writer, below, side_bits)
    weights = side_weights(plan, odds(flags, flag_bits, FLAG_ONE), odds(below, side_bits, SIDE_ONE))
    step = max(1, BLOCK // len(plan.place_class))
    for begin in range(0, len(sides), step):  # the encoder knows all neighbours: any step gives the same stream
        end = min(begin + step, len(sides))
        code = neighbours(sides, plan.lags, begin, end)
        writer.mixed(sides[begin:end].reshape(-1), side_table(plan, weights, begin, end, code))


def _read_sides(reader: Reader, plan: Plan) -> Ints:
    flags = read_odds(reader, plan.line_classes * plan.place_classes * plan.states, FLAG_ONE)
    weights = side_weights(plan, flags, read_odds(reader, 2 * len(plan.lags) + 1, SIDE_ONE))
    places = len(plan.place_class)
    sides = np.zeros((len(plan.line_class), places), np.uint8)
    for begin, end in _steps(plan):
        code = neighbours(sides, plan.lags, begin, end)
        for first in range(0, places, BLOCK):  # a long line is read in pieces: what it takes is 24 times its bytes
            part = slice(first, first + BLOCK)
            found = reader.mixed(side_table(plan, weights, begin, end, code[:, part], part))
            sides[begin:end, part] = found.reshape(end - begin, -1)
    return sides


def _write_distances(writer: Writer, plan: Plan, sides: Ints, parts: list[tuple[Ints, Ints, int]]) -> None:
    many = distance_contexts(plan)
    for (chosen, distances, size), width in zip(parts, plan.widths, strict=True):
        if size < 2 or not len(chosen):  # noqa: PLR2004 - a single distance takes no bits
            continue
        writer.number(WIDTHS.index(width), len(WIDTHS))
        context = distance_context(plan, sides, chosen)
        counts = np.bincount(context * size + distances, minlength=many * size).reshape(many, size)
        for label, row in enumerate(grouped(counts, width)):
            roots, bits = quantize_table(row)
            write_table(writer, roots, bits)
            mine = distances[context == label]
            writer.symbols(mine // width, weights_of(roots))
            writer.symbols(mine % width, np.ones(width))


def _read_distances(reader: Reader, plan: Plan, sides: Ints, common: int, sizes: list[int], flat: Ints) -> None:
    """Fill in `flat`, the symbols of `sides`, all common so far."""
    for side, size in enumerate(sizes, start=1):
        sign = -1 if side == 1 else 1
        used = bool((sides == side).any())
        if used and not size:
            raise ValueError("symbols on a side that has none")
        if size < 2 or not used:  # noqa: PLR2004 - a single distance takes no bits
            flat[(sides == side).reshape(-1)] = common + sign * min(size, 1)
            continue
        width = WIDTHS[reader.number(len(WIDTHS))]
        for label in range(distance_contexts(plan)):
            mine = distance_mask(plan, sides, side, label).reshape(-1)
            many = int(np.count_nonzero(mine))
            distance = _read_symbols(reader, many, read_table(reader, -(-size // width))).astype(np.int16)
            distance *= width
            distance += _read_symbols(reader, many, np.ones(width))
            if many and int(distance.max()) >= size:
                raise ValueError("symbols beyond their range")
            distance += 1
            distance *= sign
            distance += common
            flat[mine] = distance


def _read_symbols(reader: Reader, many: int, weights: Ints) -> Ints:
    """Read symbols below 256 of one table, uint8, a block at a time."""
    found = np.empty(many, np.uint8)
    for begin in range(0, many, BLOCK):
        end = min(begin + BLOCK, many)
        found[begin:end] = reader.symbols(end - begin, weights)
    return found
