"""What the user calls a model -> a module with its weights. No code runs from a file unless the user trusts it."""

from __future__ import annotations

import contextlib
import pickle
import sys
import warnings
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from easycompress.core.errors import BadInput, one_line
from easycompress.intake.archives import check_sizes, unusual
from easycompress.intake.exported import read_exported
from easycompress.intake.huggingface import load_folder
from easycompress.intake.onnx_in import read_onnx
from easycompress.intake.userfile import load_function

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from easycompress.core.inputs import Inputs

NESTED = ("state_dict", "model_state_dict", "model", "net", "module")
"""Where training scripts keep the state dict inside a checkpoint."""

GRAPHS = (".pt2", ".onnx")
"""Files that hold a module without its source."""

PREFIXES = ("module.", "_orig_mod.")
"""What DataParallel and torch.compile put before every name."""

COUNTER = "num_batches_tracked"
"""A counter of batch norm that older checkpoints, torchvision's among them, don't hold and inference doesn't read."""

MOST_NAMES = 4
"""Names listed of each kind when a state dict doesn't fit."""


@dataclass(frozen=True)
class Loaded:
    """A module, what its checkpoint weighs, and what to tell the user about it.

    `processor` is the tokenizer or image processor that stands beside it, None without one.
    """

    model: nn.Module
    checkpoint_bytes: int | None
    notes: tuple[str, ...]
    processor: object | None = None


def load_model(
    path: Path, factory: str | None, base: Path, *, trust_pickle: bool, sample: Inputs | None = None
) -> Loaded:
    """Read a state dict (.safetensors, .pt, .pth, .bin) into the factory's module, or a pickled module if trusted.

    A .pt2 or .onnx file is a module by itself: see intake.exported and intake.onnx_in, which also raise CannotCompress.
    `sample` (n, ...) has the lengths that an .onnx file may leave open.

    `base` is the folder that a factory's file name is relative to. The module comes back in float32, evaluation mode.
    Raises BadInput: no such file, not readable, a pickle without trust, no or a failing factory, names or shapes that
    don't fit.
    """
    if path.is_dir():
        return Loaded(*load_folder(path, trust_pickle=trust_pickle))
    if not path.is_file():
        raise BadInput(f"{path}: doesn't exist; give a .safetensors or .pt file with --factory")
    if not path.stat().st_size:
        raise BadInput(f"{path}: the file is empty; save or download it again")
    if path.suffix in GRAPHS:
        if factory is not None:
            raise BadInput(f"{path}: holds the whole module; leave --factory out, or give a state dict with it")
        exported = path.suffix == ".pt2"
        module, told = read_exported(path, trust_pickle=trust_pickle) if exported else read_onnx(path, sample)
        return Loaded(module.float().eval(), path.stat().st_size, told)
    state = _read(path, base, trust_pickle=trust_pickle)
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
    if isinstance(model, nn.DataParallel):
        model = model.module
    notes = []
    tensors = state.parameters() if isinstance(state, nn.Module) else state.values()
    stored = {tensor.dtype for tensor in tensors}
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
    except (Exception, SystemExit) as error:  # the user's own code may raise anything
        raise BadInput(
            f"{where}: it raised {type(error).__name__}: {one_line(error)}; it is called without arguments and must "
            "return the module"
        ) from error
    if not isinstance(model, nn.Module):
        raise BadInput(f"{where}: it returned a {type(model).__name__}; it must return a torch.nn.Module")
    if any(is_lazy(p) for p in model.parameters()):
        raise BadInput(f"{where}: its module has lazy parameters; run it once on an example before returning it")
    return model


def _torchvision(name: str, where: str) -> Any:  # noqa: ANN401 - a torchvision builder
    from torchvision import models  # noqa: PLC0415 - slow to import, and few need it

    if name not in models.list_models(module=models):
        raise BadInput(f"{where}: torchvision has no such model; see torchvision.models.list_models()")
    return lambda: models.get_model(name, weights=None)


def _read(path: Path, base: Path, *, trust_pickle: bool) -> Mapping[str, Tensor] | nn.Module:
    if path.suffix == ".safetensors":
        try:
            return load_file(str(path))
        except (SafetensorError, OSError, ValueError) as error:
            raise BadInput(
                f"{path}: not a readable safetensors file ({one_line(error, 160)}); save or download it again"
            ) from error
    return _weights_in(_load_torch(path, base, trust_pickle=trust_pickle), path)


def _load_torch(path: Path, base: Path, *, trust_pickle: bool) -> Any:  # noqa: ANN401 - whatever was saved
    if _is_torchscript(path):
        raise BadInput(
            f"{path}: a TorchScript archive, whose frozen graph can't be trained on or exported; save "
            "torch.jit.load(...).state_dict() and give it with --factory, or export the original module as .pt2"
        )
    if not zipfile.is_zipfile(path) and not _begins_as_pickle(path):
        raise BadInput(f"{path}: not a file that torch.save wrote; give a .pt or .safetensors file with --factory")
    check_sizes(path)
    try:
        with _no_warnings():
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if not trust_pickle:
            held = unusual(path)
            what = f" (it holds {held})" if held else ""
            raise BadInput(
                f"{path}: a pickled object{what}, whose loading can run any code; save a state dict instead "
                "(torch.save(model.state_dict(), ...)), or add --trust-pickle if you made this file"
            ) from error
        return _unpickle(path, base)
    except Exception as error:  # a damaged file fails in many ways, from KeyError to IndexError
        raise BadInput(
            f"{path}: not a readable PyTorch file ({one_line(error, 160)}); save or download it again"
        ) from error


def _weights_in(content: object, path: Path) -> Mapping[str, Tensor] | nn.Module:
    """Return the module or the state dict in what was saved, bare or inside a training script's checkpoint."""
    for key in NESTED:
        if isinstance(content, dict) and isinstance(content.get(key), (dict, nn.Module)):
            content = content[key]
            break
    if isinstance(content, nn.Module):
        return content
    if not isinstance(content, dict):
        raise BadInput(f"{path}: holds a {type(content).__name__}, not a state dict; save model.state_dict()")
    if not content or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items()):
        keys = _list([str(key) for key in content]) or "nothing"
        raise BadInput(
            f"{path}: a dict that is no state dict: it holds {keys}; save model.state_dict(), bare or under state_dict"
        )
    return content


def _unpickle(path: Path, base: Path) -> Any:  # noqa: ANN401 - whatever was pickled
    # A module's class is looked up by its module's name: that file usually lies beside the model or where the user is.
    folders = [str(path.resolve().parent), str(base)]
    sys.path[:0] = folders
    try:
        with _no_warnings():
            return torch.load(path, map_location="cpu", weights_only=False)
    except (Exception, SystemExit) as error:  # unpickling runs the user's own code, which may raise anything
        raise BadInput(
            f"{path}: unpickling raised {type(error).__name__}: {one_line(error)}; its classes must be importable from "
            "its folder or this one, or save a state dict and give a --factory"
        ) from error
    finally:
        for folder in folders:
            if folder in sys.path:  # the user's own code may have removed it
                sys.path.remove(folder)


def _begins_as_pickle(path: Path) -> bool:
    """Say whether the file begins as torch.save began its files before it wrote zip archives."""
    with path.open("rb") as file:
        return file.read(1) == pickle.PROTO


@contextlib.contextmanager
def _no_warnings() -> Iterator[None]:
    """Silence torch's hints to programmers while it reads a file that the user only named."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _is_torchscript(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any("/code/" in name or name.endswith("constants.pkl") for name in archive.namelist())
    except zipfile.BadZipFile:
        return False


def _fill(model: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Load the state dict strictly; wrappers' name prefixes are taken off where the module has none."""
    wanted = model.state_dict()
    for prefix in PREFIXES * 2:  # compiled after or before it was made parallel
        if not state.keys() & wanted.keys() and all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    missing = sorted(n for n in wanted.keys() - state.keys() if n.rpartition(".")[2] != COUNTER)
    unexpected = sorted(state.keys() - wanted.keys())
    if missing or unexpected:
        parts = [f"missing {_list(missing)}"] if missing else []
        parts += [f"unexpected {_list(unexpected)}"] if unexpected else []
        raise BadInput(
            f"{path}: doesn't fit the factory's module: {'; '.join(parts)}; give the factory that it was trained with"
        )
    wrong = [name for name, value in state.items() if value.shape != wanted[name].shape]
    if wrong:
        first = wrong[0]
        more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise BadInput(
            f"{path}: doesn't fit the factory's module: {first} is {tuple(state[first].shape)}, "
            f"the module's is {tuple(wanted[first].shape)}{more}; give the factory that this file was trained with"
        )
    model.load_state_dict(dict(state))  # a plain dict carries no version, so batch norm fills its counter in


def _list(names: list[str]) -> str:
    shown = ", ".join(names[:MOST_NAMES])
    return shown if len(names) <= MOST_NAMES else f"{shown} and {len(names) - MOST_NAMES} more"
