"""An ONNX file -> a module of layers under the names of the file's weights, with onnx2pytorch's operators between."""

from __future__ import annotations

import re
import subprocess
import warnings
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import onnx
import torch
from torch import Tensor, fx, nn

from easycompress.core.errors import BadInput, CannotCompress, one_line
from easycompress.core.opening import opened
from easycompress.core.quiet import quiet
from easycompress.intake.lift_proof import lifted
from easycompress.intake.onnx_modules import convert, names_of, session, traced
from easycompress.intake.onnx_open import FREE, inputs_in, is_open, open_inputs, sample_shapes

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from easycompress.core.inputs import Inputs

Array: TypeAlias = "np.ndarray[Any, Any]"

BATCH = 3
"""Samples that the graph is traced with: a size that dimensions of models rarely have."""

INTEGER = ("QuantizeLinear", "DequantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger",
           "DynamicQuantizeLinear", "DynamicQuantizeLSTM", "QLinearAdd", "QAttention", "QGemm", "DynamicQuantizeMatMul",
           "MatMulNBits")  # fmt: skip

TOLERANCE = 1e-3
"""Largest difference from ONNX Runtime, relative to the largest answer or 1: it sums in another order."""

SECONDS = 300
"""Longest time that ONNX Runtime may take to open and run the file."""


def read_onnx(path: Path, sample: Inputs | None = None) -> tuple[nn.Module, tuple[str, ...]]:
    """Return the module of an .onnx file, in float32 and evaluation mode, and notes for the user.

    Dimensions that the file leaves open, beside the batch, have the lengths of `sample` (n, ...): the module may hold
    them fixed. Raises BadInput: not such a file, or ONNX Runtime can't open it (asked in a process of its own, which
    may crash); CannotCompress: integers already, an operator that has no PyTorch form, answers other than ONNX
    Runtime's, a length that the file doesn't take.
    """
    _opens(path)
    try:
        proto = onnx.load(str(path))
    except Exception as error:  # protobuf's errors share no base
        raise BadInput(f"{path}: not a readable ONNX file ({one_line(error, 120)}); export it again") from error
    for node in proto.graph.node:
        if node.op_type in INTEGER:
            raise CannotCompress(
                f"{path}: already quantized: {node.op_type} {node.name}; give the float model that it was made from"
            )
    shapes = sample_shapes(proto, sample)
    example = _example(proto, shapes, str(path))
    _answers(path, example)
    with quiet("torch"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        converted = convert(proto, example, str(path))
        names = names_of(converted, proto)
        source = traced(converted, list(example.values()), str(path))
        _interface(source, proto)
        module, notes = lifted(source, list(example.values()), str(path), names)
    other = _example(proto, shapes, str(path), seed=1)  # a number read from the first would show
    _compare(path, module, other)
    told = [note for note in notes if not note.startswith("exported for a batch")]
    if sample is None and (names_left := open_inputs(proto)):
        listed = ", ".join(f"{name} {shapes[name]}" for name in names_left)
        told.append(f"the file leaves dimensions open, which were taken as {FREE}: one sample is {listed}")
    return module, tuple(told)


def _opens(path: Path) -> None:
    try:
        run = opened(path, SECONDS)
    except subprocess.TimeoutExpired as error:
        raise BadInput(f"{path}: ONNX Runtime didn't open it in {SECONDS} s; give a smaller model") from error
    if run.returncode < 0:
        raise BadInput(f"{path}: ONNX Runtime crashed on it (signal {-run.returncode}); check and export it again")
    if run.returncode:
        last = next((line for line in reversed(run.stderr.splitlines()) if line.strip()), "no reason given")
        what = last.rpartition("] : ")[2] or last
        raise BadInput(f"{path}: ONNX Runtime can't open it ({what[:140].strip()}); export it again")


def _example(
    proto: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]], where: str, seed: int = 0
) -> dict[str, Tensor]:
    """Return random inputs of BATCH samples of these shapes, zeros and ones where the graph takes integers."""
    generator = np.random.default_rng(seed)
    made = {}
    for value in inputs_in(proto):
        kind = value.type.tensor_type
        if not kind.shape.dim:
            raise CannotCompress(f"{where}: its input {value.name} has no batch dimension; export it with one")
        first = kind.shape.dim[0]
        shape = (BATCH if is_open(first) else first.dim_value, *shapes[value.name])
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
        floats = np.issubdtype(dtype, np.floating)
        drawn = generator.normal(size=shape) if floats else generator.integers(0, 2, shape)
        made[value.name] = torch.from_numpy(drawn.astype(dtype))
    return made


def _answers(path: Path, example: dict[str, Tensor]) -> list[Array]:
    """Return ONNX Runtime's answers. Raises CannotCompress where it has none."""
    try:
        answers: list[Array] = session(str(path)).run(None, {name: value.numpy() for name, value in example.items()})
    except Exception as error:  # the runtime's errors share no base
        listed = ", ".join(f"{name} {tuple(value.shape)}" for name, value in example.items())
        raise CannotCompress(
            f"{path}: ONNX Runtime can't run it on {listed} ({_reason(error)}); a dimension that the file leaves open "
            "may be fixed inside: give data of the lengths it takes, or --shape, or export it again"
        ) from error
    return answers


def _reason(error: Exception) -> str:
    """Return the end of ONNX Runtime's message, which says it without the paths of its source."""
    return one_line(error, 1000).rpartition("Status Message: ")[2].rpartition(") ")[2][-120:]


def _interface(source: fx.GraphModule, proto: onnx.ModelProto) -> None:
    """Give the graph's inputs and outputs the file's names."""
    inputs = [value.name for value in inputs_in(proto)]
    for node, name in zip([n for n in source.graph.nodes if n.op == "placeholder"], inputs, strict=True):
        node.target = node.name = re.sub(r"\W", "_", name)
    output = source.graph.output_node()
    made = output.args[0]
    if isinstance(made, (list, tuple)):
        names = [value.name for value in proto.graph.output]
        output.args = (dict(zip(names, made, strict=True)),)
    source.recompile()


def _compare(path: Path, module: nn.Module, example: dict[str, Tensor]) -> None:
    """Refuse a module that answers otherwise than ONNX Runtime."""
    wanted = _answers(path, example)
    with torch.no_grad():
        given = module(*example.values())
    answers = list(given.values()) if isinstance(given, dict) else [given]
    names = [value.name for value in session(str(path)).get_outputs()]
    for name, one, other in zip(names, wanted, answers, strict=True):
        scale = max(1.0, float(np.abs(one).max())) if one.size else 1.0
        if one.shape != tuple(other.shape) or (one.size and np.abs(one - other.numpy()).max() > TOLERANCE * scale):
            raise CannotCompress(
                f"{path}: converted to PyTorch, its output {name} differs from ONNX Runtime's; export the model "
                "as .pt2 instead"
            )
