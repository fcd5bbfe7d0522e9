"""A tensor's numbers as bytes, and back: raw, by zstandard, or by byte planes that are entropy coded.

A payload is read by knowing what it stands for: shape and type come from the graph, so that nothing is stored twice.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import zstandard

from easycompress.codes.entropy import code_length, decode, encode

Array = npt.NDArray[Any]

Kind = Literal["float", "signed", "unsigned"]

DENSEST = 1 << 16
"""Elements that a stored byte may stand for: the writer pads to that, so that no short file claims a huge tensor."""

MOST_ELEMENTS = 2**31 - 1

RAW, PLANES, ZSTD = range(3)
HALVED = 4
"""Added to the method: float32 numbers that are all float16 numbers, stored as those."""

INCOMPRESSIBLE = 0.995
"""A byte plane whose i.i.d. entropy is above this share of 8 bits isn't searched for structure."""

SLOW_LEVEL, FAST_LEVEL, SLOW_BYTES = 19, 3, 1 << 18


class Sink:
    """Payload bytes being written."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._largest = 0

    def byte(self, value: int) -> None:
        """Append one byte."""
        self._data.append(value)

    def whole(self, value: int) -> None:
        """Append a whole number from 0 on, 7 bits a byte, lowest first."""
        self._data += varint(value)

    def raw(self, data: bytes) -> None:
        """Append bytes whose number the reader knows."""
        self._data += data

    def block(self, data: bytes) -> None:
        """Append bytes with their number."""
        self.whole(len(data))
        self._data += data

    def claim(self, elements: int) -> None:
        """Say that the payload stands for an array of so many elements."""
        self._largest = max(self._largest, elements)

    def finish(self) -> bytes:
        """Return the payload, filled up with zeros to one byte for DENSEST elements."""
        return bytes(self._data.ljust(-(-self._largest // DENSEST), b"\0"))


class Source:
    """Payload bytes being read. Every method raises ValueError rather than read past the end or allocate too much."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._place = 0

    def raw(self, count: int) -> bytes:
        """Return the next `count` bytes."""
        end = self._place + count
        if end > len(self._data):
            raise ValueError("a tensor ends early")
        found = self._data[self._place : end]
        self._place = end
        return found

    def byte(self) -> int:
        """Return the next byte."""
        return self.raw(1)[0]

    def whole(self) -> int:
        """Return the next whole number, below 2^63."""
        value = 0
        for shift in range(0, 63, 7):
            byte = self.byte()
            value |= (byte & 127) << shift
            if byte < 128:  # noqa: PLR2004 - the highest bit says that more follow
                return value
        raise ValueError("a number that never ends")

    def block(self) -> bytes:
        """Return the bytes of a block."""
        return self.raw(self.whole())

    def claim(self, elements: int) -> int:
        """Return `elements`, having checked that so few bytes may stand for so many."""
        if elements > min(DENSEST * len(self._data), MOST_ELEMENTS):
            raise ValueError("a tensor larger than its bytes can hold")
        return elements

    def end(self) -> None:
        """Check that nothing is left."""
        if self._place != len(self._data):
            raise ValueError("bytes left over")

    def finish(self) -> None:
        """Check that nothing but padding is left."""
        if any(self._data[self._place :]):
            raise ValueError("a tensor with bytes left over")


def varint(value: int) -> bytes:
    """Return a whole number from 0 on, 7 bits a byte, lowest first, the highest bit set where more follow."""
    found = bytearray()
    while value > 127:  # noqa: PLR2004 - 7 bits
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def write_numbers(sink: Sink, data: bytes, size: int, shape: tuple[int, ...], kind: Kind) -> None:
    """Write little-endian numbers of `size` bytes each and of that shape, in the smallest of three ways.

    Raw; by byte planes, each entropy coded, floats with their sign moved below the exponent's last bit; or by
    zstandard. float32 numbers that float16 holds exactly are stored as those.
    """
    words = np.frombuffer(data, f"<u{size}")
    sink.claim(len(words))
    halved = 0
    if kind == "float" and size == 4 and (half := _halved(words)) is not None:  # noqa: PLR2004 - float32
        words, size, halved = half, 2, HALVED
    data = words.tobytes()
    level = SLOW_LEVEL if len(data) <= SLOW_BYTES else FAST_LEVEL
    squeezed = Sink()
    squeezed.block(zstandard.compress(data, level))
    planes = Sink()
    turned = _turn(words, size, kind).astype(f">u{size}").view(np.uint8).reshape(-1, size)
    for index in range(size):
        _write_plane(planes, turned[:, index].reshape(shape))
    options = {RAW: data, PLANES: planes.finish(), ZSTD: squeezed.finish()}
    method = min(options, key=lambda name: len(options[name]))
    sink.byte(method + halved)
    sink.raw(options[method])


def read_numbers(source: Source, size: int, shape: tuple[int, ...], kind: Kind) -> bytes:
    """Return the bytes that write_numbers was given."""
    count = source.claim(math.prod(shape))
    tag = source.byte()
    method, halved = tag & ~HALVED, bool(tag & HALVED)
    if method > ZSTD or (halved and (kind, size) != ("float", 4)):
        raise ValueError("numbers stored in an unknown way")
    width = 2 if halved else size
    if method == RAW:
        data = source.raw(width * count)
    elif method == ZSTD:
        data = unsqueeze(source.block(), width * count)
        if len(data) != width * count:
            raise ValueError("numbers of another count than the tensor's")
    else:
        planes = np.stack([_read_plane(source, shape).reshape(-1) for _ in range(width)], axis=1)
        words = planes.view(f">u{width}").reshape(-1).astype(f"<u{width}")
        data = _turn_back(words, width, kind).tobytes()
    return np.frombuffer(data, "<f2").astype("<f4").tobytes() if halved else data


def known(dictionary: bytes) -> zstandard.ZstdCompressionDict:
    """Return zstandard's form of bytes that both sides know."""
    return zstandard.ZstdCompressionDict(dictionary, dict_type=zstandard.DICT_TYPE_RAWCONTENT)


def was_halved(tag: int) -> bool:
    """Return whether numbers that begin with this byte are float32 stored as float16."""
    return bool(tag & HALVED)


def unsqueeze(data: bytes, most: int, dictionary: bytes = b"") -> bytes:
    """Return what a zstandard frame holds, having checked that it says to hold at most `most` bytes."""
    try:
        if zstandard.get_frame_parameters(data).content_size > most:
            raise ValueError("compressed bytes that say to be more than they can be")
        return zstandard.ZstdDecompressor(dict_data=known(dictionary)).decompress(
            data, max_output_size=most, allow_extra_data=False
        )
    except zstandard.ZstdError as error:
        raise ValueError("compressed bytes that can't be read") from error


def _write_plane(sink: Sink, plane: Array) -> None:
    """Write a block: the number of bytes x 2, + 1 where they are the plane itself."""
    if code_length(plane, 256) < INCOMPRESSIBLE * 8 * plane.size:
        data = encode(plane, 256)
        if len(data) < plane.size:
            sink.whole(2 * len(data))
            sink.raw(data)
            return
    sink.whole(2 * plane.size + 1)
    sink.raw(plane.tobytes())


def _read_plane(source: Source, shape: tuple[int, ...]) -> Array:
    count, raw = divmod(source.whole(), 2)
    data = source.raw(count)
    if not raw:
        return decode(data, shape, 256)
    if count != math.prod(shape):
        raise ValueError("numbers of another count than the tensor's")
    return np.frombuffer(data, np.uint8)


def _halved(words: Array) -> Array | None:
    """Return the float16 words of float32 words, or None where one of them would change."""
    values = words.view("<f4")
    with np.errstate(over="ignore", invalid="ignore"):
        half = values.astype("<f2")
        same = np.array_equal(half.astype("<f4").view("<u4"), words)
    return half.view("<u2") if same else None


def _turn(words: Array, size: int, kind: Kind) -> Array:
    """Return floats with the sign last, so that a plane holds the whole exponent; signed integers from the least on."""
    top = 8 * size - 1
    one = words.dtype.type(1)
    if kind == "float":
        return np.asarray((words << one) | (words >> words.dtype.type(top)))
    return np.asarray(words ^ words.dtype.type(1 << top)) if kind == "signed" else words


def _turn_back(words: Array, size: int, kind: Kind) -> Array:
    top = 8 * size - 1
    one = words.dtype.type(1)
    if kind == "float":
        return np.asarray((words >> one) | (words << words.dtype.type(top)))
    return np.asarray(words ^ words.dtype.type(1 << top)) if kind == "signed" else words
