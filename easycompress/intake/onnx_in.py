"""An ONNX file -> a module of layers under the names of the file's weights, with onnx2pytorch's operators between."""

from __future__ import annotations

import math
import re
import subprocess
import warnings
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import onnx
import torch
from torch import Tensor, fx, nn

from easycompress.core.errors import BadInput, CannotCompress, EasyCompressError, one_line
from easycompress.core.opening import RAN, last_line, opened
from easycompress.core.quiet import quiet
from easycompress.intake.lift_proof import lifted
from easycompress.intake.onnx_checks import read_checked, read_outside
from easycompress.intake.onnx_modules import SECONDS, convert, names_of, traced
from easycompress.intake.onnx_open import FREE, inputs_in, is_open, open_inputs, sample_shapes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from easycompress.core.inputs import Inputs

Array: TypeAlias = "np.ndarray[Any, Any]"

BATCH = 3
"""Samples that the graph is traced with: a size that dimensions of models rarely have."""

INTEGER = ("QuantizeLinear", "DequantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger",
           "DynamicQuantizeLinear", "DynamicQuantizeLSTM", "QLinearAdd", "QAttention", "QGemm", "DynamicQuantizeMatMul",
           "MatMulNBits")  # fmt: skip

MOST_INPUT = 1 << 26
"""Numbers in BATCH samples of an input: 256 MB of float32."""

FED = {getattr(onnx.TensorProto, name) for name in ("FLOAT", "DOUBLE", "FLOAT16", "BOOL", "INT8", "UINT8", "INT16",
       "INT32", "INT64")}  # fmt: skip
"""Types of inputs that PyTorch has too."""

TOLERANCE = 1e-3
"""Largest difference from ONNX Runtime, relative to the largest answer or 1: it sums in another order."""


def read_onnx(path: Path, sample: Inputs | None = None) -> tuple[nn.Module, tuple[str, ...]]:
    """Return the module of an .onnx file, in float32 and evaluation mode, and notes for the user.

    Dimensions that the file leaves open, beside the batch, have the lengths of `sample` (n, ...): the module may hold
    them fixed. ONNX Runtime opens and runs it in processes of their own, which may crash. Raises BadInput: not such a
    file, untrue about its tensors, or ONNX Runtime can't open it; CannotCompress: integers already, an operator that
    has no PyTorch form, answers other than ONNX Runtime's, a length that the file doesn't take.
    """
    proto, outside = read_checked(path)
    for node in proto.graph.node:
        if node.op_type in INTEGER:
            raise CannotCompress(
                f"{path}: already quantized: {node.op_type} {node.name}; give the float model that it was made from"
            )
    examples = [example_inputs(proto, path, sample, seed) for seed in (0, 1)]  # a number read from the first would show
    answers = _answers(path, examples, outside)
    read_outside(proto, path)
    told = dict(zip([value.name for value in proto.graph.output], answers[1], strict=True))
    try:
        return _converted(proto, path, sample, examples, told)
    except EasyCompressError:
        raise
    except Exception as error:  # operators that don't fit each other in PyTorch fail in many ways
        what = f"{type(error).__name__}: {one_line(error, 120)}"
        raise CannotCompress(f"{path}: PyTorch can't run what it holds ({what}); export the model as .pt2") from error


def _converted(
    proto: onnx.ModelProto,
    path: Path,
    sample: Inputs | None,
    examples: Sequence[dict[str, Tensor]],
    wanted: Mapping[str, Array],
) -> tuple[nn.Module, tuple[str, ...]]:
    """Return the module and notes, having compared it with ONNX Runtime's answers to the second example."""
    example, other = examples
    with quiet("torch"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        converted = convert(proto, example, str(path))
        names = names_of(converted, proto)
        source = traced(converted, list(example.values()), str(path))
        _interface(source, proto)
        module, notes = lifted(source, list(example.values()), str(path), names)
    _compare(path, module, other, wanted)
    told = [note for note in notes if not note.startswith("exported for a batch")]
    if sample is None and (names_left := open_inputs(proto)):
        listed = ", ".join(f"{name} {tuple(example[name].shape[1:])}" for name in names_left)
        told.append(f"the file leaves dimensions open, which were taken as {FREE}: one sample is {listed}")
    return module, tuple(told)


def example_inputs(proto: onnx.ModelProto, path: Path, sample: Inputs | None, seed: int) -> dict[str, Tensor]:
    """Return random inputs of BATCH samples, zeros and ones where the graph takes integers.

    Dimensions that the file leaves open are those of `sample`. Raises BadInput and CannotCompress for an input that
    can't be made.
    """
    where, shapes = str(path), sample_shapes(proto, sample)
    generator = np.random.default_rng(seed)
    made = {}
    for value in inputs_in(proto):
        kind = value.type.tensor_type
        if not kind.shape.dim:
            raise CannotCompress(f"{where}: its input {value.name} has no batch dimension; export it with one")
        first = kind.shape.dim[0]
        shape = (BATCH if is_open(first) else first.dim_value, *shapes[value.name])
        if math.prod(max(length, 1) for length in shape) > MOST_INPUT:
            raise BadInput(f"{where}: its input {value.name} of shape {shape} is too large; export a smaller one")
        if kind.elem_type not in FED:
            raise CannotCompress(f"{where}: its input {value.name} is no tensor of numbers; only those can be fed")
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
        floats = np.issubdtype(dtype, np.floating)
        drawn = generator.standard_normal(shape, np.float32) if floats else generator.integers(0, 2, shape, np.int8)
        made[value.name] = torch.from_numpy(drawn.astype(dtype, copy=False))
    return made


def _answers(path: Path, examples: Sequence[dict[str, Tensor]], outside: int) -> tuple[tuple[Array, ...], ...]:
    """Return ONNX Runtime's answers to each example. Raises BadInput where it doesn't open the file or crashes.

    Raises CannotCompress where it opens the file, but doesn't run it. `outside` are the bytes of data beside the file.
    """
    feeds = [{name: value.numpy() for name, value in example.items()} for example in examples]
    try:
        run = opened(path, SECONDS, feeds, data_bytes=outside)
    except subprocess.TimeoutExpired as error:
        raise BadInput(f"{path}: ONNX Runtime didn't open and run it in {SECONDS} s; give a smaller model") from error
    if run.code < 0:
        raise BadInput(f"{path}: ONNX Runtime crashed on it (signal {-run.code}); check and export it again")
    if run.code == RAN:
        listed = ", ".join(f"{name} {tuple(value.shape)}" for name, value in examples[0].items())
        raise CannotCompress(
            f"{path}: ONNX Runtime can't run it on {listed} ({_reason(run.text)}); a dimension that the file leaves "
            "open may be fixed inside: give data of the lengths it takes, or --shape, or export it again"
        )
    if run.code:
        what = one_line(ValueError(last_line(run.text)), 140)
        raise BadInput(f"{path}: ONNX Runtime can't open it ({what}); export it again")
    return run.answers


def _reason(text: str) -> str:
    """Return the end of ONNX Runtime's message, which says it without the paths of its source."""
    return one_line(ValueError(text), 1000).rpartition("Status Message: ")[2].rpartition(") ")[2][-120:]


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


def _compare(path: Path, module: nn.Module, example: dict[str, Tensor], wanted: Mapping[str, Array]) -> None:
    """Refuse a module that answers otherwise than ONNX Runtime."""
    with torch.no_grad():
        given = module(*example.values())
    answers = list(given.values()) if isinstance(given, dict) else [given]
    for (name, one), other in zip(wanted.items(), answers, strict=True):
        scale = max(1.0, float(np.abs(one).max())) if one.size else 1.0
        if one.shape != tuple(other.shape) or (one.size and np.abs(one - other.numpy()).max() > TOLERANCE * scale):
            raise CannotCompress(
                f"{path}: converted to PyTorch, its output {name} differs from ONNX Runtime's; export the model "
                "as .pt2 instead"
            )
