"""onnxruntime's dynamic int8, weights per channel."""

import task
from onnxruntime.quantization import quantize_dynamic
from onnxruntime.quantization.shape_inference import quant_pre_process

quant_pre_process(task.FLOAT, "ready.onnx")
quantize_dynamic("ready.onnx", "model.onnx", per_channel=True)
