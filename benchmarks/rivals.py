"""The rivals and easycompress on the same models, data and runtime: bytes, paired drop, paired latency, lines of code.

    python -m benchmarks.rivals --zoo ZOO --data DATA [--quick | --hours H] [--python PACKAGE=PATH ...] [--only-print]

A rival is a script of rival_scripts/, run in a process of its own by `--python`'s interpreter for its package (else
EASYCOMPRESS_RIVAL_PACKAGE's, else this one); one that isn't there is said to be absent. Ours are runs of the command
line. A row in benchmarks/results/rivals.json isn't run again; `--again NAME ...` runs rows anew. A model's files are
timed in the same alternating blocks, after its rows; `--again latency` does only that, with the files that `--out` has
kept. Latencies speak only from a quiet machine: each says how busy other processes kept it.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.on_ray import rows_on_ray
from benchmarks.rivals_field import EVERY, OURS, RIVALS, Ours, Rival, key
from benchmarks.rivals_measure import latency
from benchmarks.rivals_page import lines
from benchmarks.rivals_run import LIMIT, Settings, file_of, run_ours, run_rival
from benchmarks.rivals_tasks import make_task
from benchmarks.zoo import add_folders

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.on_ray import Job

RESULTS = Path(__file__).parent / "results" / "rivals.json"

QUICK_SECONDS = 20 * 60
"""All that `--quick` takes; a row that would begin later isn't run."""

QUICK_BUDGET, BUDGET = "90s", "20min"
"""What one run of ours may take."""


def rows(models: list[str]) -> list[tuple[str, str, Rival | Ours]]:
    """Return (key, model, who) of every row: a model after the other, its rivals, then ours."""
    order: list[Rival | Ours] = [*RIVALS, *OURS]
    return [(f"{model} | {key(who)}", model, who) for model in models for who in order if model in who.models]


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
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds that a rival may take")
    parser.add_argument("--quick", action="store_true", help="at most 20 minutes, ours with short budgets")
    parser.add_argument("--hours", type=float, default=24.0, help="a row that would begin later isn't run")
    parser.add_argument("--no-latency", action="store_true", help="leave latency to a later `--again latency`")
    parser.add_argument(
        "--ray", metavar="ADDRESS", help="run rows side by side on a Ray cluster; all of it sees the same files"
    )
    parser.add_argument("--only-print", action="store_true")
    return parser.parse_args()


def time_files_of(model: str, held: dict[str, Any], options: argparse.Namespace) -> None:
    """Time a model's files in ONNX Runtime, all in the same blocks; one that is gone keeps its old latency."""
    names = [name for name, _, who in rows([model]) if not who.asks_too_much and timed(held.get(name, {}))]
    files = {name: path for name in names if (path := file_of(name, options.out)) is not None}
    if files:
        found = latency(model, make_task(model, options), list(files.values()))
        for name, measured in zip(files, found, strict=True):
            held[name]["latency"] = measured
            print(name, measured, flush=True)
        keep(held, options.results)


def timed(row: dict[str, Any]) -> bool:
    """Return whether a row's file is one whose latency is compared: a rival's, or of our latency runs."""
    return row.get("status") == "ok" and row.get("file") == "model.onnx" and row.get("objective") in (None, "latency")


def keep(held: dict[str, Any], path: Path) -> None:
    """Write the results so that a kill leaves the old or the new ones."""
    partial = path.with_suffix(".part")
    partial.write_text(json.dumps(held, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)


def main() -> None:
    """Run what isn't known yet and print the tables."""
    options = parsed()
    end = time.monotonic() + (QUICK_SECONDS if options.quick else 3600 * options.hours)
    held: dict[str, Any] = json.loads(options.results.read_text()) if options.results.exists() else {}
    if not options.only_print and (options.zoo is None or options.data is None):
        raise SystemExit("--zoo and --data name the trained models and their data")
    for model in () if options.only_print else options.models or EVERY:
        new = run_rows(model, held, end, options)
        if "latency" in options.again or (new and not options.no_latency and time.monotonic() < end):
            time_files_of(model, held, options)
    print("\n".join(lines(held)))


def run_rows(model: str, held: dict[str, Any], end: float, options: argparse.Namespace) -> int:
    """Run a model's rows that aren't known, none past `end` on the monotonic clock; return how many there were."""
    anew = [part for part in options.again if part != "latency"]
    if options.again and not anew:
        return 0
    budget = options.budget or (QUICK_BUDGET if options.quick else BUDGET)
    pythons = dict(pair.split("=", 1) for pair in options.python)

    def jobs(wave: list[tuple[str, Rival | Ours]]) -> Iterator[Job]:
        for name, who in wave:
            left = end - time.monotonic()
            if left <= 0:
                return
            settings = Settings(
                name, model, make_task(model, options), options.out, budget, pythons,
                anew=name in held, limit=min(options.limit, left), known=held,
            )  # fmt: skip
            arguments = (who, settings) if isinstance(who, Rival) else (who, settings, options)
            yield name, run_rival if isinstance(who, Rival) else run_ours, arguments

    wanted = [
        (name, who)
        for name, _, who in rows([model])
        if chosen(name, options.rows) and (name not in held or chosen(name, anew or ["\n"]))
    ]
    done = 0
    for wave in waves(wanted) if options.ray else [wanted]:
        for name, row in rows_on_ray(options.ray, list(jobs(wave))) if options.ray else here(jobs(wave)):
            if row.get("exit", 0) is None and end - time.monotonic() <= 0:
                continue  # it was stopped by the end of all time, not by its own
            held[name] = row
            keep(held, options.results)
            done += 1
            print(f"{name}: {row}", flush=True)
    return done


def waves(wanted: list[tuple[str, Rival | Ours]]) -> list[list[tuple[str, Rival | Ours]]]:
    """Divide rows into those that need no other's file and those that may: each wave begins when the last is done."""
    first = [pair for pair in wanted if isinstance(pair[1], Rival) and not pair[1].after]
    return [wave for wave in (first, [pair for pair in wanted if pair not in first]) if wave]


def here(jobs: Iterator[Job]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield rows measured in this process, one after the other."""
    return ((name, measure(*arguments)) for name, measure, arguments in jobs)


def chosen(name: str, parts: list[str] | None) -> bool:
    """Return whether a row's name has one of `parts` in it; without parts every row is chosen."""
    return not parts or any(part in name for part in parts)


if __name__ == "__main__":
    main()
