"""A Ray cluster of two nodes on this machine, one of which is killed in mid-run: nothing may be lost.

    python -m benchmarks.cluster --zoo ZOO --data DATA [--models NAME] [--quick] [--hours H] [--only-print]

`explore`: all points of some curves, by this process alone and by the cluster whose second node is killed while it is
at work: the same points with the same bytes and quality. `rivals`: rows of benchmarks.rivals with --ray, likewise.
Each row is kept in results/cluster.json as soon as it is done and isn't run again, unless `--again`. The nodes are
processes of this machine, and what they say goes over its loopback: what a slow network does isn't seen here.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.cluster_page import lines
from benchmarks.zoo import DEMO, add_folders, locate
from easycompress import __version__, explore

if TYPE_CHECKING:
    from easycompress.exploration.run import Exploration

RESULTS = Path(__file__).parent / "results" / "cluster.json"

CURVES = ("prune", "quantize", "int8", "structured")
QUICK_CURVES = ("prune", "int8")

EPOCHS = 1
"""Of every point: what is asked is whether it arrives."""

KILLED_AFTER = 3
"""Points, or rows, that are done when the second node is killed."""

RIVALS = (
    "lenet5 | onnxruntime static int8",
    "lenet5 | onnxruntime static int8, signed activations",
    "lenet5 | onnxruntime dynamic int8",
    "lenet5 | Torch-Pruning to half",
    "lenet5 | Torch-Pruning to half + int8",
)
"""Rows of rivals that are easycompress's own dependencies; the last one begins with the file of the one before."""


class Nodes:
    """Two nodes with one processor each; the second one is killed as told."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster  # noqa: PLC0415 - the optional extra `scale`

        node = {"num_cpus": 1, "include_dashboard": False}
        self.cluster: Any = Cluster(initialize_head=True, head_node_args=node)
        self.second: Any = self.cluster.add_node(**node)
        self.cluster.wait_for_nodes()
        self.address: str = self.cluster.address
        self.killed = 0.0

    def kill(self) -> None:
        """Kill the second node's processes at once, as a power cut would."""
        if not self.killed:
            self.killed = time.monotonic()
            self.cluster.remove_node(self.second, allow_graceful=False)

    def close(self) -> None:
        """End the cluster."""
        self.cluster.shutdown()


class Heard:
    """Prints what is told, kills the second node after some points, and keeps what was begun anew."""

    def __init__(self, nodes: Nodes | None) -> None:
        self.nodes, self.done, self.anew = nodes, 0, 0

    def say(self, text: str) -> None:
        """Take note."""
        print(text, flush=True)
        self.anew += "is begun anew" in text
        head = text.split(" ", 1)[0]
        self.done += "/" in head and head[0].isdigit()
        if self.nodes is not None and self.done == KILLED_AFTER and not self.nodes.killed:
            threading.Timer(0.5, self.nodes.kill).start()  # while the next points are being measured

    def now(self, text: str) -> None:
        """Ignore."""


def explored(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Explore alone and on the cluster, and compare."""
    curves = QUICK_CURVES if options.quick else CURVES
    alone, seconds, _ = one(name, options, curves, None)
    nodes = Nodes()
    try:
        clustered, cluster_seconds, heard = one(name, options, curves, nodes)
    finally:
        nodes.close()
    expected, found = numbers(alone), numbers(clustered)
    return {
        "model": name,
        "curves": list(curves),
        "epochs": EPOCHS,
        "rows": len(expected),
        "measured": len(found),
        "same": sum(found.get(key) == value for key, value in expected.items()),
        "begun_anew": heard.anew,
        "killed": bool(nodes.killed),
        "seconds": round(cluster_seconds, 1),
        "seconds_alone": round(seconds, 1),
    }


def one(
    name: str, options: argparse.Namespace, curves: tuple[str, ...], nodes: Nodes | None
) -> tuple[Exploration, float, Heard]:
    """Return an exploration, its seconds and what was told."""
    path, flags = locate(name, options)
    heard, begin = Heard(nodes), time.monotonic()
    hands: dict[str, Any] = {} if nodes is None else {"workers": 2, "ray": nodes.address}
    with tempfile.TemporaryDirectory() as folder:
        found = explore(
            path,
            out=Path(folder) / "out",
            epochs=EPOCHS,
            curves=curves,
            max_drop="1%",
            progress=heard,
            **hands,
            **flags,
        )
    return found, time.monotonic() - begin, heard


def numbers(found: Exploration) -> dict[str, tuple[Any, ...]]:
    """Return what doesn't depend on the clock of each measured point, by key."""
    return {
        row.key: (row.size_bytes, row.packed_bytes, row.macs, row.quality, row.loss)
        for row in found.rows
        if row.measured
    }


def rivals(options: argparse.Namespace) -> dict[str, Any]:
    """Run rows of the rivals' benchmark on the cluster, whose second node is killed after the first row."""
    nodes, begin = Nodes(), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "rivals.json"
        command = [
            sys.executable, "-m", "benchmarks.rivals", "--zoo", options.zoo, "--data", options.data, "--models",
            "lenet5", "--rows", *RIVALS, "--no-latency", "--out", f"{folder}/out", "--results", results,
            "--ray", nodes.address,
        ]  # fmt: skip
        running = subprocess.Popen(command, env=os.environ, stdout=subprocess.PIPE, text=True)  # noqa: S603
        assert running.stdout is not None
        for line in running.stdout:
            print(line, end="", flush=True)
            if line.startswith("lenet5 |"):
                nodes.kill()
        running.wait()
        nodes.close()
        held = json.loads(results.read_text()) if results.exists() else {}
    return {
        "model": "lenet5",
        "names": list(RIVALS),
        "rows": len(RIVALS),
        "measured": len(held),
        "ok": sum(row.get("status") == "ok" for row in held.values()),
        "killed": bool(nodes.killed),
        "exit": running.returncode,
        "seconds": round(time.monotonic() - begin, 1),
    }


def main() -> None:
    """Measure what isn't known yet and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_folders(parser)
    parser.add_argument("--quick", action="store_true", help="fewer curves")
    parser.add_argument("--hours", type=float, default=24.0, help="a row that would begin later isn't run")
    parser.add_argument("--again", action="store_true", help="measure rows anew")
    parser.add_argument("--only-print", action="store_true")
    options = parser.parse_args()
    end = time.monotonic() + 3600 * options.hours
    held: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    bare = options.zoo is None or options.data is None
    names = options.models or [DEMO]
    work = {f"explore, {name}": (explored, (name, options)) for name in names}
    if not bare:
        work["rivals, lenet5"] = (rivals, (options,))
    for row, (measure, arguments) in {} if options.only_print else work.items():
        if (row in held and not options.again) or time.monotonic() > end:
            continue
        held[row] = measure(*arguments) | settings()
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(held, indent=1) + "\n", encoding="utf-8")
    print("\n".join(lines(held)))


def settings() -> dict[str, Any]:
    """Return what every row says of its machine."""
    return {
        "versions": {"easycompress": __version__} | {name: version(name) for name in ("ray", "torch", "onnxruntime")},
        "load": round(os.getloadavg()[0], 2),
        "seed": 0,
    }


if __name__ == "__main__":
    main()
