"""Whether `--search` pays: a goal with one budget, by the plan's own settings and by a search for better ones.

`python -m benchmarks.search --zoo ZOO --data DATA [--quick] [--hours H] [--only-print]`. Every row is a goal and a
seed, carried out twice by the product, without and with `--search`. The budget is in training epochs, trials included:
equal work whatever else the machine does meanwhile; the processor seconds of both stand beside it. Both results are
judged on the report split, which neither chose anything by. Resumable: what the JSON holds isn't run again.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.zoo import MODELS, locate
from easycompress import __version__, compress

RESULTS = Path(__file__).parent / "results" / "search.json"

WAYS = ("defaults", "search")

CROPPED = {"augment": "flip-crop"}

FEW = 10_000
"""Training images of the rows that are run most often: an epoch of them takes a sixth of the time."""


@dataclass(frozen=True)
class Row:
    """One goal for one model. `search` is what `--search` gets; `quick` rows are those of `--quick`.

    `samples`: the first so many training images are all there are, 0: the whole split.
    """

    model: str
    objective: str
    target: str
    max_drop: str
    budget: str
    search: str
    samples: int = 0
    quick: bool = False

    @property
    def name(self) -> str:
        """What the row is kept under, without its seed."""
        few = f" {self.samples} images" if self.samples else ""
        return f"{self.model} {self.objective} {self.target} {self.max_drop} {self.budget} --search {self.search}{few}"


ROWS = (
    Row("lenet300", "compute", "10x", "0.5%", "60ep", "6", FEW, quick=True),
    Row("lenet5", "compute", "4x", "0.3%", "60ep", "6", FEW, quick=True),
    Row("lenet300", "size", "40x", "0.5%", "60ep", "6", FEW, quick=True),
    Row("lenet5", "size", "10x", "0.2%", "60ep", "6", FEW),
    Row("lenet5", "size", "40x", "0.3%", "60ep", "6", FEW),
    Row("lenet300", "size", "40x", "0.5%", "150ep", "12", FEW),
    Row("lenet300", "size", "40x", "0.5%", "60ep", "6"),
    Row("resnet20", "compute", "2x", "1%", "20ep", "4"),
)

SEEDS = (0, 1, 2)


def carry_out(row: Row, way: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Run one goal one way and return the report's numbers."""
    path, flags = locate(row.model, options)
    goal = {"objective": row.objective, "target": row.target, "max_drop": row.max_drop, "budget": row.budget}
    extra = {"search": row.search} if way == "search" else {}
    own = CROPPED if row.model == "resnet20" else {}
    begin, worked, load = time.perf_counter(), time.process_time(), os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        if row.samples:
            flags |= {"data": str(first(Path(flags["data"]), row.samples, Path(folder) / "few.npz"))}
        report = compress(
            path, **flags, **goal, **extra, **own, seed=seed, split_seed=0, out=Path(folder) / "out"
        ).report
    best = [step for step in report.steps if step.verdict == "kept" and "error" in step.after]
    return {
        "settings": asdict(row), "way": way, "seed": seed, "verdict": report.verdict, "ratio": report.ratio,
        "drop": report.drop.estimate, "upper_95": report.drop.upper_95,
        "select": best[-1].after["quality"] if best else None, "seconds": round(time.perf_counter() - begin, 1),
        "processor_seconds": round(time.process_time() - worked, 1),
        "epochs": sum(step.epochs for step in report.steps), "load": [load, os.getloadavg()[0]],
        "tuning": None if report.tuning is None else report.tuning.model_dump(mode="json"),
        "versions": {"easycompress": __version__, "torch": torch.__version__, "optuna": version("optuna")},
    }  # fmt: skip


def first(source: Path, samples: int, path: Path) -> Path:
    """Write a copy of an .npz with fewer training samples; return its path."""
    with np.load(source) as arrays:
        np.savez(path, **{name: arrays[name][: samples if "train" in name else None] for name in arrays.files})
    return path


def key(row: Row, way: str, seed: int) -> str:
    """Return what one run is kept under."""
    return f"{row.name}, seed {seed}, {way}"


def main() -> None:
    """Run what the JSON doesn't hold yet and print every row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--zoo", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--models", nargs="+", choices=sorted(MODELS))
    parser.add_argument("--quick", action="store_true", help="the small rows, two seeds: at most 20 minutes")
    parser.add_argument("--hours", type=float, help="begin nothing that may take longer than this in all")
    parser.add_argument("--only-print", action="store_true")
    options = parser.parse_args()
    held = read()
    until = None if options.hours is None else time.monotonic() + 3600 * options.hours
    longest: dict[str, float] = {}
    for row in () if options.only_print else ROWS:
        for seed in SEEDS[: 2 if options.quick else None]:
            for way in WAYS:
                wanted = row.quick or not options.quick
                if key(row, way, seed) in held or not wanted or row.model not in (options.models or MODELS):
                    continue
                if until is not None and time.monotonic() + longest.get(row.name, 0.0) > until:
                    break
                found = carry_out(row, way, seed, options)
                longest[row.name] = max(longest.get(row.name, 0.0), found["seconds"])
                held = read() | {key(row, way, seed): found}
                RESULTS.write_text(json.dumps(held, indent=1) + "\n", encoding="utf-8")
                print(line(key(row, way, seed), found), flush=True)
    for name, found in held.items() if options.only_print else ():
        print(line(name, found))


def read() -> dict[str, Any]:
    """Return what is known."""
    return dict(json.loads(RESULTS.read_text(encoding="utf-8"))) if RESULTS.exists() else {}


def line(name: str, found: dict[str, Any]) -> str:
    """Return one run for people."""
    tuning = found["tuning"]
    told = "" if tuning is None else f"; {len(tuning['trials'])} trials, {'used' if tuning['used'] else 'not used'}"
    return (
        f"{name}: {found['verdict']}, {found['ratio']:.2f}x, drop {found['drop']:.2f} "
        f"(at most {found['upper_95']:.2f}), {found['epochs']} epochs in attempts, "
        f"{found['processor_seconds']:.0f} processor s{told}"
    )


if __name__ == "__main__":
    main()
