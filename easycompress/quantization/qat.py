"""Quantization-aware training as a technique: distillation of a student that computes as its file will."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from onnx import numpy_helper

from easycompress.artifact.fold import fold, fold_checked
from easycompress.quantization.layout import with_grids
from easycompress.quantization.qat_settings import RATE, QatInt8
from easycompress.quantization.simulate import Simulation, simulate
from easycompress.quantization.technique import StaticQuantizer
from easycompress.technique import Applied, Context, FilePass, Need
from easycompress.training.fit import History, Hooks, Schedule, fit
from easycompress.training.terms import taught

if TYPE_CHECKING:
    import onnx
    from torch import nn

    from easycompress.core.inputs import Inputs
    from easycompress.core.profile import ModelProfile


class QatQuantizer:
    """8-bit weights and activations, trained in parallel with distillation."""

    name = "qat-int8"
    settings = QatInt8
    needs: frozenset[Need] = frozenset({"calibration", "training"})
    source = "Jacob et al., CVPR 2018; EasyCompress thesis, section 4.6"

    def refuses(self, profile: ModelProfile, action: QatInt8) -> str | None:
        """Refuse a model with nothing that runs in integers, and outputs that are no logits."""
        if not any(layer.family in ("convolutional", "linear", "attention") for layer in profile.layers):
            return "qat-int8: the model has no convolution and no linear layer"
        if action.technique != "hard" and action.outputs == "logits" and profile.outputs < 2:  # noqa: PLR2004 - one output has no softmax
            return f"qat-int8: technique {action.technique} needs at least two logits; use hard"
        return None

    def apply(self, model: nn.Module, action: QatInt8, context: Context) -> Applied:
        """Fold, train at most `context.epochs` (or the action's own) epochs, keep the best, and leave its grids.

        Without epochs the result is that of static int8. In PyTorch the result computes with the rounded weights and
        float activations; simulate() and the ranges of the record give the module that computes as the file does.
        Raises CannotCompress where the file's integers can't be simulated.
        """
        static = action.static()
        pairs = fold_checked(model, context.task.example)
        simulation = simulate(model, static, context)
        history = _train(simulation, action, context)
        trained = simulation.module.state_dict()
        model.load_state_dict({name: trained.get(name, value) for name, value in model.state_dict().items()})
        # The weights are on their grid, with codes, as without training; the activations' ranges are the trained ones.
        quick = static if history is None else static.untrained() or static
        rounded = StaticQuantizer().apply(model, quick, context)
        record = rounded.record | {"folded": [list(pair) for pair in pairs]}
        if history is None or rounded.file_pass is None:
            return dataclasses.replace(rounded, record=record)
        return Applied(
            rounded.model,
            record | {"ranges": simulation.ranges()},
            rounded.codes,
            _trained(rounded.file_pass, simulation.grids()),
            history,
            len(history.epochs),
        )

    def replay(self, model: nn.Module, record: dict[str, Any], example: Inputs) -> nn.Module:  # noqa: ARG002 - the protocol
        """Fold the recorded pairs; the weights on their grid come with the state dict."""
        return fold(model.eval(), [(layer, norm) for layer, norm in record["folded"]])


def _train(simulation: Simulation, action: QatInt8, context: Context) -> History | None:
    """Train a simulation in place; None where nothing may be trained."""
    epochs = min(action.epochs or context.epochs, context.epochs)
    loss, teacher = context.task.loss, context.teacher
    term = taught(action.technique, loss, teacher, action.temperature, action.alpha, action.outputs)
    mode = action.mode
    if epochs < 1 or context.speed is None or context.evaluate is None:
        return None
    train = context.task.data.train
    hooks = Hooks(
        evaluate=context.evaluate,
        start=context.evaluate(simulation.module),
        enough=context.enough if mode == "target" else lambda _: False,
        out_of_time=context.out_of_time,
        augment=context.task.augment,
        progress=context.progress,
        label=f"quantization-aware training ({action.technique})",
        higher_is_better=context.task.metric.higher_is_better,
        troubles=context.troubles,
    )
    schedule = Schedule(epochs=epochs, lr=action.rate or RATE, samples=context.samples, seed=context.seed)
    steps = -(-min(schedule.samples or len(train), len(train)) // schedule.batch)
    simulation.watch(min(steps, steps * epochs // 2))  # then the ranges hold still, and the weights settle in them
    file = None if context.checkpoint is None else context.checkpoint("qat")
    history = fit(simulation.module, train, term, schedule, context.speed, hooks, file)
    context.trained("quantization-aware training", history)
    return history


def _trained(file_pass: FilePass, grids: dict[str, tuple[float, int]]) -> FilePass:
    """Return the pass of static int8 with the trained grids in place of the calibrated ones."""

    def integer_graph(proto: onnx.ModelProto) -> onnx.ModelProto:
        floats = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
        return with_grids(file_pass(proto), grids, floats)

    return integer_graph
