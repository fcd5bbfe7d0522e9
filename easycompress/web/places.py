"""Models and data that lie where relative paths start: what the page's fields suggest."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from easycompress.web.uploads import MODELS

if TYPE_CHECKING:
    from easycompress.web.settings import Settings

DEEP, MOST = 3, 200
"""Folders below the first that are looked into, and names of each kind that are suggested."""

LOOKED_AT = 20_000
"""Files after which nobody looks on: a working folder may be a whole home."""

SETTINGS = ("easycompress.toml", "easycompress.yaml", "easycompress.yml")


def places(settings: Settings) -> dict[str, list[str]]:
    """Return the models and the data under the working folder, as paths relative to it; results are left out.

    State dicts as .pt are among the models where settings with a factory may lie beside them.
    """
    top = settings.root or settings.work
    models: list[str] = []
    data: list[str] = []
    seen = 0
    for folder, children, names in os.walk(top):
        here = Path(folder)
        children[:] = sorted(name for name in children if not name.startswith((".", "__")))
        if len(here.relative_to(top).parts) >= DEEP or "record.json" in names or here == settings.folder:
            children[:] = []
        if "record.json" in names or here == settings.folder:
            continue
        suffixes = (*MODELS, ".pt") if any(name in names for name in SETTINGS) else MODELS
        if "config.json" in names:
            models.append(_relative(here, settings))
        else:
            models += [_relative(here / name, settings) for name in sorted(names) if name.endswith(suffixes)]
        data += [_relative(here / name, settings) for name in sorted(names) if name.endswith(".npz")]
        seen += len(names)
        if seen > LOOKED_AT:
            break
    return {"models": models[:MOST], "data": data[:MOST]}


def _relative(path: Path, settings: Settings) -> str:
    try:
        return path.relative_to(settings.work).as_posix() or "."
    except ValueError:
        return str(path)
