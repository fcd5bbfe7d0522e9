"""What can be downloaded of a run: the regular files of its result, one by one or as one archive."""

from __future__ import annotations

import time
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

from easycompress.core.errors import BadInput
from easycompress.executor.lock import FOLDER as JOURNAL
from easycompress.web.store import OUT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CHUNK = 1 << 20

WORDS = {
    "model.onnx": "the compressed model, for ONNX Runtime",
    "model.onnx.data": "the weights beside model.onnx",
    "model.ecz": "the smallest file, for transport; easycompress unpack makes an ONNX file of it",
    "model.safetensors": "the weights, for easycompress.load",
    "record.json": "the structure, for easycompress.load",
    "model.pt2": "an exported program for PyTorch",
    "report.html": "the report for people",
    "report.json": "the report for programs",
    "recipe.yaml": "what was done, to be replayed with --recipe",
    "predictions.npz": "the answers before and after, on the report split",
}
"""What each file is for."""


@dataclass(frozen=True)
class Item:
    """One file: its name inside the result, its bytes, and what it is for."""

    name: str
    bytes: int
    what: str


def listed(place: Path) -> dict[str, Path]:
    """Return the files of a run's result by name: regular ones, not behind a link, without the journal."""
    out = place / OUT
    if not out.is_dir() or out.is_symlink():
        return {}
    found = {}
    for path in sorted(out.rglob("*")):
        name = path.relative_to(out).as_posix()
        inside = not any(parent.is_symlink() for parent in (path, *path.parents[: len(path.relative_to(out).parts)]))
        hidden = any(part.startswith(".") for part in path.relative_to(out).parts)
        if inside and path.is_file() and not hidden and name.partition("/")[0] != JOURNAL:
            found[name] = path
    return found


def items(place: Path) -> list[Item]:
    """Return what can be downloaded, the files for use first."""
    order = list(WORDS)
    found = [Item(name, path.stat().st_size, WORDS.get(name, "")) for name, path in listed(place).items()]
    return sorted(found, key=lambda item: (order.index(item.name) if item.name in order else len(order), item.name))


def one(place: Path, name: str) -> Path:
    """Return the file of that name. Raises BadInput for any that isn't listed, so no name leads anywhere else."""
    path = listed(place).get(name)
    if path is None:
        raise BadInput(f"{name}: no such file in this run")
    return path


class _Pipe:
    """A file that is written to and emptied; an archive needs to know only how far it is."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._place = 0

    def write(self, data: bytes) -> int:
        self._parts.append(bytes(data))
        self._place += len(data)
        return len(data)

    def tell(self) -> int:
        return self._place

    def flush(self) -> None:
        pass

    def take(self) -> bytes:
        parts, self._parts = self._parts, []
        return b"".join(parts)


def archive(place: Path) -> Iterator[bytes]:
    """Yield a ZIP archive of all files, piece by piece; nothing is written on the server."""
    pipe = _Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as made:  # type: ignore[call-overload] # it takes any writer
        for name, path in listed(place).items():
            info = zipfile.ZipInfo(name, time.localtime(path.stat().st_mtime)[:6])
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            with path.open("rb") as source, made.open(info, "w", force_zip64=True) as target:
                while chunk := source.read(CHUNK):
                    target.write(chunk)
                    yield pipe.take()
    yield pipe.take()
