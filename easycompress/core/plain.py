"""YAML, TOML and JSON that anybody may have written: plain values, no more of them than the text has signs."""

from __future__ import annotations

import json
import sys
from typing import Any

import yaml

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MOST_TEXT = 1 << 20
"""Signs of a file of settings: real ones have a thousandth."""

MOST_VALUES = 100_000
"""Values that YAML may stand for. Its aliases repeat others: nine lines can be a billion."""

DEEP = "it is nested too deep"


def read_yaml(text: str) -> Any:  # noqa: ANN401 - any plain value
    """Return the value of a YAML text. Raises ValueError in one line: no YAML, a tag that makes an object, a bomb."""
    _check_length(text)
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    except RecursionError:
        raise ValueError(DEEP) from None  # its trace is as deep
    if _values(value, {}) > MOST_VALUES:
        raise ValueError(f"its aliases stand for over {MOST_VALUES} values")
    return value


def read_toml(text: str) -> dict[str, Any]:
    """Return the table of a TOML text. Raises ValueError in one line where it is none."""
    _check_length(text)
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError(DEEP) from None  # its trace is as deep


def read_json_text(text: str | bytes) -> Any:  # noqa: ANN401 - any JSON value
    """Return the value of a JSON text. Raises ValueError in one line where it is none."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError(DEEP) from None  # its trace is as deep


def _values(value: object, known: dict[int, int]) -> int:
    """Return how many values there are inside, repeated ones as often as they are. Raises ValueError for a circle."""
    if not isinstance(value, (dict, list, tuple, set)):
        return 1
    if id(value) in known:
        if not known[id(value)]:
            raise ValueError("it holds itself")
        return known[id(value)]
    known[id(value)] = 0  # not yet known
    inside = [*value, *value.values()] if isinstance(value, dict) else [*value]
    known[id(value)] = 1 + sum(_values(item, known) for item in inside)
    return known[id(value)]


def _check_length(text: str) -> None:
    if len(text) > MOST_TEXT:
        raise ValueError(f"it has {len(text)} signs, over {MOST_TEXT}")
