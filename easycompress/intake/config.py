"""easycompress.toml: every flag, written once beside the model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from easycompress.core.errors import BadInput
from easycompress.core.request import Request

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

NAME = "easycompress.toml"


def find_config(model: str) -> Path | None:
    """Return the toml beside the model, else the one in the working folder, else None."""
    for folder in (Path(model).parent, Path()):
        if (folder / NAME).is_file():
            return folder / NAME
    return None


def make_request(model: str, flags: dict[str, Any]) -> tuple[Request, Path]:
    """Return the request of a command line and the folder that its relative names start from.

    `flags` holds what the line gave, None for what it didn't. The toml fills the gaps, with paths relative to itself;
    a name given on the line is relative to the working folder, as everywhere.
    """
    given = {key: value for key, value in flags.items() if value is not None}
    config = find_config(model)
    base = Path.cwd()
    values: dict[str, Any] = {}
    if config is not None:
        values = _read(config)
        base = config.resolve().parent
        for key in ("factory", "data", "metric", "loss", "augment", "recipe"):
            if key in given:
                given[key] = _absolute(str(given[key]))
    values.update(given)
    values["model"] = model
    try:
        return Request.model_validate(values), base
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        where = str(config) if config is not None and key not in given else f"--{key.replace('_', '-')}"
        raise BadInput(f"{where}: {key}: {first['msg']} (got {first['input']!r})") from error


def _read(path: Path) -> dict[str, Any]:
    try:
        data = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: not valid TOML: {error}") from error
    values = {key.replace("-", "_"): value for key, value in data.items()}
    unknown = sorted(values.keys() - Request.model_fields.keys())
    if unknown:
        raise BadInput(f"{path}: unknown setting {', '.join(unknown)}; a setting is a flag without its dashes")
    for key in ("mean", "std"):
        if isinstance(values.get(key), (int, float)):
            values[key] = [values[key]]
    values.pop("model", None)
    for key in ("target", "max_drop", "min_quality", "budget"):
        if key in values:
            values[key] = str(values[key])
    out = values.get("out")
    if out is not None:
        values["out"] = str(path.resolve().parent / out)
    return values


def _absolute(spec: str) -> str:
    """Make the file part of a name absolute where it is a file or a folder here."""
    head, colon, tail = spec.partition(":")
    return str(Path(head).resolve()) + colon + tail if Path(head).exists() else spec
