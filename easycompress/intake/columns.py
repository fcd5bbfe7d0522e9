"""Which columns of a table are inputs and which is the target: as said by `--columns`, else by their usual names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from easycompress.core.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Sequence

LABEL_COLUMNS = ("label", "labels", "fine_label", "target", "targets")
"""Names under which a column or a dict's key holds the targets, the first that is there wins."""

MORE_LABELS = (
    "ner_tags", "pos_tags", "chunk_tags", "tags", "answers", "score", "similarity_score", "sentiment", "class",
    "category", "stars", "intent",
)  # fmt: skip
"""Further usual names of targets, of tables alone: a dict's key `score` may be an input of a user's own model."""

MODEL_COLUMNS = (
    "input_ids", "attention_mask", "token_type_ids", "position_ids", "bbox", "pixel_values", "pixel_mask",
    "input_values", "input_features", "decoder_input_ids", "decoder_attention_mask",
)  # fmt: skip
"""Columns that tokenizers and processors make. Where a dataset has any, these are the inputs, several by keyword."""

IMAGE_COLUMNS = ("image", "img")

AUDIO_COLUMNS = ("audio", "speech")

INPUT_COLUMNS = (
    ("question", "context"), ("premise", "hypothesis"), ("sentence1", "sentence2"), ("question1", "question2"),
    ("text1", "text2"), ("question", "sentence"), ("text", "text_pair"), ("image",), ("img",), ("tokens",), ("words",),
    ("text",), ("sentence",), ("content",), ("review",), ("utterance",), ("audio",), ("speech",),
)  # fmt: skip
"""Usual names of inputs, the first group that is there wins."""

SKIPPED = "_"
"""Names a column of a file without header that is not used."""


@dataclass(frozen=True)
class Columns:
    """The chosen columns. `target` is None without labels; `guessed` tells that nobody named them."""

    inputs: tuple[str, ...]
    target: str | None
    guessed: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """Return all of them, inputs first."""
        return self.inputs if self.target is None else (*self.inputs, self.target)


def parse_columns(text: str | None) -> tuple[str, ...] | None:
    """Return the names in `text,label`. Raises BadInput for an empty or repeated one."""
    if text is None:
        return None
    names = tuple(part.strip() for part in text.split(","))
    used = [name for name in names if name != SKIPPED]
    if not used or not all(names) or len(set(used)) < len(used):
        raise BadInput(f"--columns {text}: write each column's name once, inputs and label, such as text,label")
    return names


def choose(present: Sequence[str], named: tuple[str, ...] | None, where: str, *, text: bool) -> Columns:
    """Return the columns to read of those that are `present`; without `text` the model takes no texts but numbers.

    Named columns: the target is the one of a usual label name, else the last of several that don't usually belong
    together as inputs. Raises BadInput, listing the columns, for a named one that isn't there, or when none of the
    usual inputs is.
    """
    if named is not None:
        used = [name for name in named if name != SKIPPED]
        missing = [name for name in used if name not in present]
        if missing:
            raise BadInput(f"{where}: no column {', '.join(missing)}; there are {', '.join(present)}")
        target = label_of(used)
        if target is None and len(used) > 1 and tuple(used) not in INPUT_COLUMNS:
            target = used[-1]
        inputs = tuple(name for name in used if name != target)
        if not inputs:
            raise BadInput(f"--columns {','.join(named)}: names no input; write each, such as text,label")
        return Columns(inputs, target)
    found = tuple(name for name in MODEL_COLUMNS if name in present) or next(
        (group for group in INPUT_COLUMNS if all(name in present for name in group)), ()
    )
    target = label_of([name for name in present if name not in found])
    if not found and target is not None and not text:
        found = tuple(name for name in present if name != target)  # a table of numbers
    if not found:
        listed = ", ".join(present)
        raise BadInput(f"{where}: none of its columns ({listed}) has a usual name; say which by --columns text,label")
    return Columns(found, target, guessed=True)


def label_of(names: Sequence[str]) -> str | None:
    """Return the name that usually holds the target, None where there is none."""
    return next((name for name in (*LABEL_COLUMNS, *MORE_LABELS) if name in names), None)


def is_usual(name: str) -> bool:
    """Tell whether a name is one that a header usually has."""
    return name in {*LABEL_COLUMNS, *MORE_LABELS} or any(name in group for group in INPUT_COLUMNS)
