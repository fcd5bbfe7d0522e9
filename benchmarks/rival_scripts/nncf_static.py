"""NNCF's post-training int8 on the ONNX file."""

import nncf
import onnx
import task

kind = nncf.ModelType.TRANSFORMER if task.ABOUT["factory"] is None else None
quantized = nncf.quantize(onnx.load(task.FLOAT), nncf.Dataset(list(task.calibration())), model_type=kind)
onnx.save(quantized, "model.onnx")
