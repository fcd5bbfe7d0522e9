"""Edited settings held against the JSON schema that the page's form was made from: the part that pydantic writes."""

from __future__ import annotations

import math
import operator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

TYPES: dict[str, tuple[type, ...]] = {
    "integer": (int,), "number": (int, float), "string": (str,), "boolean": (bool,), "null": (type(None),),
    "array": (list,), "object": (dict,),
}  # fmt: skip

BOUNDS: dict[str, tuple[str, Callable[[float, float], bool]]] = {
    "minimum": ("at least", operator.ge),
    "maximum": ("at most", operator.le),
    "exclusiveMinimum": ("more than", operator.gt),
    "exclusiveMaximum": ("less than", operator.lt),
}


def check_settings(settings: dict[str, Any], schema: dict[str, Any]) -> dict[str, str]:
    """Return the line of every setting that its schema doesn't allow, by name; empty where all is well."""
    known = schema["properties"]
    lines = {name: "no such setting" for name in settings if name not in known}
    for name, value in settings.items():
        if name in known and (line := _fault(value, known[name])):
            lines[name] = line
    return lines


def _fault(value: Any, schema: dict[str, Any]) -> str | None:  # noqa: ANN401 - any JSON value
    """Return what is wrong with a value, in words; None for nothing."""
    if "anyOf" in schema:
        faults = [_fault(value, each) for each in schema["anyOf"]]
        real = [f for f, each in zip(faults, schema["anyOf"], strict=True) if each.get("type") != "null"]
        return None if None in faults else real[0]
    allowed = [schema["const"]] if "const" in schema else schema.get("enum")
    kind = schema.get("type")
    line = None
    if allowed is not None and value not in allowed:
        line = f"choose one of {', '.join(map(str, allowed))}" if len(allowed) > 1 else f"must be {allowed[0]}"
    elif kind is not None and not _is(value, kind):
        line = {"integer": "write a whole number", "number": "write a number"}.get(kind, f"must be a {kind}")
    elif kind in ("integer", "number"):
        line = _outside(value, schema)
    elif kind == "array":
        few = "choose at least one" if len(value) < schema.get("minItems", 0) else None
        line = few or next((found for each in value if (found := _fault(each, schema.get("items", {})))), None)
    return line


def _outside(value: float, schema: dict[str, Any]) -> str | None:
    """Return which bound a number breaks."""
    broken = [name for name, (_, holds) in BOUNDS.items() if name in schema and not holds(value, schema[name])]
    return f"must be {BOUNDS[broken[0]][0]} {schema[broken[0]]:g}" if broken else None


def _is(value: Any, kind: str) -> bool:  # noqa: ANN401 - any JSON value
    if isinstance(value, bool):
        return kind == "boolean"
    if isinstance(value, float) and not math.isfinite(value):
        return False
    return isinstance(value, TYPES.get(kind, (object,)))
