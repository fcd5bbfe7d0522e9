"""Which layer of a module each tensor and each operator of a written file belongs to.

Written files are stripped: most names in them say nothing, weights are integers or codes, batch norms are folded. So
tensors are known by content: as the graph computes with them, row by row up to a factor, which scales and folding are.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from onnx import numpy_helper

from easycompress.artifact.container import dense_graph, ecz_rows, read_ecz
from easycompress.artifact.gates import ORDERS
from easycompress.artifact.inspection import inspect_onnx, read_onnx
from easycompress.artifact.session import constants
from easycompress.artifact.write import PACKED
from easycompress.measure.likeness import Likeness

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import onnx
    from torch import Tensor

    from easycompress.artifact.chains import Array
    from easycompress.artifact.rows import TensorRow

NOT_TENSORS = 2
"""How many of a packed file's rows, at the end, tell of its graph and its header."""

PRODUCTS = ("Gemm", "MatMul", "MatMulInteger", "Conv", "ConvTranspose", "Gather")
"""Operators whose further inputs, and what is done to each of their outputs, belong to the layer of their weight."""

ELEMENTWISE = ("Add", "Cast", "Mul")

HELPERS = {"MatMulInteger": 2, "DynamicQuantizeLSTM": 8}
"""From which input on an operator's constants are scales and zero points, which are no parameters."""

NO_PARAMETERS = ("int64", "scale or zero point")
"""Forms of rows that belong to a layer without being parameters: the sizes of a decoded shape, say."""

MATRICES = (1, 2)
"""W and R among a recurrent operator's inputs."""

GATES = ORDERS | {"DynamicQuantizeLSTM": ORDERS["LSTM"]}


@dataclass(frozen=True)
class Holding:
    """One stored tensor and the layers that it belongs to, in the order of the graph. `counts`: it holds parameters."""

    row: TensorRow
    layers: tuple[str, ...]
    counts: bool


@dataclass(frozen=True)
class Ownership:
    """What belongs to whom in one file: `holdings` of stored tensors, `operators` by their first output.

    `known` are the parameters whose tensors were found, with how many numbers of them. Whatever could not be told is in
    none of them. `free` are the outputs of operators that read no stored tensor: products of activations.
    """

    graph: onnx.ModelProto
    holdings: tuple[Holding, ...]
    operators: dict[str, str]
    free: frozenset[str]
    known: dict[str, int]


def ownership(path: Path, parameters: Mapping[str, Tensor]) -> Ownership:
    """Tell whose the tensors and operators of a file are. `parameters` (and buffers) are the module's, each once.

    `path` is an .onnx file or an .ecz file of our own; the layer of a parameter is the module that owns it.
    """
    if path.suffix == PACKED:
        return _Reading(dense_graph(*read_ecz(path)), ecz_rows(path)[:-NOT_TENSORS], parameters).ownership()
    return _Reading(read_onnx(path), inspect_onnx(path), parameters).ownership()


@dataclass
class _Use:
    """A constant that an operator reads: which, where, and whose it turned out to be."""

    node: onnx.NodeProto
    place: int
    name: str
    layer: str | None = None
    counts: bool = False


@dataclass
class _Reading:
    """One file on the way to being told."""

    proto: onnx.ModelProto
    rows: list[TensorRow]
    parameters: Mapping[str, Tensor]
    uses: list[_Use] = field(default_factory=list)
    known: dict[str, dict[frozenset[str], int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.stored = {tensor.name: tensor for tensor in self.proto.graph.initializer}
        self.named = {row.name for row in self.rows}
        constant = {*self.stored, ""}
        self.settled: list[onnx.NodeProto] = []
        self.nodes: list[onnx.NodeProto] = []
        for node in self.proto.graph.node:
            if constant.issuperset(node.input) and not node.domain and not _bodies(node):
                self.settled.append(node)
                constant.update(node.output)
            else:
                self.nodes.append(node)
        self.outputs = {value.name for value in self.proto.graph.output}
        self.makers = {name: node for node in self.proto.graph.node for name in node.output}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.nodes:
            for place, name in enumerate(node.input):
                self.readers.setdefault(name, []).append(node)
                if name and name in constant:
                    self.uses.append(_Use(node, place, name))
        self.by_node: dict[str, list[_Use]] = {}
        for use in self.uses:
            self.by_node.setdefault(_key(use.node), []).append(use)

    def ownership(self) -> Ownership:
        """Find the owner of every use, then of what is stored behind it."""
        values = self._values()
        likeness = Likeness({name: tensor.detach().numpy() for name, tensor in self.parameters.items()})
        for use in self.uses:
            if values[use.name].ndim > 1:
                self._recognise(use, values[use.name], likeness)
        operators: dict[str, str] = {}
        for use in self.uses:
            if use.layer is not None and use.node.op_type in (*PRODUCTS, *GATES):
                operators.setdefault(_key(use.node), use.layer)
        for key, layer in operators.items():
            self._complete(self.by_node[key], layer, values)
        self._add_vectors(values, likeness)
        for node in self.nodes:
            if _key(node) in operators:
                self._follow(node, operators[_key(node)], values)
        known = {name: sum(sizes.values()) for name, sizes in self.known.items()}
        free = frozenset(_key(node) for node in self.nodes if _key(node) not in self.by_node)
        return Ownership(self.proto, tuple(self._holdings()), operators, free, known)

    def _add_vectors(self, values: Mapping[str, Array], likeness: Likeness) -> None:
        """Find the owners of vectors that belong to no product: what normalisations scale and shift by."""
        for use in self.uses:
            if use.layer is None and values[use.name].ndim == 1:
                self._recognise(use, values[use.name], likeness)
        for uses in self.by_node.values():
            layers = {use.layer for use in uses if use.layer is not None}
            if uses[0].node.op_type.endswith("Normalization") and len(layers) == 1:
                self._complete(uses, layers.pop(), values)

    def _recognise(self, use: _Use, values: Array, likeness: Likeness) -> None:
        """Find the parameter that a use reads; one tensor of a recurrent operator holds one of each direction."""
        order = GATES.get(use.node.op_type)
        matrices = order is not None and use.place in MATRICES and values.ndim == len(MATRICES) + 1
        parts = _matrices(values, order) if order and matrices else [values]
        found = [likeness.find(part) for part in parts]
        names = [name for name in found if name is not None]
        layers = {name.rpartition(".")[0] for name in names}
        if len(names) == len(found) and len(layers) == 1:
            use.layer, use.counts = layers.pop(), True
            for name, part in zip(names, parts, strict=True):
                self.known.setdefault(name, {})[frozenset(self._behind(use.name))] = part.size

    @staticmethod
    def _complete(uses: list[_Use], layer: str, values: Mapping[str, Array]) -> None:
        """Give a layer the other constants of its operator: a bias, a zero point."""
        for use in uses:
            if use.layer is None:
                helper = use.place >= HELPERS.get(use.node.op_type, len(use.node.input))
                use.layer, use.counts = layer, values[use.name].ndim > 0 and not helper

    def _values(self) -> dict[str, Array]:
        """Return what the graph's operators compute with, decoded and dequantized."""
        names = dict.fromkeys(use.name for use in self.uses)
        made = [name for name in names if name not in self.stored]
        computed = constants(self.settled, self.stored.values(), made, self.proto) if made else {}
        return {name: numpy_helper.to_array(self.stored[name]) for name in names if name in self.stored} | computed

    def _follow(self, node: onnx.NodeProto, layer: str, values: Mapping[str, Array]) -> None:
        """Give a layer the constants that scale and shift its outputs behind its operator."""
        sizes = {size for use in self.by_node[_key(node)] for size in values[use.name].shape} - {1}
        while len(self.readers.get(node.output[0], [])) == 1 and node.output[0] not in self.outputs:
            node = self.readers[node.output[0]][0]
            if node.op_type not in ELEMENTWISE:
                return
            for use in self._beside(node):
                if use.layer is None and values[use.name].size in sizes:
                    use.layer, use.counts = layer, node.op_type == "Add"

    def _beside(self, node: onnx.NodeProto) -> Iterator[_Use]:
        """Yield an elementwise operator's constants, and those of what looks up or scales its other input."""
        yield from self.by_node.get(_key(node), [])
        for name in node.input:
            maker = self.makers.get(name)
            if maker is not None and maker.op_type in ("Gather", "Mul") and len(self.readers[name]) == 1:
                yield from self.by_node.get(_key(maker), [])

    def _holdings(self) -> Iterator[Holding]:
        """Yield the stored tensors all of whose readers have an owner."""
        layers: dict[str, list[str | None]] = {}
        counts: set[str] = set()
        for use in self.uses:
            for row in self._behind(use.name):
                layers.setdefault(row, []).append(use.layer)
                if use.counts:
                    counts.add(row)
        inner = {name for node in self.nodes for body in _bodies(node) for name in _read(body)}
        for stored in self.rows:
            owners = layers.get(stored.name, [None])
            told = tuple(dict.fromkeys(owner for owner in owners if owner is not None))
            if None not in owners and stored.name not in inner:
                yield Holding(stored, told, stored.name in counts and stored.form not in NO_PARAMETERS)

    def _behind(self, name: str) -> set[str]:
        """Return the stored tensors that a constant is computed from."""
        if name in self.named:
            return {name}
        maker = self.makers.get(name)
        return set() if maker is None else {row for source in maker.input if source for row in self._behind(source)}


def _key(node: onnx.NodeProto) -> str:
    return str(next(name for name in node.output if name))


def _matrices(values: Array, order: tuple[int, ...]) -> list[Array]:
    """Return each direction's matrix of a recurrent operator as PyTorch has it, (gates x hidden, inputs).

    Integers are stored transposed, (inputs, gates x hidden).
    """
    found = []
    for matrix in values if values.dtype.kind == "f" else np.swapaxes(values, 1, 2):
        gates = matrix.reshape(len(order), len(matrix) // len(order), -1)
        found.append(gates[np.argsort(order)].reshape(matrix.shape))
    return found


def _bodies(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """Return the graphs inside an If or a Loop."""
    found: list[onnx.GraphProto] = []
    for attribute in node.attribute:
        found += [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]
    return found


def _read(graph: onnx.GraphProto) -> Iterator[str]:
    """Yield all names that a body reads, inside further bodies too."""
    for node in graph.node:
        yield from node.input
        for body in _bodies(node):
            yield from _read(body)
