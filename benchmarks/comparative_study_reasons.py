"""Whether more epochs close the distance where our pruned nets stay behind the comparative study's.

    python -m benchmarks.comparative_study_reasons --data DATA

Of every method, width and variant of the data that stays behind somewhere, the farthest cell is pruned and trained
again from the same nets, those of the level before, with TIMES the epochs. The nets are those that
`benchmarks.comparative_study` has left in out/; where they are gone its course to that level is run again. The answers,
kept in results/comparative_study_reasons.json, stand beside the distances in its section of RESULTS.md.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from benchmarks.comparative_study_data import read
from benchmarks.comparative_study_methods import AFTER, BETWEEN, PRUNING, Bench, Pruned
from benchmarks.comparative_study_paper import LEVELS, STUDY, VARIANTS
from benchmarks.comparative_study_rows import Cell

RESULTS = Path(__file__).parent / "results" / "comparative_study_reasons.json"

OUT = Path("out/comparative-study")

TIMES = 3

NEAR = 0.1
"""Points below the study's mean that count as the same."""

Held = dict[str, Any]


def lower(found: Held, theirs: tuple[float, float, int]) -> float:
    """Return by how many points the mean of our runs is lower than the study's."""
    return theirs[0] - fmean(found["test"])


def lower_cells(held: Held) -> dict[tuple[int, str, str], dict[float, float]]:
    """Return by width, method and variant the levels at which ours are lower, and by how many points."""
    found = {}
    for width in LEVELS:
        for method in PRUNING:
            for variant in VARIANTS:
                cells = {level: held.get(Cell(variant, width, method, f"{level:g}").name) for level in LEVELS[width]}
                far = {level: lower(c, STUDY[width, method, variant, level]) for level, c in cells.items() if c}
                far = {level: points for level, points in far.items() if points > NEAR}
                if far:
                    found[width, method, variant] = far
    return found


def known() -> Held:
    """Return the answers that are known, by the cell's name."""
    return dict(json.loads(RESULTS.read_text(encoding="utf-8"))) if RESULTS.exists() else {}


def reason(width: int, method: str, variant: str, far: dict[float, float]) -> str:
    """Return what more epochs did to the farthest of the cells that stay behind."""
    level = max(far, key=lambda each: far[each])
    found = known().get(Cell(variant, width, method, f"{level:g}").name)
    if found is None:
        return "not looked into"
    left = lower(found, STUDY[width, method, variant, level])
    again = f"{level:g} % again from the nets of the level before with {TIMES} times the epochs: "
    again += f"{fmean(found['test']):.2f}"
    return f"too few epochs; {again}, reached" if left <= NEAR else f"not epochs alone; {again}, {left:.2f} lower"


def look(data: Path, held: Held) -> None:
    """Prune and train the farthest cells again, and keep what they come to."""
    for (width, method, variant), far in lower_cells(held).items():
        level = max(far, key=lambda each: far[each])
        levels = (0, *(each for each in LEVELS[width] if each))
        name = Cell(variant, width, method, f"{level:g}").name
        if name in known():
            continue
        images = read(data, variant)
        pruned = Pruned(Bench(images, width, OUT / f"{variant.replace(' ', '-')}-{width}"), method)
        place = levels.index(level)
        _reach(pruned, levels[:place])
        begin = time.perf_counter()
        found = pruned.level(level, levels[place - 1], times=TIMES, keep=False)
        about = {"seconds": round(time.perf_counter() - begin, 1), "epochs": [TIMES * BETWEEN, TIMES * AFTER]}
        RESULTS.write_text(json.dumps(known() | {name: found | about}, indent=1) + "\n", encoding="utf-8")
        print(f"{name}: {fmean(held[name]['test']):.2f} before, {fmean(found['test']):.2f} now", flush=True)


def _reach(pruned: Pruned, levels: tuple[float, ...]) -> None:
    """Take up the nets at the last of these levels; where files are gone, go there again from the last that is kept."""
    for place in reversed(range(len(levels))):
        if pruned.load(levels[place]):
            break
    else:
        place = 0
        pruned.start()
    for level, before in zip(levels[place + 1 :], levels[place:], strict=False):
        pruned.level(level, before)


def main() -> None:
    """Look into what is behind and not looked into yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of mnist.npz and cifar10/")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cells = RESULTS.with_name("comparative_study.json")
    look(options.data, dict(json.loads(cells.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
