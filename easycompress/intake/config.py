"""easycompress.toml or easycompress.yaml: every flag, written once beside the model."""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from easycompress.core.errors import BadInput, one_line
from easycompress.core.plain import read_toml, read_yaml
from easycompress.core.request import Request
from easycompress.intake.hub import is_hub_name

NAME = "easycompress.toml"

NAMES = (NAME, "easycompress.yaml", "easycompress.yml")

FUNCTIONS = ("factory", "data", "metric", "loss", "augment")
"""Settings that may name a function, whose code is then run."""

FLOORS = {"max_drop", "min_quality"}


def find_config(model: str) -> Path | None:
    """Return the file of settings beside the model, else the one in the working folder, else None.

    Raises BadInput where a folder has two.
    """
    place = Path(model)
    for folder in (place, place.parent, Path()):  # a Hugging Face folder may hold its own
        found = [folder / name for name in NAMES if (folder / name).is_file()]
        if len(found) > 1:
            raise BadInput(f"{found[0]} and {found[1].name}: two files of settings; keep one of them")
        if found:
            return found[0]
    return None


def make_request(model: str, flags: dict[str, Any], *, use_file: bool = True) -> tuple[Request, Path]:
    """Return the request of a command line and the folder that its relative names start from.

    `flags` holds what the line gave, None for what it didn't. The file fills the gaps, with paths relative to itself;
    a name given on the line is relative to the working folder, as everywhere. `use_file` False: no file is looked for,
    as for a module handed over in Python, which stands beside nothing.
    """
    given = {key: value for key, value in flags.items() if value is not None}
    config = find_config(model) if use_file else None
    base = Path.cwd()
    values: dict[str, Any] = {}
    if config is not None:
        values = _read(config, in_model=config.parent == Path(model))
        if FLOORS & given.keys():  # the two say the same thing: the line's replaces the file's
            values = {key: value for key, value in values.items() if key not in FLOORS}
        base = config.resolve().parent
        for key in ("factory", "data", "metric", "loss", "augment", "recipe"):
            if key in given:
                given[key] = _absolute(key, str(given[key]))
    values.update(given)
    values["model"] = model
    try:
        return Request.model_validate(values), base
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0])
        flag = f"--{key.replace('_', '-')}"
        if first["type"] == "extra_forbidden":
            raise BadInput(f"{flag}: unknown{_nearest(key)}; see easycompress compress --help") from error
        where = flag if key in given else f"{config}: {key}"
        reason = first["msg"][:1].lower() + first["msg"][1:]
        raise BadInput(f"{where} {first['input']}: {reason}") from error


def _read(path: Path, *, in_model: bool) -> dict[str, Any]:
    data = _parsed(path)
    values = {key.replace("-", "_"): value for key, value in data.items()}
    unknown = sorted(values.keys() - Request.model_fields.keys())
    if unknown:
        raise BadInput(
            f"{path}: unknown setting {', '.join(unknown)}{_nearest(unknown[0])}; "
            "a setting is a flag without its dashes"
        )
    if values.get("trust_pickle"):
        raise BadInput(
            f"{path}: trust_pickle belongs on the command line (--trust-pickle): whoever made this file may have made "
            "the pickle too"
        )
    named = [key for key in FUNCTIONS if in_model and ":" in str(values.get(key, "")).removeprefix("torchvision:")]
    if named:
        raise BadInput(
            f"{path}: {named[0]} names code, and the file lies in the model's own folder, which may be anybody's; give "
            f"it on the command line, --{named[0]} {values[named[0]]}"
        )
    for key in ("mean", "std"):
        if isinstance(values.get(key), (int, float)):
            values[key] = [values[key]]
    if isinstance(values.get("columns"), list):
        values["columns"] = ",".join(map(str, values["columns"]))
    values.pop("model", None)
    for key in ("target", "max_drop", "min_quality", "budget"):
        if key in values:
            values[key] = str(values[key])
    if isinstance(values.get("out"), str) and "://" not in values["out"]:
        values["out"] = str(path.resolve().parent / values["out"])
    return values


def _parsed(path: Path) -> dict[str, Any]:
    kind, line = ("TOML", 'data = "digits"') if path.suffix == ".toml" else ("YAML", "data: digits")
    try:
        text = path.read_text(encoding="utf-8-sig")
        data = read_toml(text) if path.suffix == ".toml" else read_yaml(text) or {}
    except OSError as error:
        raise BadInput(f"{path}: can't be read ({error.strerror}); mend or remove it") from error
    except ValueError as error:  # UnicodeDecodeError among them
        raise BadInput(f"{path}: not valid {kind}: {one_line(error)}; write lines such as {line}") from error
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise BadInput(f"{path}: not a mapping of settings; write lines such as {line}")
    return data


def _nearest(key: str) -> str:
    """Return the question whether the nearest setting was meant; nothing where none is near."""
    near = difflib.get_close_matches(key, Request.model_fields, n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def _absolute(key: str, spec: str) -> str:
    """Make the file or folder of a name given on the line absolute: it is relative to the working folder.

    Names of built-in things (`digits`, `accuracy`) and of importable modules stay, whatever lies in the folder.
    """
    head, colon, function = spec.rpartition(":")
    if colon:
        return f"{Path(head).expanduser().resolve()}:{function}" if head.endswith(".py") else spec
    path = Path(spec).expanduser()
    if key == "data" and is_hub_name(spec) and not path.exists():
        return spec
    names_file = key == "recipe" or (key == "data" and spec != "digits")
    if names_file and (os.sep in spec or path.suffix or path.exists()):
        return str(path.resolve())
    return spec
