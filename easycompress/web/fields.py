"""What somebody wrote into the page's fields -> flags of a request, or one line for each field that is wrong."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from easycompress.core.errors import BadInput
from easycompress.core.goal import parse_budget, parse_floor, parse_objective, parse_target
from easycompress.core.request import MOST_REPEATS
from easycompress.web.uploads import PREFIX

if TYPE_CHECKING:
    from collections.abc import Callable

    from easycompress.web.settings import Settings
    from easycompress.web.uploads import Uploads

MODEL_FIELDS = ("model", "factory", "data", "columns", "shape", "mean", "std", "augment", "metric", "loss")
GOAL_FIELDS = (
    "objective", "target", "max_drop", "min_quality", "format", "budget", "backend", "batch", "threads", "certify",
    "seed", "repeats", "also", "force",
)  # fmt: skip
"""Flags that the page can set. `trust_pickle` is not among them: nobody can be asked over the wire to trust a file."""

OWN_DATA = ("digits",)
"""Data that comes with easycompress's libraries."""

_TORCHVISION = re.compile(r"torchvision:[A-Za-z][A-Za-z0-9_]*")
_FUNCTION = re.compile(r"(?P<file>.+\.py):(?P<name>[A-Za-z_]\w*)")
_DOTTED = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_NAME = re.compile(r"[A-Za-z0-9][\w-]*")


class Wrong(Exception):
    """Fields that can't stay as they are: the line of each."""

    def __init__(self, lines: dict[str, str]) -> None:
        super().__init__("; ".join(lines.values()))
        self.lines = lines


class Fields:
    """Reads the page's fields by the rules of one server."""

    def __init__(self, settings: Settings, uploads: Uploads) -> None:
        self._settings, self._uploads = settings, uploads

    def model(self, given: dict[str, Any]) -> dict[str, Any]:
        """Return the flags about model and data, paths absolute. Raises Wrong."""
        uploaded = str(given.get("model", "")).startswith(PREFIX)
        readers: dict[str, Callable[[str], object]] = {
            "model": self._model,
            "factory": lambda text: self._factory(text, uploaded=uploaded),
            "data": self._data,
            "columns": str,
            "shape": _shape,
            "mean": _numbers,
            "std": _positive,
            "augment": lambda text: text if text in ("none", "flip", "flip-crop") else self._function(text),
            "metric": self._named_or_function,
            "loss": self._named_or_function,
        }
        flags = _read(given, readers)
        if ("mean" in flags) != ("std" in flags):
            raise Wrong({"std" if "mean" in flags else "mean": "Give mean and std together, or neither."})
        return flags

    def goal(self, given: dict[str, Any], metric: dict[str, Any] | None) -> dict[str, Any]:
        """Return the flags about the goal; `metric` has `name` and `percent`, None without data. Raises Wrong."""
        try:
            objective = parse_objective(str(given.get("objective") or "size"))
        except BadInput as error:
            raise Wrong({"objective": plain(str(error))}) from error

        def floor(name: str) -> Callable[[str], str]:
            def read(text: str) -> str:
                if metric is None:
                    raise BadInput("without data quality can't be judged: leave the floor empty")
                drop, level = (text, None) if name == "max_drop" else (None, text)
                parse_floor(drop, level, percent_metric=bool(metric["percent"]), metric=str(metric["name"]))
                return text

            return read

        readers: dict[str, Callable[[str], object]] = {
            "objective": str,
            "target": lambda text: parse_target(text, objective).text,
            "max_drop": floor("max_drop"),
            "min_quality": floor("min_quality"),
            "format": _one_of("onnx", "packed"),
            "budget": lambda text: parse_budget(text).text,
            "backend": _one_of("cpu", "gpu"),
            "batch": _whole(1, 1 << 16),
            "threads": _whole(0, 1024),
            "certify": _switch,
            "seed": _whole(0, 2**32 - 1),
            "repeats": _whole(1, MOST_REPEATS),
            "also": _also,
            "force": _switch,
        }
        flags = _read(given, readers)
        if "target" not in flags:
            raise Wrong({"target": "Say how far to go: 10x, 90%, an amount such as 120KB, or max."})
        if metric is not None and not flags.keys() & {"max_drop", "min_quality"}:
            raise Wrong({"max_drop": "Say what may be lost: 1% is one percentage point, 1%rel is of the original."})
        return flags

    def path(self, text: str) -> Path:
        """Return an existing file or folder on the server. Raises BadInput where there is none, or outside the root."""
        path = self._settings.work / Path(text).expanduser()
        root = self._settings.root
        if root is not None and not path.resolve().is_relative_to(root.resolve()):
            raise BadInput(f"{text}: outside of the folder that this server may read; see easycompress serve --root")
        if not path.exists():
            raise BadInput(f"{text}: no such file or folder on the server; paths start at {self._settings.work}")
        return path.absolute()

    def _model(self, text: str) -> str:
        return str(self._uploads.find(text).path if text.startswith(PREFIX) else self.path(text))

    def _data(self, text: str) -> str:
        if text.startswith(PREFIX):
            return str(self._uploads.find(text).path)
        if text in OWN_DATA:
            return text
        if _FUNCTION.fullmatch(text):
            return self._function(text)
        there = (self._settings.work / Path(text).expanduser()).exists()
        if there or (self._settings.root is None and "/" not in text and Path(text).suffix):
            return str(self.path(text))
        if self._settings.root is None:  # a data set by name: on this disk, or on the Hub
            return text
        if _NAME.fullmatch(text):
            raise BadInput(f"{text}: name a file or folder under {self._settings.root}, or {', '.join(OWN_DATA)}")
        return str(self.path(text))

    def _factory(self, text: str, *, uploaded: bool) -> str:
        if _TORCHVISION.fullmatch(text):
            return text
        if _DOTTED.fullmatch(text) and not _FUNCTION.fullmatch(text):
            if self._settings.root is None and not uploaded:
                return text
            raise BadInput("write torchvision:NAME, or file.py:function with a file that is on the server")
        return self._function(text)

    def _function(self, text: str) -> str:
        if text.startswith(PREFIX):
            raise BadInput("uploaded code is never run; name a file that is on the server")
        match = _FUNCTION.fullmatch(text)
        if not match:
            raise BadInput(f"{text}: write file.py:function, with a file that is on the server")
        return f"{self.path(match['file'])}:{match['name']}"

    def _named_or_function(self, text: str) -> str:
        return text if _NAME.fullmatch(text) else self._function(text)


def plain(line: str) -> str:
    """Return a line as it reads beside its field, without the flag that it would begin with on the command line."""
    return re.sub(r"^--[a-z-]+ [^:]*: ", "", line)


def field_of(line: str) -> str | None:
    """Return the field that an error's line is about: the first flag that it names."""
    names = re.findall(r"--([a-z]+(?:-[a-z]+)*)", line)
    fields = (*MODEL_FIELDS, *GOAL_FIELDS)
    return next((name.replace("-", "_") for name in names if name.replace("-", "_") in fields), None)


def _read(given: dict[str, Any], readers: dict[str, Callable[[str], object]]) -> dict[str, Any]:
    flags: dict[str, Any] = {}
    wrong: dict[str, str] = {}
    for name, read in readers.items():
        value = given.get(name)
        text = ("yes" if value else "") if isinstance(value, bool) else " ".join(str(value or "").split())
        if isinstance(value, int | float) and not isinstance(value, bool):
            text = str(value)
        if not text:
            if name == "model":
                wrong[name] = "Name a model on the server, or choose a file."
            continue
        try:
            flags[name] = read(text)
        except BadInput as error:
            wrong[name] = plain(str(error))
    if wrong:
        raise Wrong(wrong)
    return flags


def _shape(text: str) -> str:
    if not re.fullmatch(r"\d+(\s*,\s*\d+)*", text):
        raise BadInput(f"{text}: not a shape; write one sample's, such as 3,224,224")
    return text.replace(" ", "")


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.strip("[]()").split(",")]
    except ValueError:
        raise BadInput(f"{text}: not numbers; write one a channel, such as 0.49,0.48,0.45") from None


def _positive(text: str) -> list[float]:
    found = _numbers(text)
    if min(found) <= 0:
        raise BadInput(f"{text}: a standard deviation is positive")
    return found


def _one_of(*allowed: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in allowed:
            raise BadInput(f"{text}: choose one of {', '.join(allowed)}")
        return text

    return read


def _whole(least: int, most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not re.fullmatch(r"\d{1,12}", text) or not least <= int(text) <= most:
            raise BadInput(f"{text}: write a whole number from {least} to {most}")
        return int(text)

    return read


def _switch(text: str) -> bool:
    return text == "yes"


def _also(text: str) -> str:
    parts = text.replace(" ", "").split(",")
    if not set(parts) <= {"pt2", "hf"}:
        raise BadInput(f"{text}: further outputs are pt2 and hf")
    return ",".join(parts)
