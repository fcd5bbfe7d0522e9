"""torchao's PT2E static int8, saved as a program and, where the exporter can, as ONNX."""

import task
import torch
from torchao.quantization.pt2e import move_exported_model_to_eval
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

example = tuple(torch.from_numpy(values) for values in next(task.calibration()).values())
batch = torch.export.Dim("batch", min=2)
shapes = tuple({0: batch} for _ in example)
nested = (shapes,) if task.ABOUT["factory"] is None else shapes
exported = torch.export.export(task.scores(task.module()), example, dynamic_shapes=nested).module()
quantizer = x86.X86InductorQuantizer().set_global(x86.get_default_x86_inductor_quantization_config())
prepared = prepare_pt2e(exported, quantizer)
for inputs in task.calibration():
    prepared(*map(torch.from_numpy, inputs.values()))
quantized = move_exported_model_to_eval(convert_pt2e(prepared))
program = torch.export.export(quantized, example, dynamic_shapes=shapes)
torch.export.save(program, "model.pt2")
torch.onnx.export(program, dynamo=True, external_data=False).save("model.onnx")
