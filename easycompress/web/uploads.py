"""Files that come over the wire: streamed to the disk, never unpickled, never run."""

from __future__ import annotations

import re
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from easycompress.core.errors import BadInput
from easycompress.report import units

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PREFIX = "upload:"
"""What begins the name of an upload where a path might stand."""

MODELS = (".onnx", ".pt2", ".safetensors")
DATA = (".npz",)

PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle", ".joblib", ".tar", ".mar", ".npy")

SPARE = 500 * 10**6
"""Bytes that an upload leaves free on the disk, for the run itself."""

LONGEST_NAME = 80

_ID = re.compile(r"[0-9a-f]{16}")


class TooLarge(BadInput):
    """An upload of more bytes than the server takes."""


@dataclass(frozen=True)
class Upload:
    """One file in the store."""

    id: str
    path: Path

    @property
    def spec(self) -> str:
        """What stands for it in a request of the page."""
        return f"{PREFIX}{self.id}/{self.path.name}"


def clean_name(name: str) -> str:
    """Return a file's name without folders and without signs that mean something to a shell or a file system."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", Path(name.replace("\\", "/")).name).lstrip(".")
    stem, dot, suffix = plain.rpartition(".")
    return f"{stem[:LONGEST_NAME]}{dot}{suffix[:20]}" if dot else plain[:LONGEST_NAME]


def check_kind(name: str) -> None:
    """Raise BadInput for a file that is none of the forms that hold numbers only."""
    suffix = Path(name).suffix.lower()
    if suffix in PICKLES:
        raise BadInput(
            f"{name}: a pickle can run any code when it is read, so it is not taken as an upload; save the weights as "
            ".safetensors, export .onnx or .pt2, save data as .npz, or name the file by its path on the server"
        )
    if suffix == ".py":
        raise BadInput(f"{name}: uploaded code is never run; name a file that is on the server already")
    if suffix not in (*MODELS, *DATA):
        known = ", ".join((*MODELS, *DATA))
        raise BadInput(f"{name}: uploads are {known}; name anything else by its path on the server")


def check_beginning(name: str, head: bytes) -> None:
    """Raise BadInput for a file whose first bytes are not those of what its name says."""
    suffix = Path(name).suffix.lower()
    archive, pickled = head.startswith(b"PK\x03\x04"), head.startswith(b"\x80")
    right = {
        ".onnx": not archive and not pickled,
        ".safetensors": head[8:9] == b"{",
        ".pt2": archive,
        ".npz": archive or head.startswith(b"PK\x05\x06"),
    }[suffix]
    if not right:
        inside = "is a pickle inside" if pickled else "does not begin as such a file does"
        raise BadInput(f"{name}: {inside}; send the file itself, as it was saved")


class Uploads:
    """The uploads of a server, each in a folder of its own."""

    def __init__(self, folder: Path, most: int) -> None:
        self._folder, self._most = folder, most

    async def take(self, name: str, declared: int | None, chunks: AsyncIterator[bytes]) -> Upload:
        """Write one upload. Raises TooLarge as soon as it is, BadInput for what is not taken; nothing stays then."""
        name = clean_name(name)
        check_kind(name)
        self._check_size(name, declared or 0)
        upload = Upload(secrets.token_hex(8), self._folder)
        place = self._folder / upload.id
        place.mkdir(parents=True)
        upload = Upload(upload.id, place / name)
        try:
            await self._write(upload.path, declared, chunks)
        except BaseException:  # a client that left is a cancellation
            shutil.rmtree(place, ignore_errors=True)
            raise
        return upload

    async def _write(self, path: Path, declared: int | None, chunks: AsyncIterator[bytes]) -> None:
        head, size = b"", 0
        with path.open("xb") as file:
            async for chunk in chunks:
                size += len(chunk)
                self._check_size(path.name, size)
                head = (head + chunk)[:16] if len(head) < 16 else head  # noqa: PLR2004 - enough for every form
                file.write(chunk)
        if declared is not None and size != declared:
            raise BadInput(f"{path.name}: {size} of {declared} bytes came; send it again")
        check_beginning(path.name, head)

    def _check_size(self, name: str, size: int) -> None:
        if size > self._most:
            raise TooLarge(
                f"{name}: larger than {units.size(self._most)}, the most that this server takes; start it with "
                "--max-upload, or name the file by its path on the server"
            )
        if shutil.disk_usage(self._folder).free < size + SPARE:
            raise TooLarge(f"{name}: the server's disk has no room for it; free space there")

    def find(self, spec: str) -> Upload:
        """Return the upload that `upload:ID/NAME` stands for. Raises BadInput for none."""
        number, _, name = spec.removeprefix(PREFIX).partition("/")
        path = self._folder / number / clean_name(name)
        if not _ID.fullmatch(number) or not path.is_file() or path.is_symlink():
            raise BadInput("this upload is gone; choose the file again")
        return Upload(number, path)

    def drop(self, spec: str) -> None:
        """Remove an upload."""
        number = spec.removeprefix(PREFIX).partition("/")[0]
        if _ID.fullmatch(number):
            shutil.rmtree(self._folder / number, ignore_errors=True)

    def sweep(self, used: set[str], now: float, age: float) -> None:
        """Remove the uploads older than `age` seconds that no run uses; `used` are their `upload:` names."""
        numbers = {spec.removeprefix(PREFIX).partition("/")[0] for spec in used}
        for place in self._folder.iterdir():
            if place.is_dir() and place.name not in numbers and now - place.stat().st_mtime > age:
                shutil.rmtree(place, ignore_errors=True)
