"""The comparative study's tables as Markdown: our accuracies, the study's, and how far they are apart."""

from __future__ import annotations

from statistics import fmean, stdev
from typing import Any

from benchmarks.comparative_study_methods import BITS, PRUNING, SHAPES
from benchmarks.comparative_study_paper import LEVELS, STUDY, VARIANTS
from benchmarks.comparative_study_plot import PLOT, variants
from benchmarks.comparative_study_reasons import NEAR, lower, lower_cells, reason
from benchmarks.comparative_study_rows import HASHED_LEVELS, Cell, cells
from benchmarks.markdown import NOT_RUN, count, table

Held = dict[str, Any]

COMMAND = "python -m benchmarks.comparative_study_reasons --data ../shared/data"

INTRODUCTION = (
    "*The study*: Baktash, Natale and Viennot, A comparative study of neural network compression, 2019. "
    "Mean accuracy ± standard deviation of 5 runs in percent, on the 10 000 test images (the study's: 12 000), of the "
    "written files; the study's own beside it, and the distance where ours is lower. Ours: one course through the "
    "levels, each from the nets of the level before, with the product's saliencies, masks, penalties and training; the "
    "study's epochs aren't printed. Its variants are made here from MNIST as their source says: rotation, noise, and "
    "patches of CIFAR-10 in place of 20 unnamed photographs; only its column *mnist* is the same data. HashedNet and "
    "convolutional nets are drawn in the study's figures without numbers. LC: entropy-constrained learning-compression "
    "under a budget of bits a weight, beside the pruned nets of at least as many bytes (`model.ecz`, all of it)."
)


def lines(held: Held) -> list[str]:
    """Return the lines of the section."""
    done = sum(cell.name in held for cell in cells())
    parts = [INTRODUCTION, f"{done} of {len(cells())} cells are run. {_summary(held)}"]
    if variants(held):
        parts.append(f"![Accuracy against weights and against bytes](results/{PLOT.name})")
    for width in LEVELS:
        for method in PRUNING:
            number = STUDY[width, method, VARIANTS[0], LEVELS[width][0]][2]
            parts += [f"### {method}, {width} hidden units (table {number})", pruned(held, width, method)]
    parts += ["### Behind the study", behind(held)]
    parts += ["### Entropy-constrained LC beside pruning", compared(held)]
    parts += ["### HashedNet and small convolutional nets", others(held)]
    return "\n\n".join(parts).splitlines()


def pruned(held: Held, width: int, method: str) -> str:
    """Return one of the study's tables: ours, then the study's in brackets."""
    head = ["edges removed", *VARIANTS]
    rows = []
    for level in LEVELS[width]:
        row = [f"{level:g} %"]
        for variant in VARIANTS:
            theirs = STUDY[width, method, variant, level]
            found = held.get(Cell(variant, width, method, f"{level:g}").name)
            ours = NOT_RUN if found is None else _mean(found["test"])
            far = "" if found is None or lower(found, theirs) <= NEAR else f", {-lower(found, theirs):.2f}"
            row.append(f"{ours} ({theirs[0]:.2f} ± {theirs[1]:.2f}{far})")
        rows.append(row)
    return table(head, rows)


def behind(held: Held) -> str:
    """Return where our accuracies are lower than the study's, by how much at most, and why."""
    rows = []
    for (width, method, variant), worse in lower_cells(held).items():
        at = ", ".join(f"{level:g} % ({points:.2f})" for level, points in worse.items())
        rows.append([f"{method}, {width} units", variant, at, reason(width, method, variant, worse)])
    if not rows:
        return "No cell that was run is more than 0.1 points lower."
    asked = f"Of each row the farthest cell was looked into: `{COMMAND}`."
    return asked + "\n\n" + table(["method", "data", "removed (points lower)", "reason"], rows)


def compared(held: Held) -> str:
    """Return LC's budgets beside the best pruned net of at least as many bytes."""
    head = [
        "data",
        "hidden units",
        "bits a weight",
        "LC",
        "bytes",
        "ratio",
        "best pruned net of at least as many bytes",
        "its bytes",
    ]
    rows = []
    for variant in VARIANTS:
        for width in LEVELS:
            for bits in BITS:
                found = held.get(Cell(variant, width, "LC", f"{bits:g}").name)
                start = [variant, str(width), f"{bits:g}"]
                rows.append([*start, NOT_RUN] if found is None else [*start, *_beside(held, variant, width, found)])
    return table(head, rows)


def _beside(held: Held, variant: str, width: int, found: Held) -> list[str]:
    """Return LC's cells, then the best of each method's smallest net of at least as many bytes."""
    size = fmean(found["ecz_bytes"])
    plain = held.get(Cell(variant, width, "OBD", "0").name)
    ratio = "" if plain is None else f"{fmean(plain['onnx_bytes']) / size:.0f}x"
    ours = [_mean(found["test"]), count(size), ratio]
    larger = []
    for method in PRUNING:
        cells_ = [
            (level, held.get(Cell(variant, width, method, f"{level:g}").name)) for level in LEVELS[width] if level
        ]
        fits = [(fmean(cell["ecz_bytes"]), level, cell) for level, cell in cells_ if cell]
        fits = [entry for entry in fits if entry[0] >= size]
        if fits:
            weight, level, cell = min(fits, key=lambda entry: entry[0])
            larger.append((fmean(cell["test"]), f"{_mean(cell['test'])} ({method}, {level:g} %)", count(weight)))
    return [*ours, *(max(larger)[1:] if larger else ("", ""))]


def others(held: Held) -> str:
    """Return the nets whose accuracies the study only draws, beside magnitude pruning at about as many weights."""
    head = ["data", "net", "weights", "accuracy", "bytes of `model.ecz`", "MagL1 with at most as many weights"]
    rows = []
    for variant in VARIANTS:
        named = [("HashedNet", f"{level:g}", f"HashedNet, {level:g} % saved") for level in HASHED_LEVELS]
        for shape in SHAPES:
            said = (
                f"{shape.channels} channels of {shape.kernel}x{shape.kernel}, stride {shape.stride}, pool {shape.pool}"
            )
            named.append(("convolutional", str(shape), said))
        for method, level, said in named:
            found = held.get(Cell(variant, max(LEVELS), method, level).name)
            if found is None:
                rows.append([variant, said, NOT_RUN])
                continue
            weights = fmean(found["weights"])
            cells_ = [held.get(Cell(variant, max(LEVELS), "MagL1", f"{x:g}").name) for x in LEVELS[max(LEVELS)]]
            fits = [c for c in cells_ if c and fmean(c["weights"]) <= weights * 1.02]
            best = max(fits, key=lambda c: fmean(c["weights"])) if fits else None
            beside = "" if best is None else f"{_mean(best['test'])} with {count(fmean(best['weights']))}"
            rows.append([variant, said, count(weights), _mean(found["test"]), count(fmean(found["ecz_bytes"])), beside])
    return table(head, rows)


def _mean(values: list[float]) -> str:
    return f"{fmean(values):.2f} ± {stdev(values):.2f}" if len(values) > 1 else f"{values[0]:.2f}"


def _summary(held: Held) -> str:
    """Return how many of the tables' cells are reached."""
    run = reached = 0
    for (width, method, variant, level), theirs in STUDY.items():
        found = held.get(Cell(variant, width, method, f"{level:g}").name)
        if found is not None:
            run += 1
            reached += lower(found, theirs) <= NEAR
    return (
        f"Of the study's {len(STUDY)} printed accuracies {run} have ours beside them; {reached} are reached within 0.1."
    )
