"""The papers' own metrics: storage by formula, additions and multiplications (002, appendix B).

They say how codes compare on paper. What a file weighs is read from the file.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from easycompress.codes.affine import Affine
from easycompress.codes.codebook import Codebook
from easycompress.codes.composed import Additive
from easycompress.codes.hashed import Hashed
from easycompress.codes.lowrank import LowRank
from easycompress.codes.packing import bits_for
from easycompress.codes.sparse import VALUE_BITS, Sparse

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from easycompress.codes.base import Code

FLOAT_BITS = 32
HALF_BITS = 16


@dataclass(frozen=True)
class PaperRatios:
    """Reference / compressed: storage by formula (B.1), floating-point additions and multiplications (B.2)."""

    storage: float
    additions: float
    multiplications: float

    def named(self) -> dict[str, float]:
        """Return them under the names that reports use."""
        return {
            "rho_storage_formula": self.storage,
            "rho_additions": self.additions,
            "rho_multiplications": self.multiplications,
        }


def storage_bits(code: Code) -> float:
    """Return a code's bits by the formulas of B.1.

    Codebook: 32 an entry and ceil(log2 k) a weight. Sparse: 16 and the best width of a gap for every pair, fillers
    included. Low rank: 16 a number. Others: what they store.
    """
    if isinstance(code, Codebook):
        k = len(code.entries)
        return float(FLOAT_BITS * k + code.indices.numel() * bits_for(k))
    if isinstance(code, Sparse):
        width, pairs = code.pairs
        return float(pairs * (width + VALUE_BITS))
    if isinstance(code, LowRank):
        return float(HALF_BITS * (code.left.numel() + code.right.numel()))
    if isinstance(code, Additive):
        return sum(storage_bits(part) for part in code.parts)
    return code.bits()


def operations(code: Code) -> tuple[float, float]:
    """Return (additions, multiplications) of one application of a weight, (out, ...), stored as `code` (B.2)."""
    shape = code.shape
    outputs, count = shape[0] if shape else 1, math.prod(shape)
    if isinstance(code, Codebook):
        nonzero = int(torch.count_nonzero(code.entries[code.indices.long()]))
        return float(nonzero), float(min(int(torch.count_nonzero(code.entries)) * outputs, nonzero))
    if isinstance(code, Sparse):
        return float(len(code.positions)), float(len(code.positions))
    if isinstance(code, LowRank):
        both = float(code.left.numel() + code.right.numel())
        return both, both
    if isinstance(code, Additive):
        parts = [operations(part) for part in code.parts]
        return sum(adds for adds, _ in parts), sum(mults for _, mults in parts)
    if isinstance(code, Hashed):
        return float(count), float(min(len(code.values) * outputs, count))
    return float(count), float(min(count, outputs * 255) if isinstance(code, Affine) else count)


def ratios(model: nn.Module, codes: Mapping[str, Code], macs: Mapping[str, int]) -> PaperRatios:
    """Return the papers' ratios of a model whose parameters `codes` store; all others count 32 bits each.

    `macs` are the multiply-accumulates of each module by name; a weight is applied macs / weights times.
    """
    reference = stored = 0.0
    before = adds = mults = 0.0
    for name, parameter in model.named_parameters():
        code = codes.get(name)
        reference += FLOAT_BITS * parameter.numel()
        stored += FLOAT_BITS * parameter.numel() if code is None else storage_bits(code)
        if not name.endswith("weight") or not parameter.numel():
            continue
        work = macs.get(name.rpartition(".")[0], 0)
        times = work / parameter.numel()
        plus, times_done = (parameter.numel(),) * 2 if code is None else operations(code)
        before += work
        adds += plus * times
        mults += times_done * times
    return PaperRatios(reference / max(stored, 1.0), before / max(adds, 1.0), before / max(mults, 1.0))
