"""Texts -> the token tensors that a model takes, all samples of all splits of one length."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from easycompress.core.errors import BadInput, one_line
from easycompress.core.inputs import Bundle, in_order
from easycompress.core.quiet import quiet
from easycompress.intake.stored import Growing, refuse_too_large

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import Tensor, nn

    from easycompress.core.inputs import Inputs

MOST_TOKENS = 1024
"""Longer texts are cut, whatever the model takes: attention over more is nothing that a compression run can afford."""

LENGTH_MULTIPLE = 8
"""Lengths are rounded up to a multiple of this: what matrix kernels like."""

IGNORED = -100
"""Targets at places that don't count, as torch's cross-entropy and transformers have it."""

UNLIMITED = 1_000_000
"""A tokenizer's length limit from here on means that it has none."""

_BATCH = 512
"""Texts handed to the tokenizer at a time; the result doesn't depend on it."""

_ROWS = 4096
"""Rows padded at a time."""


@dataclass
class Encoded:
    """The tokens of a split: for each of the tokenizer's outputs a row a sample, of differing lengths.

    `extras` are what a reader of targets derived from each sample's encoding; `cut` samples were too long.
    """

    columns: dict[str, list[np.ndarray[Any, Any]]]
    extras: list[Any]
    cut: int = 0

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    @property
    def longest(self) -> int:
        """Return the most tokens of a sample."""
        return max((len(row) for row in self.columns["input_ids"]), default=0)


def require_tokenizer(processor: object, where: str, column: str) -> Any:  # noqa: ANN401 - transformers is untyped here
    """Return the tokenizer. Raises BadInput where the model has none."""
    if not hasattr(processor, "get_vocab"):
        raise BadInput(
            f"{where}: column {column} holds texts, but the model has no tokenizer; give MODEL as a Hugging Face "
            "folder with its tokenizer, or token numbers by --data file.py:function"
        )
    return processor


def limit_of(tokenizer: Any, model: nn.Module) -> int:  # noqa: ANN401 - transformers is untyped here
    """Return the most tokens that tokenizer, model and MOST_TOKENS allow."""
    limits = [MOST_TOKENS]
    if (longest := int(getattr(tokenizer, "model_max_length", UNLIMITED))) < UNLIMITED:
        limits.append(longest)
    positions = getattr(getattr(model, "config", None), "max_position_embeddings", None)
    if isinstance(positions, int) and positions > 0:
        limits.append(positions)
    for name, module in model.named_modules():
        padding = getattr(module, "padding_idx", None)
        if name.endswith("position_embeddings") and isinstance(padding, int):
            limits.append(int(module.num_embeddings) - padding - 1)  # RoBERTa counts positions from there
    return min(limits)


def encode(
    tokenizer: Any,  # noqa: ANN401 - transformers is untyped here
    texts: Sequence[Any],
    pairs: Sequence[str] | None,
    limit: int,
    where: str,
    *,
    only_second: bool = False,
    read: Any = None,  # noqa: ANN401 - (encoding, sample) -> anything
) -> Encoded:
    """Tokenise texts, pairs of them, or lists of words (`texts` holds lists) to at most `limit` tokens each.

    `only_second`: of a pair the second is cut. `read(encoding, sample)` derives something from each fast encoding.
    """
    words = bool(texts) and not isinstance(texts[0], str)
    names = [n for n in tokenizer.model_input_names if n in ("input_ids", "attention_mask", "token_type_ids")]
    found = Encoded({name: [] for name in names}, [])
    for start in range(0, len(texts), _BATCH):
        batch = [list(texts[start : start + _BATCH])]
        if pairs is not None:
            batch.append(list(pairs[start : start + _BATCH]))
        try:
            with quiet("transformers"):
                made = tokenizer(
                    *batch,
                    truncation="only_second" if only_second else True,
                    max_length=limit,
                    padding=False,
                    is_split_into_words=words,
                    return_attention_mask=True,
                )
        except Exception as error:  # the tokenizer's own code, in Rust, raises what it likes
            raise BadInput(f"{where}: the tokenizer raised {type(error).__name__}: {one_line(error)}") from error
        for name, column in found.columns.items():
            column.extend(np.asarray(row, dtype=np.int32) for row in made[name])
        for i, ids in enumerate(made["input_ids"]):
            encoding = made.encodings[i] if made.encodings else None
            found.cut += bool(encoding.overflowing) if encoding is not None else len(ids) == limit
            if read is not None:
                found.extras.append(read(encoding, start + i))
    return found


def require_fast(tokenizer: Any, where: str) -> None:  # noqa: ANN401 - transformers is untyped here
    """Raise BadInput for a tokenizer that can't tell which characters a token stands for."""
    if not getattr(tokenizer, "is_fast", False):
        raise BadInput(
            f"{where}: {type(tokenizer).__name__} can't tell where its tokens stand in the text; give the folder a "
            "tokenizer.json (a fast tokenizer)"
        )


def length_of(splits: Mapping[str, Encoded], limit: int) -> int:
    """Return the length that all samples are padded to: the longest, rounded up."""
    longest = max(split.longest for split in splits.values())
    return min(limit, max(1, -(-longest // LENGTH_MULTIPLE)) * LENGTH_MULTIPLE)


def padded(rows: Sequence[np.ndarray[Any, Any]], length: int, value: int, where: str, *, left: bool = False) -> Tensor:
    """Return rows as one tensor (N, length, ...) int64, filled up by `value` behind, or before where `left`."""
    shape = rows[0].shape[1:]
    refuse_too_large(len(rows), 8 * length * int(np.prod(shape)), where)
    growing = Growing(where)
    for start in range(0, len(rows), _ROWS):
        chunk = rows[start : start + _ROWS]
        block = np.full((len(chunk), length, *shape), value, dtype=np.int64)
        for i, row in enumerate(chunk):
            if left:
                block[i, length - len(row) :] = row
            else:
                block[i, : len(row)] = row
        growing.add(torch.from_numpy(block))
    return growing.tensor()


def on_the_left(tokenizer: Any) -> bool:  # noqa: ANN401 - transformers is untyped here
    """Tell whether a tokenizer pads before the text."""
    return getattr(tokenizer, "padding_side", "right") == "left"


def inputs_of(encoded: Encoded, tokenizer: Any, model: nn.Module, length: int, where: str) -> Inputs:  # noqa: ANN401 - transformers is untyped here
    """Return the padded tensors (N, length) by keyword, in the order of the model's forward."""
    left = on_the_left(tokenizer)
    fill = {
        "input_ids": tokenizer.pad_token_id or 0,  # where there is none the mask hides it anyway
        "token_type_ids": getattr(tokenizer, "pad_token_type_id", 0),
    }
    names = tuple(encoded.columns)
    tensors = (padded(encoded.columns[name], length, fill.get(name, 0), where, left=left) for name in names)
    return in_order(model, Bundle(tuple(tensors), names))


def cut_note(splits: Mapping[str, Encoded], limit: int) -> Iterator[str]:
    """Yield a sentence where samples were cut."""
    count, total = sum(split.cut for split in splits.values()), sum(len(split) for split in splits.values())
    if count:
        yield f"{count} of {total} texts were cut to {limit} tokens"
