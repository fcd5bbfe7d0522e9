"""Names inside an exported program's JSON: loading it writes them into Python source, which is then executed."""

from __future__ import annotations

import ast
import re
from typing import Any

from easycompress.core.plain import read_json_text

NAME = re.compile(r"[\w.\-]*")
"""What names of inputs, values and weights are made of."""

QUOTED = ("as_string", "as_strings", "metadata")
"""Where any text may stand: it is written as a literal, or not at all."""

ELSEWHERE = ("expr_str", "torch_version")
"""Texts of another form: a size's expression, which is checked by itself, and a version."""

SPECS = ("in_spec", "out_spec")
"""JSON in a text: how arguments and answers are nested, keywords' names among it."""

OPERATOR = "as_operator"
"""An operator handed to an operator that calls it."""


GUARDS = "guards_code"
"""Python conditions on the inputs' sizes, which a program can be asked to check by executing them."""

IN_GUARDS = (
    ast.Expression, ast.Compare, ast.BoolOp, ast.BinOp, ast.UnaryOp, ast.Subscript, ast.Constant, ast.Load, ast.cmpop,
    ast.boolop, ast.operator, ast.unaryop,
)  # fmt: skip
"""What such a condition is made of, besides `L['x'].size()`."""


def is_guard(text: str) -> bool:
    """Tell whether a condition only compares and reckons with sizes: it calls nothing else and names nothing else."""
    try:
        nodes = list(ast.walk(ast.parse(text, mode="eval")))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    sizes = [
        node
        for node in nodes
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "size"
        if not node.args and not node.keywords
    ]
    known = {id(node) for node in sizes} | {id(node.func) for node in sizes}
    return all(
        isinstance(node, IN_GUARDS) or id(node) in known or (isinstance(node, ast.Name) and node.id == "L")
        for node in nodes
    )


def _is_fine(key: str, text: str) -> bool:
    """Tell whether a text under `key` is what such a text may be."""
    if key == GUARDS:
        return is_guard(text)
    return bool(NAME.fullmatch(text)) and (key != OPERATOR or text.startswith("torch.ops.aten."))


def strange_name(graph: Any) -> str | None:  # noqa: ANN401 - JSON
    """Return the first text in a program's JSON that stands where a name is and is none; None where all are names."""
    waiting: list[tuple[str, Any]] = [("", graph)]
    while waiting:
        key, part = waiting.pop()
        if isinstance(part, dict):
            bad = next((name for name in part if not NAME.fullmatch(name)), None)
            if bad is not None:
                return str(bad)
            waiting += [(name, value) for name, value in part.items() if name not in (*QUOTED, *ELSEWHERE)]
        elif isinstance(part, list):
            waiting += [(key, value) for value in part]
        elif isinstance(part, str):
            if key in SPECS or part[:1] in ("[", "{"):
                try:
                    waiting.append(("", read_json_text(part)))
                except ValueError:
                    return part
            elif not _is_fine(key, part):
                return part
    return None
