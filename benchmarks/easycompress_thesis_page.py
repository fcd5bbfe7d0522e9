"""The thesis's matrix as Markdown: what was reached here, beside what the thesis prints."""

from __future__ import annotations

from typing import Any

from benchmarks.easycompress_thesis_rows import (
    COMBINED,
    FLOORS,
    MODELS,
    PRINTED,
    REACHED,
    TARGETS,
    Printed,
    Row,
    rows,
)
from benchmarks.markdown import NOT_RUN, table

Json = dict[str, Any]

SHARES: dict[str, tuple[float, ...]] = {
    "size": (0.5, 0.25, 0.01),
    "compute": (0.5, 0.25, 0.1),
    "latency": (0.75, 0.5, 0.25),
}
"""What the thesis's cells are of their baselines; its rows of size -90 %, called 10x, are a quarter, not a tenth."""

UNITS = {"size": "MB", "compute": "GFLOPS", "latency": "ms"}

NAMES = {"size": "bytes", "compute": "MACs", "latency": "time"}

INTRODUCTION = (
    "One run of `easycompress compress` a row, in a process of its own, latency at batch 1 on one thread. *Reached* is "
    "measured on the written file, the drop on all test samples with the most that it is with 95 % confidence; in "
    "brackets behind the seconds the machine's load average, where two processors are busy at 2. The "
    "thesis's models (ResNet-50, VGG-16, EfficientNet-B4) and its trained weights are not here, so drops are compared "
    "on other, much smaller nets: its cells stand beside ours as what it promises, not as a measurement to be matched. "
    "*The thesis*: Abel van Steenweghen, EasyCompress: automated compression for deep learning models, TU Delft."
)


def lines(held: Json) -> list[str]:
    """Return the lines of the section."""
    parts = [INTRODUCTION, _cells(), "### Asked for", asked(held), "### The most that a floor permits", reach(held)]
    return "\n\n".join([*parts, "### Techniques alone and combined, at half the size", techniques(held)]).splitlines()


def _head(what: str, theirs: str) -> list[str]:
    """Return the columns of a table; the third says what was asked for, the last what the thesis has there."""
    return ["model", "data", what, "floor", "reached", "drop", "verdict", "kept", "seconds (load)", theirs]


def asked(held: Json) -> str:
    """Return the rows with a target."""
    head = _head("asked", "the thesis prints")
    return table(head, [_line(row, held, [_printed(row)]) for row in rows() if row.family == "target"])


def reach(held: Json) -> str:
    """Return the rows that ask for the most within a floor."""
    head = _head("objective", "the thesis's three models, its tables 4 and 5")
    return table(head, [_line(row, held, [_claimed(row)]) for row in rows() if row.family == "reach"])


def techniques(held: Json) -> str:
    """Return the rows of given techniques."""
    head = _head("techniques", "its table 2")
    found = []
    for row in rows():
        if row.family == "techniques":
            points = COMBINED.get(row.technique)
            said = "" if points is None else f"{', '.join(f'{p:g}' for p in points)} points on CIFAR-10"
            found.append(_line(row, held, [said]))
    return table(head, found)


def _line(row: Row, held: Json, rest: list[str]) -> list[str]:
    """Return one row: what was asked, what was reached, and `rest`."""
    asked_for = row.technique or f"{NAMES[row.objective]}{' (packed)' if row.packed else ''}"
    if row.family == "target":
        asked_for += f" {row.target}"
    floor = "none" if row.family == "techniques" else f"{row.floor}"
    seed = f", seed {row.seed}" if row.seed else ""
    start = [row.model + seed, MODELS[row.model][0], asked_for, floor]
    found = held.get(row.name)
    if found is None:
        return [*start, NOT_RUN, "", "", "", "", *rest]
    seconds = f"{found['seconds']:.0f} ({max(found['load']):.1f})"
    if "verdict" not in found:
        return [*start, f"exit {found['exit']}", "", " ".join(found["message"]), "", seconds, *rest]
    return [
        *start, reached(row, found), f"{found['drop']:.2f} ({found['upper_95']:.2f})", found["verdict"],
        " + ".join(action for action in found["kept"] if action != "search"), seconds, *rest,
    ]  # fmt: skip


def reached(row: Row, found: Json) -> str:
    """Return the objective's ratio, and in brackets the other two."""
    ratios = {
        name: before / after for name, (before, after) in (("size", found["size_bytes"]), ("compute", found["macs"]))
    }
    ratios["latency"] = next(iter(found["latency_ratios"].values()))
    others = ", ".join(f"{NAMES[name]} {ratio:.2f}x" for name, ratio in ratios.items() if name != row.objective)
    return f"**{found['ratio']:.2f}x** ({others})"


def _printed(row: Row) -> str:
    """Return what the thesis prints for the same data, objective and target."""
    cells = PRINTED[MODELS[row.model][0], row.objective][TARGETS[row.objective].index(row.target)]
    drops = ", ".join(f"{cell.model} {cell.before - cell.after:+.1f}" for cell in cells)
    return f"table {cells[0].table}, points lost: {drops}"


def _claimed(row: Row) -> str:
    return ", ".join(REACHED[MODELS[row.model][0], row.objective][FLOORS.index(row.floor)])


def equals(cell: Printed, share: float) -> bool:
    """Tell whether a cell is its baseline times a share, rounded to one decimal either way."""
    return abs(cell.baseline * share - cell.cell) <= 0.05 + 1e-9


def _cells() -> str:
    """Return how many of the thesis's cells are computed from the target."""
    equal = total = 0
    other: list[str] = []
    for (data, objective), targets in PRINTED.items():
        for share, cells in zip(SHARES[objective], targets, strict=True):
            for cell in cells:
                total += 1
                equal += equals(cell, share)
                if not equals(cell, share):
                    want = f"{cell.baseline:g} x {share:g} = {cell.baseline * share:g}"
                    other.append(f"{cell.model} on {data}: {cell.cell:g} {UNITS[objective]} for {want}")
    quarters = sum(equals(cell, 0.25) for data in ("MNIST", "CIFAR-10") for cell in PRINTED[data, "size"][1])
    rest = f" (the others: {'; '.join(other)})" if other else ""
    return (
        f"Of the {total} cells of size, operations and time that the thesis prints for MNIST and CIFAR-10 (tables 8, "
        f"10, 12, 13, 16, 17), {equal} equal baseline x target to the printed decimal{rest}, as computed numbers do; "
        f"measured ones would overshoot. The rows of size called 10x print a quarter of the baseline in {quarters} of "
        f"{quarters_of()} cells. Table 10 stands for CIFAR-10: tables 9 and 10 are exchanged, as the baselines of "
        "tables 13 and 14 show."
    )


def quarters_of() -> int:
    """Return the number of cells of size called 10x."""
    return sum(len(PRINTED[data, "size"][1]) for data in ("MNIST", "CIFAR-10"))
