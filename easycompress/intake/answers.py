"""Targets that stand in the text itself: tags of words, and the words that answer a question."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from easycompress.core.errors import BadInput
from easycompress.core.references import References
from easycompress.core.task import Split
from easycompress.intake.stored import Growing
from easycompress.intake.text import (
    IGNORED,
    cut_note,
    encode,
    inputs_of,
    length_of,
    limit_of,
    on_the_left,
    padded,
    require_fast,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import nn

    from easycompress.intake.labels import Labels

Cells = dict[str, list[Any]]
"""The columns of a split, by name."""


def tagged(
    splits: Mapping[str, tuple[list[Any], list[Any]]],
    tokenizer: Any,  # noqa: ANN401 - transformers is untyped here
    model: nn.Module,
    labels: Labels,
    where: str,
) -> tuple[dict[str, Split], list[str]]:
    """Return splits of token classification from (words, tags) of each sample, and notes.

    targets (N, T) int64: a word's tag at its first piece, IGNORED at its others, special tokens and padding.
    """
    require_fast(tokenizer, where)
    limit = limit_of(tokenizer, model)

    def align(tags: Sequence[Any]) -> Any:  # noqa: ANN401 - a function of the encoding
        def read(encoding: Any, sample: int) -> np.ndarray[Any, Any]:  # noqa: ANN401 - tokenizers is untyped
            own, before, found = tags[sample], None, []
            for word in encoding.word_ids:
                found.append(IGNORED if word is None or word == before else int(labels(own[word])))
                before = word
            return np.asarray(found, dtype=np.int32)

        return read

    for name, (words, tags) in splits.items():
        for row, (own, marks) in enumerate(zip(words, tags, strict=True)):
            if len(own) != len(marks):
                raise BadInput(f"{where}: {name} row {row} has {len(own)} words but {len(marks)} tags; give one a word")
    encoded = {
        name: encode(tokenizer, words, None, limit, where, read=align(tags)) for name, (words, tags) in splits.items()
    }
    length = length_of(encoded, limit)
    left = on_the_left(tokenizer)
    made = {
        name: Split(
            inputs_of(each, tokenizer, model, length, where),
            padded(each.extras, length, IGNORED, where, left=left),
        )
        for name, each in encoded.items()
    }
    return made, list(cut_note(encoded, limit))


def spans(
    splits: Mapping[str, tuple[list[str], list[str], list[Any]]],
    tokenizer: Any,  # noqa: ANN401 - transformers is untyped here
    model: nn.Module,
    where: str,
) -> tuple[dict[str, Split], References, list[str]]:
    """Return splits of question answering from (questions, contexts, answers), what they are judged by, and notes.

    An answer is {"text": [...], "answer_start": [...]}, characters of the context, both empty without an answer.
    Of question and context the context is cut. targets (N, 3) int64: first and last token of the first answer (both 0
    where there is none, or where it was cut away), and the row in the References.
    """
    require_fast(tokenizer, where)
    limit = limit_of(tokenizer, model)
    answers = {
        name: [_answer(cell, f"{where}: {name} row {i}") for i, cell in enumerate(cells)]
        for name, (_, _, cells) in splits.items()
    }

    def locate(own: Sequence[tuple[list[str], list[int]]]) -> Any:  # noqa: ANN401 - a function of the encoding
        return lambda encoding, sample: _located(encoding, *own[sample])

    encoded = {
        name: encode(tokenizer, questions, contexts, limit, where, only_second=True, read=locate(answers[name]))
        for name, (questions, contexts, _) in splits.items()
    }
    length = length_of(encoded, limit)
    left = on_the_left(tokenizer)
    offsets, made, row = Growing(where), {}, 0
    for name, each in encoded.items():
        offsets.add(padded([extra[0] for extra in each.extras], length, -1, where, left=left).int())
        shift = torch.tensor([length - len(extra[0]) if left else 0 for extra in each.extras])
        places = torch.tensor([extra[1:] for extra in each.extras]) + shift[:, None]
        rows = torch.arange(row, row + len(each))[:, None]
        made[name] = Split(inputs_of(each, tokenizer, model, length, where), torch.cat([places, rows], 1))
        row += len(each)
    references = References(
        tuple(chain.from_iterable(contexts for _, contexts, _ in splits.values())),
        offsets.tensor(),
        tuple(tuple(texts) for own in answers.values() for texts, _ in own),
    )
    return made, references, list(cut_note(encoded, limit))


def _answer(cell: Any, where: str) -> tuple[list[str], list[int]]:  # noqa: ANN401 - a cell of a table
    """Return texts and first characters of {text, answer_start}, which may be single values, or a list of such."""
    if isinstance(cell, list):
        cell = {key: [each[key] for each in cell] for key in ("text", "answer_start")} if cell else {}
    texts, starts = (cell or {}).get("text", []), (cell or {}).get("answer_start", [])
    texts = [texts] if isinstance(texts, str) else list(texts)
    starts = [starts] if isinstance(starts, int) else list(starts)
    if len(texts) != len(starts):
        raise BadInput(f"{where}: {len(texts)} answers but {len(starts)} answer_start; give one for each")
    return texts, starts


def _located(encoding: Any, texts: list[str], starts: list[int]) -> tuple[np.ndarray[Any, Any], int, int]:  # noqa: ANN401 - tokenizers is untyped
    """Return the context's characters of each token (T, 2), and the first and last token of the first answer."""
    offsets = np.asarray(encoding.offsets, dtype=np.int32).reshape(-1, 2)
    inside = np.asarray([part == 1 for part in encoding.sequence_ids], dtype=bool)
    offsets = np.where(inside[:, None], offsets, -1)
    if not texts:
        return offsets, 0, 0
    first, last = starts[0], starts[0] + len(texts[0])
    covering = np.flatnonzero(inside & (offsets[:, 0] < last) & (offsets[:, 1] > first))
    cut = not len(covering) or offsets[covering[-1], 1] < last  # the rest of the answer was cut away
    return (offsets, 0, 0) if cut else (offsets, int(covering[0]), int(covering[-1]))
