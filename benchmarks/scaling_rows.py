"""What `benchmarks.scaling` measures."""

from __future__ import annotations

from benchmarks.scaling_work import Net

AXES = {"parameters": "size of the model", "samples": "training samples", "layers": "layers"}
"""What grows, and its name on the page."""

SERIES: dict[str, tuple[Net, ...]] = {
    "parameters": tuple(Net(width, 4, 4_000) for width in (50, 160, 500, 1600, 3200)),
    "samples": tuple(Net(160, 4, samples) for samples in (1_000, 10_000, 100_000, 1_000_000)),
    "layers": tuple(Net(64, depth, 4_000) for depth in (2, 8, 32, 128)),
}


def key(axis: str, net: Net) -> str:
    """Return the name of a row."""
    grown = {"parameters": f"width {net.width}", "samples": f"{net.samples} samples", "layers": f"{net.depth} layers"}
    return f"{axis}: {grown[axis]}"


NETS = {key(axis, net): net for axis, nets in SERIES.items() for net in nets}

WORKERS = {"explore: 1 worker": 1, "explore: 2 workers": 2}

LAUNCHES = {"compress: 1 process": 1, "compress: 2 processes": 2}

_LARGEST = {key(axis, nets[-1]) for axis, nets in SERIES.items()}

QUICK = [name for name in (*NETS, *WORKERS) if name not in _LARGEST]
