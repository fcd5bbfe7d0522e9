"""Depth pruning on small residual nets."""

from __future__ import annotations

import copy
import itertools
import json
from typing import TYPE_CHECKING, Any

import nets
import numpy as np
import onnxruntime
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from easycompress.artifact.onnx_export import export
from easycompress.core.errors import CannotCompress
from easycompress.core.profile import ModelProfile
from easycompress.core.progress import Silent
from easycompress.core.task import Split, Splits, Task
from easycompress.metrics import LOSSES, METRICS
from easycompress.pruning.depth.blocks import find_blocks
from easycompress.pruning.depth.harm import Answers
from easycompress.pruning.depth.removal import remove, restore, without
from easycompress.pruning.depth.settings import DepthPruning
from easycompress.pruning.depth.technique import DepthPruner
from easycompress.technique import Context

if TYPE_CHECKING:
    from easycompress.technique import Applied

IDENTITY_BLOCKS = ("blocks.0", "blocks.1", "blocks.3")
PRUNER = DepthPruner()


class Step(nn.Module):
    """x + B relu(A norm(x)); `extra` arguments only stand in the way."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 2 * width)
        self.down = nn.Linear(2 * width, width)

    def forward(self, x: Tensor, scale: float = 1.0) -> tuple[Tensor, float]:
        return x + scale * self.down(torch.relu(self.up(self.norm(x)))), scale


class Steps(nn.Module):
    """A multilayer perceptron whose forward indexes its nn.ModuleList, each block handing on a tuple."""

    def __init__(self, count: int = 4) -> None:
        super().__init__()
        self.embed = nn.Linear(64, 16)
        self.steps = nn.ModuleList(Step(16) for _ in range(count))
        self.output = nn.Linear(16, nets.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x.flatten(1))
        for index in range(len(self.steps)):
            x, _ = self.steps[index](x, scale=1.0)
        return self.output(x)


class Gate(nn.Module):
    """Squeeze and excitation: it scales what it is given."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.fc(x.mean((2, 3))))[:, :, None, None]


class Position(nn.Module):
    """It adds something learned, and holds no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(8, 8, 8))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.table


class NoShortcut(nn.Module):
    """Everything that keeps its input's shape but is no residual block."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 1)),
            Gate(8),
            Position(),
            nn.ReLU(),
        )
        self.output = nn.Linear(8, nets.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.body(x).mean((2, 3)))


def silence(block: nn.Module) -> None:
    """Make the block's residual branch give zero, so that only its shortcut is left."""
    last = block.bn2 if isinstance(block, nets.Block) else block.down
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)


def context(model: nn.Module, **changes: Any) -> Context:
    return of_task(nets.task(model), **changes)


def of_task(work: Task, **changes: Any) -> Context:
    """Return a context with round numbers for a profile: depth pruning asks it for the multiplications alone."""
    facts = ModelProfile(
        architecture="other",
        layers=(),
        params=1000,
        macs=100_000,
        has_batch_norm=True,
        input_shape=nets.SHAPE,
        outputs=nets.CLASSES,
    )
    return Context(work, facts, 0, Silent(), **changes)


def pruned(model: nn.Module, strength: float, **settings: Any) -> Applied:
    return PRUNER.apply(copy.deepcopy(model), DepthPruning(strength=strength, **settings), context(model))


def answers(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model(nets.images(6))


def test_blocks_are_those_with_a_plain_shortcut() -> None:
    assert find_blocks(nets.make(nets.Tower), nets.images(2)).names == IDENTITY_BLOCKS


def test_a_block_that_is_an_attribute_is_found_too() -> None:
    model = nets.make(nets.Residual)
    assert find_blocks(model, nets.images(2)).names == ("identity",)
    result = pruned(model, 1.0).model
    assert isinstance(result.identity, nn.Identity)


def test_what_has_no_shortcut_stays() -> None:
    assert find_blocks(nets.make(NoShortcut), nets.images(2)).count == 0


def test_a_list_of_layers_keeps_one() -> None:
    found = find_blocks(nets.make(Steps), nets.images(2))
    assert found.names == ("steps.0", "steps.1", "steps.2", "steps.3")
    assert found.count == 3
    assert len(found.utmost()) == 3
    assert found.left(["steps.0", "steps.1", "steps.2"]) == []


def test_finding_leaves_the_model_as_it_was() -> None:
    model = nets.make(nets.Tower)
    before, wanted = nets.state(model), answers(model)
    find_blocks(model, nets.images(2))
    assert nets.same_state(model.state_dict(), before)
    assert torch.equal(answers(model), wanted)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize("net", [nets.Tower, Steps])
@pytest.mark.parametrize("by", ["answers", "similarity"])
def test_a_block_that_adds_nothing_goes_first_and_is_not_missed(net: type[nn.Module], by: str) -> None:
    model = nets.make(net)
    blocks = model.blocks if net is nets.Tower else model.steps
    silence(blocks[1])
    result = pruned(model, 0.34, by=by)
    assert result.record["removed"] == ["blocks.1" if net is nets.Tower else "steps.1"]
    assert torch.equal(answers(result.model), answers(model))


def test_each_next_block_is_measured_with_those_before_gone() -> None:
    """The second and third block undo each other: the pair is harmless, but neither alone is."""
    model = nets.make(Steps)
    for step in model.steps:
        step.norm = nn.Identity()
        silence(step)
    model.steps[0].down.bias.data.fill_(30.0)  # the ReLUs of the others open or close with it
    model.steps[1].down.bias.data.copy_(torch.linspace(-3, 3, 16))
    model.steps[2].down.bias.data.copy_(-torch.linspace(-3, 3, 16))
    model.steps[3].down.bias.data.copy_(torch.linspace(2, -2, 16))
    removed = set(pruned(model, 2 / 3).record["removed"])
    after = {frozenset(pair): harm_of(model, pair) for pair in [(a, b) for a in range(4) for b in range(a)]}
    first = min(range(4), key=lambda place: harm_of(model, (place,)))
    best = min((pair for pair in after if first in pair), key=after.__getitem__)
    assert removed == {f"steps.{place}" for place in best}


def harm_of(model: nn.Module, places: tuple[int, ...]) -> float:
    measure = Answers(model, nets.digits().calibration.inputs, numbers=False)
    with without(model, [f"steps.{place}" for place in places]):
        return measure.harm(model)


def test_strength_removes_more_and_more_in_one_order() -> None:
    model = nets.make(Steps)
    removed = [set(pruned(model, strength).record["removed"]) for strength in (0, 0.2, 0.4, 0.6, 0.8, 1)]
    assert [len(names) for names in removed] == [0, 1, 1, 2, 2, 3]
    assert all(less <= more for less, more in itertools.pairwise(removed))


def test_strength_zero_changes_nothing() -> None:
    model = nets.make(nets.Tower)
    result = pruned(model, 0.0)
    assert result.record == {"removed": [], "removable": 3}
    assert torch.equal(answers(result.model), answers(model))


def test_a_range_maps_the_common_strength() -> None:
    action = DepthPruning(start=0.25, end=0.75, most=0.5)
    assert [action.share(s) for s in (0, 0.25, 0.5, 0.75, 1)] == [0, 0, 0.25, 0.5, 0.5]
    assert action.at(0.2) is None
    assert action.at(0.5) == action.model_copy(update={"strength": 0.5})
    assert action.amount(0.5) == "25% of the removable blocks"
    assert [action.blocks(s, 8) for s in (0.25, 0.5, 1)] == [0, 2, 4]


def test_an_empty_range_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"start 0\.5 must lie below end 0\.5"):
        DepthPruning(start=0.5, end=0.5)


@pytest.mark.parametrize("strength", [0.0, 0.5])
def test_a_model_without_blocks_is_refused_in_one_line(strength: float) -> None:
    with pytest.raises(CannotCompress, match=r"^depth pruning: no block of this model has a shortcut .*channels"):
        pruned(nets.make(nets.LeNet), strength)


def test_without_a_strength_it_says_so() -> None:
    model = nets.make(nets.Tower)
    with pytest.raises(CannotCompress, match="no strength was set"):
        PRUNER.apply(model, DepthPruning(), context(model))


@pytest.mark.parametrize("net", [nets.Tower, Steps, nets.Residual])
@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_replay_rebuilds_it(net: type[nn.Module], strength: float) -> None:
    result = pruned(nets.make(net), strength)
    rebuilt = PRUNER.replay(nets.make(net, seed=5), json.loads(json.dumps(result.record)), nets.images(2))
    rebuilt.load_state_dict(result.model.state_dict())
    assert torch.equal(answers(rebuilt), answers(result.model))


def test_parameters_of_a_sequential_keep_their_names() -> None:
    model = nets.make(nets.Tower)
    remove(model, ["blocks.1"])
    assert [name for name, _ in model.blocks.named_children()] == ["0", "2", "3"]
    assert not any(name.startswith("blocks.1.") for name in model.state_dict())


@pytest.mark.parametrize("net", [nets.Tower, Steps])
def test_what_is_taken_out_can_be_put_back(net: type[nn.Module]) -> None:
    model = nets.make(net)
    before, wanted = nets.state(model), answers(model)
    undo = remove(model, find_blocks(model, nets.images(2)).utmost())
    assert not torch.equal(answers(model), wanted)
    restore(undo)
    assert list(model.state_dict()) == list(before)
    assert torch.equal(answers(model), wanted)


def test_a_block_that_is_not_there_is_named() -> None:
    with pytest.raises(AttributeError, match=r"blocks has no block 7"):
        remove(nets.make(nets.Tower), ["blocks.7"])


@pytest.mark.parametrize("net", [nets.Tower, Steps])
def test_the_shortened_model_runs_in_the_runtime(net: type[nn.Module], tmp_path: Any) -> None:
    result = pruned(nets.make(net), 1.0)
    path = tmp_path / "short.onnx"
    path.write_bytes(export(result.model, nets.images(2)).SerializeToString())
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    given = session.run(None, {session.get_inputs()[0].name: nets.images(6).numpy()})[0]
    np.testing.assert_allclose(given, answers(result.model).numpy(), rtol=1e-4, atol=1e-5)


def test_the_order_is_measured_once_a_run() -> None:
    model = nets.make(nets.Tower)
    work, calls = context(model), 0
    PRUNER.apply(copy.deepcopy(model), DepthPruning(strength=1.0), work)

    def count(*_: Any) -> None:
        nonlocal calls
        calls += 1

    second = copy.deepcopy(model)
    second.register_forward_hook(count)
    PRUNER.apply(second, DepthPruning(strength=0.5), work)
    assert calls == 2  # the shape before and after
    other = nets.make(nets.Tower, seed=3)
    other.register_forward_hook(count)
    PRUNER.apply(other, DepthPruning(strength=0.5), work)
    assert calls > 4  # other weights are measured anew


def test_without_calibration_data_the_example_decides() -> None:
    model = nets.make(nets.Tower)
    silence(model.blocks[3])
    none = Split(torch.empty(0, *nets.SHAPE), None)
    data = nets.digits()
    splits = Splits(none, none, data.select, data.report)
    work = Task(model, splits, nets.images(2), METRICS["agreement"], LOSSES["cross-entropy"])
    result = PRUNER.apply(copy.deepcopy(model), DepthPruning(strength=0.34), of_task(work))
    assert result.record["removed"] == ["blocks.3"]


def test_numbers_are_compared_by_their_squares_and_classes_by_divergence() -> None:
    model, changed = nets.make(nets.Mlp), nets.make(nets.Mlp)
    changed.output.bias.data += 2.0  # a shift of all logits changes no probability
    inputs = nets.images(5)
    assert Answers(model, inputs, numbers=True).harm(changed) == pytest.approx(4.0, rel=1e-4)
    assert Answers(model, inputs, numbers=False).harm(changed) == pytest.approx(0.0, abs=1e-5)
    changed.output.bias.data[0] = float("nan")
    assert Answers(model, inputs, numbers=False).harm(changed) == float("inf")
