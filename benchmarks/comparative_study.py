"""The comparative study's tables 1 to 6 on MNIST and three variants of it, and entropy-constrained LC beside them.

    python -m benchmarks.comparative_study --data DATA [--zoo ZOO] [--quick] [--hours H] [--variants ...] [--only-print]

784-100-10 and 784-30-10 nets pruned by magnitude (with an L1 or L2 penalty) and by Optimal Brain Damage to the tables'
levels, HashedNets and small convolutional nets: five runs each, trained as one batched model, each run with weights,
order of samples and written file of its own. DATA holds mnist.npz, and cifar10/ for the image background. Best epochs
are chosen on the 5 000 validation images; accuracy is that of the written files in ONNX Runtime on the 10 000 test
images. A cell that results/comparative_study.json holds is not run again; a killed course goes on at its last level.
--hours: no cell starts later. Nothing of --zoo is needed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import easycompress
from benchmarks.comparative_study_data import VARIANTS, Images, read
from benchmarks.comparative_study_methods import (
    BITS,
    PRUNING,
    SHAPES,
    Bench,
    Pruned,
    convolutional,
    entropy,
    hashed,
    settings_of,
)
from benchmarks.comparative_study_page import lines
from benchmarks.comparative_study_paper import LEVELS
from benchmarks.comparative_study_plot import PLOT, draw, variants
from benchmarks.comparative_study_rows import HASHED_LEVELS, Cell, cells

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

RESULTS = Path(__file__).parent / "results" / "comparative_study.json"

OUT = Path("out/comparative-study")

Found = dict[str, Any]


def known() -> dict[str, Found]:
    """Return the cells that are known."""
    return dict(json.loads(RESULTS.read_text(encoding="utf-8"))) if RESULTS.exists() else {}


def course(bench: Bench, variant: str, method: str) -> Iterator[tuple[Cell, Found]]:
    """Yield the levels of one method that aren't known, in order, each from the nets of the one before."""
    levels = (0, *(level for level in LEVELS[bench.width] if level))
    held = known()
    missing = [level for level in levels if Cell(variant, bench.width, method, f"{level:g}").name not in held]
    if not missing:
        return
    pruned = Pruned(bench, method)
    place = levels.index(missing[0])
    while place and not pruned.load(levels[place - 1]):  # files are gone: again from where there is one
        place -= 1
    for index in range(place, len(levels)):
        found = pruned.start() if index == 0 else pruned.level(levels[index], levels[index - 1])
        yield Cell(variant, bench.width, method, f"{levels[index]:g}"), found


def work(bench: Bench, variant: str) -> Iterator[tuple[Cell, Found]]:
    """Yield every unknown cell of a variant at one width, the tables' first."""
    for method in PRUNING:
        yield from course(bench, variant, method)
    jobs: list[tuple[Cell, Callable[[], Found]]] = [
        (Cell(variant, bench.width, "LC", f"{bits:g}"), lambda bits=bits: entropy(bench, bits))  # type: ignore[misc] # mypy can't type a default in a lambda
        for bits in BITS
    ]
    if bench.width == max(LEVELS):
        for level in HASHED_LEVELS:
            cell = Cell(variant, bench.width, "HashedNet", f"{level:g}")
            jobs.append((cell, lambda level=level: hashed(bench, level)))  # type: ignore[misc] # as above
        for shape in SHAPES:
            cell = Cell(variant, bench.width, "convolutional", str(shape))
            jobs.append((cell, lambda shape=shape: convolutional(bench, shape)))  # type: ignore[misc] # as above
    for cell, job in jobs:
        if cell.name not in known():
            yield cell, job()


def run(options: argparse.Namespace) -> None:
    """Run what isn't known yet, until time is up."""
    end = time.monotonic() + 3600 * options.hours
    for variant in options.variants:
        images: dict[str, Images] | None = None
        for width in options.widths:
            wanted = [cell.name for cell in cells() if (cell.variant, cell.width) == (variant, width)]
            if set(wanted) <= set(known()):
                continue
            images = images or read(options.data, variant)
            folder = OUT / f"{variant.replace(' ', '-')}-{width}"
            folder.mkdir(parents=True, exist_ok=True)
            begin = time.perf_counter()
            for cell, found in work(Bench(images, width, folder), variant):
                about = {
                    "seconds": round(time.perf_counter() - begin, 1), "load": round(os.getloadavg()[0], 2),
                    "seeds": len(found["test"]), "settings": settings_of(cell.method), "versions": versions(),
                }  # fmt: skip
                RESULTS.write_text(json.dumps(known() | {cell.name: found | about}, indent=1) + "\n", encoding="utf-8")
                print(f"{cell.name}: {sum(found['test']) / len(found['test']):.2f} ({about['seconds']} s)", flush=True)
                if time.monotonic() > end:
                    return
                begin = time.perf_counter()


def versions() -> dict[str, str]:
    """Return what the numbers depend on."""
    names = ("torch", "onnxruntime", "numpy")
    own = {"python": platform.python_version(), "easycompress": easycompress.__version__}
    return own | {name: version(name) for name in names}


def main() -> None:
    """Run what is missing and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of mnist.npz and cifar10/")
    parser.add_argument("--zoo", type=Path, help="not used: these nets are trained here")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=VARIANTS)
    parser.add_argument("--widths", nargs="+", type=int, choices=sorted(LEVELS), default=(100, 30))
    parser.add_argument("--quick", action="store_true", help="plain MNIST, for at most 20 minutes")
    parser.add_argument("--hours", type=float, default=float("inf"), help="no cell starts after this time")
    parser.add_argument("--only-print", action="store_true")
    options = parser.parse_args()
    if options.quick:
        options.variants, options.hours = VARIANTS[:1], min(options.hours, 0.3)
    torch.set_num_threads(1)
    if options.data and not options.only_print:
        run(options)
    if variants(known()):
        PLOT.write_text(draw(known()), encoding="utf-8")
    print("\n".join(lines(known())))


if __name__ == "__main__":
    main()
