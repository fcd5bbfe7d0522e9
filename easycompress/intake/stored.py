"""Rows that arrive batch by batch: in memory, or in a temporary file mapped into memory where they don't fit."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import torch

from easycompress.core.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

MEMORY_BYTES = 2_000_000_000
"""A tensor of a split is held in memory up to this many bytes; a larger one is kept in a temporary file."""

REMEDY = "set TMPDIR to a folder on a larger disk, or give a subset: a few thousand samples a split are enough to judge"


def refuse_too_large(samples: int, sample_bytes: int, where: str) -> None:
    """Raise BadInput when `samples` of `sample_bytes` each fit neither into MEMORY_BYTES nor onto the disk."""
    total = samples * sample_bytes
    if total <= MEMORY_BYTES:
        return
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if total > free:
        raise BadInput(
            f"{where}: {samples} samples of {sample_bytes / 1e6:.3g} MB are {total / 1e9:.3g} GB, but "
            f"{tempfile.gettempdir()} has {free / 1e9:.3g} GB free; {REMEDY}"
        )


class Growing:
    """A tensor (N, ...) whose rows are added batch by batch; all batches have one shape and type.

    Beyond MEMORY_BYTES they are written to a nameless temporary file, which vanishes with the tensor. `where` begins
    the error texts.
    """

    def __init__(self, where: str) -> None:
        self._where = where
        self._parts: list[Tensor] = []
        self._file: IO[bytes] | None = None
        self._rows = 0
        self._bytes = 0
        self._dtype: torch.dtype | None = None
        self._shape: tuple[int, ...] = ()

    def __len__(self) -> int:
        return self._rows

    def add(self, batch: Tensor) -> None:
        """Add rows (n, ...). Raises BadInput for another type or shape than before, and for a full disk."""
        if self._dtype is None:
            self._dtype, self._shape = batch.dtype, tuple(batch.shape[1:])
        elif (self._dtype, self._shape) != (batch.dtype, tuple(batch.shape[1:])):
            first, other = _described(self._dtype, self._shape), _described(batch.dtype, tuple(batch.shape[1:]))
            raise BadInput(f"{self._where}: samples of {first} and of {other}; make them alike")
        self._rows += len(batch)
        self._bytes += batch.nbytes
        if self._file is None and self._bytes > MEMORY_BYTES:
            self._file = tempfile.TemporaryFile(prefix="easycompress-")  # noqa: SIM115 - it lives as long as the tensor
            for part in self._parts:
                self._write(part)
            self._parts = []
        if self._file is None:
            self._parts.append(batch)
        else:
            self._write(batch)

    def tensor(self) -> Tensor:
        """Return all rows; writing to them writes to the file, where there is one. Nothing may be added afterwards."""
        if self._file is None:
            return self._parts[0] if len(self._parts) == 1 else torch.cat(self._parts)
        with self._on_disk():
            self._file.flush()
        array: np.ndarray[Any, Any] = np.memmap(
            self._file,
            dtype=torch.empty(0, dtype=self._dtype).numpy().dtype,
            mode="r+",
            shape=(self._rows, *self._shape),
        )
        return torch.from_numpy(array)

    def _write(self, batch: Tensor) -> None:
        assert self._file is not None  # noqa: S101 - opened before the first write
        with self._on_disk():
            self._file.write(batch.contiguous().numpy().tobytes())

    @contextlib.contextmanager
    def _on_disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            folder = tempfile.gettempdir()
            raise BadInput(f"{self._where}: can't be kept in {folder} ({error.strerror}); {REMEDY}") from error


def _described(dtype: torch.dtype, shape: tuple[int, ...]) -> str:
    return f"{str(dtype).removeprefix('torch.')} {shape}"
