"""Codebook codes: an index a weight into a few shared values."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from easycompress.codes.base import stored, stored_bits
from easycompress.codes.checks import array_in, choice_in, integer_in, only, shape_in
from easycompress.codes.packing import (
    bits_for,
    gap_bits,
    least_gap_cost,
    pack_gaps,
    pack_planes,
    plane_bytes,
    positions_of,
    unpack_bytes,
    unpack_gaps,
)

Layout = Literal["planes", "mask", "gaps"]

LAYOUTS = {
    "planes": ("planes", "entries"),
    "mask": ("mask", "others", "entries"),
    "gaps": ("gaps", "others", "entries"),
}
"""The arrays of each layout."""

MOST_ENTRIES = 256


@dataclass(frozen=True)
class Codebook:
    """w[i] = entries[indices[i]]: uint8 `indices` of the tensor's shape, float32 `entries` (k,), 1 <= k <= 256.

    Stored in the smallest of three layouts. `planes`: every index in ceil(log2 k) bit planes. `mask` and `gaps`, where
    one value is by far the commonest: which weights have another one (a bit each, or gaps between them), and the
    indices of those alone among the k - 1 others.
    """

    indices: Tensor
    entries: Tensor
    form: str = "codebook"

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the dense tensor."""
        return tuple(self.indices.shape)

    def dense(self) -> Tensor:
        """Return the float32 tensor."""
        flat = self.entries.float().index_select(0, self.indices.flatten().int())  # half the time of entries[indices]
        return flat.reshape(self.shape)

    def bits(self) -> float:
        """Return the stored size in bits."""
        return stored_bits(self.arrays())

    @property
    def common(self) -> int:
        """The index that most weights have."""
        return self._commonest[0]

    @property
    def layout(self) -> Layout:
        """The smallest layout, counted in bits."""
        return self._plan[0]

    @cached_property
    def _commonest(self) -> tuple[int, int]:
        """The index that most weights have, and how many have another one."""
        counts = torch.bincount(self._flat(), minlength=len(self.entries))
        common = int(counts.argmax())
        return common, int(counts.sum() - counts[common])

    @cached_property
    def _plan(self) -> tuple[Layout, int]:
        """The layout, and how many `others` it stores.

        Gaps are counted only where a bound says that they could win: finding the positions costs more than all else.
        """
        count, width = self.indices.numel(), bits_for(len(self.entries))
        common, others = self._commonest
        planes = width * plane_bytes(count)
        mask = plane_bytes(count) + bits_for(len(self.entries) - 1) * plane_bytes(others)
        best: tuple[int, Layout, int] = (planes, "planes", 0) if planes <= mask else (mask, "mask", others)
        chosen = self._flat() != common
        if least_gap_cost(others, _end(chosen), width) < 8 * best[0]:
            step, pairs = gap_bits(positions_of(chosen), width)
            gaps = (step + width) * plane_bytes(pairs)
            best = (gaps, "gaps", pairs) if gaps < best[0] else best
        return best[1], best[2]

    def _flat(self) -> Tensor:
        return self.indices.detach().flatten().to("cpu", torch.uint8)

    def arrays(self) -> dict[str, Tensor]:
        """Return `entries` and, by layout, `planes`; `mask` and `others`; or `gaps` and `others`.

        `others` are indices with the common one left out (mask: those above it moved down by one) or kept (gaps, whose
        fillers have it).
        """
        flat, k, entries = self._flat(), len(self.entries), stored(self.entries, torch.float32)
        if self.layout == "planes":
            return {"planes": pack_planes(flat, bits_for(k)), "entries": entries}
        chosen = flat != self.common
        positions = positions_of(chosen)
        others = flat[positions]
        if self.layout == "mask":
            others -= (others > self.common).to(torch.uint8)
            return {
                "mask": pack_planes(chosen, 1)[0],
                "others": pack_planes(others, bits_for(k - 1)),
                "entries": entries,
            }
        gaps = pack_gaps(positions, bits_for(k))
        listed = torch.full((gaps.count,), self.common, dtype=torch.uint8)
        listed[~gaps.filler] = others
        return {"gaps": gaps.planes, "others": pack_planes(listed, bits_for(k)), "entries": entries}

    def meta(self) -> dict[str, Any]:
        """Return shape, layout, the common index, and how many `others` there are."""
        facts: dict[str, Any] = {"shape": list(self.shape), "layout": self.layout}
        if self.layout == "planes":
            return facts
        return facts | {"common": self.common, "count": self._plan[1]}

    @classmethod
    def read(cls, meta: dict[str, Any], arrays: dict[str, Tensor]) -> Codebook:
        """Rebuild the code. Raises ValueError where meta and arrays don't fit."""
        layout, shape = choice_in(meta, "layout", tuple(LAYOUTS)), shape_in(meta)
        only(arrays, LAYOUTS[layout])
        entries = array_in(arrays, "entries", torch.float32, (None,))
        if not 1 <= len(entries) <= MOST_ENTRIES:
            raise ValueError(f"a codebook of {len(entries)} entries; there are 1 to {MOST_ENTRIES}")
        total = math.prod(shape)
        if layout == "planes":
            flat = _indices(arrays, "planes", total, len(entries))
        elif layout == "mask":
            flat = _read_mask(meta, arrays, total, len(entries))
        else:
            flat = _read_gaps(meta, arrays, total, len(entries))
        return cls(flat.reshape(shape), entries)


def _end(chosen: Tensor) -> int:
    """Return the last true place of a bool vector, plus 1; 0 where all are false."""
    back = chosen.numpy()[::-1]
    return back.size - int(back.argmax()) if back.any() else 0


def _indices(arrays: dict[str, Tensor], name: str, count: int, levels: int) -> Tensor:
    """Return the uint8 indices (count,) below `levels` that the bit planes `name` hold."""
    planes = array_in(arrays, name, torch.uint8, (bits_for(levels), plane_bytes(count)))
    indices = unpack_bytes(planes, count)
    if count and int(indices.max()) >= levels:
        raise ValueError(f"array {name!r} holds index {int(indices.max())} of {levels}")
    return indices


def _read_mask(meta: dict[str, Any], arrays: dict[str, Tensor], total: int, k: int) -> Tensor:
    common, count = integer_in(meta, "common", 0, k - 1), integer_in(meta, "count", 0, total)
    chosen = unpack_bytes(array_in(arrays, "mask", torch.uint8, (plane_bytes(total),))[None], total).bool()
    if int(chosen.sum()) != count:
        raise ValueError(f"a mask of {int(chosen.sum())} weights for {count} indices")
    others = _indices(arrays, "others", count, k - 1)
    flat = torch.full((total,), common, dtype=torch.uint8)
    flat[positions_of(chosen)] = others + (others >= common).to(torch.uint8)
    return flat


def _read_gaps(meta: dict[str, Any], arrays: dict[str, Tensor], total: int, k: int) -> Tensor:
    if k == 1:
        raise ValueError("a codebook of one entry has nothing to list")  # else `count` would cost no byte
    common, count = integer_in(meta, "common", 0, k - 1), integer_in(meta, "count", 0, total)
    others = _indices(arrays, "others", count, k)
    gaps = array_in(arrays, "gaps", torch.uint8, (None, plane_bytes(count)))
    positions = unpack_gaps(gaps, count, total)
    flat = torch.full((total,), common, dtype=torch.uint8)
    flat[positions] = others
    return flat
