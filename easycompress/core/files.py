"""Files that are either whole or not there: written under a temporary name, flushed to disk, then renamed."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
from typing import TYPE_CHECKING, Any, BinaryIO

from easycompress.core.errors import BadInput
from easycompress.core.plain import read_json_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

REMEDY = "choose another folder with -o"
"""What a user can do where OUT can't be written to."""

SCRATCH_REMEDY = "set TMPDIR to a folder on a larger disk"
"""What a user can do where temporary files can't be written."""

FULL = (errno.ENOSPC, errno.EDQUOT)
"""What the system calls a disk without space, and a user without any left."""

COPIED = 1 << 24
"""Bytes copied at a time."""


_watchers: list[Callable[[Path], None]] = []


@contextlib.contextmanager
def watched_by(watcher: Callable[[Path], None]) -> Iterator[None]:
    """Tell `watcher` of every file that is written whole inside the block, as soon as it is there."""
    _watchers.append(watcher)
    try:
        yield
    finally:
        _watchers.remove(watcher)


@contextlib.contextmanager
def new_file(path: Path, remedy: str = REMEDY) -> Iterator[BinaryIO]:
    """Open a file that will be either whole and on the disk, or not there; folders are made as needed.

    Raises BadInput where the disk or the folder says no: `remedy` is what the text says about that.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
        for watcher in _watchers:
            watcher(path)
    except OSError as error:
        raise unwritable(path, error, remedy) from error
    finally:
        with contextlib.suppress(OSError):  # where the folder itself is no folder, there is nothing to remove
            temporary.unlink()


def unwritable(path: Path, error: OSError, remedy: str = REMEDY) -> BadInput:
    """Return what to raise where `path` can't be written: what the system said, and `remedy`."""
    full = "free space there, or " if error.errno in FULL else ""
    return BadInput(f"{path}: can't be written ({error.strerror or error}); {full}{remedy}")


def refuse_full(path: Path, size: int) -> None:
    """Raise BadInput where a temporary file of `size` bytes has no room: some libraries only say that they failed."""
    if shutil.disk_usage(path.parent).free < size:
        raise unwritable(path, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), SCRATCH_REMEDY)


def _sync_folder(folder: Path) -> None:
    """Make a rename in `folder` last through a power cut; not every file system knows how."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_bytes(path: Path, data: bytes, remedy: str = REMEDY) -> Path:
    """Write `data` to `path` atomically and durably. Raises BadInput where the disk or the folder says no."""
    with new_file(path, remedy) as file:
        file.write(data)
    return path


def copy_file(source: Path, target: Path) -> Path:
    """Copy a file to `target` atomically and durably. Raises BadInput where the disk or the folder says no."""
    with source.open("rb") as original, new_file(target) as copy:
        while chunk := original.read(COPIED):
            copy.write(chunk)
    return target


def write_text(path: Path, text: str) -> Path:
    """Write UTF-8 text atomically."""
    return write_bytes(path, text.encode())


def write_json(path: Path, data: Any) -> Path:  # noqa: ANN401 - any JSON value
    """Write JSON atomically, keys in the given order."""
    return write_text(path, json.dumps(data, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:  # noqa: ANN401 - any JSON value
    """Read JSON. Raises BadInput when it is missing or broken."""
    try:
        return read_json_text(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"{path}: can't be read ({error.strerror or error})") from error
    except ValueError as error:
        raise BadInput(f"{path}: not valid JSON ({error})") from error


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
