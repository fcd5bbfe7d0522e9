"""onnxruntime's static int8 of the float file, or of the file that is named.

The word `signed` takes its default, signed activations, in place of unsigned ones.
"""

import sys

import task
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process


class Reader(CalibrationDataReader):
    """Calibration batches, one after the other."""

    def __init__(self) -> None:
        self.left = task.calibration()

    def get_next(self) -> task.Arrays | None:
        """Return the next batch, None at the end."""
        return next(self.left, None)


activations = QuantType.QInt8 if "signed" in sys.argv else QuantType.QUInt8
source = next((word for word in sys.argv if word.endswith(".onnx")), task.FLOAT)
quant_pre_process(source, "ready.onnx")
quantize_static("ready.onnx", "model.onnx", Reader(), per_channel=True, activation_type=activations)
