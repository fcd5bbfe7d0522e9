"""The LC papers' experiments, with this product's learning-compression, beside what the papers report.

    python -m benchmarks.lc_papers --data DATA --zoo ZOO [--rows NAME ...] [--quick] [--hours H] [--only-print]

A row is kept in results/lc_papers.json as soon as it is done and isn't run again; a killed one goes on at its last
epoch. Test errors are those of the written file in ONNX Runtime; the best epoch of the fine-tuning is chosen on the
select split. --quick: LeNet300, the nested row and table 2. --hours: no row starts later.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import lc
from benchmarks import lc_papers_logistic as logistic
from benchmarks.lc_papers_page import lines
from benchmarks.lc_papers_rows import ROWS
from benchmarks.lc_papers_work import carry_out
from benchmarks.lc_rows import stem_of
from benchmarks.zoo import add_folders

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.lc_papers_rows import PaperRow

RESULTS = Path(__file__).parent / "results" / "lc_papers.json"

LIBRARIES = ("easycompress", "torch", "onnxruntime", "numpy")


def read() -> dict[str, Any]:
    """Return what is known."""
    return dict(json.loads(RESULTS.read_text(encoding="utf-8"))) if RESULTS.exists() else {}


def settings(row: PaperRow) -> dict[str, Any]:
    """Return what was asked for, as JSON."""
    asked = {"model": row.row.model, "augment": row.row.augment, "technique": row.row.technique,
             "recipe": asdict(row.row.recipe)}  # fmt: skip
    return asked if row.first is None else asked | {"first": asdict(row.first.recipe)}


def adopt(row: PaperRow) -> dict[str, Any]:
    """Return the result of benchmarks.lc; nothing where it wasn't run."""
    held = lc.read()["rows"].get(row.name)
    return {} if held is None else held | {"from": "benchmarks.lc", "formula_ratio": held["rho_storage_formula"]}


def surrounded(work: Callable[[], dict[str, Any]], asked: dict[str, Any]) -> dict[str, Any]:
    """Return what was asked for and what `work` finds, with versions and load."""
    load = os.getloadavg()[0]
    found = work()
    return asked | found | {
        "load": [round(load, 2), round(os.getloadavg()[0], 2)],
        "versions": {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES},
    }  # fmt: skip


def planned(options: argparse.Namespace) -> dict[str, Callable[[], dict[str, Any]]]:
    """Return the rows that are wanted, in order: by name, what runs each."""
    found: dict[str, Callable[[], dict[str, Any]]] = {}
    for row in ROWS:
        if row.adopted:
            found[row.name] = partial(adopt, row)
        elif not options.quick or row.quick:
            found[row.name] = partial(surrounded, partial(carry_out, row, options, options.work), settings(row))
    for name, corrections in logistic.ROWS.items():
        asked = {"recipe": asdict(logistic.RECIPE), "corrections": corrections}
        found[name] = partial(surrounded, partial(logistic.carry_out, corrections, options), asked)
    return {name: work for name, work in found.items() if not options.rows or name in options.rows}


def forget(name: str, folder: Path) -> None:
    """Remove a row's checkpoints, which may be of other settings."""
    rows = [row for row in ROWS if row.name == name]
    for stem in {stem_of(part.name, folder) for row in rows for part in (row.row, row.first) if part is not None}:
        for file in folder.iterdir():
            if file.name.startswith(f"{stem.name}."):
                file.unlink()


def run(options: argparse.Namespace) -> None:
    """Run what isn't known yet."""
    end = time.monotonic() + 3600 * options.hours
    for name, work in planned(options).items():
        if (name in read() and not options.again) or time.monotonic() > end:
            continue
        if options.again:
            forget(name, options.work)
        found = work()
        if not found:
            continue
        held = read() | {name: found}  # others may have written meanwhile
        RESULTS.write_text(json.dumps(held, indent=1) + "\n", encoding="utf-8")
        print(f"{name}: {found['seconds']:.0f} s", flush=True)


def main() -> None:
    """Run what isn't known yet and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_folders(parser)
    names = [*(row.name for row in ROWS), *logistic.ROWS]
    parser.add_argument("--rows", nargs="+", choices=names, metavar="NAME", help="; ".join(names).replace("%", "%%"))
    parser.add_argument("--work", type=Path, default=Path("out/lc-papers"), help="folder of checkpoints and files")
    parser.add_argument("--quick", action="store_true", help="LeNet300, table 9 and table 2 only")
    parser.add_argument("--hours", type=float, default=float("inf"), help="no row starts after this time")
    parser.add_argument("--again", action="store_true", help="run rows that have a result already")
    parser.add_argument("--only-print", action="store_true")
    options = parser.parse_args()
    if options.zoo and options.data and not options.only_print:
        options.work.mkdir(parents=True, exist_ok=True)
        run(options)
    print("\n".join(lines(read())))


if __name__ == "__main__":
    main()
