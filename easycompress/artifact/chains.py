"""Decode operators under construction: nodes, shared constants, and one pool for every integer of few bits."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from onnx import TensorProto, helper, numpy_helper

from easycompress.codes.packing import gap_bits

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy.typing as npt
    import onnx
    from torch import Tensor

Array = np.ndarray[Any, Any]

FIELD_BITS = 8
"""Wider fields are put together from two. Fields of just this width are bytes and need no unpacking."""

CAST_BYTES = 40
"""What a Cast from float16 costs in the file."""

GROUP_BYTES = 150
"""What one more chain of gaps costs in the file: layers share one unless their best widths differ by more than that."""

MOST_PLACES = 2**31 - 1
"""Positions are int32."""


class Chains:
    """Operators that read initializers alone. Equal constants are stored once; names avoid those that are `taken`."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._taken = set(taken)
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._count = 0

    def fresh(self) -> str:
        """Return a name that nothing has."""
        while (name := f"decode_{self._count}") in self._taken:
            self._count += 1
        self._taken.add(name)
        return name

    def constant(self, values: npt.ArrayLike, dtype: type[np.generic] = np.int64) -> str:
        """Return the name of an initializer with these values."""
        array = np.asarray(values, dtype=dtype)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = self.fresh()
            self.initializers.append(numpy_helper.from_array(array, self._constants[key]))
        return self._constants[key]

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:  # noqa: ANN401 - an operator's own attributes
        """Append an operator with one output; return the output's name."""
        output = self.fresh()
        self.nodes.append(helper.make_node(operator, list(inputs), [output], **attributes))
        return output

    def cast(self, name: str, to: int) -> str:
        """Append a Cast to an onnx type."""
        return self.add("Cast", name, to=to)

    def floats(self, values: Array) -> str:
        """Return the float32 tensor of these values, stored in float16 where that is exact and saves bytes."""
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if half.nbytes > CAST_BYTES and np.array_equal(half.astype(np.float32), values):
            return self.cast(self.constant(half, np.float16), TensorProto.FLOAT)
        return self.constant(values, np.float32)

    def reshape(self, name: str, shape: Sequence[int]) -> str:
        """Append a Reshape."""
        return self.add("Reshape", name, self.constant(list(shape)))

    def filled(self, value: str, shape: Sequence[int]) -> str:
        """Append an Expand of the initializer `value` (1,)."""
        return self.add("Expand", value, self.constant(list(shape)))

    def split(self, name: str, lengths: Sequence[int]) -> list[str]:
        """Cut a vector into parts of these lengths."""
        if len(lengths) == 1:
            return [name]
        outputs = [self.fresh() for _ in lengths]
        self.nodes.append(helper.make_node("Split", [name, self.constant(list(lengths))], outputs))
        return outputs

    def rename(self, names: dict[str, str]) -> None:
        """Give tensors other names, wherever they are made or read."""
        for node in self.nodes:
            for tensors in (node.input, node.output):
                changed = [names.get(name, name) for name in tensors]
                del tensors[:]
                tensors.extend(changed)
        for tensor in self.initializers:
            tensor.name = names.get(tensor.name, tensor.name)


@dataclass(frozen=True)
class Field:
    """Integers of `bits` bits in the pool: a group number at each width up to FIELD_BITS, lowest bits first."""

    length: int
    parts: tuple[tuple[int, int], ...]


@dataclass
class BitPool:
    """All integers of few bits of a file, in one uint8 initializer that one chain takes apart; bytes have another.

    All fields of a width lie in one array (width, N) of bits, lowest plane first; these arrays, end to end and padded
    to 8n bits, are packed as an array (8, n): bit 7 - i of byte j is bit i x n + j. With the bit as the outer axis each
    shift by one number runs over n bytes, which is faster than eight shifts a byte.
    """

    groups: dict[int, list[Array]] = field(default_factory=dict)
    tensors: dict[tuple[int, int], str] = field(default_factory=dict)

    def put(self, values: Array, bits: int) -> Field:
        """Store integers (N,), each below 2^bits, 1 <= bits <= 16. `emit` comes when all have been put."""
        flat = values.reshape(-1).astype(np.int64)
        parts = []
        for low in range(0, bits, FIELD_BITS):
            width = min(FIELD_BITS, bits - low)
            group = self.groups.setdefault(width, [])
            parts.append((width, len(group)))
            group.append(((flat >> low) & ((1 << width) - 1)).astype(np.uint8))
        return Field(flat.size, tuple(parts))

    def emit(self, chains: Chains) -> None:
        """Append the initializers and their chains."""
        joint = {width: np.concatenate(self.groups[width]) for width in sorted(self.groups)}
        names = _unpacked(chains, {width: values for width, values in joint.items() if width < FIELD_BITS})
        if FIELD_BITS in joint:
            names[FIELD_BITS] = chains.cast(chains.constant(joint[FIELD_BITS], np.uint8), TensorProto.INT32)
        for width, name in names.items():
            parts = chains.split(name, [part.size for part in self.groups[width]])
            self.tensors.update({(width, number): part for number, part in enumerate(parts)})

    def get(self, chains: Chains, stored: Field) -> str:
        """Return the int32 vector of a field, after `emit`."""
        total = ""
        for index, part in enumerate(stored.parts):
            name = self.tensors[part]
            if index:
                place = chains.constant([1 << (FIELD_BITS * index)], np.int32)
                total = chains.add("Add", total, chains.add("Mul", name, place))
            else:
                total = name
        return total or chains.filled(chains.constant([0], np.int32), [stored.length])


def _unpacked(chains: Chains, fields: dict[int, Array]) -> dict[int, str]:
    """Append the pool of uint8 `fields` by width, and its chain; return the int32 vector of each width."""
    planes = [((values >> plane) & 1) for width, values in fields.items() for plane in range(width)]
    total = sum(plane.size for plane in planes)
    if not total:
        return {}
    columns = math.ceil(total / 8)
    bits = np.zeros(8 * columns, dtype=np.uint8)
    bits[:total] = np.concatenate(planes)
    pool = chains.constant(np.packbits(bits.reshape(8, columns), axis=0).reshape(-1), np.uint8)
    shifted = chains.add("BitShift", pool, chains.constant([[7 - i] for i in range(8)], np.uint8), direction="RIGHT")
    flat = chains.reshape(chains.add("BitwiseAnd", shifted, chains.constant([1], np.uint8)), [-1])
    padding = [8 * columns - total] if total % 8 else []
    parts = chains.split(flat, [width * values.size for width, values in fields.items()] + padding)
    return {width: _values(chains, part, width) for width, part in zip(fields, parts, strict=False)}


def _values(chains: Chains, bits: str, width: int) -> str:
    """Append what makes int32 values (N,) of their uint8 bits (width x N,)."""
    if width == 1:
        return chains.cast(bits, TensorProto.INT32)
    planes = chains.reshape(bits, [width, -1])
    return chains.add("MatMulInteger", chains.constant([1 << i for i in range(width)], np.uint8), planes)


@dataclass(frozen=True)
class Listed:
    """A leaf of which only some places are listed: sorted `places` (m,), their `values`, zero at all others."""

    leaf: int
    size: int
    places: Array
    values: Array
    value_bits: int


def joint_places(items: Sequence[Listed]) -> Tensor:
    """Return the places (M,) of all leaves, counted through them end to end."""
    starts = np.cumsum([0, *(item.size for item in items)])
    return torch.from_numpy(np.concatenate([i.places + start for i, start in zip(items, starts[:-1], strict=True)]))


def neighbours(items: Sequence[Listed]) -> list[list[Listed]]:
    """Put leaves of like density into one chain, where one gap width serves them all at no greater cost."""

    def cost(group: Sequence[Listed]) -> float:
        bits, pairs = gap_bits(joint_places(group), group[0].value_bits)
        return pairs * (bits + group[0].value_bits) / 8 + GROUP_BYTES

    groups: list[list[Listed]] = []
    spent = 0.0
    for item in sorted(items, key=lambda item: len(item.places) / item.size):
        alone = cost([item])
        joint = [*groups[-1], item] if groups else [item]
        together = cost(joint)
        if groups and together <= spent + alone and sum(i.size for i in joint) < MOST_PLACES:
            groups[-1], spent = joint, together
        else:
            groups.append([item])
            spent = alone
    return groups
