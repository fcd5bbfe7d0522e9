from __future__ import annotations

import copy
import dataclasses
import itertools
from typing import Any

import nets
import pytest
import torch
from torch import nn

from easycompress.core.errors import CannotCompress
from easycompress.pruning import sensitivity
from easycompress.pruning.graph import ChannelGroup, PruningGraph
from easycompress.pruning.sensitivity import (
    PENALTY,
    SHARES,
    divergence,
    loss_curves,
    marginal_losses,
    protected,
    savings,
    spread,
)
from easycompress.pruning.settings import StructuredPruning
from easycompress.pruning.widths import least_important

INPUTS = nets.digits().calibration.inputs[:32]
MACS = 10_000


def graph_of(model: nn.Module) -> PruningGraph:
    return PruningGraph(model, nets.images(2))


def groups_of(model: nn.Module) -> list[ChannelGroup]:
    return graph_of(model).groups("global", "l1")


def widths(model: nn.Module, **settings: Any) -> dict[str, int]:
    found = groups_of(model)
    return spread(model, found, found, StructuredPruning(**settings), nets.context(nets.task(model)))


@pytest.mark.parametrize("net", [nets.LeNet, nets.Residual, nets.DepthwiseSeparable, nets.Concatenated])
def test_the_loss_is_that_of_really_removing_the_channels(net: type[nn.Module]) -> None:
    model = nets.make(net)
    found = groups_of(model)
    curves = loss_curves(model, found, INPUTS, MACS)
    with torch.no_grad():
        reference = model(INPUTS)
        for group in found:
            narrow = copy.deepcopy(model)
            graph_of(narrow).remove(group.root, least_important(group.scores, round(0.5 * group.width)))
            expected = divergence(narrow(INPUTS), reference)
            assert curves[group.root][SHARES.index(0.5)] == pytest.approx(expected, rel=1e-3, abs=1e-5)


def test_measuring_leaves_the_model_alone() -> None:
    model = nets.make(nets.Residual)
    before = nets.state(model)
    curves = loss_curves(model, groups_of(model), INPUTS, MACS)
    assert nets.same_state(model.state_dict(), before)
    assert all(len(curve) == len(SHARES) and min(curve) >= 0 for curve in curves.values())


def test_a_measurement_is_remembered_until_something_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    real = sensitivity._measure

    def counted(*arguments: Any) -> dict[str, list[float]]:
        asked.append(1)
        return real(*arguments)

    monkeypatch.setattr(sensitivity, "_measure", counted)
    model = nets.make(nets.LeNet, seed=11)
    first = loss_curves(model, groups_of(model), INPUTS, MACS)
    assert loss_curves(copy.deepcopy(model), groups_of(model), INPUTS, MACS) == first
    assert len(asked) == 1
    with torch.no_grad():
        model.get_parameter("fc2.bias").add_(1)
    loss_curves(model, groups_of(model), INPUTS, MACS)
    loss_curves(model, groups_of(model), INPUTS + 1, MACS)
    assert len(asked) == 3


def test_divergence() -> None:
    logits = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    assert divergence(logits, logits) == pytest.approx(0, abs=1e-6)
    assert divergence(logits + 3, logits) == pytest.approx(0, abs=1e-6)  # the softmax doesn't see it
    assert divergence(2 * logits, logits) > 0.01
    values = logits[:, :1]
    assert divergence(values + values.std(unbiased=False), values) == pytest.approx(1, rel=1e-5)
    assert divergence(logits * float("nan"), logits) == float("inf")


def test_marginal_losses_add_up_and_never_fall() -> None:
    assert marginal_losses(8, [2.0, 6.0, 12.0]) == [1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 3.0, 3.0]
    assert marginal_losses(8, [2.0, 2.0, 1.0]) == [1.0] * 8  # flat where all is lost already
    assert len(marginal_losses(1, [0.0, 0.1, 0.2])) == 1


def test_the_removal_goes_where_it_hurts_least() -> None:
    model = nets.make(nets.Mlp)
    with torch.no_grad():
        model.get_parameter("hidden2.weight").mul_(0.01)  # what hidden1 says is hardly heard
    even = widths(model, strength=0.4)
    measured = widths(model, strength=0.4, ratios="sensitivity")
    assert measured["hidden1"] < even["hidden1"]
    assert measured["hidden2"] > even["hidden2"]


@pytest.mark.parametrize("saves", ["channels", "params", "macs"])
@pytest.mark.parametrize("ratios", ["global", "sensitivity"])
def test_a_larger_strength_never_keeps_more(ratios: str, saves: str) -> None:
    model = nets.make(nets.Residual)
    full = {group.root: group.width for group in groups_of(model)}
    rows = [widths(model, strength=k / 10, ratios=ratios, saves=saves) for k in range(11)]
    assert rows[0] == full
    assert all(late[root] <= early[root] for early, late in itertools.pairwise(rows) for root in full)
    assert set(rows[-1].values()) == {1}


def test_savings_by_hand() -> None:
    model = nets.make(nets.LeNet)
    profile = nets.context(nets.task(model)).profile
    found = groups_of(model)
    # conv1's 6 channels: 60 parameters are its own, 648 of conv2's 660 read them; biases count with their layer
    expected = {"conv1": (60 + 660) / 6, "conv2": (660 + 260) / 12, "fc1": (260 + 210) / 20}
    saved = savings(found, profile, "params")
    mean = sum(expected[g.root] * g.width for g in found) / sum(g.width for g in found)
    assert saved == pytest.approx({root: value / mean for root, value in expected.items()})
    assert set(savings(found, profile, "channels").values()) == {1.0}
    macs = savings(found, profile, "macs")
    assert macs["conv1"] > macs["conv2"] > macs["fc1"]
    unknown = profile.model_copy(update={"layers": ()})
    assert set(savings(found, unknown, "macs").values()) == {1.0}


@pytest.mark.parametrize(
    ("net", "ends", "shortcuts"),
    [
        (nets.Residual, {"stem", "projected.shortcut.0"}, {"stem", "projected.shortcut.0"}),
        (nets.OutputFirst, {"conv", "hidden"}, set()),
        (nets.LeNet, {"conv1", "fc1"}, set()),
    ],
)
def test_positions_are_those_in_the_graph(net: type[nn.Module], ends: set[str], shortcuts: set[str]) -> None:
    found = groups_of(nets.make(net))
    assert protected(found, found, "none") == frozenset()
    assert {_block(root) for root in protected(found, found, "ends")} == {_block(root) for root in ends}
    assert {_block(root) for root in protected(found, found, "shortcuts")} == {_block(root) for root in shortcuts}
    assert protected(found, found, "both") == protected(found, found, "ends") | protected(found, found, "shortcuts")


def _block(root: str) -> str:
    """Which of the layers that make a shortcut's channels stands for them is the tracer's choice."""
    return "projected" if root in ("projected.shortcut.0", "projected.conv2") else root


def test_ends_are_those_of_the_whole_model() -> None:
    everything = groups_of(nets.make(nets.LeNet))
    middle = [group for group in everything if group.root == "conv2"]
    assert protected(middle, everything, "ends") == frozenset()


def test_what_is_protected_keeps_more() -> None:
    model = nets.make(nets.LeNet)
    free, spared = (widths(model, strength=0.5, protect=protect) for protect in ("none", "ends"))
    assert PENALTY > 1
    assert spared["conv1"] + spared["fc1"] > free["conv1"] + free["fc1"]
    assert spared["conv2"] < free["conv2"]


def test_sensitivity_needs_samples() -> None:
    model = nets.make(nets.Mlp)
    work = nets.task(model)
    none = dataclasses.replace(work.data, calibration=work.data.calibration.take(slice(0, 0)))
    context = nets.context(dataclasses.replace(work, data=none))
    found = groups_of(model)
    action = StructuredPruning(strength=0.5, ratios="sensitivity")
    with pytest.raises(CannotCompress, match=r"^structured pruning: ratios sensitivity needs calibration samples"):
        spread(model, found, found, action, context)
