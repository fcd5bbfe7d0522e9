"""NNCF's int8 with accuracy control; the argument is the most that the accuracy may drop, in points."""

import sys
from collections.abc import Iterable

import nncf
import onnx
import onnxruntime
import task


def validate(model: onnx.ModelProto, _: Iterable[task.Arrays]) -> tuple[float, None]:
    """Return the accuracy on the validation split."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return task.accuracy(lambda inputs: session.run(None, inputs)[0]), None


kind = nncf.ModelType.TRANSFORMER if task.ABOUT["factory"] is None else None
calibration = nncf.Dataset(list(task.calibration()))
validation = nncf.Dataset([inputs for inputs, _ in task.batches("validation", 250)])
drop = float(sys.argv[1]) / 100
quantized = nncf.quantize_with_accuracy_control(
    onnx.load(task.FLOAT), calibration, validation, validate, max_drop=drop, model_type=kind
)
onnx.save(quantized, "model.onnx")
