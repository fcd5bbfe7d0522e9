"""Put codes in the place of the weights of an exported graph: the file then decodes itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from easycompress.artifact.decode import decode
from easycompress.artifact.gates import unstack
from easycompress.artifact.session import constants
from easycompress.codes.composed import Additive, Scaled
from easycompress.codes.lowrank import LowRank
from easycompress.core.errors import CannotCompress

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from easycompress.artifact.chains import Array, Chains
    from easycompress.codes.base import Code

ROUNDING = 1e-6
"""Largest difference of a low-rank product, relative to its largest value, that the order of its sums may cause."""


def attach_codes(proto: onnx.ModelProto, codes: dict[str, Code]) -> onnx.ModelProto:
    """Return the graph with every coded weight as its code and the operators that rebuild it, under its old name.

    `codes` are by parameter. All copies of their dense tensors are replaced, see `own_names`. The operators are run
    once and compared, so the file holds what the codes say. Raises CannotCompress, naming the weight, where the graph
    holds other values than a code, or none of them; and for a code that has no operators.
    """
    dense = _dense(codes)
    result = _with_own_names(proto, codes, dense)
    graph = result.graph
    stored = {tensor.name for tensor in graph.initializer}
    used = {name: code for name, code in codes.items() if name in stored and dense[name].size}
    if not used:
        return result
    unique = {id(code): code for code in used.values()}
    chains, tensors = decode(list(unique.values()), _names(graph))
    rebuilt = dict(zip(unique, tensors, strict=True))
    final: dict[str, str] = {}
    aliases = {name: final.setdefault(rebuilt[id(code)], name) for name, code in used.items()}
    chains.rename(final)
    _prove(chains, aliases, used, dense, result)
    kept = [tensor for tensor in graph.initializer if tensor.name not in used]
    nodes = [*chains.nodes, *graph.node]
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend([*kept, *chains.initializers])
    graph.node.extend(nodes)
    _redirect(graph, aliases)
    return result


def own_names(proto: onnx.ModelProto, codes: dict[str, Code]) -> onnx.ModelProto:
    """Return an equivalent graph that holds every coded weight dense and once, under its parameter's name.

    Export stores a linear layer's weight on (N, T, C) inputs transposed under a made-up name, and a tied one under any
    of its names or several times: they are found by content, and a Transpose is put where one is needed, or what
    stacks a recurrent layer's gates. A parameter of
    which another in `codes` is the copy may have no tensor. Raises CannotCompress, naming the weight, where the graph
    holds other values than its code, or none of them.
    """
    return _with_own_names(proto, codes, _dense(codes))


def _dense(codes: dict[str, Code]) -> dict[str, Array]:
    return {name: code.dense().detach().cpu().numpy() for name, code in codes.items()}


def _parameter_of(matrix: Array, codes: dict[str, Code], dense: dict[str, Array]) -> tuple[str, Array] | None:
    """Return the parameter whose code says `matrix`, with the code's own values; None where there is none."""
    return next(((name, dense[name]) for name, code in codes.items() if _same(code, dense[name], matrix)), None)


@dataclass(frozen=True)
class _Place:
    """An initializer of the graph that holds a code's dense tensor, or its transpose."""

    tensor: str
    parameter: str
    transposed: bool = False


def _with_own_names(proto: onnx.ModelProto, codes: dict[str, Code], dense: dict[str, Array]) -> onnx.ModelProto:
    result = onnx.ModelProto()
    result.CopyFrom(proto)
    graph = result.graph
    unstack(graph, lambda matrix: _parameter_of(matrix, codes, dense))
    copies = [place for place in _places(graph, codes, dense) if place.tensor != place.parameter]
    spare = {place.tensor for place in copies}
    kept = [tensor for tensor in graph.initializer if tensor.name not in spare]
    stored = {tensor.name for tensor in kept}
    missing = [name for name in dict.fromkeys(place.parameter for place in copies) if name not in stored]
    kept.extend(numpy_helper.from_array(dense[name], name) for name in missing)
    turned: dict[str, str] = {}
    aliases = {place.tensor: place.parameter for place in copies if not place.transposed}
    for place in copies:
        if place.transposed:
            aliases[place.tensor] = turned.setdefault(place.parameter, place.tensor)
    nodes = [helper.make_node("Transpose", [parameter], [name]) for parameter, name in turned.items()]
    nodes.extend(graph.node)
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(kept)
    graph.node.extend(nodes)
    _redirect(graph, aliases)
    return result


def _places(graph: onnx.GraphProto, codes: dict[str, Code], dense: dict[str, Array]) -> list[_Place]:
    """Find the initializers that the codes stand for: first by name, then, among those left, by content."""
    arrays = {t.name: numpy_helper.to_array(t) for t in graph.initializer if t.data_type == TensorProto.FLOAT}
    stored = {tensor.name for tensor in graph.initializer}
    full = {name: code for name, code in codes.items() if dense[name].size}
    found = []
    for name, code in full.items():
        if name in stored and (name not in arrays or not _same(code, dense[name], arrays.pop(name))):
            raise CannotCompress(
                f"{name}: the exported graph holds this weight with other values than its code; "
                "fold batch norm into the layer, and put the code's values into the module, before export"
            )
        if name in stored:
            found.append(_Place(name, name))
    for value in graph.output:
        arrays.pop(value.name, None)
    for name, code in sorted(full.items(), key=lambda item: item[0] not in stored):  # of tied ones, that which is there
        copies = [_match(tensor, array, name, code, dense[name]) for tensor, array in arrays.items()]
        found.extend(place for place in copies if place)
        arrays = {tensor: array for (tensor, array), place in zip(arrays.items(), copies, strict=True) if not place}
    known = {place.parameter for place in found}
    for name in full:
        elsewhere = any(np.array_equal(dense[name], dense[other]) for other in known)
        if name not in known and not elsewhere and not _rows_of(dense[name], arrays.values()):
            raise CannotCompress(
                f"{name}: the exported graph holds no tensor with this weight's values, so its code can't stand for "
                "it; leave this weight out, or check that the model's forward uses it as it is"
            )
    return found


def _rows_of(dense: Array, arrays: Iterable[Array]) -> bool:
    """Tell whether a graph holds some rows of a matrix that stand together: positions as far as texts go.

    Those stay as they are, on the code's levels.
    """
    for array in arrays:
        rows = array.reshape(-1, array.shape[-1]) if array.ndim else array
        if dense.ndim != 2 or rows.ndim != 2 or rows.shape[1] != dense.shape[1] or len(rows) >= len(dense):  # noqa: PLR2004 - matrices
            continue
        starts: Iterable[int] = np.flatnonzero((dense == rows[0]).all(1)) if len(rows) else []
        if any(np.array_equal(dense[start : start + len(rows)], rows) for start in starts):
            return True
    return False


def _match(tensor: str, array: Array, name: str, code: Code, dense: Array) -> _Place | None:
    if array.shape == dense.shape and _same(code, dense, array):
        return _Place(tensor, name)
    if dense.ndim == 2 and array.shape == dense.shape[::-1] and _same(code, dense.T, array):  # noqa: PLR2004 - a matrix
        return _Place(tensor, name, transposed=True)
    return None


def _same(code: Code, dense: Array, array: Array) -> bool:
    """Tell whether two tensors are equal, or as near as the order of a low-rank code's sums allows."""
    if dense.shape != array.shape:
        return False
    if _rounds(code):
        return bool(np.abs(dense - array).max() <= ROUNDING * np.abs(dense).max())
    return np.array_equal(dense[:1], array[:1]) and np.array_equal(dense, array)  # mostly the first row decides


def _rounds(code: Code) -> bool:
    if isinstance(code, Additive):
        return any(_rounds(part) for part in code.parts)
    return _rounds(code.code) if isinstance(code, Scaled) else isinstance(code, LowRank)


def _prove(
    chains: Chains, aliases: dict[str, str], codes: dict[str, Code], dense: dict[str, Array], like: onnx.ModelProto
) -> None:
    """Run the operators once, and compare what they rebuild with the codes' dense tensors."""
    names = sorted(set(aliases.values()))
    rebuilt = constants(chains.nodes, chains.initializers, names, like)
    for name, code in codes.items():
        if not _same(code, dense[name], rebuilt[aliases[name]]):
            raise CannotCompress(
                f"{name}: the file would rebuild other values than the code's; its arrays and its dense tensor disagree"
            )


def _redirect(graph: onnx.GraphProto, aliases: dict[str, str]) -> None:
    """Let everything that read a spare name read its stand-in, inside If and Loop bodies too."""
    for node in graph.node:
        inputs = [aliases.get(name, name) for name in node.input]
        del node.input[:]
        node.input.extend(inputs)
        for body in _bodies(node):
            _redirect(body, aliases)


def _bodies(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        yield from attribute.graphs
        if attribute.HasField("g"):
            yield attribute.g


def _names(graph: onnx.GraphProto) -> set[str]:
    """Return every tensor's name, inside bodies too."""
    tensors: Iterable[onnx.ValueInfoProto | onnx.TensorProto] = [*graph.input, *graph.output, *graph.initializer]
    names = {tensor.name for tensor in tensors}
    for node in graph.node:
        names.update(node.input, node.output)
        for body in _bodies(node):
            names |= _names(body)
    return names
