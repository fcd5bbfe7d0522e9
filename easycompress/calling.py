"""What every face in Python does first: keywords become flags, OUT is locked, the caller's random state is kept."""

from __future__ import annotations

import contextlib
import difflib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from easycompress.core.errors import BadInput
from easycompress.core.files import SCRATCH_REMEDY, unwritable
from easycompress.core.request import Request
from easycompress.executor.lock import Lock, hold
from easycompress.intake.handed import named_splits

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """Provide a folder for what is not delivered."""
    try:
        folder = tempfile.TemporaryDirectory(prefix="easycompress-")
    except OSError as error:
        raise unwritable(Path(tempfile.gettempdir()), error, SCRATCH_REMEDY) from error
    with folder as name:
        yield Path(name)


@contextlib.contextmanager
def held(out: Path) -> Iterator[Lock]:
    """Keep other runs out of OUT for the block."""
    lock = hold(out)
    try:
        yield lock
    finally:
        lock.release()


@contextlib.contextmanager
def own_randomness(seed: int) -> Iterator[None]:
    """Seed torch's generator for the block, and leave it and the number of threads as they were."""
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


def handed(given: tuple[object, ...], flags: dict[str, Any]) -> tuple[tuple[object, ...], dict[str, Any]]:
    """Return the splits that were handed over, and the flags: `data` is one of these where it is a name."""
    data, others = flags.get("data"), {name: value for name, value in flags.items() if name != "data"}
    if isinstance(data, (str, Path)):
        return given, others | {"data": str(data)}
    return named_splits(data, given), others


def as_flags(flags: dict[str, Any]) -> dict[str, Any]:
    """Turn Python values into what the command line would have said: 10 -> refused there too, 0.5 -> "0.5".

    Raises BadInput for a keyword that is no flag.
    """
    unknown = sorted(flags.keys() - Request.model_fields.keys())
    if unknown:
        near = difflib.get_close_matches(unknown[0], Request.model_fields, n=1)
        hint = f"did you mean {near[0]}?" if near else "keywords are the command line's flags with underscores"
        raise BadInput(f"compress: no keyword {unknown[0]!r}; {hint}")
    text = {"target", "max_drop", "min_quality", "budget"}
    return {k: str(v) if k in text and v is not None and not isinstance(v, str) else v for k, v in flags.items()}


def name_of(model: nn.Module | str | Path) -> str:
    """Return what the request calls the model. Raises BadInput for what is no model."""
    if isinstance(model, nn.Module):
        return f"{type(model).__module__}.{type(model).__qualname__}"
    if isinstance(model, (str, Path)):
        return str(model)
    raise BadInput(f"model: a {type(model).__name__}; give a torch.nn.Module, or a path and factory=")
