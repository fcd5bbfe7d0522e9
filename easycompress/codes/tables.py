"""Probability tables for the entropy coder: integers only, so that every machine decodes the same symbols."""

from __future__ import annotations

import math
from typing import Any

import constriction
import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[Any]

FLAG_ONE = 1 << 16
"""A probability of one for the flag "not the common symbol"."""

SIDE_ONE = 1 << 8
"""A probability of one for the side. FLAG_ONE x SIDE_ONE = 2^24: float32 holds every product and sum exactly."""

TABLE_ONE = 1 << 16
MOST_BITS = 12
"""Bits of the square root of a probability: finer ones never pay below 2^31 symbols."""

NEAR = (48, 18, 8, 4, 2, 1)
"""Weights of the change of bit length from one entry of a table to the next: histograms of weights are smooth."""

GROWTH = 3
"""What an observed class adds to its weight, which begins at 1: the estimator (n + 1/3) / (N + C/3)."""


class Writer:
    """A range encoder that takes numbers, lists and tables, all in one stream without padding between them."""

    def __init__(self) -> None:
        self._coder = constriction.stream.queue.RangeEncoder()

    def number(self, value: int, size: int) -> None:
        """Write 0 <= value < size <= 2^24 in log2(size) bits."""
        if size > 1:
            self._coder.encode(value, constriction.stream.model.Uniform(size))

    def symbols(self, values: Ints, weights: Ints) -> None:
        """Write `values` (n,), each below len(weights), at probabilities proportional to the integer `weights` (k,)."""
        if len(values) and len(weights) > 1:
            self._coder.encode(values.astype(np.int32), _model(weights))

    def mixed(self, values: Ints, weights: Ints) -> None:
        """Write `values` (n,), each with its own integer weights (n, k)."""
        self._coder.encode(values.astype(np.int32), _family(), weights)

    def finish(self) -> bytes:
        """Return the stream. The decoder reads zeros past its end, so that trailing ones needn't be there."""
        words: Ints = self._coder.get_compressed()
        return words.astype(">u4").tobytes().rstrip(b"\0")


class Reader:
    """The decoder of a Writer's stream, called in the same order. Raises ValueError on impossible data."""

    def __init__(self, data: bytes) -> None:
        padded = data + bytes(-len(data) % 4)
        self._coder = constriction.stream.queue.RangeDecoder(np.frombuffer(padded, ">u4").astype(np.uint32))

    def number(self, size: int) -> int:
        """Read one number below `size`."""
        return int(self._decode(constriction.stream.model.Uniform(size))) if size > 1 else 0

    def symbols(self, count: int, weights: Ints) -> Ints:
        """Read `count` symbols of one table: int32 (count,)."""
        if count == 0 or len(weights) < 2:  # noqa: PLR2004 - a single symbol takes no bits
            return np.zeros(count, np.int32)
        return np.asarray(self._decode(_model(weights), count))

    def mixed(self, weights: Ints) -> Ints:
        """Read one symbol for each row of weights (n, k): int32 (n,)."""
        return np.asarray(self._decode(_family(), weights))

    def _decode(self, *arguments: Any) -> Any:  # noqa: ANN401 - a number or an array
        try:
            return self._coder.decode(*arguments)
        except AssertionError as error:  # how the library says that no encoder can have written this
            raise ValueError("an entropy coded stream that can't be decoded") from error


def _model(weights: Ints) -> Any:  # noqa: ANN401 - the library has no types
    return constriction.stream.model.Categorical(weights.astype(np.float32), perfect=False)


def _family() -> Any:  # noqa: ANN401 - the library has no types
    return constriction.stream.model.Categorical(perfect=False)


def quantize_odds(ones: Ints, totals: Ints, one: int) -> tuple[Ints, int, float]:
    """Return (levels, bits, cost): the probability ones / totals of each context on a grid of its square root.

    The error of an estimated probability is uniform in the square root's scale, so an even grid there wastes least.
    `cost` is the bits of the symbols and of the levels; `bits` minimises it. levels: int (contexts,), see `odds`.
    """
    ones, zeros = ones.astype(np.float64), (totals - ones).astype(np.float64)
    minor = np.minimum(ones, zeros) / np.maximum(ones + zeros, 1)
    best: tuple[float, int, Ints] | None = None
    for bits in range(1, MOST_BITS + 1):
        middle = 1 << bits
        level = np.maximum(np.rint(np.sqrt(2 * minor) * middle), minor > 0).astype(np.int64)
        level = np.where(ones > zeros, 2 * middle - level, level)
        p = np.clip(odds(level, bits, one) / one, 1e-12, 1 - 1e-12)
        cost = float(-(ones * np.log2(p) + zeros * np.log2(1 - p)).sum()) + len(ones) * math.log2(2 * middle + 1)
        if best is None or cost < best[0]:
            best = (cost, bits, level)
    assert best is not None  # noqa: S101 - the range isn't empty
    return best[2], best[1], best[0]


def odds(levels: Ints, bits: int, one: int) -> Ints:
    """Return the integer probability, of `one`, that each level 0..2^(bits + 1) stands for; 0 and `one` at the ends."""
    middle = 1 << bits
    small = np.minimum(levels, 2 * middle - levels).astype(np.int64)
    p = np.maximum((small * small * (one // 2)) >> (2 * bits), small > 0)
    return np.asarray(np.where(levels > middle, one - p, p))


def write_odds(writer: Writer, levels: Ints, bits: int) -> None:
    """Write what quantize_odds returned."""
    writer.number(bits - 1, MOST_BITS)
    for level in levels:
        writer.number(int(level), (2 << bits) + 1)


def read_odds(reader: Reader, count: int, one: int) -> Ints:
    """Read the integer probabilities of `count` contexts."""
    bits = reader.number(MOST_BITS) + 1
    return odds(np.array([reader.number((2 << bits) + 1) for _ in range(count)], np.int64), bits, one)


def quantize_table(counts: Ints) -> tuple[Ints, int]:
    """Return (roots, bits): the square roots of counts (k,) on a grid of `bits` bits; all zero at 0 bits.

    A step of about one in the root of a count costs a quarter of a bit of mismatch; a finer one costs more to send.
    """
    most = int(counts.max()) if len(counts) else 0
    if not most:
        return np.zeros(len(counts), np.int64), 0
    bits = min(max(1, round(math.log2(most) / 2)), MOST_BITS)
    roots = np.rint(np.sqrt(counts / most) * ((1 << bits) - 1)).astype(np.int64)
    return np.maximum(roots, counts > 0), bits


def weights_of(roots: Ints) -> Ints:
    """Return the integer weights (k,), of about TABLE_ONE in all, that roots stand for."""
    squares = roots * roots
    return np.asarray(np.maximum(squares * TABLE_ONE // max(int(squares.sum()), 1), roots > 0))


def table_cost(counts: Ints, roots: Ints, bits: int) -> float:
    """Return the bits that the symbols and their table take."""
    weights = weights_of(roots)
    used = counts > 0
    symbols = -float((counts[used] * np.log2(weights[used] / max(int(weights.sum()), 1))).sum())
    lengths = _lengths(roots)
    change = np.abs(np.diff(lengths, prepend=bits))
    near = np.array([*NEAR, *[NEAR[-1]] * MOST_BITS])
    table = near[np.abs(np.arange(bits + 1)[:, None] - np.arange(bits + 1))].sum(1)
    before = np.concatenate(([bits], lengths[:-1])).astype(np.int64)
    sent = float(np.log2(table[before] / near[change]).sum()) if bits else 0.0
    return symbols + sent + float(np.maximum(lengths - 1, 0).sum()) + math.log2(MOST_BITS + 1)


def write_table(writer: Writer, roots: Ints, bits: int) -> None:
    """Write the roots: each one's bit length, likely near the one before, then the bits below its highest."""
    writer.number(bits, MOST_BITS + 1)
    before = bits
    for root, length in zip(roots.tolist(), _lengths(roots).tolist(), strict=True):
        if bits:
            writer.symbols(np.array([length]), _near(before, bits))
            writer.number(root - (1 << length >> 1), 1 << length >> 1)
        before = length


def read_table(reader: Reader, size: int) -> Ints:
    """Read the integer weights (size,) of a table."""
    bits = reader.number(MOST_BITS + 1)
    roots = np.zeros(size, np.int64)
    before = bits
    for place in range(size if bits else 0):
        before = int(reader.symbols(1, _near(before, bits))[0])
        roots[place] = (1 << before >> 1) + reader.number(1 << before >> 1)
    if not roots.any():
        roots[:] = 1  # an empty table, of which a sound stream asks no symbol
    return weights_of(roots)


def _near(before: int, bits: int) -> Ints:
    return np.array([NEAR[min(abs(length - before), len(NEAR) - 1)] for length in range(bits + 1)])


def _lengths(roots: Ints) -> Ints:
    return np.frexp(roots.astype(np.float64))[1].astype(np.int64)  # the exponent of an integer is its bit length


def write_classes(writer: Writer, classes: Ints, count: int) -> None:
    """Write a list of classes below `count`, each likely to follow its predecessor as others did before."""
    weights, before = np.ones((count, count)), 0
    for value in classes.tolist():
        writer.symbols(np.array([value]), weights[before])
        weights[before, value] += GROWTH
        before = value


def read_classes(reader: Reader, length: int, count: int) -> Ints:
    """Read a list of `length` classes: int64 (length,)."""
    if count == 1:
        return same_class(length)
    weights, before, found = np.ones((count, count)), 0, np.zeros(length, np.int64)
    for place in range(length):
        found[place] = value = int(reader.symbols(1, weights[before])[0])
        weights[before, value] += GROWTH
        before = value
    return found


def same_class(length: int) -> Ints:
    """Return the classes of lines that all are of the first, without memory for each: int64 (length,), not writable."""
    return np.broadcast_to(np.int64(0), (length,))


def classes_cost(classes: Ints, count: int) -> float:
    """Return the bits that write_classes takes, which don't depend on the order of equal transitions."""
    if count == 1:
        return 0.0
    pairs = np.bincount(np.concatenate(([0], classes[:-1])) * count + classes, minlength=count * count)
    prior = 1 / GROWTH
    nats = 0.0
    for row in pairs.reshape(count, count).tolist():
        nats += math.lgamma(sum(row) + count * prior) - math.lgamma(count * prior)
        nats -= sum(math.lgamma(n + prior) - math.lgamma(prior) for n in row)
    return nats / math.log(2)
