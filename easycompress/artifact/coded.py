"""A code as bytes, and back: its integers entropy coded, its numbers by byte planes. See `stream` for the bytes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

import numpy as np
import torch

from easycompress.artifact.stream import Array, Sink, Source, read_numbers, write_numbers
from easycompress.codes.affine import Affine
from easycompress.codes.base import stored
from easycompress.codes.codebook import Codebook
from easycompress.codes.composed import Additive, Scaled
from easycompress.codes.entropy import decode, encode
from easycompress.codes.half import Half
from easycompress.codes.hashed import PRIME, Hashed
from easycompress.codes.lowrank import LAYOUTS, LowRank, matrix_size
from easycompress.codes.reading import FORMS, MOST_DEPTH, MOST_PARTS
from easycompress.codes.sparse import Sparse

if TYPE_CHECKING:
    from torch import Tensor

    from easycompress.codes.base import Code
    from easycompress.codes.lowrank import Layout

PLAIN = 0
"""The form byte of a tensor without a code; a code's is 1 + its place in FORMS."""


def write_code(sink: Sink, code: Code) -> None:
    """Write a code of any form. Its shape isn't written: the tensor's is known."""
    sink.byte(1 + FORMS.index(code.form))
    if isinstance(code, Affine):
        _write_symbols(sink, stored(code.values, torch.int8).numpy().view(np.uint8) ^ 128, 256)
        sink.whole(len(code.scale))
        _write_tensor(sink, code.scale, torch.float32)
    elif isinstance(code, Codebook):
        sink.whole(len(code.entries))
        _write_tensor(sink, code.entries, torch.float32)
        _write_symbols(sink, stored(code.indices, torch.uint8).numpy(), len(code.entries))
    elif isinstance(code, Sparse):
        mask = np.zeros(math.prod(code.size), np.uint8)
        mask[code.positions.cpu().numpy()] = 1
        _write_symbols(sink, mask.reshape(code.size), 2)
        _write_tensor(sink, code.values, torch.float16)
    elif isinstance(code, LowRank):
        sink.byte(LAYOUTS.index(code.layout))
        sink.whole(code.rank)
        _write_tensor(sink, code.left, torch.float16)
        _write_tensor(sink, code.right, torch.float16)
    elif isinstance(code, Hashed):
        sink.whole(code.seed)
        sink.whole(len(code.values))
        sink.claim(math.prod(code.size))
        _write_tensor(sink, code.values, torch.float32)
    elif isinstance(code, Half):
        _write_tensor(sink, code.values, torch.float16)
    elif isinstance(code, Additive):
        sink.whole(len(code.parts))
        for part in code.parts:
            write_code(sink, part)
    elif isinstance(code, Scaled):
        _write_tensor(sink, code.scale, torch.float32)
        write_code(sink, code.code)
    else:
        raise TypeError(f"no stored form for {type(code).__name__}")


def read_code(source: Source, shape: tuple[int, ...], form: int) -> Code:
    """Return the code of a tensor of `shape` whose form byte has been read. Raises ValueError on nonsense."""
    code, parts = _read_code(source, shape, form, 0)
    if parts > MOST_PARTS:
        raise ValueError(f"a code of more than {MOST_PARTS} parts")
    return code


def _read_code(source: Source, shape: tuple[int, ...], form: int, depth: int) -> tuple[Code, int]:
    if not 1 <= form <= len(FORMS) or depth > MOST_DEPTH:
        raise ValueError("an unknown stored form")
    name = FORMS[form - 1]
    if name not in ("additive", "scaled"):
        return _read_simple(source, shape, name), 1
    if name == "scaled":
        if not shape:
            raise ValueError("a lone number has no channels to scale")
        scale = _read_tensor(source, shape[:1], torch.float32)
        inner, parts = _read_code(source, shape, source.byte(), depth + 1)
        return Scaled(inner, scale), parts
    many = source.whole()
    if not 1 <= many <= MOST_PARTS:
        raise ValueError(f"a sum of {many} parts")
    found = [_read_code(source, shape, source.byte(), depth + 1) for _ in range(many)]
    return Additive(tuple(code for code, _ in found)), sum(parts for _, parts in found)


def _read_simple(source: Source, shape: tuple[int, ...], name: str) -> Code:
    if name == "affine-int8":
        if not shape:
            raise ValueError("a lone number has no channels to scale")
        values = torch.from_numpy((_read_symbols(source, shape, 256) ^ 128).view(np.int8))
        scales = source.whole()
        if scales not in (1, shape[0]):
            raise ValueError(f"{scales} scales for {shape[0]} slices")
        return Affine(values, _read_tensor(source, (scales,), torch.float32))
    if name == "half":
        return Half(_read_tensor(source, shape, torch.float16))
    if name == "codebook":
        k = source.whole()
        entries = _read_tensor(source, (k,), torch.float32)
        return Codebook(torch.from_numpy(_read_symbols(source, shape, k)), entries)
    if name == "sparse":
        positions = torch.from_numpy(np.flatnonzero(_read_symbols(source, shape, 2)))
        return Sparse(positions, _read_tensor(source, (len(positions),), torch.float16), shape)
    if name == "low-rank":
        place = source.byte()
        if place >= len(LAYOUTS):
            raise ValueError("an unknown matrix view")
        layout = cast("Layout", LAYOUTS[place])
        (rows, columns), rank = matrix_size(shape, layout), source.whole()
        left = _read_tensor(source, (rows, rank), torch.float16)
        return LowRank(left, _read_tensor(source, (rank, columns), torch.float16), shape, layout)
    seed, buckets = source.whole(), source.whole()
    source.claim(math.prod(shape))
    if seed >= PRIME or not buckets:
        raise ValueError("a hash without buckets or with an impossible seed")
    return Hashed(_read_tensor(source, (buckets,), torch.float32), shape, seed)


def _write_symbols(sink: Sink, symbols: Array, k: int) -> None:
    sink.claim(symbols.size)
    sink.block(encode(symbols, k))


def _read_symbols(source: Source, shape: tuple[int, ...], k: int) -> Array:
    source.claim(math.prod(shape))
    return decode(source.block(), shape, k)


def _write_tensor(sink: Sink, tensor: Tensor, dtype: torch.dtype) -> None:
    array = stored(tensor, dtype).numpy()
    write_numbers(sink, _little(array).tobytes(), array.itemsize, array.shape, "float")


def _read_tensor(source: Source, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    size = dtype.itemsize
    array = np.frombuffer(read_numbers(source, size, shape, "float"), f"<f{size}")
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("=")).reshape(shape))


def _little(array: Array) -> Array:
    return array.astype(array.dtype.newbyteorder("<"))
