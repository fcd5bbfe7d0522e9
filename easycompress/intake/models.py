"""What the user calls a model -> a module with its weights. No code runs from a file unless the user trusts it."""

from __future__ import annotations

import pickle
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from easycompress.core.errors import BadInput, one_line
from easycompress.intake.userfile import load_function

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

NESTED = ("state_dict", "model_state_dict", "model", "net", "module")
"""Where training scripts keep the state dict inside a checkpoint."""

MOST_NAMES = 4
"""Names listed of each kind when a state dict doesn't fit."""


@dataclass(frozen=True)
class Loaded:
    """A module, what its checkpoint weighs, and what to tell the user about it."""

    model: nn.Module
    checkpoint_bytes: int
    notes: tuple[str, ...]


def load_model(path: Path, factory: str | None, base: Path, *, trust_pickle: bool) -> Loaded:
    """Read a state dict (.safetensors, .pt, .pth, .bin) into the factory's module, or a pickled module if trusted.

    `base` is the folder that a factory's file name is relative to. The module comes back in float32, evaluation mode.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "doesn't exist"
        raise BadInput(f"{path}: {what}; give a .safetensors or .pt file with --factory")
    state = _read(path, trust_pickle=trust_pickle)
    if isinstance(state, nn.Module):
        model = state
    else:
        if factory is None:
            raise BadInput(
                f"{path}: a state dict holds weights only; add --factory file.py:function (it returns the module), "
                "package.module:function or torchvision:resnet18"
            )
        model = make_module(factory, base)
        _fill(model, state, path)
    notes = []
    kinds = {p.dtype for p in model.parameters() if p.is_floating_point()}
    stored = {t.dtype for t in state.values()} if not isinstance(state, nn.Module) else kinds
    if stored & {torch.float16, torch.bfloat16}:
        notes.append(
            f"the checkpoint is stored in half precision ({path.stat().st_size} bytes) and was upcast to float32"
        )
    return Loaded(model.float().eval(), path.stat().st_size, tuple(notes))


def make_module(factory: str, base: Path) -> nn.Module:
    """Call `file.py:function`, `package.module:function` or `torchvision:name` and return its module."""
    where = f"--factory {factory}"
    if factory.startswith("torchvision:"):
        function = _torchvision(factory.partition(":")[2], where)
    else:
        function = load_function(factory, "--factory", base)
    try:
        model = function()
    except Exception as error:  # the user's own code may raise anything
        raise BadInput(f"{where}: it raised {type(error).__name__}: {one_line(error)}") from error
    if not isinstance(model, nn.Module):
        raise BadInput(f"{where}: it returned a {type(model).__name__}; it must return a torch.nn.Module")
    return model


def _torchvision(name: str, where: str) -> Any:  # noqa: ANN401 - a torchvision builder
    from torchvision import models  # noqa: PLC0415 - slow to import, and few need it

    if name not in models.list_models(module=models):
        raise BadInput(f"{where}: torchvision has no such model; see torchvision.models.list_models()")
    return lambda: models.get_model(name, weights=None)


def _read(path: Path, *, trust_pickle: bool) -> Mapping[str, Tensor] | nn.Module:
    if path.suffix == ".safetensors":
        try:
            return load_file(str(path))
        except (SafetensorError, OSError, ValueError) as error:
            raise BadInput(f"{path}: not a readable safetensors file ({one_line(error)})") from error
    if path.suffix in (".onnx", ".pt2"):
        raise BadInput(f"{path}: {path.suffix} models can't be read yet; give a state dict with --factory")
    return _read_torch(path, trust_pickle=trust_pickle)


def _read_torch(path: Path, *, trust_pickle: bool) -> Mapping[str, Tensor] | nn.Module:
    if _is_torchscript(path):
        raise BadInput(f"{path}: a TorchScript archive; save its state dict and give it with --factory")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if not trust_pickle:
            raise BadInput(
                f"{path}: a pickled object, whose loading can run any code; save a state dict instead "
                "(torch.save(model.state_dict(), ...)), or add --trust-pickle if you made this file"
            ) from error
        content = _unpickle(path)
    except (RuntimeError, OSError, EOFError, ValueError) as error:
        raise BadInput(f"{path}: not a readable PyTorch file ({one_line(error, 160)})") from error
    if isinstance(content, nn.Module):
        return content
    for key in NESTED:
        if isinstance(content, dict) and isinstance(content.get(key), (dict, nn.Module)):
            content = content[key]
            break
    if isinstance(content, nn.Module):
        return content
    if not isinstance(content, dict) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise BadInput(f"{path}: holds a {type(content).__name__}, not a state dict; save model.state_dict()")
    return content


def _unpickle(path: Path) -> Any:  # noqa: ANN401 - whatever was pickled
    try:
        return torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:  # unpickling runs the user's own code, which may raise anything
        raise BadInput(f"{path}: unpickling raised {type(error).__name__}: {one_line(error)}") from error


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name or name.endswith("constants.pkl") for name in archive.namelist())


def _fill(model: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Load the state dict strictly; wrappers' name prefixes are taken off."""
    for prefix in ("module.", "_orig_mod."):
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    wanted = model.state_dict()
    missing, unexpected = sorted(wanted.keys() - state.keys()), sorted(state.keys() - wanted.keys())
    if missing or unexpected:
        parts = [f"missing {_list(missing)}"] if missing else []
        parts += [f"unexpected {_list(unexpected)}"] if unexpected else []
        raise BadInput(f"{path}: doesn't fit the factory's module: {'; '.join(parts)}")
    for name, value in wanted.items():
        if state[name].shape != value.shape:
            raise BadInput(
                f"{path}: doesn't fit the factory's module: {name} is {tuple(state[name].shape)}, "
                f"the module's is {tuple(value.shape)}"
            )
    model.load_state_dict(dict(state))


def _list(names: list[str]) -> str:
    shown = ", ".join(names[:MOST_NAMES])
    return shown if len(names) <= MOST_NAMES else f"{shown} and {len(names) - MOST_NAMES} more"
