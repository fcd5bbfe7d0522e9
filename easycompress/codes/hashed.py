"""Hashed codes: a hash of its position tells which of a few shared values a weight has."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from easycompress.codes.base import stored, stored_bits
from easycompress.codes.checks import array_in, integer_in, only, shape_in

PRIME = 2_147_483_647  # 2^31 - 1: a product of two residues fits 63 bits, so integer Mul and Mod compute the hash
MULTIPLIER, INCREMENT, STEP = 48_271, 12_345, 1_103_515_245

_CHUNK = 1 << 16
"""Positions hashed at a time: the five passes stay in the cache, four times faster than over 15 million at once."""


def hash_places(count: int, buckets: int, seed: int, device: torch.device | None = None) -> Tensor:
    """Return the bucket of each position i = 0..count-1, int64 (count,), by two rounds of multiply, add and square.

    a = ((i + 1) x STEP + seed)^2 mod PRIME, h(i) = (a x MULTIPLIER + INCREMENT)^2 mod PRIME mod buckets, every product
    reduced mod PRIME before the next. `count` and `seed` must be below PRIME, so that nothing overflows 63 bits.
    The squares matter: without them any number of rounds is one linear map, and weights a fixed distance apart share a
    bucket all through the tensor (784 x 300 weights in 2000 buckets: 87 % of w[i, j] equalled w[i + 1, j + 1]).
    """
    places = torch.empty(count, dtype=torch.int64, device=device)
    for start in range(0, count, _CHUNK):
        chunk = places[start : start + _CHUNK]
        torch.arange(start + 1, start + len(chunk) + 1, out=chunk)
        _reduce(_reduce(chunk.mul_(STEP).add_(seed)).square_())
        _reduce(_reduce(chunk.mul_(MULTIPLIER).add_(INCREMENT)).square_())
        chunk.remainder_(buckets)
    return places


def _reduce(values: Tensor) -> Tensor:
    """Replace int64 values below 2^62 by their residues mod 2^31 - 1, where 2^31 counts as 1: far cheaper than `%`."""
    for _ in range(2):
        carry = values >> 31
        values.bitwise_and_(PRIME).add_(carry)
    return values.masked_fill_(values == PRIME, 0)


@dataclass(frozen=True)
class Hashed:
    """w[i] = values[h(i)]: float32 `values` (buckets,); `seed` picks the hash (HashedNet, Chen et al. 2015).

    At least one bucket; the hash is `hash_places`.
    """

    values: Tensor
    size: tuple[int, ...]
    seed: int = 0
    form: str = "hashed"

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the dense tensor."""
        return self.size

    def places(self) -> Tensor:
        """Return the bucket of every weight, int64, flat."""
        return hash_places(math.prod(self.size), len(self.values), self.seed, self.values.device)

    def dense(self) -> Tensor:
        """Return the float32 tensor."""
        return self.values.float()[self.places()].reshape(self.size)

    def bits(self) -> float:
        """Return the stored size in bits."""
        return stored_bits(self.arrays())

    def arrays(self) -> dict[str, Tensor]:
        """Return `values`."""
        return {"values": stored(self.values, torch.float32)}

    def meta(self) -> dict[str, Any]:
        """Return shape and seed."""
        return {"shape": list(self.size), "seed": self.seed}

    @classmethod
    def read(cls, meta: dict[str, Any], arrays: dict[str, Tensor]) -> Hashed:
        """Rebuild the code. Raises ValueError where meta and arrays don't fit."""
        only(arrays, ["values"])
        values = array_in(arrays, "values", torch.float32, (None,))
        if not 1 <= len(values) <= PRIME:
            raise ValueError("a hashed code needs at least one bucket")
        return cls(values, shape_in(meta), integer_in(meta, "seed", 0, PRIME - 1))
