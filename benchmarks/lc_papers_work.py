"""How a row of the LC papers' experiments is carried out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.lc_rows import stem_of, train, weigh
from benchmarks.zoo import load_task
from easycompress.codes.codebook import Codebook
from easycompress.codes.composed import Additive
from easycompress.codes.half import Half
from easycompress.codes.lowrank import LowRank
from easycompress.codes.packing import bits_for, gap_bits
from easycompress.codes.sparse import Sparse
from easycompress.lc.factor import factor
from easycompress.lc.papers import storage_bits

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from torch import nn

    from benchmarks.lc_papers_rows import PaperRow
    from easycompress.codes.base import Code

FLOAT = 32


def carry_out(row: PaperRow, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Train a row, write it, read it back, and return its numbers."""
    task = load_task(row.row.model, options)
    first: dict[str, Any] = {}
    model: nn.Module | None = None
    if row.first is not None:
        model, codes, found = train(row.first, task, folder)
        weighed = weigh(task, model, codes, stem_of(row.first.name, folder))
        first = {"ratio": ratio(task.model, model, codes, row.formula), "ranks": ranks(codes), **found} | {
            name: weighed[name] for name in ("select", "report", "onnx_bytes", "ecz_bytes", "onnx_ratio", "ecz_ratio")
        }
        factor(model, codes)
    model, codes, found = train(row.row, task, folder, model)
    found |= weigh(task, model, codes, stem_of(row.row.name, folder))
    found |= {"formula_ratio": ratio(task.model, model, codes, row.formula), "ranks": ranks(codes)}
    if row.first is not None:  # these count against the net as it is, which has other layers than the original
        for name in ("rho_storage_formula", "rho_additions", "rho_multiplications", "formula_bytes", "ideal_bytes"):
            del found[name]
        found |= {"first": first, "seconds": found["seconds"] + first["seconds"],
                  "epochs": found["epochs"] + first["epochs"]}  # fmt: skip
    return found


def ranks(codes: dict[str, Code]) -> dict[str, int]:
    """Return the ranks of the weights that are low rank, or have a part that is."""
    parts = [
        (name, part) for name, code in codes.items() for part in (code.parts if isinstance(code, Additive) else (code,))
    ]
    return {name: part.rank for name, part in parts if isinstance(part, LowRank)}


def ratio(original: nn.Module, model: nn.Module, codes: dict[str, Code], formula: str) -> float:
    """Return the storage ratio by a paper's formula over the original; what has no code counts 32 bits a number."""
    before = sum(FLOAT * parameter.numel() for parameter in original.parameters())
    after = 0.0
    for name, parameter in model.named_parameters():
        if name not in codes:
            after += FLOAT * parameter.numel()
        else:
            after += bits_000(codes[name]) if formula == "000" else storage_bits(codes[name])
    return before / after


def bits_000(code: Code) -> float:
    """Return a code's bits by 000, section IV-A: like 002's, but kept values and factors of 32 bits.

    A matrix whose rank saves nothing is stored as it is.
    """
    if isinstance(code, Codebook):
        return float(FLOAT * len(code.entries) + code.indices.numel() * bits_for(len(code.entries)))
    if isinstance(code, Sparse):
        width, pairs = gap_bits(code.positions, FLOAT)
        return float(pairs * (width + FLOAT))
    if isinstance(code, LowRank):
        return float(FLOAT * min(code.left.numel() + code.right.numel(), code.dense().numel()))
    if isinstance(code, Half):
        return float(FLOAT * code.dense().numel())
    raise TypeError(f"000 has no formula for {type(code).__name__}")
