"""Neural Compressor's static int8; with an argument, tuned until the accuracy drops by at most that many points."""

import sys

import task
import torch
from neural_compressor.torch.export import export
from neural_compressor.torch.quantization import StaticQuantConfig, TuningConfig, autotune, convert, prepare

example = tuple(torch.from_numpy(values) for values in next(task.calibration()).values())
batch = torch.export.Dim("batch", min=2)
shapes = tuple({0: batch} for _ in example)
net = task.scores(task.module())
exported = export(net, example, dynamic_shapes=(shapes,) if task.ABOUT["factory"] is None else shapes)


def calibrate(model: torch.nn.Module) -> None:
    """Show the model the calibration batches."""
    for inputs in task.calibration():
        model(*map(torch.from_numpy, inputs.values()))


def evaluate(model: torch.nn.Module) -> float:
    """Return the accuracy on the validation split."""
    with torch.no_grad():
        return task.accuracy(lambda inputs: model(*map(torch.from_numpy, inputs.values())).numpy())


if len(sys.argv) > 1:
    loss = float(sys.argv[1]) / 100
    tuning = TuningConfig(config_set=[StaticQuantConfig(), StaticQuantConfig(w_granularity="per_tensor")])
    tuning.tolerable_loss = loss
    quantized = autotune(exported, tuning, evaluate, run_fn=calibrate, example_inputs=example)
else:
    prepared = prepare(exported, StaticQuantConfig(), example_inputs=example)
    calibrate(prepared)
    quantized = convert(prepared)
torch.export.save(torch.export.export(quantized, example), "model.pt2")
