"""One row of the rivals' table: a script or our command line in a process of its own, then the file it wrote judged."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

import easycompress
from benchmarks.rivals_field import AUGMENT, SCRIPTS, Ours, Rival
from benchmarks.rivals_measure import answers, paired, stripped
from benchmarks.rivals_tasks import test_split
from benchmarks.zoo import locate

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

LIMIT = 3600.0
"""Seconds that a process may take unless said."""

VERSION = "import importlib.metadata as m, sys; print(m.version(sys.argv[1]))"


@dataclass(frozen=True)
class Settings:
    """Of one row: its name, its model, the model's task, where files go, our budget, interpreters by package."""

    name: str
    model: str
    task: Path
    out: Path
    budget: str
    pythons: dict[str, str]
    anew: bool = False
    """Forget what an earlier run of ours left in its folder."""
    limit: float = LIMIT
    """Seconds that a process may take."""
    known: dict[str, Any] = field(default_factory=dict)
    """The rows so far."""


def folder_of(name: str, out: Path) -> Path:
    """Return where a row's files lie."""
    return out / "rows" / re.sub(r"[^a-z0-9.-]+", "-", name.lower()).strip("-")


def file_of(name: str, out: Path) -> Path | None:
    """Return a row's file that ONNX Runtime runs and that is timed, if it is there; a decoded one isn't timed."""
    path = folder_of(name, out) / "model.onnx"
    return path if path.exists() else None


def interpreter(package: str, pythons: dict[str, str]) -> str:
    """Return the interpreter that has a rival's package."""
    variable = "EASYCOMPRESS_RIVAL_" + package.upper().replace("-", "_")
    return pythons.get(package) or os.environ.get(variable) or sys.executable


def code_lines(path: Path) -> int:
    """Return the lines of a script that its user writes: without blank ones, comments and docstrings."""
    source = re.sub(r'"""(.*?)"""', "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    return sum(1 for line in source.splitlines() if line.strip() and not line.strip().startswith("#"))


def run_rival(rival: Rival, settings: Settings) -> dict[str, Any]:
    """Run a rival's script and return the row."""
    if not rival.script:
        return {"status": "absent", "reason": rival.absent}
    python = interpreter(rival.package, settings.pythons)
    asked = subprocess.run([python, "-c", VERSION, rival.package], capture_output=True, text=True, check=False)  # noqa: S603
    if asked.returncode:
        return {"status": "absent", "reason": f"{rival.package} isn't installed (--python {rival.package}=PATH)"}
    folder = emptied(folder_of(settings.name, settings.out))
    script = SCRIPTS / rival.script
    command = [python, str(script.resolve()), *rival.arguments]
    first = before(rival, settings) if rival.after else None
    if first is not None:
        if first.get("status") != "ok":
            return {"status": "absent", "reason": f"it begins with the file of {rival.after}, which isn't there"}
        command.append(str(folder_of(f"{settings.model} | {rival.after}", settings.out).resolve() / "model.onnx"))
    ended = timed(command, folder, settings)
    row = {"package": rival.package, "version": asked.stdout.strip(), "lines": code_lines(script), **ended}
    row |= {"script": rival.script, "arguments": list(rival.arguments), "floor": rival.floor}
    if first is not None:
        row |= {"lines": row["lines"] + first["lines"], "seconds": round(row["seconds"] + first["seconds"], 1)}
    row |= judged(folder, settings, python, transport=rival.transport)
    return row | ({"reason": f"stopped after {settings.limit:.0f} s, no file"} if ended["exit"] is None else {})


def before(rival: Rival, settings: Settings) -> dict[str, Any]:
    """Return the row that a rival begins with, empty if it isn't known."""
    row: dict[str, Any] = settings.known.get(f"{settings.model} | {rival.after}", {})
    return row


def run_ours(ours: Ours, settings: Settings, options: argparse.Namespace) -> dict[str, Any]:
    """Run our command line and return the row; an interrupted run goes on."""
    folder = folder_of(settings.name, settings.out)
    if settings.anew:
        emptied(folder)
    folder.mkdir(parents=True, exist_ok=True)
    result = folder.resolve() / "result"
    flags = [*ours.flags, "--max-drop", f"{ours.floor}%", *AUGMENT[settings.model], "--seed", "0"]
    flags += [] if "--budget" in flags else ["--budget", settings.budget]
    command = [sys.executable, "-m", "easycompress", "compress", *inputs(settings, options), *flags]
    command += ["-o", str(result), *(["--resume"] if result.exists() else [])]
    ended = timed(command, folder, settings)
    row = {"package": "easycompress", "version": easycompress.__version__, "lines": 1, **ended}
    row |= {"objective": ours.objective, "flags": flags, "floor": ours.floor}
    if not (result / "report.json").exists():
        return row | {"status": "failed", "reason": row["said"][-1] if row["said"] else "no word"}
    report = json.loads((result / "report.json").read_text(encoding="utf-8"))
    row |= {"verdict": report["verdict"], "epochs": sum(step["epochs"] for step in report["steps"])}
    row |= {"kept": [step["action"] for step in report["steps"] if step["verdict"] == "kept"]}
    if ours.objective == "packed":
        unpack = [sys.executable, "-m", "easycompress", "unpack", str(result / "model.ecz"), "-o", "decoded.onnx"]
        subprocess.run(unpack, cwd=folder, check=True, capture_output=True)  # noqa: S603 - our own command
        shutil.copy(result / "model.ecz", folder)
    else:
        shutil.copy(result / "model.onnx", folder)
    return row | judged(folder, settings, sys.executable, transport=ours.objective == "packed")


def inputs(settings: Settings, options: argparse.Namespace) -> list[str]:
    """Return the words that name the model and its data on our command line."""
    if settings.model == "minilm":
        return [str(options.zoo.resolve() / "minilm_sst2"), "--data", f"{SCRIPTS.resolve()}/task.py:splits"]
    path, flags = locate(settings.model, options)
    spread = {name: ",".join(map(str, flags[name])) for name in ("mean", "std")}
    words = [str(path), "--factory", flags["factory"], "--data", flags["data"]]
    return [*words, "--mean", spread["mean"], "--std", spread["std"]]


def emptied(folder: Path) -> Path:
    """Return a folder with nothing in it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def timed(command: list[str], folder: Path, settings: Settings) -> dict[str, Any]:
    """Run a command in `folder`; return its exit code, seconds, load before it and the last lines that it printed."""
    load, begin = os.getloadavg()[0], time.perf_counter()
    environment = {**os.environ, "RIVAL_TASK": str(settings.task.resolve())}
    with (folder / "log.txt").open("w", encoding="utf-8") as log:
        try:
            ended = subprocess.run(  # noqa: S603 - a script of this folder or our own command
                command,
                cwd=folder,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                timeout=settings.limit,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            ended = None
    said = printed(folder)
    return {
        "exit": ended, "seconds": round(time.perf_counter() - begin, 1), "load": round(load, 2),
        "threads": environment.get("OMP_NUM_THREADS", "all"), "processor": platform.machine(), "seed": 0,
        "said": said[-3:],
    }  # fmt: skip


def judged(folder: Path, settings: Settings, python: str, *, transport: bool) -> dict[str, Any]:
    """Return what is measured of the file in `folder`."""
    packed = next(iter([*folder.glob("model.nnc"), *folder.glob("model.ecz")]), None) if transport else None
    onnx_file, program = folder / ("decoded.onnx" if transport else "model.onnx"), folder / "model.pt2"
    plain = {"plain_bytes": (settings.task / "plain.onnx").stat().st_size}
    if onnx_file.exists() and (packed is not None or not transport):
        judged_file = packed or onnx_file
        found: dict[str, Any] = {"status": "ok", "file": judged_file.name, "bytes": bytes_of(judged_file), **plain}
        try:
            found |= paired(settings.task, answers(onnx_file, test_split(settings.task)[0]))
            if not transport:
                found["stripped"] = stripped(onnx_file)
        except Exception as error:  # noqa: BLE001 - a rival's file that doesn't run is a result
            why = re.sub(r"/(?:[\w.@+-]+/)+", ".../", str(error).splitlines()[0])[:300]
            found |= {"status": "failed", "reason": f"its file doesn't run: {why}"}
        return found
    if program.exists():
        found = {"status": "ok", "file": program.name, "bytes": bytes_of(program), **plain}
        asked = [python, str((SCRIPTS / "answers.py").resolve())]
        ended = timed(asked, folder, settings)
        if ended["exit"] == 0:
            return found | paired(settings.task, np.load(folder / "answers.npy"))
        return found | {"status": "failed", "reason": f"its file doesn't run: {ended['said'][-1]}"}
    said = printed(folder)
    return {"status": "failed", "reason": f"no file; {said[-1] if said else 'no word'}"}


def printed(folder: Path) -> list[str]:
    """Return the last lines of a row's log without colours and without the folders of this machine."""
    lines = (folder / "log.txt").read_text(encoding="utf-8", errors="replace").splitlines()[-40:]
    plain = [re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", line).strip() for line in lines]
    return [re.sub(r"/(?:[\w.@+-]+/)+", ".../", line)[:300] for line in plain if line]


def bytes_of(path: Path) -> int:
    """Return the bytes of a file and of the external data that lie beside it under its name."""
    return sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*"))
