from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from easycompress.codes.composed import Additive
from easycompress.core.errors import BadInput
from easycompress.lc.cstep import by_parameter, c_step
from easycompress.lc.projections.lowrank import LowRankAt
from easycompress.lc.projections.pruned import ConstraintL0
from easycompress.lc.projections.quantized import AdaptiveQuantization, Binarization
from easycompress.lc.tasks import Task, each, parse_tasks, weights_of

if TYPE_CHECKING:
    from easycompress.codes.base import Code

TWO, SPARSE, RANK = AdaptiveQuantization(2), ConstraintL0(share=0.2), LowRankAt(1)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.fc1 = nn.Linear(4, 6)
        self.fc2 = nn.Linear(6, 3)
        self.count = nn.Parameter(torch.zeros(2, dtype=torch.int64), requires_grad=False)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 5)
        self.output = nn.Linear(5, 7, bias=False)
        self.output.weight = self.embedding.weight


def codes(model: nn.Module, tasks: dict[Any, Any]) -> dict[str, Code]:
    parsed = parse_tasks(model, tasks)
    names = [name for task in parsed for name in task.parameters]
    return by_parameter(parsed, c_step(parsed, {name: model.get_parameter(name) for name in names}, 1.0))


def test_a_name_or_a_tuple_of_names_is_a_task() -> None:
    parsed = parse_tasks(Net(), {"fc1.weight": TWO, ("fc2.weight", "fc2.bias"): SPARSE})
    assert parsed == (Task(("fc1.weight",), TWO), Task(("fc2.weight", "fc2.bias"), SPARSE))


def test_each_gives_every_parameter_a_task_of_its_own() -> None:
    assert each(["fc1.weight", "fc2.weight"], TWO) == {("fc1.weight",): TWO, ("fc2.weight",): TWO}
    assert each("fc1.weight", TWO) == {("fc1.weight",): TWO}
    separate = codes(Net(), each(["fc1.weight", "fc2.weight"], TWO))
    joint = codes(Net(), {("fc1.weight", "fc2.weight"): TWO})
    first, second = (separate[name].arrays()["entries"].tolist() for name in separate)
    assert first != second
    first, second = (joint[name].arrays()["entries"].tolist() for name in joint)
    assert first == second


def test_weights_are_those_of_convolutions_and_linear_layers_tied_ones_once() -> None:
    assert weights_of(Net()) == ("conv.weight", "fc1.weight", "fc2.weight")
    assert weights_of(Tied()) == ("embedding.weight",)
    assert weights_of(nn.Linear(2, 3)) == ("weight",)
    assert weights_of(nn.ReLU()) == ()


@pytest.mark.parametrize(
    ("tasks", "text"),
    [
        ({}, "lc: no tasks; give one such as {'fc1.weight': AdaptiveQuantization(2)}"),
        ([TWO], "lc: [AdaptiveQuantization(k=2)] is no mapping of tasks; give one such as "),
        ({5: TWO}, "lc: 5 names no parameters; give a name or a tuple of names"),
        ({(): TWO}, "lc: a task without parameters; name at least one"),
        ({"fc1.wieght": TWO}, "lc: the model has no parameter 'fc1.wieght'; did you mean fc1.weight?"),
        ({("fc1.weight", 3): TWO}, "lc: the model has no parameter 3; it has count, conv.weight, conv.bias, "),
        ({"norm.running_mean": TWO}, "lc: the model has no parameter 'norm.running_mean'; "),
        ({"count": TWO}, "lc: count: torch.int64 is no floating-point parameter; leave it out"),
        (
            {("fc1.weight", "fc2.weight", "fc1.weight"): TWO},
            "lc: fc1.weight: named twice in one task; name each parameter once",
        ),
        ({"fc1.weight": []}, "lc: fc1.weight: an empty list of compressions; give one, or leave the task out"),
        ({"fc1.weight": 2}, "lc: fc1.weight: 2 is no compression; give e.g. AdaptiveQuantization(2)"),
        ({"fc1.weight": ConstraintL0}, "lc: fc1.weight: ConstraintL0 is no compression; give e.g. "),
        ({"fc1.weight": [TWO, None]}, "lc: fc1.weight: None is no compression; give e.g. AdaptiveQuantization(2)"),
        (
            {"fc1.weight": ("vector", TWO, 3)},
            "lc: fc1.weight: ('vector', AdaptiveQuantization(k=2), 3) is no pair (view, compression); add up in a list",
        ),
        (
            {"fc1.weight": ("flat", TWO)},
            "lc: fc1.weight: view 'flat': no such view; there are vector, matrix, scheme-1, scheme-2",
        ),
        (
            {"fc1.weight": ("matrix", TWO)},
            "lc: fc1.weight: view 'matrix' doesn't fit AdaptiveQuantization, which takes a vector",
        ),
        (
            {"conv.weight": ("scheme-2", SPARSE)},
            "lc: conv.weight: view 'scheme-2' doesn't fit ConstraintL0, which takes a vector",
        ),
        (
            {"fc1.weight": ("vector", RANK)},
            "lc: fc1.weight: view 'vector' doesn't fit LowRankAt, which takes a matrix",
        ),
        (
            {("fc1.weight", "fc1.bias"): RANK},
            "lc: fc1.bias: a vector has no matrix view; leave it out of LowRankAt",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tasks: Any, text: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse_tasks(Net(), tasks)
    assert str(caught.value).startswith(text)
    assert "\n" not in str(caught.value)


def test_a_model_without_parameters_is_told_so() -> None:
    with pytest.raises(BadInput, match=r"lc: the model has no parameter 'weight'; it has none"):
        parse_tasks(nn.ReLU(), {"weight": TWO})


def test_a_tied_parameter_goes_by_its_first_name() -> None:
    with pytest.raises(BadInput, match=r"lc: output\.weight: tied to another parameter; name that one"):
        parse_tasks(Tied(), {"output.weight": TWO})
    assert parse_tasks(Tied(), {"embedding.weight": TWO}) == (Task(("embedding.weight",), TWO),)


def test_views_choose_how_a_convolution_becomes_a_matrix() -> None:
    model = Net()
    for view, left in (("scheme-1", (4, 1)), ("scheme-2", (12, 1)), ("matrix", (4, 1))):
        found = codes(model, {"conv.weight": (view, RANK)})["conv.weight"]
        assert tuple(found.arrays()["left"].shape) == left, view
        assert found.shape == (4, 2, 3, 3)
    kept = codes(model, {"conv.weight": ("matrix", LowRankAt(1, "scheme-2"))})["conv.weight"]
    assert tuple(kept.arrays()["left"].shape) == (12, 1)
    assert RANK.layout == "scheme-1"  # what the user holds stays what it is
    for view in ("matrix", "scheme-1", "scheme-2"):
        assert codes(model, {"fc1.weight": (view, RANK)})["fc1.weight"].arrays()["left"].shape == (6, 1)
    assert parse_tasks(model, {"fc1.bias": ("vector", TWO)}) == (Task(("fc1.bias",), TWO),)


def test_what_stands_in_a_list_and_tasks_that_overlap_are_added_up_alike() -> None:
    torch.manual_seed(1)
    model = Net()
    listed = codes(model, {"fc1.weight": [TWO, ("matrix", RANK)]})["fc1.weight"]
    apart = codes(model, {"fc1.weight": TWO, ("fc1.weight",): RANK})["fc1.weight"]
    assert isinstance(listed, Additive)
    assert [part.form for part in listed.parts] == ["codebook", "low-rank"]
    assert torch.equal(listed.dense(), apart.dense())


def test_joint_and_single_tasks_mix_in_one_model() -> None:
    torch.manual_seed(2)
    model = Net()
    names = ("fc1.weight", "fc2.weight")
    found = codes(
        model, {**each(names, TWO), names: ConstraintL0(5), "conv.weight": [Binarization(), RANK], "fc1.bias": TWO}
    )
    assert [code.form for code in found.values()] == ["additive", "additive", "additive", "codebook"]
    corrections = [code.parts[1] for name, code in found.items() if name in names and isinstance(code, Additive)]
    assert sum(int(part.dense().count_nonzero()) for part in corrections) == 5
    assert "fc2.bias" not in found
