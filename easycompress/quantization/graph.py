"""Integer operators in the graph: ONNX Runtime's static quantizer, given calibration data."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)

from easycompress.core.errors import CannotCompress, one_line
from easycompress.core.files import SCRATCH_REMEDY, refuse_full, write_bytes
from easycompress.core.inputs import Bundle, parts
from easycompress.core.ledger import spending
from easycompress.core.memory import is_exhausted
from easycompress.quantization.outputs import plain_outputs

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from easycompress.core.inputs import Inputs
    from easycompress.quantization.settings import StaticInt8

BATCH = 64

PRODUCTS = ["Conv", "ConvTranspose", "Gemm", "MatMul"]
"""What is quantized in a graph that normalises by layer: with every operator between its products in integers as well,
a MiniLM lost 12 points instead of 1.3 on 300 sentences of SST-2."""

STEPS = 3
"""A matrix that so many products read belongs to a recurrent layer."""

METHODS = {
    "minmax": CalibrationMethod.MinMax,
    "percentile": CalibrationMethod.Percentile,
    "entropy": CalibrationMethod.Entropy,
}


class _Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime is untyped
    """Hands out the batches of a range, all of them unless told otherwise."""

    def __init__(self, names: Sequence[str], inputs: Inputs) -> None:
        self.names = inputs.names if isinstance(inputs, Bundle) and inputs.names else tuple(names)
        self.taken = set(names)
        self.batches = [inputs[start : start + BATCH] for start in range(0, len(inputs), BATCH)]
        self.place, self.stop = 0, len(self.batches)

    def __len__(self) -> int:
        return len(self.batches)

    def set_range(self, start_index: int, end_index: int) -> None:
        self.place, self.stop = start_index, end_index

    def get_next(self) -> dict[str, Any] | None:
        if self.place == self.stop:
            return None
        self.place += 1
        tensors = zip(self.names, parts(self.batches[self.place - 1]), strict=True)
        return {name: tensor.numpy() for name, tensor in tensors if name in self.taken}


@spending("calibration")
def quantize_graph(
    proto: onnx.ModelProto, inputs: Inputs, action: StaticInt8, *, reduce: bool, skip: Sequence[str] = ()
) -> onnx.ModelProto:
    """Return the graph with QuantizeLinear/DequantizeLinear pairs around every operator that runs in integers.

    Weights int8 symmetric per channel, of 7 bits where `reduce`; activations uint8 per tensor: with int8 activations
    ONNX Runtime's convolutions are slower than float32 ones on x86. `inputs` (N, ...) is calibration data, nodes named
    in `skip` stay float. Raises CannotCompress where the quantizer fails.
    """
    options: dict[str, Any] = {"ActivationSymmetric": False, "WeightSymmetric": True}
    if action.calibration != "minmax":
        # Histograms of one batch after the other: of all at once they hold every activation in memory, and fail where
        # the last batch is smaller.
        options["CalibStridedMinMax"] = 1
    with tempfile.TemporaryDirectory() as folder, _quiet():
        source, result = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        size = write_bytes(source, proto.SerializeToString(), SCRATCH_REMEDY).stat().st_size
        try:
            quantize_static(
                str(source),
                str(result),
                _Reader([value.name for value in proto.graph.input], inputs),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                reduce_range=reduce,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                op_types_to_quantize=PRODUCTS if _normalises_by_layer(proto) or _unrolled(proto) else None,
                nodes_to_exclude=list(skip),
                calibrate_method=METHODS[action.calibration],
                extra_options=options,
            )
        except Exception as error:  # the quantizer raises whatever its own assumptions run into
            if is_exhausted(error):
                raise
            refuse_full(result, size)
            raise CannotCompress(
                f"static int8: ONNX Runtime's quantizer can't work on this graph ({one_line(error, 120)}); use another "
                "technique"
            ) from error
        return plain_outputs(onnx.load(str(result)))


def _normalises_by_layer(proto: onnx.ModelProto) -> bool:
    """Tell a transformer's graph: few of its values have a range that 256 levels serve well.

    Besides its own operator that is a root mean square written out: the square root of a mean of squares.
    """
    makers = {name: node for node in proto.graph.node for name in node.output}

    def made(node: onnx.NodeProto | None, kinds: Collection[str]) -> onnx.NodeProto | None:
        """Return what makes the first input of a node that can have several, where it is of one of the kinds."""
        sources = [] if node is None else [makers.get(name) for name in node.input]
        return next((source for source in sources if source is not None and source.op_type in kinds), None)

    for node in proto.graph.node:
        if node.op_type == "LayerNormalization":
            return True
        if node.op_type == "Sqrt" and (inside := made(node, {"Add", "ReduceMean"})) is not None:
            mean = inside if inside.op_type == "ReduceMean" else made(inside, {"ReduceMean"})
            square = made(mean, {"Pow", "Mul"})
            if square is not None and (square.op_type == "Pow" or square.input[0] == square.input[1]):
                return True
    return False


def _unrolled(proto: onnx.ModelProto) -> bool:
    """Tell a recurrent layer that export wrote out step by step: integers between its gates would double the file."""
    stored = {tensor.name for tensor in proto.graph.initializer}
    read = Counter(node.input[1] for node in proto.graph.node if node.op_type in ("Gemm", "MatMul"))
    return any(count >= STEPS for name, count in read.items() if name in stored)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the advice to pre-process: the exported graph is already optimised and its shapes are inferred."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        root.setLevel(level)
