"""A model as the folder that its own library loads by name: written only where loading it gives the same answer."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from easycompress.core.errors import one_line
from easycompress.core.inputs import answer
from easycompress.core.quiet import quiet

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

    from easycompress.core.inputs import Inputs

TOLERANCE = 1e-5
"""Largest difference relative to the largest output: the reloaded model may pick another attention kernel."""


@dataclass(frozen=True)
class Saved:
    """Whether a folder was written; true when it was. `reason` is one line that says why not, empty otherwise."""

    reason: str = ""

    def __bool__(self) -> bool:
        return not self.reason


def save_pretrained(model: nn.Module, folder: Path, example: Inputs) -> Saved:
    """Write `model`, or the pretrained model inside it, as `from_pretrained` reads it, to a new or empty folder.

    `example` is a batch of inputs of `model`. What was written is loaded again first; unless the loaded weights give
    the same answer, because the configuration can't describe the model's structure, nothing is left behind. `model`
    isn't changed.
    """
    found = next(((n, m) for n, m in model.named_modules() if is_pretrained(m)), None)
    if found is None:
        return Saved(f"{type(model).__name__} has no save_pretrained")
    if folder.exists() and any(folder.iterdir()):
        return Saved(f"{folder} isn't empty; give a new folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")  # as core.files calls what it is writing
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        with quiet("transformers"), torch.random.fork_rng(devices=[]), torch.no_grad():
            reason = _written(model, *found, str(temporary), example)
        if not reason:
            os.replace(temporary, folder)  # noqa: PTH105 - onto an empty folder too, in one step
    except Exception as error:  # noqa: BLE001 - whatever the library raises, the folder can't be relied on
        reason = f"{type(found[1]).__name__} can't be saved and loaded again: {one_line(error, 160)}"
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Saved(reason)


def is_pretrained(module: Any) -> bool:  # noqa: ANN401 - a module of any library
    """Tell whether a module is one that its library saves and loads by name."""
    return hasattr(module, "save_pretrained") and hasattr(type(module), "from_pretrained")


def _written(model: nn.Module, path: str, inner: Any, folder: str, example: Inputs) -> str:  # noqa: ANN401 - any library
    """Save, load and compare; return why the result can't be relied on, or nothing."""
    inner.save_pretrained(folder)
    loaded = type(inner).from_pretrained(folder, local_files_only=True).to(torch.float32).train(inner.training)
    before = answer(model, example)
    after = answer(loaded, example) if not path else _answer_with(model, path, loaded, example)
    if before.shape == after.shape and (before - after).abs().max() <= TOLERANCE * before.abs().max():
        return ""
    return f"the configuration of {type(inner).__name__} doesn't describe this structure: loaded, it answers otherwise"


def _answer_with(model: nn.Module, path: str, module: nn.Module, example: Inputs) -> Tensor:
    """Return the model's answer with another module at a path."""
    parent, _, name = path.rpartition(".")
    holder = model.get_submodule(parent)
    original = getattr(holder, name)
    setattr(holder, name, module)
    try:
        return answer(model, example)
    finally:
        setattr(holder, name, original)
