"""Python objects that hold splits -> splits in memory; Hugging Face datasets of raw rows are read as tables are."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from easycompress.core.errors import BadInput, one_line
from easycompress.intake.columns import parse_columns
from easycompress.intake.frames import Frames, read_frames
from easycompress.intake.images import check_normalisation, normalise, pixel_maker
from easycompress.intake.objects import FORMS, as_split
from easycompress.intake.tables import SPLIT_NAMES, Part

if TYPE_CHECKING:
    from torch import nn

SPLITS = ("train", "validation", "test")

_ROWS = 1000
"""Rows of a streamed dataset read at a time."""


def named_splits(data: object, given: tuple[object, ...]) -> tuple[object, ...]:
    """Return train, validation and test; `data` is a DatasetDict, a dict of splits, or a dataset that knows its split.

    Raises BadInput where both are given, or `data` doesn't say which split is which.
    """
    if data is None:
        return given
    if any(value is not None for value in given):
        raise BadInput("data=: not beside train=, validation= or test=; hand the splits over in one way")
    if isinstance(data, Mapping):
        found: dict[str, object] = {}
        for name, value in data.items():
            split = split_called(str(name))
            if split is not None and split not in found:  # of several, such as MNLI's validation sets, the first
                found[split] = value
        if not found:
            listed = ", ".join(map(str, data)) or "none"
            raise BadInput(f"data=: its splits are {listed}; it needs any of {', '.join(SPLITS)}")
    elif is_dataset(data):
        split = split_called(str(getattr(data, "split", None)))
        if split is None:
            raise BadInput("data=: a dataset that doesn't say which split it is; hand it over as validation= or test=")
        found = {split: data}
    else:
        raise BadInput(
            f"data=: a {type(data).__name__}; give what --data takes as text, a DatasetDict or a dict of splits, or "
            "hand the splits over as train=, validation=, test="
        )
    return found.get("train"), found.get("validation"), found.get("test")


def split_called(name: str) -> str | None:
    """Return the split that a name begins with: train, dev, validation_matched; None for another."""
    return SPLIT_NAMES.get(re.split(r"[-_.\[]", name, maxsplit=1)[0].lower())


def is_dataset(value: object) -> bool:
    """Tell whether a value is one split of a Hugging Face dataset, in memory or streamed."""
    return hasattr(value, "column_names") and hasattr(value, "features") and hasattr(value, "with_format")


def read_objects(
    given: Mapping[str, object],
    *,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    columns: str | None,
    model: nn.Module,
    processor: object | None,
    labelled: bool,
) -> Frames:
    """Read the splits in `given`, by name. Datasets of raw rows become what `--data` makes of such files.

    Raises BadInput as frames.read_frames and objects.as_split do, and for `columns`, `mean` and `std` that nothing here
    has a use for.
    """
    check_normalisation(mean, std)
    named = parse_columns(columns)
    raw = {name: value for name, value in given.items() if _is_raw(value, named, processor)}
    plain = [name for name, value in given.items() if not is_dataset(value)]
    if named is not None and (plain or len(raw) < len(given)):
        name = (plain or [name for name in given if name not in raw])[0]
        raise BadInput(f"columns={columns!r}: {name} is no Hugging Face dataset of raw rows; leave it out")
    if mean is not None and plain:
        raise BadInput(f"{plain[0]}: mean= and std= don't reach data of your own; normalise it yourself")
    if mean is not None and pixel_maker(processor, 3) is not None:
        raise BadInput("--mean, --std: the model's own image processor normalises; leave them out")
    made = Frames({}, None, ())
    if raw:
        tables = {name: [Part(Path(name), table_of(value, name))] for name, value in raw.items()}
        for name, parts in tables.items():
            if not parts[0].table.num_rows:
                raise BadInput(f"{name}: the dataset has no rows; give at least one sample, or leave {name} away")
        made = read_frames(tables, named, model, processor, "data", labelled=labelled)
    splits = made.splits | {name: as_split(value, name) for name, value in given.items() if name not in raw}
    for split in splits.values():
        normalise(split.inputs, mean, std, "data")
    return Frames(splits, made.references, made.notes)


def _is_raw(value: Any, named: tuple[str, ...] | None, processor: object | None) -> bool:  # noqa: ANN401 - any object
    """Tell whether a dataset's rows aren't what a model takes: columns are named, or texts and sounds are among them.

    With a processor pictures aren't either. What a transformation of the user's own makes of the rows is left alone.
    """
    if not is_dataset(value) or isinstance(value.column_names, dict):
        return False
    if (getattr(value, "format", None) or {}).get("type") == "custom":
        return False
    if named is not None or processor is not None:
        return True
    return any(_is_text_or_sound(feature) for feature in (value.features or {}).values())


def _is_text_or_sound(feature: Any) -> bool:  # noqa: ANN401 - `datasets` is not imported
    if type(feature).__name__ == "Audio" or (isinstance(feature, dict) and "array" in feature):
        return True
    inner = getattr(feature, "feature", feature)
    return getattr(inner, "dtype", None) in ("string", "large_string")


def table_of(data: Any, name: str) -> Any:  # noqa: ANN401 - `datasets` and pyarrow are untyped here
    """Return the rows of a dataset as a pyarrow Table, in its own order; pictures and sounds stay encoded."""
    import pyarrow as pa  # noqa: PLC0415 - a fifth of a second to import, and only this form needs it

    try:
        rows = data.with_format("arrow")
        table = rows[:] if hasattr(rows, "__len__") else pa.concat_tables(list(rows.iter(batch_size=_ROWS)))
    except Exception as error:  # a streamed dataset runs the user's own code, and the network
        raise BadInput(
            f"{name}: reading the data raised {type(error).__name__}: {one_line(error)}; give {FORMS}"
        ) from error
    return table if data.features is None else table.replace_schema_metadata(data.features.arrow_schema.metadata)
