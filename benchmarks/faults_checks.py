"""What a folder of a run holds: files that are whole, and the same as those of another run."""

from __future__ import annotations

import json
import re
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import yaml
from safetensors import safe_open

from easycompress.artifact.container import read_ecz

if TYPE_CHECKING:
    from pathlib import Path

SAME = ("recipe.yaml", "model.onnx", "model.ecz", "model.safetensors", "record.json")
"""Files that must come out to the byte where the budget is in epochs."""

UNFINISHED = re.compile(r"\..+\.\d+\.tmp")
"""What a file is called while it is being written."""


def broken(out: Path) -> list[str]:
    """Return the files of OUT that can't be read from beginning to end; files still being written don't count."""
    found = []
    for path in sorted(out.rglob("*")):
        if path.is_dir() or UNFINISHED.fullmatch(path.name) or any(UNFINISHED.fullmatch(p) for p in path.parts):
            continue
        try:
            _read(path)
        except Exception as error:  # noqa: BLE001 - each format's reader fails in its own way
            found.append(f"{path.relative_to(out)}: {type(error).__name__}")
    return found


def _read(path: Path) -> None:
    if path.suffix == ".json":
        json.loads(path.read_text())
    elif path.suffix == ".npz":
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:
                raise ValueError(path)
        [array.sum() for array in np.load(path).values()]
    elif path.suffix == ".onnx":
        onnx.checker.check_model(onnx.load(str(path)))
    elif path.suffix == ".ecz":
        read_ecz(path)
    elif path.suffix in (".safetensors", ".checkpoint"):
        with safe_open(str(path), framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - not a dict
                file.get_tensor(name)
    elif path.suffix == ".yaml":
        yaml.safe_load(path.read_text())["steps"]
    elif path.suffix == ".html" and not path.read_text().rstrip().endswith("</html>"):
        raise ValueError(path)


def report_of(out: Path) -> dict[str, Any]:
    """Return a finished run's report."""
    found: dict[str, Any] = json.loads((out / "report.json").read_text())
    return found


def differences(out: Path, code: int, reference: Path, reference_code: int, *, bytes_too: bool) -> list[str]:
    """Return in what a finished run differs from the reference: exit code, verdict, files that are there, bytes."""
    found = [] if code == reference_code else [f"exit code {code} instead of {reference_code}"]
    if not ((out / "report.json").exists() and (reference / "report.json").exists()):
        return [*found, "no report, here or in the reference"]
    mine, theirs = report_of(out), report_of(reference)
    if mine["verdict"] != theirs["verdict"]:
        found.append(f"verdict {mine['verdict']} instead of {theirs['verdict']}")
    if _names(out) != _names(reference):
        found.append(f"files {sorted(_names(out) ^ _names(reference))}")
    if bytes_too:
        found += [f"another {key}" for key in ("ratio", "drop", "summary") if mine[key] != theirs[key]]
        present = [name for name in SAME if (reference / name).exists()]
        found += [f"another {n}" for n in present if (out / n).read_bytes() != (reference / n).read_bytes()]
    return found


def _names(out: Path) -> set[str]:
    return {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
