"""The house, read from the source: who may import whom, how long things get, what is documented."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

import easycompress

HOUSE = Path(easycompress.__file__).parent

ORDER = (
    "core", "codes", "metrics", "training", "intake", "artifact", "measure", "technique",
    "pruning distillation quantization lc",
    "techniques", "selection", "executor", "report", "prepare", "planning", "fingerprint",
    "predictions", "changes", "deliver", "carry", "assemble", "calling", "follow", "regression", "api",
    "exploration", "estimation",
    "demo", "starter", "init", "web",
    "cli_flags", "cli_files", "cli_init", "cli_check", "cli_explore", "cli_estimate", "cli_serve",
    "pytest_plugin", "cli", "__main__",
)  # fmt: skip
"""A folder or module may import only from entries before its own; those on one line never import each other."""

LEVEL = {name: level for level, names in enumerate(ORDER) for name in names.split()}

MOST_LINES = 300
LONGEST_FUNCTION = 70
IMPORT_SECONDS = 0.5

Function = ast.FunctionDef | ast.AsyncFunctionDef


@functools.cache
def modules() -> dict[str, Path]:
    """Every module by its dotted name, packages without `.__init__`."""
    found = {}
    for path in sorted(HOUSE.rglob("*.py")):
        parts = path.relative_to(HOUSE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@functools.cache
def tree(name: str) -> ast.Module:
    return ast.parse(modules()[name].read_text())


@functools.cache
def imports(name: str) -> tuple[tuple[str, ast.stmt], ...]:
    """Every module of the house that one imports, with the statement: for type checking and inside functions too."""
    found: list[tuple[str, ast.stmt]] = []
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Import):
            found.extend((alias.name, node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}:{node.lineno}: relative import"
            module = node.module or ""
            found.extend(
                (f"{module}.{alias.name}" if f"{module}.{alias.name}" in modules() else module, node)
                for alias in node.names
            )
    return tuple((target, node) for target, node in found if target.split(".")[0] == "easycompress")


def part(name: str) -> str:
    """The entry of the house that a module belongs to; empty for the package itself."""
    return [*name.split("."), ""][1]


def only_for_types(name: str, statement: ast.stmt) -> bool:
    blocks = [n for n in ast.walk(tree(name)) if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]
    return any(statement in block.body for block in blocks)


def functions(name: str) -> list[Function]:
    return [node for node in ast.walk(tree(name)) if isinstance(node, Function)]


each_module = pytest.mark.parametrize("name", sorted(modules()))


def test_every_module_has_its_place_in_the_order() -> None:
    assert {part(name) for name in modules()} - {""} <= LEVEL.keys()


@each_module
def test_imports_come_from_further_up(name: str) -> None:
    if name == "easycompress":
        return  # the public face, above which there is nothing
    own = part(name)
    wrong = [
        f"line {node.lineno}: {target}"
        for target, node in imports(name)
        if part(target) != own and LEVEL[part(target)] >= LEVEL[own]
    ]
    assert not wrong, f"{name} imports from below or beside: {wrong}"


def test_the_check_of_the_order_can_fail() -> None:
    assert LEVEL["pruning"] == LEVEL["quantization"] < LEVEL["techniques"] < LEVEL["executor"] < LEVEL["cli"]
    assert any(part(target) == "technique" for target, _ in imports("easycompress.pruning.technique"))


def test_no_cycle_between_modules() -> None:
    graph = {
        name: {target for target, node in imports(name) if not only_for_types(name, node) and target != name}
        for name in modules()
        if name != "easycompress"
    }
    settled: set[str] = set()
    waiting = dict(graph)
    while waiting:
        free = [name for name, targets in waiting.items() if targets <= settled | {"easycompress"}]
        assert free, f"a cycle among {sorted(waiting)}"
        settled.update(free)
        for name in free:
            del waiting[name]


@each_module
def test_imports_stand_at_the_top(name: str) -> None:
    if name == "easycompress.cli":
        return  # its commands import late, so that help is quick
    lines = modules()[name].read_text().splitlines()
    late = [
        node.lineno
        for function in functions(name)
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
        and not re.search(r"# noqa: PLC0415 - \w+", lines[node.lineno - 1])
    ]
    assert not late, f"{name}: imports inside functions without a reason on lines {late}"


@each_module
def test_modules_are_short(name: str) -> None:
    assert len(modules()[name].read_text().splitlines()) < MOST_LINES


@each_module
def test_functions_are_short(name: str) -> None:
    long = {f.name: f.end_lineno - f.lineno + 1 for f in functions(name) if f.end_lineno is not None}
    assert {n: lines for n, lines in long.items() if lines > LONGEST_FUNCTION} == {}


@each_module
def test_nothing_prints(name: str) -> None:
    calls = [node for node in ast.walk(tree(name)) if isinstance(node, ast.Call)]
    assert [call.lineno for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"] == []


@each_module
def test_what_is_public_is_documented(name: str) -> None:
    bare = [name] if ast.get_docstring(tree(name)) is None else []
    owners: list[tuple[str, ast.Module | ast.ClassDef]] = [("", tree(name))]
    owners += [(f"{n.name}.", n) for n in ast.walk(tree(name)) if isinstance(n, ast.ClassDef)]
    for prefix, owner in owners:
        if prefix.startswith("_"):
            continue
        for node in owner.body:
            if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_"):
                bare += [prefix + node.name] if ast.get_docstring(node) is None else []
    assert not bare, f"{name}: no docstring on {bare}"


@each_module
def test_annotations_are_lazy(name: str) -> None:
    if len(tree(name).body) > 1 and name != "easycompress":
        assert "from __future__ import annotations" in modules()[name].read_text()


def test_importing_the_package_is_quick_and_leaves_torch_alone() -> None:
    code = "import sys, easycompress; print(*sorted(sys.modules))"
    seconds = []
    for _ in range(3):
        begin = time.perf_counter()
        result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
        seconds.append(time.perf_counter() - begin)
    assert not {"torch", "onnx", "onnxruntime", "numpy", "scipy"} & set(result.stdout.split())
    assert min(seconds) < IMPORT_SECONDS, "the interpreter's own start included"
