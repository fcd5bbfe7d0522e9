"""What a report's numbers depend on: software, processor and threads."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

PACKAGES = ("easycompress", "torch", "onnx", "onnxruntime", "torch-pruning", "numpy")

FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "asimddp", "i8mm")
"""Processor features that change what int8 costs, and on old ones what it computes."""


def environment(threads: int) -> dict[str, Any]:
    """Return what the numbers depend on: software, processor and threads."""
    found: dict[str, Any] = {"python": platform.python_version(), "system": platform.platform(terse=True)}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed as a package"
    found["processor"], flags = _processor()
    found["features"] = " ".join(feature for feature in FEATURES if feature in flags) or "none known"
    found["threads"] = threads
    return found


def _processor() -> tuple[str, set[str]]:
    name, flags = platform.processor() or platform.machine(), set[str]()
    try:
        with open("/proc/cpuinfo") as file:  # noqa: PTH123 - a kernel file
            for line in file:
                key, _, value = line.partition(":")
                if key.strip() == "model name":
                    name = value.strip()
                elif key.strip() in ("flags", "Features"):
                    flags = set(value.split())
                    break
    except OSError:
        pass  # not Linux: the machine's name says enough
    return name, flags
