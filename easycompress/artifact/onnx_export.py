"""A module becomes an ONNX graph with the module's own interface and nothing the runtime doesn't read."""

from __future__ import annotations

import copy
import re
from typing import TYPE_CHECKING, Any

import onnx_ir
import torch
from torch import Tensor

from easycompress.artifact.operators import remembered_operators
from easycompress.core.errors import CannotCompress, one_line
from easycompress.core.inputs import arguments, call, in_order, like, names_of, parts, tensors_of
from easycompress.core.memory import is_exhausted
from easycompress.core.quiet import quiet

if TYPE_CHECKING:
    import onnx
    from torch import nn

    from easycompress.core.inputs import Inputs

OPSET = 21
"""The newest opset that every supported ONNX Runtime reads."""

LONGEST_CHAIN = 10
"""Causes of an error that are looked at: chains can be circular."""

EXPORTERS = ("torch.onnx", "onnxscript", "onnx_ir", "torch.export", "torch")
"""Loggers that tell progress and version conversions."""

IR_VERSION = 10
"""The file format that goes with OPSET; newer ones are refused by older runtimes."""


BATCH = "batch"
"""What the first dimension of inputs and outputs is called in the file."""


def export(model: nn.Module, example: Inputs) -> onnx.ModelProto:
    """Return the module's graph in evaluation mode, float32, with a dynamic first (batch) dimension.

    `example` is (2, ...). Batch norm is folded into convolutions. Inputs keep the names of forward's arguments, their
    order and dtypes; an output without a name is called `output` (see core.inputs.tensors_of for which there are);
    initializers keep the parameters' names (see `slim.slim` for the smallest form).
    Raises CannotCompress with the operator's name when ONNX has no form for it.
    """
    proto: onnx.ModelProto = traced(model, example).model_proto
    return finished(proto)


def finished(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return a graph that the exporter made, changed in place: a version every runtime reads, one name for batches."""
    proto.ir_version = min(proto.ir_version, IR_VERSION)
    _name_batch(proto)
    return proto


def traced(model: nn.Module, example: Inputs, *, optimized: bool = True) -> torch.onnx.ONNXProgram:
    """Return what `export` makes its graph of; the values are named after the nodes of `exported_program`.

    Not `optimized` is before constants are computed: every parameter is there. Raises CannotCompress as `export` does.
    """
    was_training = model.training
    model.eval()
    try:
        with quiet(*EXPORTERS), remembered_operators(), torch.no_grad():
            flat, tensors, outputs = _flattened(model, in_order(model, example))
            program = torch.onnx.export(
                flat,
                tensors,
                dynamo=True,
                opset_version=OPSET,
                input_names=list(names_of(model, in_order(model, example))),
                output_names=outputs,
                dynamic_shapes=_dynamic(flat, tensors),
                verbose=False,
                optimize=optimized,
            )
    except (torch.onnx.errors.OnnxExporterError, RuntimeError, ValueError, TypeError, NotImplementedError) as error:
        if any(isinstance(cause, KeyboardInterrupt) for cause in _causes(error)):
            raise KeyboardInterrupt from error  # the exporter wraps whatever happens to it
        if any(is_exhausted(cause) for cause in _causes(error)):
            raise MemoryError(f"exporting the model: {one_line(error)}") from error
        raise CannotCompress(_refusal(error)) from error
    finally:
        model.train(was_training)
    if program is None:
        raise CannotCompress("the ONNX exporter returned no graph for this model")
    return program


def optimized(program: torch.onnx.ONNXProgram | onnx.ModelProto) -> onnx.ModelProto:
    """Return the finished graph of what traced() made without optimizing it, or of the graph that was in there."""
    if not isinstance(program, torch.onnx.ONNXProgram):
        program = torch.onnx.ONNXProgram(onnx_ir.from_proto(program), None)
    with quiet(*EXPORTERS):
        program.optimize()
    return finished(program.model_proto)


def _name_batch(proto: onnx.ModelProto) -> None:
    """Give the batch dimension of every input and output one name: export makes up another for each input."""
    values = [*proto.graph.input, *proto.graph.output, *proto.graph.value_info]
    symbols = {value.type.tensor_type.shape.dim[0].dim_param for value in proto.graph.input}
    for value in values:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param and dim.dim_param in symbols:
                dim.dim_param = BATCH


def _flattened(model: nn.Module, example: Inputs) -> tuple[nn.Module, tuple[Tensor, ...], list[str]]:
    """Return a module that takes and returns plain tensors in order, its inputs, and the names of its outputs.

    An output that is called like a parameter gets `_answer` behind its name: a graph has each name once.

    From one tensor to one tensor, that is the model itself. Else it is a shallow copy with another forward: its
    parameters are the model's own, under their own names, which a module around the model would change.
    """
    made = call(model, example)
    names = list(tensors_of(made))
    tensors = parts(example)
    taken = {name for name, _ in (*model.named_parameters(), *model.named_buffers())}
    if clash := taken.intersection(names_of(model, example)):
        raise CannotCompress(
            f"{min(clash)}: an input and a parameter of the model have this name, and a file tells them apart by it; "
            "rename the argument of forward"
        )
    outputs = [f"{name}_answer" if name in taken else name for name in names]
    if isinstance(example, Tensor) and isinstance(made, Tensor):
        return model, tensors, outputs

    def forward(*given: Tensor) -> tuple[Tensor, ...]:
        positional, keywords = arguments(like(example, given))
        found = tensors_of(model.forward(*positional, **keywords))
        return tuple(found[name] for name in names)

    flat: Any = copy.copy(model)
    flat.forward = forward
    return flat, tensors, outputs


def _dynamic(flat: nn.Module, tensors: tuple[Tensor, ...]) -> tuple[Any, ...]:
    """Return torch.export's description of inputs whose first dimension is free."""
    each = tuple({0: torch.export.Dim.DYNAMIC} for _ in tensors)
    return (each,) if "forward" in vars(flat) else each


def _causes(error: BaseException) -> list[BaseException]:
    """Return an error and what caused it, outermost first."""
    chain = [error]
    while len(chain) < LONGEST_CHAIN and (cause := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(cause)
    return chain


def _refusal(error: BaseException) -> str:
    """Name the operator, or else the reason, behind an exporter's failure: it hides deep in the chain of causes."""
    texts = [str(cause) for cause in _causes(error)]
    for text in texts:
        match = re.search(r"No ONNX function found for <OpOverload\(op='([\w.:]+)'", text) or re.search(
            r"No decompositions? registered for (?:the complex-valued input|<OpOverload\(op='([\w.:]+)')", text
        )
        if match:
            operator = match[1] or "on complex numbers"
            return f"operator {operator} has no ONNX form, so no file could run it; replace it in the model's forward"
    if any("data-dependent" in text for text in texts):
        return (
            "operator aten._local_scalar_dense (float(), int(), .item() or an if on a tensor): the model's forward "
            "decides in Python on values of its data, which no file can hold; use torch.where instead"
        )
    for text in reversed(texts):  # the deepest says it without the exporter's advice
        if any(sign in text for sign in ("ConstraintViolation", "specialized", "Constraints violated", "static shape")):
            return (
                "the model's forward fixes the batch size (a constant where x.shape[0] belongs), "
                f"so it can't be exported: {one_line(ValueError(text), 160)}"
            )
    return f"the model can't be exported to ONNX: {one_line(ValueError(texts[-1]), 200)}"
