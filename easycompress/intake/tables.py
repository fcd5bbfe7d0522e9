"""Files of rows (parquet, csv, tsv, json, arrow) and folders of them -> tables by split, as pyarrow holds them."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from easycompress.core.errors import BadInput, one_line
from easycompress.core.plain import read_json_text
from easycompress.intake.columns import SKIPPED, is_usual

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
"""Names of folders and files, each with the split that it means."""

TABLE_SUFFIXES = (".parquet", ".csv", ".tsv", ".jsonl", ".json", ".arrow")

SAVED_FILES = ("dataset_info.json", "dataset_dict.json", "state.json")
"""What `datasets.save_to_disk` writes beside the rows."""


def split_of(path: Path) -> str | None:
    """Return the split that a file's name begins with, or holds as a word: train-00000-of-00002, sst2_dev."""
    words = re.split(r"[-_.\s]", path.stem.lower())
    return next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), None)


def table_files(folder: Path) -> dict[str, list[Path]]:
    """Return a folder's files of rows by split; empty where it has none.

    They lie in the folder or in `data/`, their names telling the split, or in a folder for each split, as
    `datasets.save_to_disk` writes them. A single file without a split in its name is training data.
    """
    for place in (folder, folder / "data"):
        files = [
            file
            for suffix in TABLE_SUFFIXES
            for file in sorted(place.glob(f"*{suffix}"))
            if file.name not in SAVED_FILES and not file.name.startswith(("cache-", "."))
        ]
        kinds = [file for file in files if file.suffix == files[0].suffix]  # one form: others lie there by chance
        found = _by_split(kinds)
        if found:
            return found
        if kinds and all(file.suffix == ".arrow" for file in kinds):
            return {SPLIT_NAMES.get(folder.name.lower(), "train"): kinds}  # one split, saved alone, in parts
        if len(kinds) == 1 and kinds[0].suffix != ".json":
            return {"train": kinds}
    found = {}
    for child in sorted(folder.iterdir()):
        split = SPLIT_NAMES.get(child.name.lower())
        if split is not None and child.is_dir():
            parts = [file for suffix in TABLE_SUFFIXES for file in sorted(child.glob(f"*{suffix}"))]
            parts = [file for file in parts if file.name not in SAVED_FILES]
            if parts:
                found[split] = parts
    return found


def _by_split(files: Sequence[Path]) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for file in files:
        split = split_of(file)
        if split is not None:
            found.setdefault(split, []).append(file)
    return found


@dataclass(frozen=True)
class Part:
    """A table (pyarrow's) of a split, and the file that it is from: what its cells' paths are relative to."""

    path: Path
    table: Any

    def cells(self, column: str, where: str) -> list[Any]:
        """Return a column's cells. Raises BadInput, listing the columns, where it isn't there, and for an empty one."""
        if column not in self.table.column_names:
            listed = ", ".join(self.table.column_names)
            raise BadInput(f"{where}: {self.path.name} has no column {column}; there are {listed}")
        cells: list[Any] = self.table.column(column).to_pylist()
        if None in cells:
            row = cells.index(None)
            raise BadInput(f"{where}: {self.path.name} row {row} has no {column}; fill it in or remove the row")
        return cells

    def class_names(self, column: str) -> tuple[str, ...]:
        """Return what Hugging Face `datasets` noted of a column of classes: their names by number; empty if nothing."""
        metadata = (self.table.schema.metadata or {}).get(b"huggingface")
        feature = json.loads(metadata).get("info", {}).get("features", {}).get(column, {}) if metadata else {}
        while isinstance(feature, dict) and isinstance(feature.get("feature"), dict):
            feature = feature["feature"]  # a list of classes
        return tuple(feature.get("names", ())) if isinstance(feature, dict) else ()


def read_tables(files: dict[str, list[Path]], named: tuple[str, ...] | None, where: str) -> dict[str, list[Part]]:
    """Return the tables of each split. Raises BadInput for what can't be read or is empty."""
    tables = {split: [Part(path, read_table(path, named, where)) for path in paths] for split, paths in files.items()}
    for parts in tables.values():
        if not any(part.table.num_rows for part in parts):
            raise BadInput(f"{where}: {parts[0].path.name} has no rows; give at least one sample, or leave it away")
    return tables


def read_table(path: Path, named: tuple[str, ...] | None, where: str) -> Any:  # noqa: ANN401 - pyarrow is untyped
    """Return one file as a pyarrow Table. Columns of csv and tsv are all texts."""
    from pyarrow import ipc, parquet  # noqa: PLC0415 - a fifth of a second to import, and only this form needs it
    from pyarrow import json as rows  # noqa: PLC0415 - as above

    kind = path.suffix.lower().removeprefix(".")
    try:
        if kind == "parquet":
            return parquet.read_table(path)
        if kind in ("csv", "tsv"):
            return _separated(path, named, where)
        if kind == "arrow":
            with path.open("rb") as file:
                opened = ipc.open_file if file.read(6) == b"ARROW1" else ipc.open_stream
                file.seek(0)
                return opened(file).read_all()
        return _json(path, where) if kind == "json" else rows.read_json(path)
    except (OSError, ValueError, UnicodeDecodeError) as error:  # pyarrow's errors are ValueErrors
        raise BadInput(f"{where}: {path.name} is not readable {kind}: {one_line(error)}; write it again") from error


def _json(path: Path, where: str) -> Any:  # noqa: ANN401 - pyarrow is untyped
    """Read a list of rows, a dict of columns, `{"data": rows}`, or a row a line under the wrong name."""
    import pyarrow as pa  # noqa: PLC0415 - a fifth of a second to import, and only this form needs it
    from pyarrow import json as rows  # noqa: PLC0415 - as above

    try:
        content = read_json_text(path.read_text(encoding="utf-8-sig"))
    except ValueError:
        return rows.read_json(path)
    if isinstance(content, dict) and isinstance(content.get("data"), list):
        content = content["data"]
    if isinstance(content, dict) and content and all(isinstance(values, list) for values in content.values()):
        return pa.table(content)
    if isinstance(content, list) and all(isinstance(row, dict) for row in content):
        return pa.Table.from_pylist(content)
    raise BadInput(f"{where}: {path.name} holds no rows; write a list of dicts, or a dict a line as .jsonl")


def _separated(path: Path, named: tuple[str, ...] | None, where: str) -> Any:  # noqa: ANN401 - pyarrow is untyped
    """Read csv (quoted cells may hold commas and line ends) or tsv (tabs alone separate; quotes are text)."""
    from pyarrow import csv as reader  # noqa: PLC0415 - a fifth of a second to import, and only this form needs it
    from pyarrow import string  # noqa: PLC0415 - as above

    tabs = path.suffix.lower() == ".tsv"
    first = _first_row(path, tabs=tabs)
    header = _has_header(first, named, path, where)
    names = first if header else [f"{SKIPPED}{i}" if n == SKIPPED else n for i, n in enumerate(named or ())]
    return reader.read_csv(
        path,
        read_options=reader.ReadOptions(column_names=names, skip_rows=1 if header else 0),
        parse_options=reader.ParseOptions(
            delimiter="\t" if tabs else ",",
            # Published tsv files hold lone quotes, which a reader that took them for marks would swallow rows by.
            quote_char=False if tabs else '"',
            newlines_in_values=not tabs,
        ),
        convert_options=reader.ConvertOptions(column_types=dict.fromkeys(names, string())),
    )


def _first_row(path: Path, *, tabs: bool) -> list[str]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        if tabs:
            return file.readline().rstrip("\r\n").split("\t")
        return next(csv.reader(file), [])


def _has_header(first: list[str], named: tuple[str, ...] | None, path: Path, where: str) -> bool:
    """Tell whether a file's first row names its columns. Raises BadInput where it neither does nor could be named."""
    if named is None:
        if any(is_usual(name) for name in first):
            return True
        raise BadInput(
            f"{where}: {path.name} begins with no usual column names ({_cut(first)}); name its columns in order, such "
            "as --columns text,label"
        )
    used = {name for name in named if name != SKIPPED}
    if used & set(first) or any(is_usual(name) for name in first):
        return True
    if len(first) != len(named):
        raise BadInput(
            f"{where}: {path.name} has {len(first)} columns ({_cut(first)}), but --columns names {len(named)}; a file "
            f"without header needs a name for each, {SKIPPED} for one that is not used"
        )
    return False


def _cut(cells: list[str]) -> str:
    return ", ".join(cell if len(cell) <= 24 else f"{cell[:23]}…" for cell in cells)  # noqa: PLR2004 - for one line
