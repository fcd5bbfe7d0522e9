"""Faults and what came of them: a run is killed, stopped, starved of disk and memory, and resumed. JSON in results.

The task is a small net on scikit-learn's digits, run in forked processes: see `benchmarks.faults_runs`. Every resume is
compared with a run that nobody disturbed: exit code and verdict, and where the budget is in epochs the files to the
byte. `python -m benchmarks.faults`; `--kills 100` random moments, `--interrupts 20`; `--only kill,nan` for some rows,
whose names begin so; what is in the results already is kept, `--again` makes it anew. The page is made by
`--page docs/reliability.md`, from what is there. Mounting small file systems takes root; those rows say so without it.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.faults_more import ROWS
from benchmarks.faults_page import page
from benchmarks.faults_rows import Bench
from benchmarks.faults_runs import Case

RESULTS = Path(__file__).parent / "results" / "faults.json"

Table = dict[str, dict[str, Any]]


def main() -> int:
    """Make the rows that the command line asks for; return 1 where an outcome is not the promised one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100, help="random moments of SIGKILL, over all goals")
    parser.add_argument("--interrupts", type=int, default=20, help="random moments of Ctrl-C")
    parser.add_argument("--only", help="beginnings of row names, with commas between them")
    parser.add_argument("--again", action="store_true", help="make cases anew that are there already")
    parser.add_argument("--scratch", type=Path, help="where to run; default: a temporary folder")
    parser.add_argument("--page", type=Path, help="write the page as Markdown, and make no row")
    given = parser.parse_args()
    table: Table = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if given.page:
        given.page.write_text(page(table))
        return 0
    wanted = tuple((given.only or "").split(","))
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        case = Case(given.scratch or Path(folder))
        case.folder.mkdir(parents=True, exist_ok=True)
        case.make()
        bench = Bench(case, {"kill": given.kills, "ctrl-c": given.interrupts})
        for name, row in ROWS.items():
            if name.startswith(wanted):
                kept = {} if given.again else table.get(name, {}).get("cases", {})
                table[name] = {"done": row.done, "promise": row.promise, "cases": dict(kept)}
                for key, make in row.cases(bench):
                    if key not in kept:
                        table[name]["cases"][key] = make()
                        RESULTS.write_text(json.dumps(table, indent=1) + "\n")
                        print(f"{name}, {key}: {table[name]['cases'][key]}", flush=True)
    wrong = [f"{name}, {key}" for name, row in table.items() for key, case_ in row["cases"].items() if case_["wrong"]]
    print(f"{sum(len(row['cases']) for row in table.values())} cases, {len(wrong)} wrong", *wrong, sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    raise SystemExit(main())
