"""Groups that are removed at once, and groups that overlap in part."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import nets
import pytest
import torch
from torch import Tensor, nn

from easycompress.core.errors import CannotCompress
from easycompress.pruning import safe
from easycompress.pruning.graph import PruningGraph
from easycompress.pruning.safe import SafeDependencies
from easycompress.pruning.settings import StructuredPruning
from easycompress.pruning.technique import StructuredPruner, leaving_some

if TYPE_CHECKING:
    from easycompress.pruning.graph import ChannelGroup


class Scaled(nn.Module):
    """ConvNeXt's block: a bare parameter of shape (C, 1, 1) scales the channels of a residual branch."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.inner, self.outer = nn.Conv2d(8, 12, 1), nn.Conv2d(12, 8, 1)
        self.scale = nn.Parameter(torch.linspace(0.5, 1.5, 8).reshape(8, 1, 1))
        self.output = nn.Linear(8, nets.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.scale * self.outer(torch.relu(self.inner(x)))
        return self.output(x.mean((2, 3)))


class SideBySide(nn.Module):
    """Two narrow layers put side by side are added to a wide one: they hold a part of its group each."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Conv2d(1, 12, 3, padding=1)
        self.left, self.right = nn.Conv2d(1, 6, 1), nn.Conv2d(1, 6, 1)
        self.output = nn.Linear(12, nets.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.output((self.wide(x) + torch.cat([self.left(x), self.right(x)], 1)).mean((2, 3)))


class NumberedSum(nn.Module):
    """Two layers make the channels whose number the forward knows by heart."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Conv2d(1, 6, 3, padding=1), nn.Conv2d(1, 6, 1)
        self.fc, self.output = nn.Linear(384, 20), nn.Linear(20, nets.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(torch.relu(self.fc((self.one(x) + self.other(x)).view(-1, 384))))


class Stubborn(nn.Module):
    """Its only hidden channels are rolled."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.output = nn.Linear(64, 12), nn.Linear(12, nets.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(torch.roll(self.hidden(x.flatten(1)), 1, 1))


def graph_of(model: nn.Module) -> PruningGraph:
    return PruningGraph(model, nets.images(2))


def group_of(model: nn.Module, root: str) -> ChannelGroup:
    return next(group for group in graph_of(model).groups("global", "l1") if group.root == root)


@pytest.mark.parametrize("net", [*nets.NETS, Scaled, SideBySide], ids=lambda n: n.__name__)
def test_all_groups_at_once_are_one_after_the_other(net: type[nn.Module]) -> None:
    once, each = nets.make(net), nets.make(net)
    removals = [(g.root, list(range(0, g.width - 1, 2))) for g in graph_of(once).groups("global", "l1")]
    assert removals
    graph_of(once).remove_all(removals)
    graph = graph_of(each)
    for root, channels in removals:
        graph.remove(root, channels)
    assert nets.same_state(once.state_dict(), each.state_dict())


def test_a_scale_of_several_dimensions_goes_with_its_channels() -> None:
    model, inputs = nets.make(Scaled), nets.images(5)
    with torch.no_grad():
        for name in ("inner", "output"):
            model.get_parameter(f"{name}.weight")[:, [1, 6]] = 0
        before = model(inputs)
        graph_of(model).remove("stem", [1, 6])
        assert model.get_parameter("scale").shape == (6, 1, 1)
        assert torch.allclose(model(inputs), before, atol=1e-5)


def test_frozen_parameters_stay_frozen_when_all_go_at_once() -> None:
    model = nets.make(Scaled)
    model.get_parameter("scale").requires_grad_(False)  # noqa: FBT003 - torch's own signature
    graph_of(model).remove_all([("stem", [0]), ("inner", [2, 3])])
    assert [name for name, parameter in model.named_parameters() if not parameter.requires_grad] == ["scale"]


def test_a_group_that_fails_is_not_offered_under_another_name() -> None:
    assert [group.root for group in graph_of(nets.make(NumberedSum)).groups("global", "l1")] == ["fc"]


def test_emptying_a_part_of_a_group_is_refused_before_anything_changes() -> None:
    model = nets.make(SideBySide)
    before = nets.state(model)
    with pytest.raises(CannotCompress, match=r"^layer left: removing 6 of its channels would leave none$"):
        graph_of(model).remove_all([("wide", [*range(6), 8])])
    assert nets.same_state(model.state_dict(), before)


def test_the_most_important_channel_of_a_part_stays() -> None:
    group = group_of(nets.make(SideBySide), "wide")
    best = int(group.scores[:6].argmax())
    assert leaving_some(group, [*range(6), 8]) == sorted({*range(6), 8} - {best})
    assert leaving_some(group, [0, 1, 11]) == [0, 1, 11]


def test_a_part_whose_channels_all_score_least_is_not_emptied() -> None:
    model = nets.make(SideBySide)
    with torch.no_grad():
        for layer, rows in (("wide", slice(0, 6)), ("left", slice(None))):
            model.get_parameter(f"{layer}.weight")[rows] *= 1e-4
        model.get_parameter("output.weight")[:, :6] *= 1e-4
    work = nets.task(model)
    result = StructuredPruner().apply(copy.deepcopy(model), StructuredPruning(strength=0.5), nets.context(work))
    assert result.model.get_parameter("left.weight").shape[0] == 1
    assert result.model.get_parameter("right.weight").shape[0] == 6
    again = StructuredPruner().replay(copy.deepcopy(model), result.record, nets.images(2))
    assert nets.same_state(again.state_dict(), result.model.state_dict())


def test_sparing_keeps_the_first_of_what_would_be_emptied() -> None:
    graph = graph_of(nets.make(SideBySide)).graph
    assert isinstance(graph, SafeDependencies)
    graph.remove({"wide": range(6)}, sparing=True)
    assert graph.model.get_submodule("left").out_channels == 1
    assert graph.widths(["wide"]) == {"wide": 7}


def test_a_refusal_names_the_operators_in_the_way() -> None:
    work = nets.task(nets.make(Stubborn))
    expected = r"no channel can be removed with strategy global: they can't be followed through aten::roll$"
    with pytest.raises(CannotCompress, match=expected):
        StructuredPruner().apply(copy.deepcopy(work.model), StructuredPruning(strength=0.5), nets.context(work))


class Counted(nn.Module):
    """A forward that knows its width by an attribute, if it does."""

    def __init__(self, width: int | None) -> None:
        super().__init__()
        self.known = nn.Conv2d(1, 6, 3, padding=1)
        self.fc, self.output = nn.Linear(384, 20), nn.Linear(20, nets.CLASSES)
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.known(x))
        return self.output(torch.relu(self.fc(x.view(-1, self.width or x[0].numel()))))


@pytest.mark.parametrize("order", [(384, None), (None, 384)])
def test_what_failed_in_one_model_is_asked_anew_of_one_that_looks_like_it(order: tuple[int | None, ...]) -> None:
    for width in order:
        found = [group.root for group in graph_of(nets.make(lambda width=width: Counted(width))).groups("global", "l1")]
        assert found == (["fc"] if width else ["known", "fc"])


def test_copies_of_a_model_are_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nets.make(Scaled)
    graph_of(copy.deepcopy(model))
    monkeypatch.setattr("easycompress.pruning.safe._failing", lambda *_: pytest.fail("tried again"))
    assert [group.root for group in graph_of(copy.deepcopy(model)).groups("global", "l1")] == ["stem", "inner"]


@pytest.mark.parametrize("bad", [[0], [6], [1, 2], [0, 3, 6], list(range(7))], ids=str)
@pytest.mark.parametrize("together", [set(), {4, 5}], ids=str)
def test_halving_finds_what_fails_and_leaves_what_runs(
    bad: list[int], together: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    roots = [str(number) for number in range(7)]
    asked: list[tuple[str, ...]] = []

    def runs(_graph: object, some: list[str], *_: object) -> bool:
        asked.append(tuple(some))
        return not {int(root) for root in some} & set(bad) and not (together and together <= {int(r) for r in some})

    monkeypatch.setattr(safe, "_runs", runs)
    failing = safe._failing(graph_of(nets.make(Scaled)).graph, roots, nets.images(2), torch.Size([2]))
    assert {str(number) for number in bad} <= set(failing)
    assert len(failing) <= len(bad) + len(together)
    assert runs(None, [root for root in roots if root not in failing])
    assert len(asked) < 2 * len(roots) + 8
