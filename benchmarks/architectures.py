"""Technique by architecture: works, or is refused with a reason. A table, and its JSON in benchmarks/results.

Each net of `tests.architectures.nets`, tiny and with random weights, goes through every technique at a middle strength
with two epochs of training: the file is written and run in ONNX Runtime on batches of 1, 2, 5 and 64, compared with the
compressed module, and what `load` makes of the record is compared bit for bit. `python -m benchmarks.architectures`;
`--only lstm,gru` and `--techniques lc,float16` for a part, which changes those cells of the results alone. Cells that
are there are kept, `--again` makes them anew. `--page docs/architectures.md` writes the results as a page.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.architectures_page import page, summary
from easycompress.techniques import TECHNIQUES
from tests.architectures.cells import Cell, cell, planned
from tests.architectures.nets import KINDS

RESULTS = Path(__file__).parent / "results" / "architectures.json"
OBJECTIVES = ("size", "latency", "compute")


def main() -> int:
    """Run the cells that the command line asks for; return 1 where one is wrong or crashes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="architectures, with commas between them")
    parser.add_argument("--techniques", help="techniques, with commas between them; `plan` for the plans")
    parser.add_argument("--again", action="store_true", help="make cells anew that are there already")
    parser.add_argument("--page", type=Path, help="write the table as Markdown, and make no cell")
    given = parser.parse_args()
    kinds = given.only.split(",") if given.only else list(KINDS)
    columns = given.techniques.split(",") if given.techniques else [*(t.name for t in TECHNIQUES), "plan"]
    torch.set_num_threads(1)
    table: dict[str, dict[str, Any]] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if given.page:
        given.page.write_text(page(table))
        return 0
    for kind in kinds:
        row = table.setdefault(kind, {})
        for column in columns:
            if given.again or column not in row:
                row[column] = _plans(kind) if column == "plan" else _stored(_cell(kind, column))
                RESULTS.write_text(json.dumps(table, indent=1, sort_keys=True) + "\n")
        print(_line(kind, row), flush=True)
    print(summary(table))
    faults = [f"{kind}, {name}: {entry['reason']}" for kind, row in table.items() for name, entry in row.items()
              if entry["state"] in ("wrong", "crash")]  # fmt: skip
    print("\n".join(faults))
    return 1 if faults else 0


def _cell(kind: str, technique: str) -> Cell:
    with tempfile.TemporaryDirectory() as folder:
        return cell(kind, technique, Path(folder))


def _stored(made: Cell) -> dict[str, Any]:
    numbers = {name: float(f"{value:.3g}") for name, value in dataclasses.asdict(made).items()
               if isinstance(value, float) and not math.isnan(value)}  # fmt: skip
    return {"state": made.state, "reason": made.reason, **numbers}


def _plans(kind: str) -> dict[str, Any]:
    """Return what the plan for each objective consists of, or why there is none."""
    made = {objective: planned(kind, objective) for objective in OBJECTIVES}
    crashed = [f"{objective}: {text}" for objective, (state, text) in made.items() if state == "crash"]
    shown = {objective: text for objective, (_, text) in made.items()}
    return {"state": "crash" if crashed else "works", "reason": "; ".join(crashed), **shown}


def _line(kind: str, row: dict[str, Any]) -> str:
    shown = []
    for name, entry in row.items():
        ratio = f" {entry['ratio']:.1f}x" if "ratio" in entry else ""
        shown.append(f"{name}{ratio}" if entry["state"] == "works" else f"{name} {entry['state']}")
    return f"{kind:20} " + ", ".join(shown)


if __name__ == "__main__":
    raise SystemExit(main())
