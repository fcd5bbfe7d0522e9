"""Functions that the user wrote, found by name: `file.py:function` or `package.module:function`."""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from easycompress.core.errors import BadInput, one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

_serial = itertools.count(1)


def load_function(spec: str, flag: str, base: Path | None = None) -> Callable[..., Any]:
    """Return the function that `spec` names.

    `spec` is `file.py:function`, with the path relative to `base` (default: the working folder), or
    `package.module:function`, importable from there. A file's own folder is importable while it is loaded, so that it
    can import its neighbours. `flag` begins every error text.

    Raises BadInput: no colon, no such file or module, code that raises when imported, no such function.
    """
    where = f"{flag} {spec}"
    source, colon, name = spec.rpartition(":")
    if not colon or not source or not name:
        raise BadInput(f"{where}: not a function; write file.py:function or package.module:function")
    folder = base or Path.cwd()
    module = _load_file(source, folder, where) if source.endswith(".py") else _import(source, folder, where)
    found = getattr(module, name, None)
    if found is None:
        listed = ", ".join(_functions(module)) or "none"
        raise BadInput(f"{where}: {source} has no function {name}; functions there: {listed}")
    if not callable(found):
        raise BadInput(f"{where}: {name} is a {type(found).__name__}, not a function; name a function in {source}")
    return found  # type: ignore[no-any-return] # what a user's module holds has no static type


def _load_file(source: str, folder: Path, where: str) -> ModuleType:
    path = (folder / Path(source).expanduser()).resolve()
    if not path.is_file():
        raise BadInput(f"{where}: no file {path}; give the path relative to {folder}, or an absolute one")
    # A name of its own for every load: two files called task.py must not be taken for one another.
    name = f"_easycompress_user_{path.stem}_{next(_serial)}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise BadInput(f"{where}: {path} can't be loaded as Python; give a .py file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look a class's module up by name
    with _user_import(path.parent, where, f"{path.name} raised"):
        spec.loader.exec_module(module)
    return module


def _import(source: str, folder: Path, where: str) -> ModuleType:
    with _user_import(folder, where, f"importing {source} raised"):
        return importlib.import_module(source)


@contextmanager
def _user_import(folder: Path, where: str, what: str) -> Iterator[None]:
    """Make `folder` importable for a while; turn whatever the user's code raises into one line."""
    entry = str(folder)
    sys.path.insert(0, entry)
    importlib.invalidate_caches()
    try:
        yield
    except (Exception, SystemExit) as error:
        raise BadInput(f"{where}: {what} {type(error).__name__}: {one_line(error)}") from error
    finally:
        if entry in sys.path:
            sys.path.remove(entry)


def _functions(module: ModuleType) -> list[str]:
    """Return the public callables of a module, its own before those it imported."""
    names = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
    own = [name for name in names if getattr(vars(module)[name], "__module__", None) == module.__name__]
    return own or names
