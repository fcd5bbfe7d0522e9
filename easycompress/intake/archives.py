"""What is inside a model file, read without running any of it: pickles' globals, an exported program's parts."""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import re
import zipfile
from typing import TYPE_CHECKING, Any

import torch

from easycompress.core.errors import BadInput, one_line
from easycompress.core.plain import read_json_text
from easycompress.intake.program_names import strange_name

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

USUAL = re.compile(
    r"torch(\._utils|\.storage|\.nn\.parameter|\.nn\.modules\.\w+|\.serialization)?\.\w+|collections\.OrderedDict"
    r"|(__builtin__|builtins)\.(set|frozenset|dict|list|tuple|slice|complex|bytearray|int|float|bool|str)"
)
"""Names that pickles of plain tensors and layers hold too; they aren't worth telling a user."""

TEXT_OPS = ("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE", "STRING", "BINSTRING", "SHORT_BINSTRING")

SERIALIZED = "data/weights/", "data/constants/", "data/sample_inputs/"

OBJECTS = ("custom_obj", "opaque_obj")
"""What parts are called that hold a pickled object rather than a tensor."""

NATIVE = "data/aotinductor/"
"""Where an archive keeps compiled code, which loading it would run."""

OPERATORS = re.compile(
    r"torch\.ops\.(aten|prims|higher_order|torchvision|quantized_decomposed)\.(?!__)\w+(\.(?!__)\w+)?"
    r"|torch\.ops\.aten\.__i?(and|or|xor|lshift|rshift)__(\.(?!__)\w+)?"
    r"|torch\.sym_\w+|torch\._sym_\w+|torch\._check\w*|_operator\.(?!__)\w+|math\.(?!__)\w+|\w+"
)
"""What a program may call: an operator, a number's arithmetic. Loading resolves any name below `torch` otherwise."""

WORDS = {
    "Symbol", "Integer", "Float", "Rational", "Add", "Mul", "Pow", "Max", "Min", "Mod", "PythonMod", "FloorDiv",
    "CeilDiv", "CleanDiv", "ModularIndexing", "Where", "CeilToInt", "FloorToInt", "TruncToInt", "RoundToInt",
    "IntTrueDiv", "FloatTrueDiv", "ToFloat", "PowByNatural", "Eq", "Ne", "Equality", "Unequality", "Lt", "Le", "Gt",
    "Ge", "LessThan", "StrictLessThan", "GreaterThan", "StrictGreaterThan", "And", "Or", "Not", "Identity",
    "BooleanTrue", "BooleanFalse", "true", "false", "True", "False", "integer", "positive", "nonnegative",
    "real", "nonzero", "zero", "extended_real", "precision", "int_oo", "oo", "Infinity", "NegativeInfinity",
}  # fmt: skip
"""Names that a size's expression is made of. It is evaluated as Python when the program is loaded."""

MOST_VIEWED = 1 << 26
"""Numbers of a tensor that may be fewer in the file: one row seen many times."""

MOST = 4
"""Names listed in one line."""


def globals_of(data: bytes) -> list[str]:
    """Return the names that unpickling would import (module.name), in order, without unpickling.

    Of a zip archive that torch.save wrote, all of its pickles'; else of every pickle that follows another in `data`.
    Damaged data gives those up to the damage.
    """
    if zipfile.is_zipfile(io.BytesIO(data)):
        found: list[str] = []
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for name in archive.namelist():
                if name.endswith(".pkl"):
                    found += _globals(archive.read(name))
        return list(dict.fromkeys(found))
    return list(dict.fromkeys(_globals(data)))


def check_sizes(path: Path) -> None:
    """Raise BadInput for a zip archive whose parts say to be more than it: torch doesn't compress, bombs do."""
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            total = sum(info.file_size for info in archive.infolist())
    except (zipfile.BadZipFile, ValueError, OSError) as error:
        raise BadInput(f"{path}: a damaged archive ({one_line(error, 80)}); save or download it again") from error
    if total > path.stat().st_size:
        raise BadInput(
            f"{path}: an archive of {path.stat().st_size} bytes whose parts say to have {total}; torch doesn't "
            "compress what it saves: save the model again"
        )


def unusual(path: Path) -> str:
    """Return the names that a pickled file would import, for people; those of plain tensors are left out."""
    try:
        found = globals_of(path.read_bytes())
    except (OSError, zipfile.BadZipFile):
        return ""
    strange = [name for name in found if not USUAL.fullmatch(name)]
    more = f" and {len(strange) - MOST} more" if len(strange) > MOST else ""
    return ", ".join(strange[:MOST]) + more


def _globals(data: bytes) -> Iterator[str]:
    file = io.BytesIO(data)
    while file.tell() < len(data):
        texts: list[str] = []
        memo: dict[int, str] = {}
        try:
            for opcode, argument, _ in pickletools.genops(file):
                if opcode.name in ("GLOBAL", "INST"):
                    yield str(argument).replace(" ", ".")
                elif opcode.name == "STACK_GLOBAL" and len(texts) > 1:
                    yield f"{texts[-2]}.{texts[-1]}"
                elif opcode.name in TEXT_OPS:
                    texts.append(str(argument))
                elif opcode.name == "MEMOIZE" and texts:
                    memo[len(memo)] = texts[-1]
                elif opcode.name in ("BINPUT", "LONG_BINPUT", "PUT") and texts:
                    memo[int(argument or 0)] = texts[-1]
                elif opcode.name in ("BINGET", "LONG_BINGET", "GET") and int(argument or 0) in memo:
                    texts.append(memo[int(argument or 0)])
        except (ValueError, IndexError, UnicodeDecodeError):
            return  # the rest is no pickle


def check_program(path: Path) -> None:
    """Raise BadInput unless loading this exported program can't run code of the file's own.

    torch.export.load unpickles parts, evaluates the expressions of sizes, looks operators up by name and loads compiled
    code: each is checked here, in the archive as torch reads it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile as error:
        raise BadInput(f"{path}: not a file that torch.export.save wrote; export the model again") from error
    check_sizes(path)
    if "version" in names:
        raise BadInput(f"{path}: written by an older torch (before 2.8); export the model again with {_torch()}")
    try:
        reader = torch._C.PyTorchFileReader(str(path))  # noqa: SLF001 - the reader that torch.export.load uses
        records = reader.get_all_records()
    except RuntimeError as error:
        raise BadInput(f"{path}: a damaged archive ({one_line(error, 120)}); export the model again") from error
    if len(set(names)) != len(names) or not any(name.startswith("models/") for name in records):
        raise BadInput(f"{path}: not a file that torch.export.save wrote; export the model again")
    for name in records:
        _check_part(path, name, reader)


def _check_part(path: Path, name: str, reader: Any) -> None:  # noqa: ANN401 - torch's reader
    def refuse(what: str) -> BadInput:
        return BadInput(
            f"{path}: {name} {what}, whose loading can run any code; export the model again yourself, or add "
            "--trust-pickle if you made this file"
        )

    file = name.rpartition("/")[2]
    if name.startswith(NATIVE):
        raise refuse("is compiled code")
    if file.endswith(".pkl") or file.startswith(OBJECTS):
        raise refuse("is a pickled object")
    if name.startswith("models/"):
        graph = _json(path, name, reader)
        strange = strange_name(graph)
        if strange is not None:
            raise refuse(f"holds the name {one_line(ValueError(strange), 60)!r}, which is none")
        _check_graph(refuse, graph)
    elif name.startswith(SERIALIZED) and file.endswith("_config.json"):
        for entry in _json(path, name, reader).get("config", {}).values():
            _check_entry(path, name, entry, reader, refuse)
    elif name.startswith(SERIALIZED) and file.endswith(".pt"):
        _check_pickle(path, name, _record(path, name, reader))


def _check_entry(path: Path, name: str, entry: Any, reader: Any, refuse: Any) -> None:  # noqa: ANN401 - as above
    """Check what a part says of one tensor: which other part holds it, how, and how many numbers."""
    held = str(entry.get("path_name"))
    if not re.fullmatch(r"\w+", held) or held.startswith(OBJECTS):
        raise refuse(f"points to {held[:60]}, a pickled object")
    part = f"{name.rpartition('/')[0]}/{held}"
    if entry.get("use_pickle"):
        _check_pickle(path, part, _record(path, part, reader))
    elif _elements(entry.get("tensor_meta")) > max(MOST_VIEWED, len(_record(path, part, reader))):
        raise BadInput(f"{path}: {name} says that {held} is larger than its bytes; export the model again")


def _elements(meta: Any) -> int:  # noqa: ANN401 - JSON
    """Return how many numbers a tensor says to have; 0 where it doesn't, which loading refuses."""
    try:
        return math.prod(int(size["as_int"]) for size in meta["sizes"])
    except (TypeError, KeyError, ValueError):
        return 0


def _record(path: Path, name: str, reader: Any) -> bytes:  # noqa: ANN401 - torch's reader
    try:
        return bytes(reader.get_record(name))
    except RuntimeError as error:
        raise BadInput(f"{path}: {name} is missing or damaged; export the model again") from error


def _json(path: Path, name: str, reader: Any) -> Any:  # noqa: ANN401 - torch's reader, and any JSON
    try:
        return read_json_text(_record(path, name, reader))
    except ValueError as error:
        raise BadInput(f"{path}: {name} can't be read ({one_line(error, 80)}); export the model again") from error


def _check_pickle(path: Path, name: str, data: bytes) -> None:
    """Let plain tensors pass: what torch reads with `weights_only`."""
    if not data:
        return
    try:
        torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a made-up pickle does to the reader, it isn't plain tensors
        if not isinstance(error, pickle.UnpicklingError) and not globals_of(data):
            raise BadInput(f"{path}: {name} can't be read ({one_line(error, 120)}); export the model again") from error
        found = ", ".join([n for n in globals_of(data) if not USUAL.fullmatch(n)][:MOST])
        raise BadInput(
            f"{path}: {name} is a pickled object{f' (it holds {found})' if found else ''}, whose loading can run any "
            "code; export the model again yourself, or add --trust-pickle if you made this file"
        ) from error


def _check_graph(refuse: Any, graph: Any) -> None:  # noqa: ANN401 - a function, and JSON
    """Walk a program's JSON: every operator's name and every expression of a size."""
    waiting = [graph]
    while waiting:
        part = waiting.pop()
        if isinstance(part, list):
            waiting.extend(part)
        if not isinstance(part, dict):
            continue
        waiting.extend(part.values())
        expression, target = part.get("expr_str"), part.get("target")
        if isinstance(expression, str) and not _is_size(expression):
            raise refuse(f"holds the expression {one_line(ValueError(expression), 60)!r} as a size")
        if isinstance(target, str) and "inputs" in part and not OPERATORS.fullmatch(target):
            raise refuse(f"calls {target[:60]}")


def _is_size(expression: str) -> bool:
    """Tell whether an expression is arithmetic of symbols: known words, quoted symbols, numbers."""
    bare = re.sub(r"'[A-Za-z]\w*'", "", expression)
    if not re.fullmatch(r"[\w\s(),=+\-*/.<>]*", bare) or re.search(r"\.[A-Za-z_]", bare):
        return False
    return all(word in WORDS or re.fullmatch(r"[suz]\d+", word) for word in re.findall(r"[A-Za-z_]\w*", bare))


def _torch() -> str:
    return f"torch {torch.__version__.partition('+')[0]}"
