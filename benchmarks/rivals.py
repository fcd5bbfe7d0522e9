"""The rivals and easycompress on the same models, data and runtime: bytes, paired drop, paired latency, lines of code.

    python -m benchmarks.rivals --zoo ZOO --data DATA [--quick | --hours H] [--python PACKAGE=PATH ...] [--only-print]

A rival is a script of rival_scripts/, run in a process of its own by `--python`'s interpreter for its package (else
EASYCOMPRESS_RIVAL_PACKAGE's, else this one); one that isn't there is said to be absent. Ours are runs of the command
line. Every row is kept in benchmarks/results/rivals.json and not run again; `--again latency` times the kept files once
more, `--again NAME ...` runs rows anew. Latencies speak only from a quiet machine: each row says the load it began at.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from benchmarks.rivals_field import EVERY, OURS, RIVALS, Ours, Rival, key
from benchmarks.rivals_measure import latency
from benchmarks.rivals_page import lines
from benchmarks.rivals_run import LIMIT, Settings, file_of, run_ours, run_rival
from benchmarks.rivals_tasks import make_task
from benchmarks.zoo import add_folders

RESULTS = Path(__file__).parent / "results" / "rivals.json"

QUICK_SECONDS = 20 * 60
"""All that `--quick` takes; a row that would begin later isn't run."""

QUICK_BUDGET, BUDGET = "90s", "20min"
"""What one run of ours may take."""


def rows(models: list[str]) -> list[tuple[str, str, Rival | Ours]]:
    """Return (key, model, who) of every row, the quick ones first: rivals, then ours, a model after the other."""
    order: list[Rival | Ours] = [*RIVALS, *OURS]
    return [(f"{model} | {key(who)}", model, who) for who in order for model in models if model in who.models]


def parsed() -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_folders(parser)
    parser.add_argument("--out", type=Path, default=Path("out/rivals"), help="folder of tasks and written files")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--rows", nargs="+", metavar="PART", help="only rows whose name has one of these in it")
    parser.add_argument("--again", nargs="*", default=[], metavar="PART", help="`latency`, or rows to run anew")
    parser.add_argument("--python", nargs="+", default=[], metavar="PACKAGE=PATH", help="a rival's own interpreter")
    parser.add_argument("--budget", help=f"of one run of ours (default {BUDGET})")
    parser.add_argument("--quick", action="store_true", help="at most 20 minutes, ours with short budgets")
    parser.add_argument("--hours", type=float, default=24.0, help="a row that would begin later isn't run")
    parser.add_argument("--no-latency", action="store_true", help="leave latency to a later `--again latency`")
    parser.add_argument("--only-print", action="store_true")
    return parser.parse_args()


def time_again(held: dict[str, Any], wanted: list[tuple[str, str, Rival | Ours]], options: argparse.Namespace) -> None:
    """Time the files of the rows that the JSON holds once more; a file that is gone keeps its old latency."""
    for name, model, _ in wanted:
        path = file_of(name, options.out) if held.get(name, {}).get("file") == "model.onnx" else None
        if path is not None and held[name]["status"] == "ok":
            held[name]["latency"] = latency(model, make_task(model, options), path)
            keep(held, options.results)
            print(name, held[name]["latency"], flush=True)


def keep(held: dict[str, Any], path: Path) -> None:
    """Write the results so that a kill leaves the old or the new ones."""
    partial = path.with_suffix(".part")
    partial.write_text(json.dumps(held, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)


def main() -> None:
    """Run what isn't known yet and print the tables."""
    options = parsed()
    begin = time.monotonic()
    seconds = QUICK_SECONDS if options.quick else 3600 * options.hours
    budget = options.budget or (QUICK_BUDGET if options.quick else BUDGET)
    held: dict[str, Any] = json.loads(options.results.read_text()) if options.results.exists() else {}
    wanted = [row for row in rows(options.models or list(EVERY)) if chosen(row[0], options.rows)]
    if not options.only_print and (options.zoo is None or options.data is None):
        raise SystemExit("--zoo and --data name the trained models and their data")
    if "latency" in options.again and not options.only_print:
        time_again(held, wanted, options)
    anew = [part for part in options.again if part != "latency"]
    for name, model, who in () if options.only_print else wanted:
        if name in held and not chosen(name, anew or ["\n"]):
            continue
        left = seconds - (time.monotonic() - begin)
        if left <= 0:
            break
        folder = make_task(model, options)
        pythons = dict(pair.split("=", 1) for pair in options.python)
        settings = Settings(
            name, model, folder, options.out, budget, pythons,
            times=not options.no_latency, anew=name in held, limit=min(LIMIT, left),
        )  # fmt: skip
        row = run_rival(who, settings) if isinstance(who, Rival) else run_ours(who, settings, options)
        if row.get("exit", 0) is None and left < LIMIT:
            break  # it was stopped by the end of all time, not by its own
        held[name] = row
        keep(held, options.results)
        print(f"{name}: {held[name]}", flush=True)
    print("\n".join(lines(held)))


def chosen(name: str, parts: list[str] | None) -> bool:
    """Return whether a row's name has one of `parts` in it; without parts every row is chosen."""
    return not parts or any(part in name for part in parts)


if __name__ == "__main__":
    main()
