from __future__ import annotations

import nets
import pytest
import torch
from torch import Tensor, nn

from easycompress.core.errors import CannotCompress
from easycompress.pruning.graph import PruningGraph

every_net = pytest.mark.parametrize("net", nets.NETS, ids=lambda n: n.__name__)
OUTPUTS = {nets.LeNet: "fc2", nets.Flattened: "fc"}


def graph_of(model: nn.Module) -> PruningGraph:
    return PruningGraph(model, nets.images(2))


def roots(model: nn.Module, strategy: str = "global") -> set[str]:
    return {group.root for group in graph_of(model).groups(strategy, "l1")}  # type: ignore[arg-type]


@every_net
def test_the_output_layer_is_never_offered(net: type[nn.Module]) -> None:
    model = nets.make(net)
    found = roots(model)
    assert found
    assert OUTPUTS.get(net, "output") not in found
    graph = graph_of(model)
    for group in graph.groups("global", "l1"):
        graph.remove(group.root, list(range(group.width - 1)))  # all but one
    with torch.no_grad():
        assert model(nets.images(2)).shape == (2, nets.CLASSES)


def test_the_order_of_definition_does_not_matter() -> None:
    assert roots(nets.make(nets.OutputFirst)) == {"conv", "hidden"}


class TwoHeads(nn.Module):
    """The sum of two layers is the output, one of them by a detour."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Linear(64, nets.CLASSES)
        self.deep = nn.Linear(64, 12)
        self.head = nn.Linear(12, nets.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        return self.wide(x) + self.head(torch.relu(self.deep(x)))


class ReadTwice(nn.Module):
    """What the last layer reads is part of the output too."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(64, nets.CLASSES)
        self.inner = nn.Linear(nets.CLASSES, 12)
        self.last = nn.Linear(12, nets.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x.flatten(1))
        return x + self.last(torch.relu(self.inner(x)))


class SoftmaxOutput(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(64, 12)
        self.head = nn.Linear(12, nets.CLASSES)
        self.norm = nn.BatchNorm1d(nets.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax(self.norm(self.head(torch.relu(self.hidden(x.flatten(1))))), 1)


@pytest.mark.parametrize(
    ("net", "allowed"), [(TwoHeads, {"deep"}), (ReadTwice, {"inner"}), (SoftmaxOutput, {"hidden"})]
)
def test_whatever_reaches_the_output_stays(net: type[nn.Module], allowed: set[str]) -> None:
    assert roots(nets.make(net)) == allowed


def test_channels_tied_in_blocks_are_left_alone() -> None:
    assert roots(nets.make(nets.Grouped)) == {"tail", "hidden"}


@every_net
def test_strategies_divide_the_groups(net: type[nn.Module]) -> None:
    model = nets.make(net)
    convolutional, linear = roots(model, "convolutional"), roots(model, "linear")
    assert convolutional | linear == roots(model)
    assert not convolutional & linear
    assert all(isinstance(model.get_submodule(name), nn.Conv2d) for name in convolutional)
    assert all(isinstance(model.get_submodule(name), nn.Linear) for name in linear)


@pytest.mark.parametrize("importance", ["l1", "group-norm"])
def test_scores_are_relative_to_the_groups_mean(importance: str) -> None:
    for group in graph_of(nets.make(nets.Residual)).groups("global", importance):  # type: ignore[arg-type]
        assert group.scores.shape == (group.width,)
        assert float(group.scores.mean()) == pytest.approx(1.0, abs=1e-5)
        assert not group.scores.requires_grad


@pytest.mark.parametrize(("importance", "power"), [("l1", 1), ("group-norm", 2)])
def test_scores_of_a_plain_layer_by_hand(importance: str, power: int) -> None:
    model = nets.make(nets.Mlp)
    weight, outgoing = model.get_parameter("hidden1.weight").detach(), model.get_parameter("hidden2.weight").detach()
    raw = weight.abs().pow(power).sum(1) + outgoing.abs().pow(power).sum(0)
    group = next(g for g in graph_of(model).groups("global", importance) if g.root == "hidden1")  # type: ignore[arg-type]
    assert torch.allclose(group.scores, raw / raw.mean(), atol=1e-5)


def test_dead_groups_have_equal_scores() -> None:
    model = nets.make(nets.Mlp)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    for group in graph_of(model).groups("global", "l1"):
        assert torch.equal(group.scores, torch.ones(group.width))


@pytest.mark.parametrize(
    ("net", "root", "consumer", "columns", "offset"),
    [
        (nets.Mlp, "hidden1", "hidden2", 1, 0),
        (nets.Flattened, "conv", "fc", 16, 0),
        (nets.LeNet, "conv1", "conv2", 1, 0),
        (nets.LeNet, "conv2", "fc1", 1, 0),
        (nets.BatchNormed, "features.0", "features.4", 1, 0),
        (nets.BatchNormed, "features.4", "hidden", 1, 0),
        (nets.BatchNormed, "hidden", "output", 1, 0),
        (nets.Residual, "identity.conv1", "identity.conv2", 1, 0),
        (nets.DepthwiseSeparable, "depthwise", "pointwise", 1, 0),
        (nets.Concatenated, "left", "joined", 1, 0),
        (nets.Concatenated, "right", "joined", 1, 6),
        (nets.Concatenated, "joined", "output", 16, 0),
        (nets.Grouped, "tail", "hidden", 1, 0),
    ],
)
def test_channels_that_nobody_listens_to_can_go(
    net: type[nn.Module], root: str, consumer: str, columns: int, offset: int
) -> None:
    """With zero outgoing weights a channel is silent: were the wrong indices removed, the outputs would change."""
    model, inputs = nets.make(net), nets.images(5)
    gone = [0, 2, 5]
    places = [columns * (offset + channel) + i for channel in gone for i in range(columns)]
    weight = model.get_parameter(f"{consumer}.weight")
    with torch.no_grad():
        weight[:, places] = 0
        before = model(inputs)
    narrow = weight.shape[1] - len(places)
    graph_of(model).remove(root, gone)
    assert model.get_parameter(f"{consumer}.weight").shape[1] == narrow
    with torch.no_grad():
        assert torch.allclose(model(inputs), before, atol=1e-5)


def test_the_trunk_of_a_residual_net_goes_together() -> None:
    model, inputs = nets.make(nets.Residual), nets.images(5)
    gone = [1, 6]
    with torch.no_grad():
        for name in ("identity.conv1", "projected.conv1", "projected.shortcut.0"):
            model.get_parameter(f"{name}.weight")[:, gone] = 0
        before = model(inputs)
    graph_of(model).remove("stem", gone)
    assert model.get_parameter("stem.weight").shape[0] == model.get_parameter("identity.conv2.weight").shape[0] == 6
    with torch.no_grad():
        assert torch.allclose(model(inputs), before, atol=1e-5)


def test_removing_nothing_changes_nothing() -> None:
    model = nets.make(nets.LeNet)
    before = nets.state(model)
    graph_of(model).remove("conv1", [])
    assert nets.same_state(model.state_dict(), before)


def test_a_layer_keeps_at_least_one_channel() -> None:
    with pytest.raises(CannotCompress, match="layer conv1: removing 6 of its channels would leave none"):
        graph_of(nets.make(nets.LeNet)).remove("conv1", list(range(6)))


def test_tracing_leaves_no_marks() -> None:
    model = nets.make(nets.BatchNormed)
    model.get_submodule("hidden").requires_grad_(False)  # noqa: FBT003 - torch's own signature
    before = nets.state(model)
    graph = graph_of(model)
    assert nets.same_state(model.state_dict(), before)
    graph.remove("hidden", [0, 1])
    graph.remove("features.0", [3])
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen == {"hidden.weight", "hidden.bias"}
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


class Refusing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(64, nets.CLASSES)

    def forward(self, _x: Tensor) -> Tensor:
        raise KeyError("missing\npart")


def test_a_model_that_cannot_be_traced_is_refused_in_one_line() -> None:
    with pytest.raises(CannotCompress, match=r"^structured pruning can't trace this model \(KeyError: .*\)$"):
        graph_of(nets.make(Refusing))
