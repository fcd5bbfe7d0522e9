"""Traps for a run, set in its process before it begins: a disk without room, no memory, a loss that is no number."""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import random
import re
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from easycompress.training import fit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CLONE_NEWTIME = 0x80
"""The kernel's flag for a time namespace."""

MORE_THAN_ANY = 1 << 46
"""Bytes that no machine has."""

BLOCK = b"\0" * 65536

NO_ROOT = "not tried here: mounting takes root"

_UNFINISHED = re.compile(r"\.(.+)\.\d+\.tmp")


@contextlib.contextmanager
def disk(folder: Path, size: str) -> Iterator[bool]:
    """Mount a file system of that size in memory at `folder`; False where that isn't permitted."""
    folder.mkdir(parents=True, exist_ok=True)
    if not _done("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)):
        yield False
        return
    try:
        yield True
    finally:
        _done("umount", str(folder))


def read_only(folder: Path) -> bool:
    """Make what is mounted at `folder` read-only."""
    return _done("mount", "-o", "remount,ro", str(folder))


def _done(*command: str) -> bool:
    return subprocess.run(command, check=False, capture_output=True).returncode == 0  # noqa: S603 - of this file


def _watch_writes(heard: Callable[[str], None]) -> None:
    """Call `heard` with the name of every file just before it is written."""
    real = io.open

    def opened(file: Any, mode: str = "r", *more: Any, **named: Any) -> Any:  # noqa: ANN401 - as open()
        match = _UNFINISHED.fullmatch(Path(file).name) if isinstance(file, (str, Path)) else None
        if match and "w" in mode:
            heard(match[1])
        return real(file, mode, *more, **named)

    io.open = opened  # pathlib looks it up there


def list_writes(into: Path) -> Callable[[], None]:
    """Return a trap that writes down the names of all files that a run writes, in order."""

    def set_trap() -> None:
        def heard(name: str) -> None:
            with into.open("a") as file:
                file.write(f"{name}\n")

        _watch_writes(heard)

    return set_trap


def full_at(number: int, filler: Path) -> Callable[[], None]:
    """Return a trap that fills the disk on which `filler` lies just before the write of that number, from 0."""

    def set_trap() -> None:
        count = 0

        def heard(_name: str) -> None:
            nonlocal count
            if count == number:
                fill(filler)
            count += 1

        _watch_writes(heard)

    return set_trap


def fill(filler: Path) -> None:
    """Leave no room on a disk."""
    with contextlib.suppress(OSError), open(filler, "ab", buffering=0) as file:  # noqa: PTH123 - not the watched one
        while True:
            file.write(BLOCK)


def scratch_in(folder: Path) -> Callable[[], None]:
    """Return a trap that lets temporary files go to `folder`."""

    def set_trap() -> None:
        tempfile.tempdir = str(folder)

    return set_trap


def little_memory(most: int) -> Callable[[], None]:
    """Return a trap that lets the allocator fail when training answers more than `most` samples at a time.

    The error is torch's own, of an allocation that no machine has room for. A limit on the address space would also
    stop torch's threads from starting, for which its backward pass then waits for ever.
    """

    def set_trap() -> None:
        real = fit.answer

        def limited(model: Any, inputs: Any) -> Any:  # noqa: ANN401 - as the function
            if len(inputs) > most:
                torch.empty(MORE_THAN_ANY, dtype=torch.uint8)
            return real(model, inputs)

        fit.answer = limited

    return set_trap


def no_number(times: int) -> Callable[[], None]:
    """Return a trap that makes each training's loss NaN from its second epoch on, until it went back `times` times."""

    def set_trap() -> None:
        real = fit._Run._step  # noqa: SLF001 - where the loss is made

        def step(run: Any, places: torch.Tensor) -> torch.Tensor:  # noqa: ANN401 - a private class
            loss = real(run, places)
            return loss * float("nan") if run.epoch and run.rollbacks < times else loss

        fit._Run._step = step  # type: ignore[assignment,method-assign]  # noqa: SLF001 - where the loss is made

    return set_trap


def jumping_clock() -> None:
    """Let the wall clock jump by years, forwards and backwards, whenever somebody looks."""
    draw, real = random.Random(0), time.time()  # noqa: S311 - jumps, no secrets
    time.time = lambda: real + draw.uniform(-1e9, 1e9)
    time.time_ns = lambda: int(1e9 * time.time())


def rebooted() -> None:
    """Go on in a process whose monotonic clock has just begun, as after a reboot."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWTIME):
        raise OSError(ctypes.get_errno(), "unshare")
    Path("/proc/self/timens_offsets").write_text(f"monotonic {-int(time.monotonic() - 5)} 0\n")
    if pid := os.fork():
        os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
