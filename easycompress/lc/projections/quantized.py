"""Quantization C steps: every weight one of a few values, which are free, free up to a scale, or given.

Source: Carreira-Perpinan and Idelbayev, "Model compression as constrained optimization, with application to neural
nets. Part II: quantization", 2017 (arXiv:1707.04319). Several tensors share one codebook: their projection is that of
all their values as one vector.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from easycompress.codes.codebook import MOST_ENTRIES, Codebook
from easycompress.core.errors import BadInput
from easycompress.lc.projections.base import flat, parted
from easycompress.lc.projections.scalar import best_entries, midpoints

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from easycompress.codes.base import Code
    from easycompress.lc.projections.base import View

    Singles = NDArray[np.float32]

TABLE_SHIFT = 14
"""The assignment table's bins are floats that agree in sign, exponent and 9 mantissa bits: 2^18 of them."""

HALF = 1 << (31 - TABLE_SHIFT)
"""Bins of one sign."""

TABLE_ROUNDS = 6
"""With more boundaries than this in one bin, the binary search is the faster one."""

CHUNK = 1 << 16
"""Values assigned at a time, so that what lies between two operations stays in the cache."""

MOST_POWER = 126
"""2^-126 is the least normal float32; runtimes read a smaller one as zero."""


@dataclass(frozen=True)
class AdaptiveQuantization:
    """argmin over entries c (at most k) and assignments z of sum_i (w_i - c_z(i))^2. 1 <= k <= 256.

    The global optimum, within 1e-3 relative, from scratch each time: k-means in one dimension, where the paper runs
    Lloyd's iteration to a local one. A warm start would save next to nothing, so `warm` is not used, and equal weights
    give equal codes at every C step. No more than k distinct weights: they are the entries, and nothing is lost. A
    weight between two entries goes to the lower. Raises BadInput where k is out of range.
    """

    k: int

    def __post_init__(self) -> None:
        if not 1 <= self.k <= MOST_ENTRIES:
            raise BadInput(f"a codebook has 1 to {MOST_ENTRIES} entries, not k = {self.k}")

    @property
    def view(self) -> View:
        """Any tensor, as a vector."""
        return "vector"

    def project(self, tensors: Sequence[Tensor], mu: float, warm: Sequence[Code] | None = None) -> list[Code]:  # noqa: ARG002 - the protocol's signature
        """Return a Codebook a tensor, with common entries: ascending, distinct, all in use."""
        vector = flat(tensors)
        entries = best_entries(vector, self.k)
        return _coded(nearest(vector, entries), entries, tensors)


@dataclass(frozen=True)
class Binarization:
    """argmin over z in {-1, 1}^N of sum_i (w_i - c z_i)^2, with c = 1, or, `scaled`, over c >= 0 too.

    z_i = sgn(w_i), where sgn(0) = 1, and c = mean |w|. `scaled` weights that are all zero, or none at all, get the one
    entry 0.
    """

    scaled: bool = True

    @property
    def view(self) -> View:
        """Any tensor, as a vector."""
        return "vector"

    def project(self, tensors: Sequence[Tensor], mu: float, warm: Sequence[Code] | None = None) -> list[Code]:  # noqa: ARG002 - the protocol's signature
        """Return a Codebook a tensor, with common entries (-c, c)."""
        vector = flat(tensors)
        scale = _single(_mean_size(vector)) if self.scaled else 1.0
        if scale == 0:
            return _coded(torch.zeros_like(vector, dtype=torch.uint8), vector.new_zeros(1), tensors)
        return _coded((vector >= 0).to(torch.uint8), vector.new_tensor([-scale, scale]), tensors)


@dataclass(frozen=True)
class Ternarization:
    """argmin over z in {-1, 0, 1}^N of sum_i (w_i - c z_i)^2, with c = 1, or, `scaled`, over c >= 0 too.

    z_i = 0 where |w_i| <= c / 2 (a tie goes to 0), else sgn(w_i). The best c is the mean of the m largest |w|, m that
    maximises (their sum)^2 / m; of several best m the least. `scaled` weights that are all zero, or none at all, get
    the one entry 0.
    """

    scaled: bool = True

    @property
    def view(self) -> View:
        """Any tensor, as a vector."""
        return "vector"

    def project(self, tensors: Sequence[Tensor], mu: float, warm: Sequence[Code] | None = None) -> list[Code]:  # noqa: ARG002 - the protocol's signature
        """Return a Codebook a tensor, with common entries (-c, 0, c)."""
        vector = flat(tensors)
        scale = _single(_ternary_scale(vector)) if self.scaled else 1.0
        if scale == 0:
            return _coded(torch.zeros_like(vector, dtype=torch.uint8), vector.new_zeros(1), tensors)
        indices = (vector >= -scale / 2).to(torch.uint8) + (vector > scale / 2).to(torch.uint8)
        return _coded(indices, vector.new_tensor([-scale, 0.0, scale]), tensors)


@dataclass(frozen=True)
class FixedCodebook:
    """argmin over assignments z of sum_i (w_i - c_z(i))^2 for given entries c: the nearest, of two the lower.

    `entries`, 1 to 256 after rounding to float32, are sorted and lose their duplicates. Raises BadInput where there
    are none, too many, or one that float32 can't hold.
    """

    entries: tuple[float, ...]

    def __post_init__(self) -> None:
        with np.errstate(over="ignore"):
            entries = np.unique(np.array(self.entries, dtype=np.float32) + np.float32(0))  # + 0 turns -0 into 0
        if not np.isfinite(entries).all():
            raise BadInput(f"a codebook's entries are finite float32 numbers, not {self.entries}")
        if not 1 <= len(entries) <= MOST_ENTRIES:
            raise BadInput(f"a codebook has 1 to {MOST_ENTRIES} different entries, not {len(entries)}")
        object.__setattr__(self, "entries", tuple(entries.tolist()))

    @classmethod
    def powers_of_two(cls, c: int) -> FixedCodebook:
        """Return the codebook 0, +-2^0, +-2^-1, ..., +-2^-c. 0 <= c <= 126."""
        if not 0 <= c <= MOST_POWER:
            raise BadInput(f"powers of two go down to 2^-C with C from 0 to {MOST_POWER}, not C = {c}")
        powers = [2.0**-i for i in range(c + 1)]
        return cls((0.0, *powers, *(-p for p in powers)))

    @classmethod
    def fixed_point(cls, bits: int, fraction_bits: int) -> FixedCodebook:
        """Return i x 2^-fraction_bits for every integer i of `bits` bits, two's complement. 1 <= bits <= 8."""
        most = MOST_ENTRIES.bit_length() - 1
        if not 1 <= bits <= most:
            raise BadInput(f"a fixed-point codebook has 1 to {most} bits, not {bits}")
        if abs(fraction_bits) > MOST_POWER - most:
            raise BadInput(f"fraction bits go from -{MOST_POWER - most} to {MOST_POWER - most}, not {fraction_bits}")
        half = 1 << (bits - 1)
        return cls(tuple(i * 2.0**-fraction_bits for i in range(-half, half)))

    @property
    def view(self) -> View:
        """Any tensor, as a vector."""
        return "vector"

    def project(self, tensors: Sequence[Tensor], mu: float, warm: Sequence[Code] | None = None) -> list[Code]:  # noqa: ARG002 - the protocol's signature
        """Return a Codebook a tensor, with the given entries, used or not."""
        vector = flat(tensors)
        entries = vector.new_tensor(self.entries)
        return _coded(nearest(vector, entries), entries, tensors)


def _coded(indices: Tensor, entries: Tensor, tensors: Sequence[Tensor]) -> list[Code]:
    return [Codebook(part, entries) for part in parted(indices, tensors)]


def _single(number: float) -> float:
    return float(np.float32(number))


def _mean_size(vector: Tensor) -> float:
    """Return the mean of |w|, summed in float64: exact for equal sizes, so that projecting twice changes nothing."""
    parts = torch.split(vector, CHUNK)
    return math.fsum(float(part.abs().double().sum()) for part in parts) / max(1, len(vector))


def _ternary_scale(vector: Tensor) -> float:
    """Return the mean of the m largest |w|, m = argmax of (their sum)^2 / m; 0 for an empty vector."""
    sizes = np.sort(np.abs(vector.detach().cpu().numpy()))[::-1]
    best, scale, before = 0.0, 0.0, 0.0
    for start in range(0, len(sizes), CHUNK):
        sums = before + np.cumsum(sizes[start : start + CHUNK], dtype=np.float64)
        number = np.arange(start + 1, start + 1 + len(sums))
        gains = sums**2 / number
        m = int(gains.argmax())
        if gains[m] > best:
            best, scale = float(gains[m]), float(sums[m] / number[m])
        before = float(sums[-1])
    return scale


def nearest(vector: Tensor, entries: Tensor) -> Tensor:
    """Return for each value (N,) the index of the nearest entry, uint8 (N,); ties go to the lower one.

    `entries` (k,) are float32, ascending, distinct, at most 256.
    """
    limits = midpoints(entries.cpu().numpy().astype(np.float64))
    if vector.device.type == "cpu" and len(vector) >= CHUNK:
        table = Table.of(limits)
        if table is not None:
            return torch.from_numpy(table.count_below(vector.numpy()))
    found = torch.empty(len(vector), dtype=torch.uint8, device=vector.device)
    steps = torch.from_numpy(limits).to(vector.device)
    for part, out in zip(torch.split(vector, CHUNK), torch.split(found, CHUNK), strict=True):
        out.copy_(torch.bucketize(part, steps, out_int32=True))
    return found


@dataclass(frozen=True)
class Table:
    """The number of limits below a float32, by its upper bits: 15 times as fast as a binary search for 256 entries.

    `below` (2^18,) uint8 counts the limits in lower bins; `rounds` holds, for the first, second, ... limit that shares
    a bin, that limit at its bin's place (2^18,), else infinity: one exact comparison a round.
    """

    below: NDArray[np.uint8]
    rounds: tuple[Singles, ...]

    @classmethod
    def of(cls, limits: Singles) -> Table | None:
        """Return the table of ascending limits (m,), m <= 255, or None where too many share a bin."""
        place = _places(limits)
        # Bits of negative floats rise as the values fall: the lower half of the table is in the opposite order.
        order = np.where(place < HALF, HALF - 1 - place, place)
        turn = np.arange(len(order)) - np.searchsorted(order, order)
        if turn.max(initial=0) >= TABLE_ROUNDS:
            return None
        rounds = []
        for number in range(turn.max(initial=-1) + 1):
            mine = turn == number
            rounds.append(np.full(2 * HALF, np.inf, dtype=np.float32))
            rounds[-1][place[mine]] = limits[mine]
        steps = np.diff(order + 1, prepend=0, append=2 * HALF)
        below = np.repeat(np.arange(len(limits) + 1, dtype=np.uint8), steps)
        return cls(np.concatenate([below[:HALF][::-1], below[HALF:]]), tuple(rounds))

    def count_below(self, vector: Singles) -> NDArray[np.uint8]:
        """Return the number of limits below each value (N,)."""
        found = np.empty(len(vector), dtype=np.uint8)
        for start in range(0, len(vector), CHUNK):
            part, out = vector[start : start + CHUNK], found[start : start + CHUNK]
            place = _places(part)
            np.take(self.below, place, out=out, mode="clip")
            for limits in self.rounds:
                out += part > np.take(limits, place, mode="clip")
        return found


def _places(values: Singles) -> NDArray[np.intp]:
    """Return the table's place of each float: its sign, exponent and upper mantissa bits, negative values first."""
    places = (values.view(np.int32) >> TABLE_SHIFT).astype(np.intp)
    places += HALF
    return places
