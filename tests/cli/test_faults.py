"""A sample of `python -m benchmarks.faults`, in this process: what a run does when the machine or the user fails it."""

from __future__ import annotations

import itertools
import os
import stat
import time
from typing import TYPE_CHECKING, Any

import pytest
import torch
from typer.core import TyperGroup

from easycompress.core import stopping
from easycompress.executor.journal import state_of
from easycompress.measure import latency

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Ran, Run

FLAGS = (
    "compress", "m.pt", "--factory", "net.py:make", "--data", "d.npz", "--target", "1.5x", "--max-drop", "5%",
    "--budget", "2ep", "--quiet",
)  # fmt: skip

SAME = ("model.onnx", "recipe.yaml", "record.json", "model.safetensors")

LOADER = """
import numpy as np

def batches(split, broken):
    for number, places in enumerate(np.array_split(np.arange(120), 4)):
        if broken and number == 2:
            raise OSError("the share is gone")
        data = np.load("d.npz")
        yield data[f"x_{split}"][places], data[f"y_{split}"][places]

def splits():
    names = {"train": "train", "validation": "val", "test": "test"}
    return {name: batches(short, BROKEN and name == "train") for name, short in names.items()}
"""


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "PATIENCE", 0.0)
    monkeypatch.setattr(latency, "ROUNDS", 1)


@pytest.fixture
def recipe(folder: Path) -> tuple[str, ...]:
    (folder / "r.yaml").write_text("steps: [{kind: distillation}, {kind: float16}]")
    return ("--recipe", "r.yaml")


def said(ran: Ran) -> str:
    assert ran.err.count("\n") == 1, ran
    return ran.err.removeprefix("easycompress: ").rstrip("\n")


def same(folder: Path) -> bool:
    return all((folder / "out" / name).read_bytes() == (folder / "plain" / name).read_bytes() for name in SAME)


def full_from(monkeypatch: pytest.MonkeyPatch, number: int) -> list[int]:
    """Let every write from that one on fail as on a full disk; return where the writes are counted."""
    real, count = os.fsync, [0]

    def fsync(descriptor: int) -> None:
        count[0] += stat.S_ISREG(os.fstat(descriptor).st_mode)
        if count[0] >= number:
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    return count


def test_a_full_disk_and_clocks_that_jump_change_no_byte(
    folder: Path, run: Run, recipe: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        count = full_from(patch, 10**6)
        assert run(*FLAGS, *recipe, "-o", "plain").code == 0
    walls = itertools.cycle((0.0, 4e9, 1e3))
    monkeypatch.setattr(time, "time", lambda: next(walls))
    with monkeypatch.context() as patch:
        full_from(patch, count[0] - 3)  # while the result is written
        ran = run(*FLAGS, *recipe, "-o", "out")
    assert ran.code == 2
    assert "can't be written (No space left on device); free space there, or " in said(ran)
    assert state_of(folder / "out") == "interrupted"
    assert not list((folder).rglob(".*.tmp"))
    assert run(*FLAGS, *recipe, "-o", "out", "--resume").code == 0
    assert same(folder)


@pytest.mark.parametrize("debug", [False, True])
def test_a_loader_that_raises_is_told_and_can_be_mended(
    folder: Path,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    debug: bool,  # noqa: FBT001 - a case
) -> None:
    (folder / "broken.py").write_text(f"BROKEN = True\n{LOADER}")
    if debug:
        monkeypatch.setenv("EASYCOMPRESS_DEBUG", "1")
    ran = run(*FLAGS, "--data", "broken.py:splits", "-o", "out")
    first, _, rest = ran.err.partition("\n")
    assert (ran.code, first) == (
        2, "easycompress: train: reading batch 3 raised OSError: the share is gone; mend the loader"
    )  # fmt: skip
    assert ("broken.py" in rest and "Traceback" in rest) is debug
    assert bool(rest) is debug
    assert not (folder / "out").exists()


def test_ctrl_c_that_a_library_turns_into_something_else(
    folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def export(*_: object, **__: object) -> None:
        stopping._asked.append(2)
        raise ValueError("no trace of it")

    monkeypatch.setattr(stopping, "_asked", [])
    monkeypatch.setattr(torch.onnx, "export", export)
    ran = run(*FLAGS, "-o", "out")
    assert (ran.code, said(ran)) == (130, "stopped; the same command with --resume goes on")
    assert not (folder / "out").exists()


def test_ctrl_c_while_the_command_line_is_read(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(TyperGroup, "make_context", interrupted)  # where typer itself would end in silence
    ran = run(*FLAGS, "-o", "out")
    assert (ran.code, said(ran)) == (130, "stopped; the same command with --resume goes on")


def test_no_memory_is_one_line(folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def export(*_: object, **__: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes.")

    monkeypatch.setattr(torch.onnx, "export", export)
    ran = run(*FLAGS, "-o", "out")
    assert ran.code == 2
    assert said(ran).startswith("out of memory (exporting the model: DefaultCPUAllocator: can't allocate memory")
    assert said(ran).endswith("; close other programs, or use less data; the same command with --resume goes on")
    assert not (folder / "out").exists()


def test_a_folder_that_can_t_be_written_is_refused_before_anything_is_read(
    folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    real: Any = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK and real(path, mode))  # as on a read-only disk
    (folder / "net.py").write_text("raise AssertionError('read')")
    ran = run(*FLAGS, "-o", "out")
    assert (ran.code, said(ran)) == (2, f"out: {folder} can't be written to; choose another folder with -o")
