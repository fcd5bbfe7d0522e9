"""Dimensions that an .onnx file leaves open, beside the batch: a run has one length for each, that of its data."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import onnx
from torch import nn

from easycompress.core.inputs import Bundle, parts

if TYPE_CHECKING:
    from pathlib import Path

    from easycompress.core.inputs import Inputs

FREE = 16
"""Length given to such a dimension where neither data nor --shape say one."""


def inputs_in(proto: onnx.ModelProto) -> list[Any]:
    """Return what a graph is fed with: its inputs but for those that only name an initializer."""
    stored = {tensor.name for tensor in proto.graph.initializer}
    return [value for value in proto.graph.input if value.name not in stored]


def is_open(dimension: Any) -> bool:  # noqa: ANN401 - protobuf's are untyped
    """Tell whether a dimension has no length in the file."""
    return not (dimension.HasField("dim_value") and dimension.dim_value > 0)


def open_inputs(proto: onnx.ModelProto) -> list[str]:
    """Return the names of the inputs of which another dimension than the first, the batch, is open."""
    return [v.name for v in inputs_in(proto) if any(is_open(d) for d in list(v.type.tensor_type.shape.dim)[1:])]


def sample_shapes(proto: onnx.ModelProto, sample: Inputs | None) -> dict[str, tuple[int, ...]]:
    """Return one sample's shape for each input, as the file says; open dimensions as `sample` (n, ...) has them."""
    values = inputs_in(proto)
    given: dict[str, tuple[int, ...]] = {}
    if sample is not None:
        named = isinstance(sample, Bundle) and sample.names
        names = sample.names if isinstance(sample, Bundle) and named else tuple(value.name for value in values)
        given = {name: tuple(tensor.shape[1:]) for name, tensor in zip(names, parts(sample), strict=False)}
    shapes = {}
    for value in values:
        dimensions = list(value.type.tensor_type.shape.dim)[1:]
        said = given.get(value.name, ())
        lengths = said if len(said) == len(dimensions) else (FREE,) * len(dimensions)
        shapes[value.name] = tuple(
            length if is_open(d) else int(d.dim_value) for d, length in zip(dimensions, lengths, strict=True)
        )
    return shapes


class Face(nn.Module):
    """Stands for the module of a file while its data are read: it knows the inputs' names, and computes nothing."""

    def __init__(self, names: list[str]) -> None:
        super().__init__()
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD

        def forward(*_: object) -> None:
            raise NotImplementedError

        forward.__signature__ = inspect.Signature([inspect.Parameter(name, kind) for name in names])  # type: ignore[attr-defined] # inspect reads it
        self.forward = forward


def face_of(path: Path) -> Face | None:
    """Return what stands for an .onnx file that leaves dimensions open; None for others, and what can't be read."""
    if path.suffix != ".onnx" or not path.is_file():
        return None
    try:
        proto = onnx.load(str(path), load_external_data=False)
    except Exception:  # noqa: BLE001 - reading the model says what is wrong with it
        return None
    return Face([value.name for value in inputs_in(proto)]) if open_inputs(proto) else None
