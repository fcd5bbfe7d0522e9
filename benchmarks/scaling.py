"""Time and memory of a whole run against the model's size, its number of layers and the data; one process and two.

    python -m benchmarks.scaling [--rows NAME ...] [--quick] [--hours H] [--only-print]

Every run is a process of its own with the same recipe (four epochs of learning-compression) on nets with generated
data; nothing is read from --data and --zoo. The peak is the system's account of the process (ru_maxrss), Python and
torch included. A row is kept in results/scaling.json as soon as it is done and isn't run again. One thread a process.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.scaling_page import PLOT, draw, lines
from benchmarks.scaling_rows import LAUNCHES, NETS, QUICK, WORKERS
from benchmarks.scaling_work import compress, measure_explore, measure_launch, measure_net
from benchmarks.zoo import add_folders

if TYPE_CHECKING:
    from collections.abc import Callable

RESULTS = Path(__file__).parent / "results" / "scaling.json"

LIBRARIES = ("easycompress", "torch", "onnxruntime", "numpy")


def work() -> dict[str, tuple[dict[str, Any], Callable[[Path], dict[str, Any]]]]:
    """Return every row by name: its settings, and what measures it in a folder."""
    found: dict[str, tuple[dict[str, Any], Callable[[Path], dict[str, Any]]]] = {}
    for name, net in NETS.items():
        found[name] = (asdict(net), partial(measure_net, net))
    for name, workers in WORKERS.items():
        found[name] = ({"workers": workers}, partial(measure_explore, workers))
    for name, processes in LAUNCHES.items():
        found[name] = ({"processes": processes}, partial(measure_launch, processes))
    return found


def read() -> dict[str, Any]:
    """Return what is known."""
    return dict(json.loads(RESULTS.read_text(encoding="utf-8"))) if RESULTS.exists() else {}


def run(options: argparse.Namespace) -> None:
    """Measure what isn't known yet."""
    end = time.monotonic() + 3600 * options.hours
    for name, (settings, measure) in work().items():
        wanted = name in (options.rows or (QUICK if options.quick else work()))
        if not wanted or (name in read() and not options.again) or time.monotonic() > end:
            continue
        load = os.getloadavg()[0]
        with tempfile.TemporaryDirectory(prefix="easycompress-scaling-") as folder:
            found = settings | measure(Path(folder).resolve())
        found |= {
            "load": [round(load, 2), round(os.getloadavg()[0], 2)],
            "versions": {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES},
        }
        held = read() | {name: found}
        RESULTS.write_text(json.dumps(held, indent=1) + "\n", encoding="utf-8")
        print(f"{name}: {found['seconds']:.0f} s, {found['peak_bytes'] / 1e9:.2f} GB", flush=True)


def main() -> None:
    """Measure what isn't known yet, draw it and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_folders(parser)
    parser.add_argument("--rows", nargs="+", choices=list(work()), metavar="NAME", help=", ".join(work()))
    parser.add_argument("--quick", action="store_true", help="without the largest of each kind")
    parser.add_argument("--hours", type=float, default=float("inf"), help="no row starts after this time")
    parser.add_argument("--again", action="store_true", help="measure rows that have a result already")
    parser.add_argument("--only-print", action="store_true")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(compress(options.measure)))
        return
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if not options.only_print:
        run(options)
    held = read()
    PLOT.write_text(draw(held), encoding="utf-8")
    print("\n".join(lines(held)))


if __name__ == "__main__":
    main()
