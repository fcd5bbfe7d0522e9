"""Tables of rows -> splits: texts are tokenised, pictures decoded, labels numbered, as the model has it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from easycompress.core.errors import BadInput
from easycompress.core.inputs import Bundle, in_order, parts
from easycompress.core.task import Split
from easycompress.intake.answers import spans, tagged
from easycompress.intake.cells import encoded, example, is_number, is_picture, is_words, number_tensor
from easycompress.intake.columns import MODEL_COLUMNS, Columns, choose
from easycompress.intake.images import Picture, load_pictures, pixel_maker
from easycompress.intake.labels import Labels, class_targets, classes_in, plain_numbers
from easycompress.intake.sounds import is_sound, prepared, read_sounds
from easycompress.intake.text import (
    IGNORED,
    cut_note,
    encode,
    inputs_of,
    length_of,
    limit_of,
    require_tokenizer,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from easycompress.core.inputs import Inputs
    from easycompress.core.references import References
    from easycompress.intake.tables import Part
    from easycompress.intake.text import Encoded

LANGUAGE_MODELS = ("ForCausalLM", "LMHeadModel")
"""Endings of the names of models that predict the next token: their targets are the text itself."""

UNLABELLED = (-1, "-1")
"""What published test sets hold instead of labels that are kept secret."""

_PAIR = 2


@dataclass(frozen=True)
class Frames:
    """What tables became: the splits by name, what answers are judged by, and notes."""

    splits: dict[str, Split]
    references: References | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Reading:
    """What every step of reading needs: the tables by split, the chosen columns, the model and its processor."""

    tables: Mapping[str, list[Part]]
    columns: Columns
    model: nn.Module
    processor: Any
    where: str

    def cells(self, column: str) -> dict[str, list[Any]]:
        """Return a column's cells by split."""
        return {
            name: [cell for part in own for cell in part.cells(column, self.where)] for name, own in self.tables.items()
        }

    def first(self, column: str) -> Any:  # noqa: ANN401 - any cell
        """Return the first cell of a column."""
        part = next(part for own in self.tables.values() for part in own if part.table.num_rows)
        return replace(part, table=part.table.slice(0, 1)).cells(column, self.where)[0]

    def said(self, *, labels: bool) -> str:
        """Return which columns are the inputs and, with `labels`, the label; where they were named, with an example."""
        target = self.columns.target if labels else None
        if self.columns.guessed:
            label = f" with {target} as label" if target else ""
            return f"columns by their usual names: {', '.join(self.columns.inputs)}{label}"
        shown = [f"{name} ({example(self.first(name))})" for name in self.columns.inputs]
        label = f" with {target} ({example(self.first(target))}) as label" if target else ""
        return f"columns as --columns names them: {', '.join(shown)}{label}"

    @property
    def config(self) -> Any:  # noqa: ANN401 - transformers is untyped here
        """Return the model's configuration, None where it has none."""
        return getattr(self.model, "config", None)

    @property
    def kind(self) -> str:
        """Return the name of the model's class, which ends on what it is for."""
        return type(self.model).__name__


def read_frames(
    tables: Mapping[str, list[Part]],
    named: tuple[str, ...] | None,
    model: nn.Module,
    processor: object | None,
    where: str,
    *,
    labelled: bool,
) -> Frames:
    """Make splits of tables. `named` are the columns as said by `--columns`, None to go by their usual names.

    What a column is follows from its cells: texts, lists of words, pictures, numbers. Raises BadInput for a missing
    column or cell, texts without a tokenizer, labels that don't fit the model's, and with `labelled` for no labels.
    """
    first = next(iter(tables.values()))[0]
    present = first.table.column_names
    text = hasattr(processor, "get_vocab")
    reading = _Reading(tables, choose(present, named, where, text=text), model, processor, where)
    language = reading.kind.endswith(LANGUAGE_MODELS)
    if reading.columns.target is None and labelled and not language:
        raise BadInput(
            f"{where}: {first.path.name} has no label column among {', '.join(present)}; name it by --columns, or use "
            "--metric agreement, which needs none"
        )
    reading, unlabelled = _without_secrets(reading)
    notes = [reading.said(labels=not language), *unlabelled]
    cell = reading.first(reading.columns.inputs[0])
    if is_words(cell):
        made = _words(reading)
    elif is_sound(cell, reading.columns.inputs[0]):
        made = _sounds(reading)
    elif is_picture(cell, reading.columns.inputs[0]):
        made = _pictures(reading)
    elif isinstance(cell, str) and (text or not is_number(cell)):
        made = _texts(reading, language=language)
    else:
        made = _classified(reading, _numbers(reading), [])
    return Frames(made.splits, made.references, (*notes, *made.notes))


def _without_secrets(reading: _Reading) -> tuple[_Reading, list[str]]:
    """Leave splits away whose labels are kept secret, with a note, unless none would be left."""
    target = reading.columns.target
    if target is None:
        return reading, []
    secret = [name for name, cells in reading.cells(target).items() if all(cell in UNLABELLED for cell in cells)]
    if not secret or len(secret) == len(reading.tables):
        return reading, []
    kept = {name: own for name, own in reading.tables.items() if name not in secret}
    notes = [f"the {name} split has no labels (all are -1) and was left out" for name in secret]
    return _Reading(kept, reading.columns, reading.model, reading.processor, reading.where), notes


def _labels(reading: _Reading, cells: list[Any]) -> Labels:
    target = reading.columns.target or ""
    named = [part.class_names(target) for own in reading.tables.values() for part in own]
    if len(set(named)) > 1:
        raise BadInput(f"{reading.where}: column {target}: the splits name their classes differently; make them alike")
    known, count = (getattr(reading.config, name, None) for name in ("label2id", "num_labels"))
    return Labels(cells, known or {}, named[0], count, reading.where, target)


def _words(reading: _Reading) -> Frames:
    """Token classification: lists of words, with a list of tags each."""
    column = reading.columns.inputs[0]
    tokenizer = require_tokenizer(reading.processor, reading.where, column)
    words = reading.cells(column)
    if reading.columns.target is None:
        tokens = {name: encode(tokenizer, cells, None, limit_of(tokenizer, reading.model), reading.where)
                   for name, cells in words.items()}  # fmt: skip
        return _unlabelled(reading, tokens, limit_of(tokenizer, reading.model))
    tags = reading.cells(reading.columns.target)
    if not all(isinstance(cell, list) for cells in tags.values() for cell in cells):
        raise BadInput(
            f"{reading.where}: column {reading.columns.target} holds one label a sample, {column} lists of words; "
            "give a list of tags, one a word, or texts"
        )
    labels = _labels(reading, [tag for cells in tags.values() for cell in cells for tag in cell])
    pairs = {name: (words[name], tags[name]) for name in words}
    splits, notes = tagged(pairs, tokenizer, reading.model, labels, reading.where)
    return Frames(splits, None, tuple([*notes, labels.note] if labels.note else notes))


def _texts(reading: _Reading, *, language: bool) -> Frames:
    columns, where = reading.columns, reading.where
    tokenizer = require_tokenizer(reading.processor, where, columns.inputs[0])
    if len(columns.inputs) > _PAIR:
        raise BadInput(f"{where}: {len(columns.inputs)} columns of text; a tokenizer takes one or a pair")
    cells = [reading.cells(column) for column in columns.inputs]
    if columns.target is not None and reading.kind.endswith("ForQuestionAnswering"):
        answers = reading.cells(columns.target)
        if len(cells) != _PAIR or not all(isinstance(cell, (dict, list)) for own in answers.values() for cell in own):
            raise BadInput(
                f"{where}: {reading.kind} takes a question, a context and answers {{text, answer_start}}; name them, "
                "such as --columns question,context,answers"
            )
        triples = {name: (cells[0][name], cells[1][name], answers[name]) for name in answers}
        splits, references, found = spans(triples, tokenizer, reading.model, where)
        return Frames(splits, references, tuple(found))
    notes = []
    if language:
        empty = sum(not cell.strip() for own in cells[0].values() for cell in own)
        if empty:
            cells = [{name: [cell for cell in own if cell.strip()] for name, own in cells[0].items()}]
            notes.append(f"{empty} empty texts were left out")
    limit = limit_of(tokenizer, reading.model)
    tokens = {
        name: encode(tokenizer, own, cells[1][name] if len(cells) == _PAIR else None, limit, where)
        for name, own in cells[0].items()
    }
    made = _unlabelled(reading, tokens, limit)
    if language:
        splits = {name: Split(split.inputs, _next_tokens(split.inputs)) for name, split in made.splits.items()}
        return Frames(splits, None, (*notes, *made.notes))
    return _classified(reading, {name: split.inputs for name, split in made.splits.items()}, list(made.notes))


def _unlabelled(reading: _Reading, tokens: dict[str, Encoded], limit: int) -> Frames:
    """Return tokenised splits without targets."""
    length = length_of(tokens, limit)
    splits = {
        name: Split(inputs_of(each, reading.processor, reading.model, length, reading.where), None)
        for name, each in tokens.items()
    }
    return Frames(splits, None, tuple(cut_note(tokens, limit)))


def _next_tokens(inputs: Inputs) -> Tensor:
    """Return the targets of a language model, (N, T): its own tokens, IGNORED at padding."""
    assert isinstance(inputs, Bundle)  # noqa: S101 - made by inputs_of
    by_name = dict(zip(inputs.names, inputs.tensors, strict=True))
    return by_name["input_ids"].masked_fill(by_name["attention_mask"] == 0, IGNORED)


def _pictures(reading: _Reading) -> Frames:
    column, where = reading.columns.inputs[0], reading.where
    prepare = pixel_maker(reading.processor, int(getattr(reading.config, "num_channels", 3)))
    pictures = {
        name: [
            Picture(encoded(cell, part.path, row, where), f"{part.path.name} row {row}")
            for part in own
            for row, cell in enumerate(part.cells(column, where))
        ]
        for name, own in reading.tables.items()
    }
    tensors = load_pictures(pictures, where, prepare)
    return _classified(reading, tensors, [])


def _sounds(reading: _Reading) -> Frames:
    cells = {
        name: [(part.path, part.cells(reading.columns.inputs[0], reading.where)) for part in own]
        for name, own in reading.tables.items()
    }
    sounds = {name: read_sounds(own, reading.where) for name, own in cells.items()}
    return _classified(reading, *prepared(sounds, reading.processor, reading.model, reading.where))


def _numbers(reading: _Reading) -> Mapping[str, Inputs]:
    """Return columns of numbers: one of lists, the model's keywords, or one number a column, (N, columns) float32."""
    columns, where = reading.columns.inputs, reading.where
    by_column = {column: reading.cells(column) for column in columns}
    made: dict[str, Inputs] = {}
    for name in reading.tables:
        tensors = [number_tensor(by_column[column][name], f"{where}: {name}: column {column}") for column in columns]
        if len(tensors) == 1 and tensors[0].ndim > 1:
            made[name] = tensors[0]
        elif set(columns) <= set(MODEL_COLUMNS):
            made[name] = in_order(reading.model, Bundle(tuple(tensors), columns))
        elif all(tensor.ndim == 1 for tensor in tensors):
            made[name] = torch.stack([tensor.float() for tensor in tensors], 1)
        else:
            made[name] = Bundle(tuple(tensors))
    return made


def _classified(reading: _Reading, inputs: Mapping[str, Inputs], notes: list[str]) -> Frames:
    """Add one label or number a sample to the inputs of every split."""
    target = reading.columns.target
    if target is None:
        return Frames({name: Split(own, None) for name, own in inputs.items()}, None, tuple(notes))
    cells = reading.cells(target)
    flat = plain_numbers([cell for own in cells.values() for cell in own])
    numeric = getattr(reading.config, "num_labels", None) == 1
    if not numeric:
        flat = classes_in(flat, f"{reading.where}: column {target}", classifies=_classifies(reading))
    labels = _labels(reading, flat)
    splits, start = {}, 0
    for name, own in inputs.items():
        part = flat[start : start + len(cells[name])]
        start += len(part)
        targets = class_targets(part, labels, f"{reading.where}: {name}")
        splits[name] = Split(own, targets.float() if numeric else targets)
        assert len(targets) == len(parts(own)[0])  # noqa: S101 - both come from the same rows
    return Frames(splits, None, tuple([*notes, labels.note] if labels.note else notes))


def _classifies(reading: _Reading) -> bool:
    """Tell whether the model scores classes, one of which a sample is of."""
    known = (None, "single_label_classification")
    return reading.kind.endswith("Classification") and getattr(reading.config, "problem_type", None) in known
