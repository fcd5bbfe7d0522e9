"""Small integers in few bits: bit planes, and positions as gaps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

MOST_GAP_BITS = 16

_MOST_PLANES = 31  # what an int32 holds
_BYTE = 8


def bits_for(levels: int) -> int:
    """Return ceil(log2 levels): the bits that tell `levels` values apart, 0 for one or none."""
    return int(levels - 1).bit_length() if levels > 1 else 0


def plane_bytes(count: int) -> int:
    """Return the bytes of one plane of `count` bits."""
    return -(-count // _BYTE)


def positions_of(chosen: Tensor) -> Tensor:
    """Return the places, int64 (m,), at which a bool tensor (N,) is true, in order, on the CPU."""
    return torch.from_numpy(np.flatnonzero(chosen.cpu().numpy()))  # up to eight times faster than torch.nonzero


def pack_planes(values: Tensor, bits: int) -> Tensor:
    """Pack unsigned integers below 2^bits (N,) into bit planes: uint8 (bits, ceil(N / 8)), lowest plane first.

    Inside a byte the first value is the highest bit, as `numpy.packbits` has it. A plane a bit, instead of fields that
    straddle bytes, is what a runtime without bit fields can take apart with one And and one Cast.
    """
    flat = values.detach().cpu().numpy().reshape(-1)
    planes = np.empty((bits, plane_bytes(flat.size)), dtype=np.uint8)
    for bit in range(bits):  # plane by plane: all at once would take `bits` copies of the values
        planes[bit] = np.packbits((flat & flat.dtype.type(1 << bit)) != 0)
    return torch.from_numpy(planes)


def unpack_planes(planes: Tensor, count: int) -> Tensor:
    """Return the int32 values (count,) of pack_planes. Raises ValueError where the planes don't hold that many."""
    return torch.from_numpy(_unpacked(planes, count).astype(np.int32))


def unpack_bytes(planes: Tensor, count: int) -> Tensor:
    """Return the values as unpack_planes does, as uint8: for at most 8 planes. Raises ValueError for more."""
    if len(planes) > _BYTE:
        raise ValueError(f"{len(planes)} bit planes don't fit a byte")
    return torch.from_numpy(_unpacked(planes, count))


def _unpacked(planes: Tensor, count: int) -> NDArray[Any]:
    """Return the values (count,), uint8 from up to 8 planes, else int32."""
    fits = planes.dim() == 2 and len(planes) <= _MOST_PLANES and planes.dtype == torch.uint8  # noqa: PLR2004 - a matrix
    if count < 0 or not fits or planes.shape[1] != plane_bytes(count):
        raise ValueError(f"bit planes of shape {tuple(planes.shape)} don't hold {count} values")
    values: NDArray[Any] = np.zeros(count, dtype=np.uint8 if len(planes) <= _BYTE else np.int32)
    for bit, plane in enumerate(planes.cpu().numpy()):
        single: NDArray[Any] = np.unpackbits(plane, count=count)
        values |= single.astype(values.dtype, copy=False) << values.dtype.type(bit)
    return values


@dataclass(frozen=True)
class Gaps:
    """Sorted positions as differences of `bits` bits each: `planes` (bits, ceil(count / 8)), `count` stored ones.

    position[i] = position[i - 1] + 1 + gap[i], from -1 on. Where the next position is further than 2^bits away a filler
    stands in between. `filler` (count,) says which stored positions are fillers; it isn't stored: a filler's value is
    that of every position that isn't listed.
    """

    planes: Tensor
    count: int
    bits: int
    filler: Tensor


def least_gap_cost(count: int, end: int, value_bits: int) -> int:
    """Return bits that no gap code of `count` positions below `end` can beat: a pair steps 2^width at most."""
    return min((bits + value_bits) * max(count, -(-end >> bits)) for bits in range(MOST_GAP_BITS + 1))


def gap_bits(positions: Tensor, value_bits: int) -> tuple[int, int]:
    """Return (bits a gap, stored pairs) that minimise pairs x (bits + value_bits). `positions` (m,) sorted int64."""
    return _best_width(_differences(positions), value_bits)


def _differences(positions: Tensor) -> NDArray[Any]:
    """Return how many positions are left out before each one (m,)."""
    flat = positions.detach().cpu().numpy()
    gaps = np.empty(flat.size, dtype=np.int64)
    gaps[:1] = flat[:1]
    np.subtract(flat[1:], flat[:-1], out=gaps[1:])
    gaps[1:] -= 1
    return gaps


def _best_width(gaps: NDArray[Any], value_bits: int) -> tuple[int, int]:
    """Return gap_bits of the gaps.

    The fillers of a width are the sum of gap >> width over all gaps, which is the sum over j of how many gaps are at
    least j x 2^width: one histogram serves all widths. The few gaps beyond it are added by themselves.
    """
    if not gaps.size:
        return 0, 0
    limit = min(1 << MOST_GAP_BITS, int(gaps.max()))
    at_least = np.bincount(np.minimum(gaps, limit))[::-1].cumsum()[::-1]
    long = gaps[gaps > limit]
    best: tuple[int, int, int] | None = None
    for bits in range(MOST_GAP_BITS + 1):
        fillers = int(at_least[1 << bits :: 1 << bits].sum()) + int(((long >> bits) - (limit >> bits)).sum())
        pairs = gaps.size + fillers
        choice = (pairs * (bits + value_bits), bits, pairs)
        best = min(best, choice) if best else choice
    assert best is not None  # noqa: S101 - the range isn't empty
    return best[1], best[2]


def pack_gaps(positions: Tensor, value_bits: int) -> Gaps:
    """Code sorted, distinct positions (m,) as gaps of the width that is cheapest beside values of `value_bits` bits."""
    gaps = _differences(positions)
    bits, pairs = _best_width(gaps, value_bits)
    fillers = gaps >> bits  # each filler steps over 2^bits positions: a gap of 2^bits - 1, and itself
    ends = np.cumsum(fillers + 1) - 1
    stored = np.full(pairs, (1 << bits) - 1, dtype=np.uint16)
    stored[ends] = gaps - (fillers << bits)
    filler = np.ones(pairs, dtype=bool)
    filler[ends] = False
    return Gaps(pack_planes(torch.from_numpy(stored), bits), pairs, bits, torch.from_numpy(filler))


def unpack_gaps(planes: Tensor, count: int, end: int | None = None) -> Tensor:
    """Return the int64 positions (count,), fillers included, that pack_gaps stored.

    Raises ValueError where the planes don't hold that many, and where a position isn't below `end`.
    """
    if len(planes) > MOST_GAP_BITS:
        raise ValueError(f"gaps of {len(planes)} bits; there are at most {MOST_GAP_BITS}")
    gaps = unpack_planes(planes, count).to(torch.int64)
    positions = torch.cumsum(gaps.add_(1), 0).sub_(1)
    if end is not None and count and int(positions[-1]) >= end:
        raise ValueError(f"gaps that run to position {int(positions[-1])} of a tensor of {end} weights")
    return positions
