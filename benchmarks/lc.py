"""Learning-compression against the numbers it must reach: C steps, file sizes, and trained nets.

    python -m benchmarks.lc --zoo ZOO --data DATA [--rows NAME ...]

Every row is kept in benchmarks/results/lc.json with its settings, seconds and epochs, and isn't run again; a killed row
goes on at its last epoch. Drops are on the report split (the test split), from the written file in ONNX Runtime; the
fine-tuning's best epoch is chosen on the select split.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.lc_rows import ROWS, UNTRAINED, Row, carry_out, carry_out_untrained
from benchmarks.lc_steps import STEPS
from benchmarks.zoo import add_folders

RESULTS = Path(__file__).parent / "results" / "lc.json"


def main() -> None:
    """Run what isn't known yet and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_folders(parser)
    parser.add_argument("--rows", nargs="*", help="names of trained rows; default: all that have no result yet")
    parser.add_argument("--work", type=Path, default=Path("out/lc-benchmark"), help="folder of checkpoints and files")
    parser.add_argument("--again", action="store_true", help="run rows that have a result already")
    parser.add_argument("--only-print", action="store_true", help="print what is known")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    if not options.only_print:
        run(options)
    known = read()
    for name in (row.name for row in (*UNTRAINED, *ROWS)):
        if name in known["rows"]:
            say(name, known["rows"][name])
        else:
            print(f"{name}: not run")
    for name, value in known["steps"].items():
        print(f"{name}: {value}")


def run(options: argparse.Namespace) -> None:
    """Run what isn't known yet, the quick rows first."""
    known = read()

    def wanted(part: str, name: str) -> bool:
        chosen = name in options.rows if options.rows else True
        return chosen and (options.again or name not in known[part])

    for name, step in STEPS.items():
        if wanted("steps", name):
            keep("steps", name, step(options))
    if options.zoo is None:
        return
    for quick in UNTRAINED:
        if wanted("rows", quick.name):
            keep("rows", quick.name, asdict(quick) | carry_out_untrained(quick, options, options.work))
    for row in ROWS:
        if wanted("rows", row.name):
            say(
                row.name,
                keep("rows", row.name, settings(row) | carry_out(row, options, options.work))["rows"][row.name],
            )


def settings(row: Row) -> dict[str, Any]:
    """Return what was asked for, as JSON."""
    return {"model": row.model, "goal": row.goal, "augment": row.augment, "technique": row.technique,
            "biases": row.biases, "recipe": asdict(row.recipe)}  # fmt: skip


def read() -> dict[str, Any]:
    """Return what is known."""
    return dict(json.loads(RESULTS.read_text())) if RESULTS.exists() else {"steps": {}, "rows": {}}


def keep(part: str, name: str, value: dict[str, Any]) -> dict[str, Any]:
    """Write one result beside those that are there by now; return all."""
    known = read()
    known[part][name] = value
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(known, indent=1) + "\n")
    return known


def say(name: str, row: dict[str, Any]) -> None:
    """Print one row of the table."""
    report, select = row["report"]["drop"], row["select"]["drop"]
    print(
        f"{name}: drop {report:.2f} (select {select:.2f}); rho {row['rho_storage_formula']:.1f} by formula, "
        f"model.onnx {row['onnx_ratio']:.1f}x, model.ecz {row['ecz_ratio']:.1f}x; {row['epochs']} epochs, "
        f"{row['seconds']:.0f} s | {row['goal']}",
        flush=True,
    )


if __name__ == "__main__":
    main()
