"""Quantization-aware training end to end: the module that is trained and the file that comes of it."""

from __future__ import annotations

import copy
import functools
import json
from typing import TYPE_CHECKING, Any

import nets
import numpy as np
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from easycompress.artifact.fold import fold_checked
from easycompress.artifact.onnx_export import export
from easycompress.artifact.slim import slim
from easycompress.core.errors import CannotCompress
from easycompress.measure.runtime import Runtime
from easycompress.quantization.fake import Activation
from easycompress.quantization.qat import QatQuantizer
from easycompress.quantization.qat_settings import QatInt8
from easycompress.quantization.simulate import Simulation, simulate
from easycompress.quantization.technique import StaticQuantizer
from easycompress.training.fit import Hooks, Schedule, fit
from easycompress.training.terms import Labels

if TYPE_CHECKING:
    from pathlib import Path

    import onnx

    from easycompress.technique import Applied

ACTION = QatInt8(mode="budget", reduce_range=False)
EPOCHS = 3


class Turned(nn.Module):
    """Transposed convolutions: a plain one and one with a group a channel; `groups` of another."""

    groups = 1

    def __init__(self) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(1, 8, 3, stride=2, padding=1)
        self.wide = nn.ConvTranspose2d(8, 12, 2, stride=2)
        self.norm = nn.BatchNorm2d(12)
        self.grouped = nn.ConvTranspose2d(12, 12, 3, padding=1, groups=self.groups)
        self.each = nn.ConvTranspose2d(12, 12, 3, padding=1, groups=12, bias=False)
        self.output = nn.Linear(12, nets.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.wide(torch.relu(self.narrow(x)))))
        return self.output(torch.relu(self.each(torch.relu(self.grouped(x)))).flatten(2).amax(2))


class InGroups(Turned):
    groups = 3


TIED = 0.02
"""A lead of one class over another that is none: an integer that is rounded the other way turns it."""

MOST_APART = 0.01
"""Of the largest answer."""

SOME = (nets.Residual, nets.BatchNormed, nets.Mlp, Turned)


@functools.cache
def trained(net: type[nn.Module]) -> nn.Module:
    """Return a float net that has learned something."""
    model = nets.make(net)
    work = nets.task(model)
    fit(model, work.data.train, Labels(work.loss), Schedule(epochs=4, lr=0.1, batch=32), nets.SPEED, Hooks(None), None)
    return model


def apply(net: type[nn.Module], epochs: int = EPOCHS, **changes: Any) -> Applied:
    work = nets.task(trained(net))
    context = nets.training_context(work, epochs, **changes) if epochs else nets.context(work)
    return QatQuantizer().apply(copy.deepcopy(work.model), ACTION, context)


@functools.cache
def applied(net: type[nn.Module]) -> Applied:
    return apply(net)


@functools.cache
def graph(net: type[nn.Module]) -> onnx.ModelProto:
    """Return the integer graph of what was trained."""
    result = applied(net)
    assert result.file_pass is not None
    return result.file_pass(export(result.model, nets.images(2)))


def simulated(net: type[nn.Module], model: nn.Module) -> Simulation:
    return simulate(copy.deepcopy(model), ACTION.static(), nets.context(nets.task(trained(net))))


@functools.cache
def _calibrated(net: type[nn.Module]) -> Simulation:
    model = copy.deepcopy(trained(net))
    fold_checked(model, nets.images(2))
    return simulated(net, model)


def calibrated(net: type[nn.Module]) -> Simulation:
    """Return the simulation that training starts from."""
    return copy.deepcopy(_calibrated(net))


@pytest.mark.parametrize("net", SOME, ids=lambda n: n.__name__)
def test_the_file_answers_as_the_module_that_was_trained(net: type[nn.Module], tmp_path: Path) -> None:
    result = applied(net)
    simulation = simulated(net, result.model)
    simulation.set_ranges(result.record["ranges"])
    path = tmp_path / "model.onnx"
    path.write_bytes(slim(graph(net)).SerializeToString())
    inputs = torch.cat([nets.digits().report.inputs, nets.digits().select.inputs])
    answers = torch.as_tensor(Runtime(path, 1).run(inputs))
    with torch.no_grad():
        expected = simulation.module(inputs)
    differing = answers.argmax(1) != expected.argmax(1)
    best = expected.topk(2, 1).values
    assert ((best[:, 0] - best[:, 1])[differing] < TIED).all()
    assert int(differing.sum()) <= 1
    assert float((answers - expected).abs().max()) <= MOST_APART * float(expected.abs().max())
    assert result.history is not None
    select = nets.digits().select
    assert select.targets is not None
    quality = 100 * float((answers[-len(select) :].argmax(1) == select.targets).float().mean())
    assert quality == pytest.approx(result.history.best, abs=1e-3)


@pytest.mark.parametrize("net", SOME, ids=lambda n: n.__name__)
def test_the_files_integers_are_those_of_the_codes(net: type[nn.Module]) -> None:
    stored = {tensor.name: tensor for tensor in graph(net).graph.initializer}
    codes = applied(net).codes
    assert codes
    for name, code in codes.items():
        assert np.array_equal(numpy_helper.to_array(stored[f"{name}_quantized"]), code.arrays()["values"].numpy())


def test_the_files_ranges_are_the_trained_ones() -> None:
    ranges = applied(nets.Residual).record["ranges"]
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph(nets.Residual).graph.initializer}
    before = calibrated(nets.Residual).ranges()
    assert ranges.keys() == before.keys()
    assert any(ranges[name] != before[name] for name in ranges)
    for name, (low, high) in ranges.items():
        scale = float(stored[f"{name}_scale"])
        zero = int(stored[f"{name}_zero_point"])
        assert (255 - zero) * scale == pytest.approx(max(high, 0), abs=scale)
        assert -zero * scale == pytest.approx(min(low, 0), abs=scale)


def test_it_is_no_worse_than_what_it_starts_from() -> None:
    history = applied(nets.Residual).history
    assert history is not None
    start = nets.accuracy(calibrated(nets.Residual).module)
    assert history.best >= start


def test_training_lowers_the_loss_and_ranges_come_to_rest() -> None:
    simulation = calibrated(nets.BatchNormed)
    work = nets.task(trained(nets.BatchNormed))
    simulation.watch(8)
    history = fit(
        simulation.module,
        work.data.train,
        Labels(work.loss),
        Schedule(epochs=4, lr=0.02),
        nets.SPEED,
        Hooks(None),
        None,
    )
    losses = [epoch["loss"] for epoch in history.epochs]
    assert losses[-1] < losses[0]
    grids = [m for m in simulation.module.modules() if isinstance(m, Activation)]
    assert len(grids) == len(simulation.activations)
    assert all(int(grid.left) == 0 for grid in grids)


def test_a_killed_run_goes_on_to_the_same_result(tmp_path: Path) -> None:
    def checkpoint(part: str) -> Path:
        return tmp_path / part

    def killed(_seconds: float) -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        apply(nets.Mlp, checkpoint=checkpoint, out_of_time=lambda s: killed(s) if list(tmp_path.iterdir()) else False)
    assert (tmp_path / "qat").exists()
    resumed = apply(nets.Mlp, checkpoint=checkpoint)
    whole = applied(nets.Mlp)
    assert nets.same_state(resumed.model.state_dict(), whole.model.state_dict())
    assert resumed.record == whole.record


def test_without_epochs_it_is_static_int8() -> None:
    result = apply(nets.BatchNormed, 0)
    work = nets.task(trained(nets.BatchNormed))
    static = StaticQuantizer().apply(copy.deepcopy(work.model), ACTION.static(), nets.context(work))
    assert result.epochs == 0
    assert result.record == static.record
    assert nets.same_state(result.model.state_dict(), static.model.state_dict())
    assert result.file_pass is not None
    assert static.file_pass is not None
    proto = export(result.model, nets.images(2))
    assert result.file_pass(proto).SerializeToString() == static.file_pass(proto).SerializeToString()


def test_the_record_rebuilds_the_structure() -> None:
    result = applied(nets.Residual)
    record = json.loads(json.dumps(result.record, allow_nan=False))
    rebuilt = QatQuantizer().replay(nets.make(nets.Residual, seed=5), record, nets.images(2))
    rebuilt.load_state_dict(result.model.state_dict())
    with torch.no_grad():
        assert torch.equal(rebuilt(nets.images(4)), result.model(nets.images(4)))


def test_the_simulation_runs_in_another_memory_order() -> None:
    simulation = calibrated(nets.BatchNormed)
    inputs = nets.images(6)
    with torch.no_grad():
        plain = simulation.module(inputs)
        moved = simulation.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        assert torch.allclose(moved(inputs.contiguous(memory_format=torch.channels_last)), plain, atol=0.1)


class Offset(nn.Module):
    """Adds a constant map, which the runtime's quantizer takes for an activation."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.offset = nn.Parameter(torch.randn(1, 4, 8, 8))
        self.output = nn.Linear(4, nets.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.output((self.conv(x) + self.offset).mean((2, 3)))


def test_transposed_convolutions_in_groups_are_refused() -> None:
    with pytest.raises(
        CannotCompress, match=r"^qat-int8: the transposed convolution \w+ works in groups, .*static-int8$"
    ):
        simulated(InGroups, nets.make(InGroups))


def test_what_cannot_be_imitated_is_refused_by_name() -> None:
    model = nets.make(Offset)
    with pytest.raises(
        CannotCompress, match=r"^qat-int8: the runtime quantizes the constant offset, .*use static-int8$"
    ):
        QatQuantizer().apply(model, ACTION, nets.context(nets.task(copy.deepcopy(model))))


def test_refusals() -> None:
    profile = nets.context(nets.task(nets.make(nets.Mlp))).profile
    assert QatQuantizer().refuses(profile, ACTION) is None
    empty = profile.model_copy(update={"layers": ()})
    assert QatQuantizer().refuses(empty, ACTION) == "qat-int8: the model has no convolution and no linear layer"
    single = profile.model_copy(update={"outputs": 1})
    assert QatQuantizer().refuses(single, ACTION) == (
        "qat-int8: technique combined needs at least two logits; use hard"
    )
    assert QatQuantizer().refuses(single, ACTION.model_copy(update={"technique": "hard"})) is None
