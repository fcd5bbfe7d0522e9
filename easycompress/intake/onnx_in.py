"""An ONNX file -> a module of layers under the names of the file's weights, with onnx2pytorch's operators between."""

from __future__ import annotations

import re
import subprocess
import sys
import warnings
from typing import TYPE_CHECKING

import numpy as np
import onnx
import torch
from torch import Tensor, fx, nn

from easycompress.core.errors import BadInput, CannotCompress, one_line
from easycompress.core.quiet import quiet
from easycompress.intake.lift_proof import lifted
from easycompress.intake.onnx_modules import convert, names_of, session, traced

if TYPE_CHECKING:
    from pathlib import Path

BATCH = 3
"""Samples that the graph is traced with: a size that dimensions of models rarely have."""

FREE = 16
"""Length given to a dimension, other than the batch, that the file leaves open."""

INTEGER = ("QuantizeLinear", "DequantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger",
           "DynamicQuantizeLinear", "QLinearAdd", "QAttention", "QGemm", "DynamicQuantizeMatMul",
           "MatMulNBits")  # fmt: skip

TOLERANCE = 1e-3
"""Largest difference from ONNX Runtime, relative to the largest answer or 1: it sums in another order."""

SECONDS = 300
"""Longest time that ONNX Runtime may take to open and run the file."""

OPEN = """
import sys, onnxruntime
onnxruntime.set_default_logger_severity(4)
onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
"""


def read_onnx(path: Path) -> tuple[nn.Module, tuple[str, ...]]:
    """Return the module of an .onnx file, in float32 and evaluation mode, and notes for the user.

    Raises BadInput: not such a file, or ONNX Runtime can't open it (asked in a process of its own, which may crash);
    CannotCompress: integers already, an operator that has no PyTorch form, answers other than ONNX Runtime's.
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
    example = _example(proto, str(path))
    with quiet("torch"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        converted = convert(proto, example, str(path))
        names = names_of(converted, proto)
        source = traced(converted, list(example.values()), str(path))
        _interface(source, proto)
        module, notes = lifted(source, list(example.values()), str(path), names)
    _compare(path, module, _example(proto, str(path), seed=1))  # others: a number read from the first would show
    return module, tuple(note for note in notes if not note.startswith("exported for a batch"))


def _opens(path: Path) -> None:
    try:
        run = subprocess.run(  # noqa: S603 - this interpreter, and a path
            [sys.executable, "-c", OPEN, str(path)], capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise BadInput(f"{path}: ONNX Runtime didn't open it in {SECONDS} s; give a smaller model") from error
    if run.returncode < 0:
        raise BadInput(f"{path}: ONNX Runtime crashed on it (signal {-run.returncode}); check and export it again")
    if run.returncode:
        last = next((line for line in reversed(run.stderr.splitlines()) if line.strip()), "no reason given")
        what = last.rpartition("] : ")[2] or last
        raise BadInput(f"{path}: ONNX Runtime can't open it ({what[:140].strip()}); export it again")


def _example(proto: onnx.ModelProto, where: str, seed: int = 0) -> dict[str, Tensor]:
    """Return random inputs of BATCH samples as the graph's inputs say, zeros and ones where they are integers."""
    stored = {tensor.name for tensor in proto.graph.initializer}
    generator = np.random.default_rng(seed)
    made = {}
    for value in proto.graph.input:
        if value.name in stored:
            continue
        kind = value.type.tensor_type
        shape = [d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else FREE for d in kind.shape.dim]
        if not shape:
            raise CannotCompress(f"{where}: its input {value.name} has no batch dimension; export it with one")
        first = kind.shape.dim[0]
        shape[0] = first.dim_value if first.HasField("dim_value") and first.dim_value > 0 else BATCH
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
        floats = np.issubdtype(dtype, np.floating)
        drawn = generator.normal(size=shape) if floats else generator.integers(0, 2, shape)
        made[value.name] = torch.from_numpy(drawn.astype(dtype))
    return made


def _interface(source: fx.GraphModule, proto: onnx.ModelProto) -> None:
    """Give the graph's inputs and outputs the file's names."""
    stored = {tensor.name for tensor in proto.graph.initializer}
    inputs = [value.name for value in proto.graph.input if value.name not in stored]
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
    runtime = session(str(path))
    wanted = runtime.run(None, {name: value.numpy() for name, value in example.items()})
    with torch.no_grad():
        given = module(*example.values())
    answers = list(given.values()) if isinstance(given, dict) else [given]
    for value, one, other in zip(runtime.get_outputs(), wanted, answers, strict=True):
        scale = max(1.0, float(np.abs(one).max())) if one.size else 1.0
        if one.shape != tuple(other.shape) or (one.size and np.abs(one - other.numpy()).max() > TOLERANCE * scale):
            raise CannotCompress(
                f"{path}: converted to PyTorch, its output {value.name} differs from ONNX Runtime's; export the model "
                "as .pt2 instead"
            )
