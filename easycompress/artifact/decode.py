"""From codes to operators that rebuild their dense tensors, which ONNX Runtime folds once, when a session starts.

Every leaf (a code that isn't made of codes) first becomes a flat vector, many leaves in one chain where their forms
allow; then each code's own few operators gather, add, scale and reshape them. Everything is exact: the values are those
of `dense()`, added and multiplied in the same order. Only a low-rank product may round otherwise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np
from onnx import TensorProto

from easycompress.artifact.chains import Array, BitPool, Chains, Field, Listed, joint_places, neighbours
from easycompress.codes.affine import Affine
from easycompress.codes.codebook import Codebook
from easycompress.codes.composed import Additive, Scaled
from easycompress.codes.half import Half
from easycompress.codes.hashed import INCREMENT, MULTIPLIER, PRIME, STEP, Hashed
from easycompress.codes.lowrank import LowRank
from easycompress.codes.packing import bits_for, pack_gaps, unpack_planes
from easycompress.codes.sparse import VALUE_BITS, Sparse
from easycompress.core.errors import CannotCompress

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from easycompress.codes.base import Code

Parts = dict[int, str]
"""The flat vector of each leaf by the leaf's id: a codebook's indices (int32), anything else's values (float32)."""

CodeT = TypeVar("CodeT", bound="Code")


def decode(codes: Sequence[Code], taken: set[str]) -> tuple[Chains, list[str]]:
    """Return operators that rebuild the codes, and the float32 tensor of each; no name is one of `taken`.

    Raises CannotCompress for a form that has no chain.
    """
    leaves = {id(leaf): leaf for code in codes for leaf in _leaves(code)}
    books = [leaf for leaf in leaves.values() if isinstance(leaf, Codebook) and not _is_constant(leaf)]
    pool = BitPool()
    plans: list[_Plan] = [_Planes(books, pool)]
    masked = [book for book in books if _layout(book) == "mask"]
    plans.extend(_Masked(group, pool) for group in _by(masked, lambda book: bits_for(len(book.entries) - 1)))
    listed = [_listed_indices(book) for book in books if _layout(book) == "gaps"]
    listed.extend(_listed_values(leaf) for leaf in leaves.values() if isinstance(leaf, Sparse) and len(leaf.positions))
    for group in _by(listed, lambda item: item.value_bits + 100 * (item.values.dtype == np.float16)):
        plans.extend(_Gaps(part, pool) for part in neighbours(group))
    hashed = [leaf for leaf in leaves.values() if isinstance(leaf, Hashed)]
    plans.extend(_Hashes(group) for group in _by(hashed, lambda leaf: leaf.seed))
    chains = Chains(taken)
    pool.emit(chains)
    parts: Parts = {}
    for plan in plans:
        parts.update(plan.emit(chains, pool))
    return chains, [_tensor(chains, code, parts) for code in codes]


def _leaves(code: Code) -> list[Code]:
    if isinstance(code, Additive):
        return [leaf for part in code.parts for leaf in _leaves(part)]
    return _leaves(code.code) if isinstance(code, Scaled) else [code]


_T = TypeVar("_T")


def _by(items: Sequence[_T], key: Callable[[_T], int]) -> list[list[_T]]:
    """Return the items in groups of equal key."""
    groups: dict[int, list[_T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return [groups[value] for value in sorted(groups)]


def _numpy(tensor: Tensor) -> Array:
    array: Array = tensor.detach().cpu().numpy()
    return array


class _Plan(Protocol):
    """Some leaves that share a chain. What is stored in bits goes into the pool when the plan is made."""

    def emit(self, chains: Chains, pool: BitPool) -> Parts:
        """Append the chain."""
        ...


def _is_constant(book: Codebook) -> bool:
    return bool((book.indices == book.common).all())


def _layout(book: Codebook) -> str:
    """With two values the mask is the plane."""
    return book.layout if bits_for(len(book.entries) - 1) or book.layout == "gaps" else "planes"


class _Planes:
    """Codebooks with every index in bit planes."""

    def __init__(self, books: Sequence[Codebook], pool: BitPool) -> None:
        self.fields = {
            id(book): pool.put(_numpy(book.indices), bits_for(len(book.entries)))
            for book in books
            if _layout(book) == "planes"
        }

    def emit(self, chains: Chains, pool: BitPool) -> Parts:
        return {key: pool.get(chains, stored) for key, stored in self.fields.items()}


class _Masked:
    """Codebooks with a bit a weight, and indices of those that differ from the commonest. That one becomes index 0.

    index = bit x (1 + others[number of bits so far]). (ONNX Runtime doesn't fold NonZero, whose length it can't know.)
    """

    def __init__(self, books: Sequence[Codebook], pool: BitPool) -> None:
        self.books = books
        flat = np.concatenate([_common_first(book) for book in books])
        self.mask = pool.put(flat != 0, 1)
        nobody = np.zeros(1, dtype=np.int64)  # what weights before the first bit look up
        others = np.concatenate([nobody, flat[flat != 0] - 1])
        self.others = pool.put(others, bits_for(len(books[0].entries) - 1))

    def emit(self, chains: Chains, pool: BitPool) -> Parts:
        mask, others = pool.get(chains, self.mask), pool.get(chains, self.others)
        above = chains.add("Add", others, chains.constant([1], np.int32))
        found = chains.add("Gather", above, chains.add("CumSum", mask, chains.constant(0)))
        parts = chains.split(chains.add("Mul", mask, found), [book.indices.numel() for book in self.books])
        return {id(book): part for book, part in zip(self.books, parts, strict=True)}


def _common_first(book: Codebook) -> Array:
    """Return the flat indices after the commonest entry has moved to the front."""
    flat = _numpy(book.indices).reshape(-1).astype(np.int64)
    return np.where(flat == book.common, 0, flat + (flat < book.common))


def _listed_indices(book: Codebook) -> Listed:
    flat = _common_first(book)
    places = np.flatnonzero(flat)
    return Listed(id(book), flat.size, places, flat[places], bits_for(len(book.entries)))


def _listed_values(leaf: Sparse) -> Listed:
    values = _numpy(leaf.values.half())
    return Listed(id(leaf), math.prod(leaf.size), _numpy(leaf.positions), values, VALUE_BITS)


class _Gaps:
    """Leaves as gaps between the places that aren't zero, counted through all leaves end to end."""

    def __init__(self, items: Sequence[Listed], pool: BitPool) -> None:
        self.items = items
        gaps = pack_gaps(joint_places(items), items[0].value_bits)
        values = np.zeros(gaps.count, dtype=items[0].values.dtype)
        values[~_numpy(gaps.filler)] = np.concatenate([item.values for item in items])
        self.gaps = pool.put(_numpy(unpack_planes(gaps.planes, gaps.count)), gaps.bits)
        self.values: Field | Array = (
            values if values.dtype == np.float16 else pool.put(values, items[0].value_bits)
        )  # float16 values have an initializer of their own

    def emit(self, chains: Chains, pool: BitPool) -> Parts:
        steps = chains.add("Add", pool.get(chains, self.gaps), chains.constant([1], np.int32))
        places = chains.add("CumSum", steps, chains.constant(0))  # one too high: the first place is nobody's
        lengths = [1, *(item.size for item in self.items)]
        if isinstance(self.values, Field):
            values, zero = pool.get(chains, self.values), chains.constant([0], np.int32)
        else:
            values = chains.cast(chains.constant(self.values, np.float16), TensorProto.FLOAT)
            zero = chains.constant([0], np.float32)
        zeros = chains.filled(zero, [sum(lengths)])
        parts = chains.split(chains.add("ScatterElements", zeros, places, values), lengths)[1:]
        return {item.leaf: part for item, part in zip(self.items, parts, strict=True)}


class _Hashes:
    """Hashed leaves of one seed: `hash_places` in int64 operators, up to each one's modulo."""

    def __init__(self, leaves: Sequence[Hashed]) -> None:
        self.leaves = leaves

    def emit(self, chains: Chains, _pool: BitPool) -> Parts:
        sizes = [math.prod(leaf.size) for leaf in self.leaves]
        prime = chains.constant([PRIME])
        seed = self.leaves[0].seed
        bounds = [chains.constant(number) for number in (STEP + seed, (max(sizes) + 1) * STEP + seed, STEP)]
        mixed = chains.add("Mod", chains.add("Range", *bounds), prime)
        mixed = chains.add("Mod", chains.add("Mul", mixed, mixed), prime)
        mixed = chains.add("Mul", mixed, chains.constant([MULTIPLIER]))
        mixed = chains.add("Mod", chains.add("Add", mixed, chains.constant([INCREMENT])), prime)
        mixed = chains.add("Mod", chains.add("Mul", mixed, mixed), prime)
        parts = {}
        for leaf, size in zip(self.leaves, sizes, strict=True):
            own = mixed
            if size != max(sizes):
                own = chains.add("Slice", mixed, chains.constant([0]), chains.constant([size]))
            bucket = chains.add("Mod", own, chains.constant([len(leaf.values)]))
            parts[id(leaf)] = chains.add("Gather", chains.floats(_numpy(leaf.values.float())), bucket)
        return parts


@dataclass(frozen=True)
class _Value:
    """A tensor of the graph, flat or of the code's shape."""

    name: str
    shape: tuple[int, ...]


def _tensor(chains: Chains, code: Code, parts: Parts) -> str:
    value = _value(chains, code, parts)
    if value is None:
        return chains.filled(chains.constant([0], np.float32), code.shape)
    return _shaped(chains, value, code.shape)


def _shaped(chains: Chains, value: _Value, shape: tuple[int, ...]) -> str:
    return value.name if value.shape == shape else chains.reshape(value.name, shape)


def _value(chains: Chains, code: Code, parts: Parts) -> _Value | None:
    """Append a code's own operators. None stands for zeros."""
    if isinstance(code, Additive):
        return _sum(chains, code, parts)
    if isinstance(code, Scaled):
        inner = _value(chains, code.code, parts)
        return inner and _scaled(chains, _shaped(chains, inner, code.shape), code.scale, code.shape)
    if isinstance(code, Affine):
        values = chains.cast(chains.constant(_numpy(code.values), np.int8), TensorProto.FLOAT)
        return _scaled(chains, values, code.scale, code.shape)
    if isinstance(code, LowRank):
        return _product(chains, code) if code.rank else None
    return _leaf(chains, code, parts)


def _leaf(chains: Chains, code: Code, parts: Parts) -> _Value | None:
    if isinstance(code, Half):
        return _Value(chains.floats(_numpy(code.dense())), code.shape)
    if isinstance(code, Codebook):
        return _looked_up(chains, code, parts)
    if not isinstance(code, (Sparse, Hashed)):
        raise CannotCompress(f"the stored form {code.form!r} has no ONNX operators; write the packed format instead")
    return _Value(parts[id(code)], (math.prod(code.shape),)) if id(code) in parts else None


def _looked_up(chains: Chains, code: Codebook, parts: Parts) -> _Value:
    entries = _numpy(code.entries.float())
    if _is_constant(code):
        return _Value(chains.filled(chains.constant(entries[[code.common]], np.float32), code.shape), code.shape)
    if _layout(code) != "planes":
        entries = np.concatenate([entries[[code.common]], np.delete(entries, code.common)])
    return _Value(chains.add("Gather", chains.floats(entries), parts[id(code)]), (math.prod(code.shape),))


def _sum(chains: Chains, code: Additive, parts: Parts) -> _Value | None:
    total: _Value | None = None
    for part in code.parts:
        value = _value(chains, part, parts)
        if total is None or value is None:
            total = total or value
            continue
        shape = total.shape if total.shape == value.shape else code.shape
        names = (_shaped(chains, total, shape), _shaped(chains, value, shape))
        total = _Value(chains.add("Add", *names), shape)
    return total


def _scaled(chains: Chains, name: str, scale: Tensor, shape: tuple[int, ...]) -> _Value:
    factors = _numpy(scale.float()).reshape([-1] + [1] * (len(shape) - 1))
    return _Value(chains.add("Mul", name, chains.floats(factors)), shape)


def _product(chains: Chains, code: LowRank) -> _Value:
    left, right = (
        chains.cast(chains.constant(_numpy(factor.half()), np.float16), TensorProto.FLOAT)
        for factor in (code.left, code.right)
    )
    matrix = (int(code.left.shape[0]), int(code.right.shape[1]))
    product = chains.add("MatMul", left, right)
    if len(code.size) == 4 and code.layout == "scheme-2":  # noqa: PLR2004 - a 2-d convolution
        n, c, h, w = code.size
        parted = chains.reshape(product, [n, h, c, w])
        return _Value(chains.add("Transpose", parted, perm=[0, 2, 1, 3]), code.size)
    return _Value(product, matrix)
