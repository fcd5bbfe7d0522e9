"""Predicted against reached: what `estimate` says of a target, and what `compress` with the same flags comes to.

`python -m benchmarks.estimate --zoo ZOO --data DATA [--only reached|predicted|fit] [--rows NAME ...] [--again]
[--page docs/estimates.md]`. Resumable: what the JSON holds isn't made again. `--only fit` measures short and long
recoveries of models that aren't judged, and prints the constants of easycompress/estimation/law.py.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.estimate_fit import fitted, recovered
from benchmarks.estimate_page import judge, page, stated
from benchmarks.estimate_rows import FIT, ROWS
from benchmarks.zoo import add_folders, locate
from easycompress import compress, estimate
from easycompress.core.progress import Silent

if TYPE_CHECKING:
    from benchmarks.estimate_rows import Row
    from easycompress.core.outcome import Report

RESULTS = Path(__file__).parent / "results" / "estimate.json"


def place(row: Row, options: argparse.Namespace) -> tuple[Path, dict[str, Any]]:
    """Return a row's model and all its flags."""
    path, flags = locate(row.model, options)
    return path, flags | row.flags


def reached(row: Row, options: argparse.Namespace) -> dict[str, Any]:
    """Carry a row out and return what came of it."""
    model, flags = place(row, options)
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="easycompress-benchmark-") as folder:
        report = compress(model, out=Path(folder) / "out", progress=Silent(), **flags).report
    return {
        "verdict": report.verdict, "ratio": report.ratio, "drop": report.drop.estimate, "n": report.drop.n,
        "at_target": at_target(row, report), "summary": report.summary,
        "seconds": round(time.perf_counter() - begin, 1),
    }  # fmt: skip


def at_target(row: Row, report: Report) -> dict[str, Any] | None:
    """Return the drop of the file at the target, None where no attempt reached it.

    It is the delivered file's on *report*, else the least that one had on *select*.
    """
    if row.target == "max":
        return None
    needed = float(row.target.removesuffix("x"))
    if report.target_met:
        return {"drop": report.drop.estimate, "split": "report"}
    rows = [
        step.before["quality"] is not None and step.after["quality"] is not None and step
        for step in report.steps
        if (step.after["ratio"] or 0.0) >= needed * (1 - 1e-9) and step.action != "search"
    ]
    found = []
    for step in rows:
        if step:
            original = report.steps[0].before["quality"]
            found.append(float(original or 0.0) - float(step.after["quality"] or 0.0))
    return {"drop": min(found), "split": "select"} if found else None


def predicted(row: Row, options: argparse.Namespace) -> dict[str, Any]:
    """Ask for a row and return the answer."""
    model, flags = place(row, options)
    said = estimate(model, **flags)
    found: dict[str, Any] = {"seconds": said.seconds, "summary": said.summary}
    for answer in said.targets:
        found |= answer.model_dump(mode="json", include={"drop", "chance", "ratio", "measured", "untrained", "epochs"})
    for most in said.floors:
        found["ratio"] = most.ratio.model_dump(mode="json")
    return found


def line(name: str, held: dict[str, Any]) -> str:
    """Return one row for people."""
    judged = judge(name, held)
    if judged is None:
        return f"{name}: not both predicted and reached yet"
    return f"{name}: {judged.predicted} predicted, {judged.reached} reached: {'within' if judged.within else 'OUTSIDE'}"


def main() -> None:
    """Make what is missing, print every row, and write the page if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_folders(parser)
    parser.add_argument("--only", choices=("reached", "predicted", "fit"))
    parser.add_argument("--rows", nargs="+", choices=[row.name for row in (*ROWS, *FIT)], metavar="NAME")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--only-print", action="store_true")
    parser.add_argument("--page", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    made = {"fit": (recovered, FIT), "reached": (reached, ROWS), "predicted": (predicted, ROWS)}
    for part, (make, rows) in made.items():
        for row in rows:
            held = read(options.results)
            asked = options.only in (None, part) and row.name in (options.rows or [r.name for r in rows])
            if asked and not options.only_print and (options.again or row.name not in held[part]):
                value = make(row, options)
                held = read(options.results)
                held[part][row.name] = value
                options.results.write_text(json.dumps(held, indent=1) + "\n")
                print(part, row.name, value, flush=True)
    held = read(options.results)
    for row in ROWS:
        print(line(row.name, held), flush=True)
    if held["fit"]:
        print("constants:", fitted(held["fit"]))
    print(stated(held))
    if options.page:
        options.page.write_text(page(held), encoding="utf-8")


def read(path: Path) -> dict[str, Any]:
    """Return what the JSON holds, its parts empty where there is none."""
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return {part: found.get(part, {}) for part in ("fit", "reached", "predicted")}


if __name__ == "__main__":
    main()
