"""What a written file stores: tensor by tensor, its stored form, bits per weight and bytes."""

from __future__ import annotations

import math
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from easycompress.artifact.rows import TensorRow
from easycompress.artifact.session import constants
from easycompress.core.errors import BadInput, one_line
from easycompress.intake.onnx_checks import read_checked, read_outside

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from easycompress.artifact.chains import Array
    from easycompress.artifact.session import Run

FORMS: dict[int, str] = {
    TensorProto.FLOAT: "float32",
    TensorProto.FLOAT16: "float16",
    TensorProto.INT64: "int64",
    TensorProto.INT32: "int32",
    TensorProto.INT8: "int8",
    TensorProto.UINT8: "uint8",
}

DECODERS = (
    *("Add", "BitShift", "BitwiseAnd", "Cast", "CumSum", "Expand", "Gather", "MatMul", "MatMulInteger", "Mod", "Mul"),
    *("Range", "Reshape", "ScatterElements", "Slice", "Split", "Transpose"),
)
"""The operators that `decode` writes. Only they are run to look inside a file."""

PAYLOADS = ("BitShift", "Cast")
"""What reads the arrays that several weights are decoded from; whatever else several weights read is a constant."""

SHARED = "shared constants"

LAYOUTS = {"ScatterElements": "gaps", "Mul": "mask"}
"""What makes the indices of a codebook, by layout; anything else unpacks planes."""


def read_onnx(path: Path) -> onnx.ModelProto:
    """Read an ONNX file. Raises BadInput when it is missing, no ONNX file or untrue about its tensors."""
    return read_outside(read_checked(path)[0], path)


def inspect_onnx(path: Path, run: Run = constants) -> list[TensorRow]:
    """Return one row a stored tensor, largest first. Scales and zero points count to the weights that they decode.

    A self-decoding weight is one row of its dense shape, with the bytes of all that only its own operators read and its
    share of what several decode jointly; the constants that they share are one more row. `run` runs the operators that
    decode weights: session.constants_apart for a file that anybody may have made. Raises BadInput as `read_onnx`, and
    where those don't run or aren't put together as `decode` does.
    """
    proto = read_onnx(path)
    try:
        rows, read = _Decoders(proto, path, run).rows()
        rows += _plain_rows(proto.graph, {t.name: t for t in proto.graph.initializer if t.name not in read})
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise BadInput(
            f"{path}: its operators don't fit its tensors ({type(error).__name__}: {one_line(error, 80)}); "
            "export it again"
        ) from error
    return sorted(rows, key=lambda row: -row.bytes)


def _plain_rows(graph: onnx.GraphProto, tensors: dict[str, TensorProto]) -> list[TensorRow]:
    """Return the rows of tensors that are stored as they are, or as integers and scales that the runtime reads."""
    helpers: dict[str, list[str]] = {}
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in tensors:
            helpers[node.input[0]] = [name for name in node.input[1:] if name in tensors]
    shared = {name for names in helpers.values() for name in names}
    rows = []
    counted: set[str] = set()
    for name, tensor in tensors.items():
        if name in shared:
            continue
        size = _bytes(tensor)
        form = FORMS.get(tensor.data_type, TensorProto.DataType.Name(tensor.data_type).lower())
        if name in helpers:
            form = f"affine {form}" + (", per channel" if _per_channel(tensors, helpers[name]) else "")
            fresh = [h for h in helpers[name] if h not in counted]  # a zero point may serve many weights
            counted.update(fresh)
            size += sum(_bytes(tensors[h]) for h in fresh)
        count = math.prod(tensor.dims)
        rows.append(TensorRow(name, form, tuple(tensor.dims), 8 * size / max(count, 1), size))
    rest = [tensors[name] for name in shared - counted]
    kind = "scale or zero point"
    rows.extend(TensorRow(t.name, kind, tuple(t.dims), 8.0 * _bytes(t), _bytes(t)) for t in rest)
    return rows


def _bytes(tensor: TensorProto) -> int:
    return len(tensor.raw_data) or int(onnx.numpy_helper.to_array(tensor).nbytes)


def _per_channel(tensors: dict[str, TensorProto], names: list[str]) -> bool:
    return bool(names) and math.prod(tensors[names[0]].dims) > 1


class _Decoders:
    """The part of a graph that reads initializers alone, and the weights that it rebuilds for the rest."""

    def __init__(self, proto: onnx.ModelProto, path: Path, run: Run) -> None:
        self.proto, self.path, self.run = proto, path, run
        self.tensors = {tensor.name: tensor for tensor in proto.graph.initializer}
        constant = {*self.tensors, ""}
        self.nodes: list[onnx.NodeProto] = []
        for node in proto.graph.node:
            if node.op_type in DECODERS and not node.domain and constant.issuperset(node.input) and not self._cut(node):
                self.nodes.append(node)
                constant.update(node.output)
        self.makers = {name: node for node in self.nodes for name in node.output}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.input):
                self.readers.setdefault(name, []).append(node)
        inner = {id(node) for node in self.nodes}
        self.outside = set(_read(node for node in proto.graph.node if id(node) not in inner))
        self.outside.update(value.name for value in proto.graph.output)
        ends = dict.fromkeys(self._untransposed(name) for name in self.makers if name in self.outside)
        scattered = [name for node in self.nodes if node.op_type == "ScatterElements" for name in node.input[1:3]]
        self.values = self._run(dict.fromkeys([*ends, *scattered])) if ends else {}
        self.weights = [name for name in ends if self.values[name].dtype == np.float32]  # others are shapes and indices
        self.shares = cache(self._shares)

    def rows(self) -> tuple[list[TensorRow], set[str]]:
        """Return the rows of the weights and of what they share, and the initializers that these account for."""
        sizes = dict.fromkeys(self.weights, 0)
        common: list[TensorProto] = []
        read = set()
        for name, tensor in self.tensors.items():
            shares = self.shares(name)
            if not shares or name in self.outside:
                continue
            read.add(name)
            if len(shares) > 1 and all(node.op_type not in PAYLOADS for node in self.readers[name]):
                common.append(tensor)
                continue
            for weight, part in _divided(_bytes(tensor), shares).items():
                sizes[weight] += part
        rows = []
        for name, size in sizes.items():
            dense = self.values[name]
            rows.append(TensorRow(name, self.form(name), dense.shape, 8 * size / max(dense.size, 1), size))
        if common:
            size, count = sum(map(_bytes, common)), sum(math.prod(tensor.dims) for tensor in common)
            rows.append(TensorRow(SHARED, "constants", (count,), 8 * size / max(count, 1), size))
        return rows, read

    def _cut(self, node: onnx.NodeProto) -> bool:
        """Tell a piece of a weight that is stored as it is, as export leaves the gates of large recurrent layers."""
        tensor = self.tensors.get(node.input[0])
        return node.op_type == "Slice" and tensor is not None and tensor.data_type == TensorProto.FLOAT

    def form(self, name: str) -> str:
        """Name the stored form of a tensor by the operators that rebuild it."""
        try:
            return self._form(name)
        except LookupError:
            return "computed"  # by operators that `decode` doesn't put together so

    def _form(self, name: str) -> str:
        node = self.makers[name]
        first = node.input[0]
        regrouped = node.op_type == "Gather" and first in self.makers and self.makers[first].op_type == "Reshape"
        if node.op_type in ("Reshape", "Slice", "Transpose") or regrouped:  # gates are cut out and put in order
            return self._form(first)
        if node.op_type == "Add":
            return " + ".join(self._form(operand) for operand in node.input)
        if node.op_type in ("Mul", "MatMul"):
            return self._product(node)
        if node.op_type == "Gather":
            return self._lookup(self._stored(first), node.input[1])
        if node.op_type == "Split":
            place = list(node.output).index(name)
            return f"sparse {100 * self._counts(self.makers[first])[place] / self._lengths(node)[place]:.2g} %"
        return "one value"

    def _product(self, node: onnx.NodeProto) -> str:
        maker = self.makers[node.input[0]]
        if node.op_type == "MatMul":
            return f"low-rank r={self.tensors[maker.input[0]].dims[1]}"
        if maker.op_type == "Cast":
            return "affine int8" + (", per channel" if self._stored(node.input[1]) > 1 else "")
        return f"{self._form(node.input[0])}, scaled"

    def _lookup(self, entries: int, indices: str) -> str:
        node = self.makers[indices]
        while node.op_type in ("Split", "Reshape"):
            node = self.makers[node.input[0]]
        if node.op_type == "Mod":
            return f"hashed {entries}"
        return f"codebook k={entries} ({LAYOUTS.get(node.op_type, 'planes')})"

    def _stored(self, name: str) -> int:
        """Return how many numbers an initializer holds, or the one that a Cast reads."""
        return math.prod(self.tensors[self.makers[name].input[0] if name in self.makers else name].dims)

    def _untransposed(self, name: str) -> str:
        """Return the parameter behind the transposed copy of it that some operators read."""
        node = self.makers[name]
        turned = node.op_type == "Transpose" and not node.attribute and node.input[0] in self.makers
        return node.input[0] if turned else name

    def _shares(self, name: str) -> dict[str, float]:
        """Return the weights that a tensor is decoded to, with the part of the tensor that each one takes."""
        if name in self.weights:
            return {name: 1.0}
        found: dict[str, float] = {}
        for node in self.readers.get(name, []):
            for output, size in self._flow(node, name):
                for weight, part in self.shares(output).items():
                    found[weight] = found.get(weight, 0.0) + size * part
        total = sum(found.values()) or 1.0
        return {weight: part / total for weight, part in found.items()}

    def _flow(self, node: onnx.NodeProto, name: str) -> list[tuple[str, float]]:
        """Return the outputs to which an input of a node goes, each with a measure of how much of it does."""
        if node.op_type == "Split" and name == node.input[0]:
            return list(zip(node.output, self._lengths(node), strict=True))
        if node.op_type == "ScatterElements" and name in node.input[1:3]:
            cuts = [cut for cut in self.readers.get(node.output[0], []) if cut.op_type == "Split"]
            if cuts:
                return list(zip(cuts[0].output, self._counts(node), strict=True))
        return [(output, 1.0) for output in node.output]

    def _lengths(self, node: onnx.NodeProto) -> list[float]:
        """Return the lengths of a Split's parts."""
        return [float(length) for length in numpy_helper.to_array(self.tensors[node.input[1]])]

    def _counts(self, node: onnx.NodeProto) -> list[float]:
        """Return how many values that aren't zero a ScatterElements puts into each part of what is then split."""
        ends = np.cumsum(self._lengths(self.readers[node.output[0]][0]))
        places = self.values[node.input[1]][self.values[node.input[2]] != 0]
        below = [0, *np.searchsorted(np.sort(places), ends)]
        return [float(high - low) for low, high in pairwise(below)]

    def _run(self, names: Iterable[str]) -> dict[str, Array]:
        """Run the decoding operators once and return the tensors of these names."""
        made = [name for name in names if name in self.makers]
        try:
            values = self.run(self.nodes, self.proto.graph.initializer, made, self.proto)
        except Exception as error:  # the runtime's own error types share no public base class
            raise BadInput(
                f"{self.path}: the operators that decode its weights don't run: {one_line(error)}"
            ) from error
        stored = {name: numpy_helper.to_array(self.tensors[name]) for name in names if name in self.tensors}
        return stored | values


def _read(nodes: Iterable[onnx.NodeProto]) -> Iterator[str]:
    """Yield the names of all tensors that nodes, and the bodies in them, read."""
    for node in nodes:
        yield from node.input
        for attribute in node.attribute:
            for body in [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]:
                yield from _read(body.node)
                yield from (value.name for value in body.output)


def _divided(size: int, shares: dict[str, float]) -> dict[str, int]:
    """Divide bytes by shares that add up to one, into whole numbers that add up to `size`."""
    parts = {name: int(size * share) for name, share in shares.items()}
    largest = max(parts, key=lambda name: parts[name])
    return parts | {largest: parts[largest] + size - sum(parts.values())}
