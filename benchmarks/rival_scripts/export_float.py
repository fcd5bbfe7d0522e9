"""Not a rival's script: the float file that every rival begins with, in the opset that all of them read."""

import task
import torch

OPSET = 18
"""The oldest that the exporter writes; NNCF inserts nodes into a graph of opset 21 that ONNX Runtime refuses."""

example = tuple(torch.from_numpy(values) for values in next(task.calibration(2)).values())
batch = torch.export.Dim("batch", min=1)
shapes = tuple({0: batch} for _ in example)
program = torch.onnx.export(
    task.scores(task.module()),
    example,
    dynamo=True,
    opset_version=OPSET,
    dynamic_shapes=(shapes,) if task.ABOUT["factory"] is None else shapes,
    input_names=list(task.ABOUT["inputs"]),
    output_names=["scores"],
    external_data=False,
)
program.save(task.FLOAT)
