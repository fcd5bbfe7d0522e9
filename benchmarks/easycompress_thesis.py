"""The thesis's matrix on the models that are here: what was asked for, and what was really reached.

    python -m benchmarks.easycompress_thesis --data DATA --zoo ZOO [--rows NAME ...] [--quick] [--hours H]

Every row is one `easycompress compress` in a process of its own, whose report.json is read: targets of size, operations
and time at floors of 1, 3 and 5 points, the most that a floor permits, and techniques alone and combined. A row that
results/easycompress_thesis.json holds is not run again; a killed one goes on in its folder. --hours: no row starts
later. Latency is judged at batch 1 on one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

import easycompress
from benchmarks.easycompress_thesis_page import lines
from benchmarks.easycompress_thesis_rows import AUGMENT, MODELS, QUICK, Row, rows
from benchmarks.zoo import MODELS as ZOO
from benchmarks.zoo import add_folders

RESULTS = Path(__file__).parent / "results" / "easycompress_thesis.json"

OUT = Path("out/easycompress-thesis")

QUICK_HOURS = 0.3
"""With --quick no row starts later, so that all is over in 20 minutes."""

LIBRARIES = ("torch", "onnxruntime", "numpy")


def command(row: Row, options: argparse.Namespace, out: Path) -> list[str]:
    """Return the command line of a row, with the caller's own folders."""
    data, budget = MODELS[row.model]
    flags = ZOO[row.model]
    numbers = [value for name in ("mean", "std") for value in (f"--{name}", ",".join(map(str, flags[name])))]
    line = [
        "easycompress", "compress", str(options.zoo / f"{row.model}.safetensors"),
        "--factory", f"{options.zoo}/models.py:{row.model}", "--data", str(options.data / flags["data"]), *numbers,
        "--augment", AUGMENT[data], "--objective", row.objective, "--target", row.target,
        "--max-drop", f"{row.floor}%", "--format", "packed" if row.packed else "onnx", "--budget", budget,
        "--threads", "1", "--seed", str(row.seed), "--resume", "--quiet", "-o", str(out),
    ]  # fmt: skip
    if row.steps:
        recipe = out.with_suffix(".yaml")
        recipe.write_text(yaml.safe_dump({"steps": [dict(step) for step in row.steps]}), encoding="utf-8")
        line += ["--recipe", str(recipe)]
    return line


def _placeless(line: list[str], options: argparse.Namespace) -> list[str]:
    """Return a command line that says ZOO and DATA: where the folders lay is nobody's business."""
    return [word.replace(str(options.zoo), "ZOO").replace(str(options.data), "DATA") for word in line]


def carry_out(row: Row, options: argparse.Namespace) -> dict[str, Any]:
    """Run one row and return what its report says."""
    OUT.mkdir(parents=True, exist_ok=True)
    out = OUT / row.name.replace(" ", "-").replace("+", "and")
    line = command(row, options, out)
    load, begin = os.getloadavg()[0], time.perf_counter()
    done = subprocess.run([sys.executable, "-m", *line], capture_output=True, text=True, check=False)  # noqa: S603 - our own program
    found: dict[str, Any] = {
        "command": _placeless(line, options), "exit": done.returncode, "seconds": round(time.perf_counter() - begin, 1),
        "load": [round(load, 2), round(os.getloadavg()[0], 2)], "seed": row.seed,
        "versions": versions(),
    }  # fmt: skip
    report = out / "report.json"
    if done.returncode not in {0, 1} or not report.exists():
        return found | {"message": (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]}
    return found | told(json.loads(report.read_text(encoding="utf-8")))


def versions() -> dict[str, str]:
    """Return what the numbers depend on."""
    known = {"python": platform.python_version(), "easycompress": easycompress.__version__}
    return known | {name: version(name) for name in LIBRARIES}


def told(report: dict[str, Any]) -> dict[str, Any]:
    """Return what a row keeps of a report."""
    before, after, drop = report["baseline"], report["final"], report["drop"]
    times = {
        str(b["batch"]): b["median"] / a["median"]
        for b, a in zip(before["latency_ms"], after["latency_ms"], strict=True)
    }
    return {
        "verdict": report["verdict"], "ratio": report["ratio"], "quality": [before["quality"], after["quality"]],
        "drop": drop["estimate"], "upper_95": drop["upper_95"], "n": drop["n"],
        "size_bytes": [before["size_bytes"], after["size_bytes"]], "macs": [before["macs"], after["macs"]],
        "latency_ratios": times, "epochs": sum(step["epochs"] for step in report["steps"]),
        "kept": [step["action"] for step in report["steps"] if step["verdict"] == "kept"],
        "summary": report["summary"],
    }  # fmt: skip


def read() -> dict[str, Any]:
    """Return what is known."""
    return dict(json.loads(RESULTS.read_text(encoding="utf-8"))) if RESULTS.exists() else {}


def main() -> None:
    """Run what the JSON doesn't hold yet and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_folders(parser)
    parser.add_argument("--rows", nargs="+", choices=[row.name for row in rows()], metavar="NAME")
    parser.add_argument("--quick", action="store_true", help="LeNet5 at a floor of one point: at most 20 minutes")
    parser.add_argument("--hours", type=float, default=float("inf"), help="no row starts after this time")
    parser.add_argument("--again", action="store_true", help="run rows that the JSON already holds")
    parser.add_argument("--only-print", action="store_true")
    options = parser.parse_args()
    hours = min(options.hours, QUICK_HOURS) if options.quick else options.hours
    end = time.monotonic() + 3600 * hours
    wanted = options.rows or (QUICK if options.quick else [row.name for row in rows()])
    for row in rows() if options.zoo and options.data and not options.only_print else ():
        held = read()
        if row.name not in wanted or (row.name in held and not options.again) or time.monotonic() > end:
            continue
        if options.models and row.model not in options.models:
            continue
        found = carry_out(row, options)
        held = read() | {row.name: found}  # others may have written meanwhile
        RESULTS.write_text(json.dumps(held, indent=1) + "\n", encoding="utf-8")
        print(f"{row.name}: {found.get('summary', found.get('message'))} ({found['seconds']:.0f} s)", flush=True)
    print("\n".join(lines(read())))


if __name__ == "__main__":
    main()
