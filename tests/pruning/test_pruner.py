from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import nets
import numpy as np
import pytest
import torch
from torch import nn

from easycompress.artifact.write import write_model
from easycompress.core.errors import CannotCompress
from easycompress.measure.runtime import Runtime
from easycompress.pruning.settings import StructuredPruning
from easycompress.pruning.technique import StructuredPruner
from easycompress.training.fit import Hooks, Schedule, fit
from easycompress.training.norms import reestimate
from easycompress.training.terms import Labels

if TYPE_CHECKING:
    from pathlib import Path

    from easycompress.technique import Applied

every_net = pytest.mark.parametrize("net", nets.NETS, ids=lambda n: n.__name__)


def prune(net: type[nn.Module], *, train: bool = False, **settings: Any) -> Applied:
    work = nets.task(nets.make(net))
    context = nets.training_context(work) if train else nets.context(work)
    return StructuredPruner().apply(copy.deepcopy(work.model), StructuredPruning(**settings), context)


def shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


@every_net
def test_a_pruned_net_runs_in_onnx_runtime(net: type[nn.Module], tmp_path: Path) -> None:
    result = prune(net, strength=0.5)
    full = sum(parameter.numel() for parameter in nets.make(net).parameters())
    assert sum(parameter.numel() for parameter in result.model.parameters()) < 0.8 * full
    write_model(result.model, nets.images(2), tmp_path / "model.onnx")
    inputs = nets.images(7, seed=3)
    with torch.no_grad():
        expected = result.model(inputs).numpy()
    answers = Runtime(tmp_path / "model.onnx", 1).run(inputs)
    assert answers.shape == (7, nets.CLASSES)
    assert np.allclose(answers, expected, atol=1e-4)


@every_net
@pytest.mark.parametrize("importance", ["l1", "lamp"])
def test_replay_is_exact(net: type[nn.Module], importance: str) -> None:
    result = prune(net, strength=0.4, importance=importance)
    record = json.loads(json.dumps(result.record))
    again = StructuredPruner().replay(nets.make(net), record, torch.zeros(2, *nets.SHAPE))
    assert nets.same_state(again.state_dict(), result.model.state_dict())  # the very channels, not only their number


@every_net
def test_widths_are_those_of_the_record(net: type[nn.Module]) -> None:
    result = prune(net, strength=0.4)
    for root, width in result.record["widths"].items():
        assert result.model.get_parameter(f"{root}.weight").shape[0] == width


@every_net
def test_strength_zero_changes_nothing(net: type[nn.Module]) -> None:
    result = prune(net, strength=0.0)
    assert result.record["removed"] == []
    assert nets.same_state(result.model.state_dict(), nets.make(net).state_dict())


@every_net
def test_steps_end_where_one_step_ends(net: type[nn.Module]) -> None:
    one, three = prune(net, strength=0.5), prune(net, strength=0.5, steps=3, train=True)
    assert three.record["widths"] == one.record["widths"]
    assert shapes(three.model) == shapes(one.model)
    assert three.epochs == 2  # one recovery after each step but the last
    assert len(three.record["removed"]) > len(one.record["removed"])


def test_steps_need_recovery() -> None:
    assert prune(nets.LeNet, strength=0.5, steps=3).record == prune(nets.LeNet, strength=0.5, steps=1).record


@pytest.mark.parametrize(
    ("strategy", "same", "less"),
    [
        ("convolutional", ["fc1.bias"], ["conv1.bias", "conv2.bias"]),
        ("linear", ["conv1.bias", "conv2.bias"], ["fc1.bias"]),
    ],
)
def test_strategies_prune_their_own_layers(strategy: str, same: list[str], less: list[str]) -> None:
    before, after = shapes(nets.make(nets.LeNet)), shapes(prune(nets.LeNet, strength=0.5, strategy=strategy).model)
    assert all(after[name] == before[name] for name in same)
    assert all(after[name] < before[name] for name in less)


def test_widths_are_rounded() -> None:
    widths = prune(nets.Residual, strength=0.6, round_to=4).record["widths"]
    assert all(width % 4 == 0 for width in widths.values())
    assert widths != prune(nets.Residual, strength=0.6).record["widths"]


def test_importances_choose_other_channels() -> None:
    names = ("random", "l1", "group-norm", "lamp", "taylor")
    removed = [prune(nets.LeNet, strength=0.4, importance=name).record["removed"] for name in names]
    assert all(one != other for place, one in enumerate(removed) for other in removed[:place])


class Attending(nn.Module):
    """A linear layer inside what its name calls attention, and others outside."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(64, 16)
        self.attention = nn.Sequential(nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 16))
        self.output = nn.Linear(16, nets.CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.output(torch.relu(self.attention(torch.relu(self.embed(x.flatten(1))))))


def test_attention_has_its_own_strategy() -> None:
    work = nets.task(nets.make(Attending))
    widths = {}
    for strategy in ("attention", "linear"):
        action = StructuredPruning(strength=0.5, strategy=strategy)
        widths[strategy] = StructuredPruner().apply(copy.deepcopy(work.model), action, nets.context(work)).record
    assert set(widths["attention"]["widths"]) == {"attention.0", "attention.2"}
    assert set(widths["linear"]["widths"]) == {"embed"}


def test_batch_norm_statistics_are_those_of_the_pruned_net() -> None:
    work = nets.task(nets.make(nets.BatchNormed))
    reestimate(work.model, work.data.calibration.inputs)  # they fit before, and so they fit after
    action = StructuredPruning(strength=0.5)
    pruned = StructuredPruner().apply(copy.deepcopy(work.model), action, nets.context(work))
    judged = StructuredPruner().apply(copy.deepcopy(work.model), action, nets.context(work, evaluate=nets.accuracy))
    assert judged.record == pruned.record
    features = judged.model.get_submodule("features")
    assert isinstance(features, nn.Sequential)
    with torch.no_grad():
        seen = features[:5](work.data.calibration.inputs)
    assert torch.allclose(features[5].running_mean, seen.mean((0, 2, 3)), atol=1e-3)  # type: ignore[arg-type]
    unjudged = pruned.model.get_submodule("features.5")
    assert not torch.allclose(unjudged.running_mean, seen.mean((0, 2, 3)), atol=1e-3)  # type: ignore[arg-type]


def test_batch_norm_statistics_stay_those_of_the_data_of_training() -> None:
    """The channels that stay keep what the removal didn't touch: before the first removed input that is all of it."""
    work = nets.task(nets.make(nets.BatchNormed))
    norm = work.model.get_submodule("features.1")
    assert isinstance(norm, nn.BatchNorm2d)
    norm.running_mean = torch.arange(float(norm.num_features)) / 10  # of no data that calibration has
    context = nets.context(work, evaluate=nets.accuracy)
    result = StructuredPruner().apply(copy.deepcopy(work.model), StructuredPruning(strength=0.5), context)
    removed = dict(result.record["removed"])["features.0"]
    stay = [channel for channel in range(norm.num_features) if channel not in removed]
    assert 0 < len(stay) < norm.num_features
    left = result.model.get_submodule("features.1")
    assert torch.allclose(left.running_mean, norm.running_mean[stay], atol=1e-6)  # type: ignore[arg-type]
    assert torch.allclose(left.running_var, norm.running_var[stay], rtol=1e-5)  # type: ignore[arg-type, index]


def test_nothing_removed_leaves_the_statistics() -> None:
    work = nets.task(nets.make(nets.BatchNormed))
    context = nets.context(work, evaluate=nets.accuracy)
    result = StructuredPruner().apply(copy.deepcopy(work.model), StructuredPruning(strength=0.0), context)
    assert nets.same_state(result.model.state_dict(), work.model.state_dict())


def test_recovery_trains_the_pruned_layers() -> None:
    """An optimizer made before pruning would still hold the removed parameters, and these would stay as they are."""
    work = nets.task(nets.make(nets.BatchNormed))
    steps: list[int] = []

    def recover(model: nn.Module, index: int) -> int:
        steps.append(index)
        before = nets.state(model)
        schedule = Schedule(epochs=1, lr=0.05)
        fit(model, work.data.train, Labels(work.loss), schedule, nets.SPEED, Hooks(nets.accuracy), None)
        names = dict(model.named_parameters())
        assert not any(torch.equal(names[name], before[name]) for name in names)
        return 1

    action = StructuredPruning(strength=0.5, steps=3)
    context = nets.context(work, recover=recover)
    result = StructuredPruner().apply(copy.deepcopy(work.model), action, context)
    assert steps == [1, 2]
    assert result.epochs == 2


def test_the_strength_must_be_known() -> None:
    with pytest.raises(CannotCompress, match=r"^structured pruning: no strength was set$"):
        prune(nets.LeNet, strength=None)


def test_nothing_to_remove_is_an_error_that_names_the_strategy() -> None:
    with pytest.raises(CannotCompress, match="no channel can be removed with strategy linear"):
        prune(nets.Flattened, strength=0.5, strategy="linear")


def test_refusals_name_what_is_missing() -> None:
    profile = nets.context(nets.task(nets.make(nets.Mlp))).profile
    pruner = StructuredPruner()
    assert pruner.refuses(profile, StructuredPruning(strategy="linear")) is None
    assert pruner.refuses(profile, StructuredPruning(strategy="convolutional")) == (
        "structured pruning: strategy convolutional finds no convolutional layer in this model"
    )
    bare = profile.model_copy(update={"layers": ()})
    assert pruner.refuses(bare, StructuredPruning()) == (
        "structured pruning: the model has no convolution and no linear layer to prune"
    )
