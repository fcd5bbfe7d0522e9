"""Integer operators in the graph: ONNX Runtime's static quantizer, given calibration data."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
import torch
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from easycompress.quantization.settings import StaticInt8

BATCH = 64

METHODS = {
    "minmax": CalibrationMethod.MinMax,
    "percentile": CalibrationMethod.Percentile,
    "entropy": CalibrationMethod.Entropy,
}


class _Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime is untyped
    """Hands out the batches of a range, all of them unless told otherwise."""

    def __init__(self, name: str, inputs: Tensor) -> None:
        self.name, self.batches = name, torch.split(inputs, BATCH)
        self.place, self.stop = 0, len(self.batches)

    def __len__(self) -> int:
        return len(self.batches)

    def set_range(self, start_index: int, end_index: int) -> None:
        self.place, self.stop = start_index, end_index

    def get_next(self) -> dict[str, Any] | None:
        if self.place == self.stop:
            return None
        self.place += 1
        return {self.name: self.batches[self.place - 1].numpy()}


def quantize_graph(proto: onnx.ModelProto, inputs: Tensor, action: StaticInt8) -> onnx.ModelProto:
    """Return the graph with QuantizeLinear/DequantizeLinear pairs around every operator that runs in integers.

    Weights int8 symmetric per channel, activations uint8 per tensor: with int8 activations ONNX Runtime's convolutions
    are slower than float32 ones on x86. `inputs` (N, ...) is calibration data.
    """
    options: dict[str, Any] = {"ActivationSymmetric": False, "WeightSymmetric": True}
    if action.calibration != "minmax":
        # Histograms of one batch after the other: of all at once they hold every activation in memory, and fail where
        # the last batch is smaller.
        options["CalibStridedMinMax"] = 1
    with tempfile.TemporaryDirectory() as folder, _quiet():
        source, result = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        onnx.save(proto, str(source))
        quantize_static(
            str(source),
            str(result),
            _Reader(proto.graph.input[0].name, inputs),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=action.reduce_range,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=METHODS[action.calibration],
            extra_options=options,
        )
        return onnx.load(str(result))


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
