from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import nets
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from easycompress.core.errors import CannotCompress
from easycompress.distillation.features import (
    Imitation,
    Maps,
    attention_loss,
    attention_map,
    common_layers,
    imitating,
)
from easycompress.distillation.settings import Distillation
from easycompress.distillation.technique import Distiller
from easycompress.training.fit import Hooks, Schedule, fit
from easycompress.training.terms import Labels, Teacher, make_teacher

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from easycompress.core.task import Task

HARD = Labels(functional.cross_entropy)
PLACES = torch.arange(4)


class Stopped(Exception):
    """A kill."""


class Tower(nn.Module):
    """Four residual blocks as wide as one likes, the same names at every width."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, padding=1)
        self.blocks = nn.Sequential(
            nets.Block(width, width, 1),
            nets.Block(width, width, 1),
            nets.Block(width, width + 2, 2),
            nets.Block(width + 2, width + 2, 1),
        )
        self.output = nn.Linear(width + 2, nets.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.blocks(torch.relu(self.stem(x))).mean((2, 3)))


def narrow() -> nn.Module:
    return nets.make(lambda: Tower(5), seed=1)


def pair() -> tuple[nn.Module, nn.Module]:
    """Return a net and a narrower one of the same structure."""
    return nets.make(Tower), narrow()


def hooked(*models: nn.Module) -> bool:
    return any(module._forward_hooks for model in models for module in model.modules())


@pytest.mark.parametrize(("shape", "channels"), [((3, 5, 4, 2), 1), ((3, 8, 5), -1), ((3, 4, 2, 5), -1)])
def test_a_map_is_the_strength_of_each_place_by_hand(shape: tuple[int, ...], channels: int) -> None:
    features = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    found = attention_map(features, channels)
    assert found.shape == (3, 8)
    moved = features.movedim(channels, -1).reshape(3, 8, 5)
    for sample in range(3):
        strengths = [sum(v * v for v in place) / 5 for place in moved[sample].tolist()]
        norm = sum(s * s for s in strengths) ** 0.5
        assert found[sample].tolist() == pytest.approx([s / norm for s in strengths], rel=1e-5)


def test_maps_know_nothing_of_width_and_scale() -> None:
    features = torch.randn(3, 6, 4, 4, generator=torch.Generator().manual_seed(0))
    wider = torch.cat([features, features], 1)
    assert torch.allclose(attention_map(wider, 1), attention_map(features, 1))
    assert torch.allclose(attention_map(-9 * features, 1), attention_map(features, 1))
    assert torch.equal(attention_map(torch.zeros(2, 3, 4, 4), 1), torch.zeros(2, 16))


def test_the_loss_lies_between_0_and_2_and_its_minimum_is_the_teacher() -> None:
    one, other = torch.eye(4)[:1], torch.eye(4)[1:2]
    assert float(attention_loss(one, one)) == 0.0
    assert float(attention_loss(one, other)) == pytest.approx(2.0)
    features = torch.randn(3, 6, 4, 4, generator=torch.Generator().manual_seed(0))
    free = features.clone().requires_grad_()
    attention_loss(attention_map(free, 1), attention_map(features, 1)).backward()
    assert free.grad is not None
    assert float(free.grad.abs().max()) < 1e-6


@pytest.mark.parametrize(
    ("net", "most", "expected"),
    [
        (nets.Tower, 4, ["blocks.0", "blocks.1", "blocks.2", "blocks.3"]),
        (nets.Tower, 2, ["blocks.1", "blocks.3"]),
        (nets.Tower, 1, ["blocks.3"]),
        (nets.Residual, 4, ["identity", "projected"]),
        (nets.LeNet, 4, ["conv1", "conv2"]),
        (nets.BatchNormed, 1, ["features.4"]),
    ],
)
def test_layers_are_blocks_where_they_repeat_spread_over_the_depth(
    net: type[nn.Module], most: int, expected: list[str]
) -> None:
    model = nets.make(net)
    assert common_layers(nets.make(net, seed=1), model, nets.images(2), most) == expected
    assert not hooked(model)
    assert not model.training


class Product(nn.Module):
    """A linear layer of a library's own."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(8))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight


def test_a_layer_is_what_has_a_weight() -> None:
    model = nn.Sequential(nn.Flatten(1, 2), *(nn.Sequential(Product(), nn.Tanh()) for _ in range(2)), nn.Flatten())
    assert common_layers(model, model, nets.images(2), 4) == ["1", "2"]


def test_widths_may_differ() -> None:
    model, student = pair()
    assert common_layers(student, model, nets.images(2), 2) == ["blocks.1", "blocks.3"]
    assert not hooked(model, student)


def test_transformers_are_compared_token_by_token() -> None:
    model = nets.make(nets.Attentive)
    names = common_layers(nets.make(nets.Attentive, seed=1), model, nets.images(2), 4)
    assert names == ["layers.0", "layers.1"]
    with Maps(model, names) as maps:
        model(nets.images(3))
        assert {name: tuple(seen.shape) for name, seen in maps.seen.items()} == dict.fromkeys(names, (3, 8))


def test_layers_that_the_student_lacks_or_has_in_another_size_are_left_out() -> None:
    model, student = pair()
    blocks = student.get_submodule("blocks")
    assert isinstance(blocks, nn.Sequential)
    blocks[2] = nets.Block(5, 7, 1)  # 8 x 8 places from here on, not 4 x 4
    assert common_layers(student, model, nets.images(2), 4) == ["blocks.0", "blocks.1"]


def test_without_a_common_layer_it_says_so() -> None:
    with pytest.raises(
        CannotCompress, match=r"^distillation: features: no layer of the same name .*leave features at 0$"
    ):
        common_layers(nets.make(nets.Mlp), nets.make(nets.Mlp), nets.images(2), 4)


def test_the_term_adds_the_mean_over_the_layers() -> None:
    model, student = pair()
    inputs, targets = nets.images(4), torch.tensor([1, 2, 3, 4])
    outputs: dict[str, list[Tensor]] = {}
    names = ["blocks.1", "blocks.3"]
    with imitating(student, Teacher(model, None), HARD, inputs, weight=0.7, layers=2) as term:
        student.train()
        answers = student(inputs)
        loss = term(answers, targets, inputs, PLACES)
        for which in (student, model):
            for name in names:
                which.get_submodule(name).register_forward_hook(
                    lambda _m, _i, out, name=name: outputs.setdefault(name, []).append(out)
                )
            which(inputs)
    parts = [attention_loss(*(attention_map(out, 1) for out in outputs[name])) for name in names]
    expected = HARD(answers, targets, inputs, PLACES) + 0.7 * (parts[0] + parts[1]) / 2
    assert torch.allclose(loss, expected, rtol=1e-4)
    loss.backward()
    stem = student.get_submodule("stem")
    assert isinstance(stem, nn.Conv2d)
    assert stem.weight.grad is not None
    assert all(parameter.grad is None for parameter in model.parameters())


def test_weight_0_is_the_same_term_without_hooks() -> None:
    model, student = pair()
    with imitating(student, Teacher(model, None), HARD, nets.images(2), weight=0.0, layers=4) as term:
        assert term is HARD
        assert not hooked(model, student)


def test_hooks_go_even_when_training_fails() -> None:
    model, student = pair()

    def fail() -> None:
        with imitating(student, Teacher(model, None), HARD, nets.images(2), weight=1.0, layers=4) as term:
            assert isinstance(term, Imitation)
            assert hooked(model)
            assert hooked(student)
            raise Stopped

    with pytest.raises(Stopped):
        fail()
    assert not hooked(model, student)


class Counted(nn.Module):
    """A net that counts its passes."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nets.make(nets.Tower)
        self.passes = 0

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        return self.inner(x)


@pytest.mark.parametrize("cache", [True, False])
def test_the_teacher_runs_once_a_batch(*, cache: bool) -> None:
    teacher, student = Counted(), Counted()
    made = make_teacher(teacher, nets.digits().train, cache=cache)
    before = teacher.passes
    action = Distillation(technique="soft", mode="budget", epochs=1, features=1.0)
    context = nets.training_context(nets.task(nets.make(Tower)), epochs=1, samples=256, teacher=lambda: made)
    Distiller().apply(student, action, context)
    assert teacher.passes - before == 1 + 256 // 128  # one pass finds the layers


class InPlace(nn.Module):
    """What a layer gives is overwritten by the activation behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(inplace=True), nn.Conv2d(6, 6, 3), nn.ReLU(inplace=True))
        self.output = nn.Linear(6, nets.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.body(x).mean((2, 3)))


def test_activations_in_place_do_no_harm() -> None:
    model, student = nets.make(InPlace), nets.make(InPlace, seed=1)
    with imitating(student, Teacher(model, None), HARD, nets.images(2), weight=1.0, layers=4) as term:
        student.train()
        inputs = nets.images(4)
        term(student(inputs), torch.tensor([1, 2, 3, 4]), inputs, PLACES).backward()
    first = student.get_submodule("body.0")
    assert isinstance(first, nn.Conv2d)
    assert first.weight.grad is not None


@functools.cache
def work() -> Task:
    """Return a trained tower with the digits."""
    teacher = nets.make(Tower)
    settled = nets.task(teacher)
    schedule = Schedule(epochs=2, lr=0.1, batch=32)
    fit(teacher, settled.data.train, HARD, schedule, nets.SPEED, Hooks(nets.accuracy), None)
    return settled


def distance(model: nn.Module) -> float:
    """Return how far the student looks from where the teacher does, on *select*."""
    names = [f"blocks.{i}" for i in range(4)]
    inputs = nets.digits().select.inputs
    with Maps(model, names) as mine, Maps(work().model, names) as theirs, torch.no_grad():
        model(inputs)
        work().model(inputs)
        return sum(float(attention_loss(mine.seen[name], theirs.seen[name])) for name in names)


def train(features: float, **changes: Any) -> nn.Module:
    action = Distillation(technique="soft", mode="budget", features=features)
    context = nets.training_context(work(), **({"epochs": 3, "samples": 512} | changes))
    return Distiller().apply(narrow(), action, context).model


def test_the_student_looks_where_the_teacher_does() -> None:
    without, with_ = (
        train(weight, epochs=4, samples=0, evaluate=scripted(5)) for weight in (0.0, 1.0)
    )  # every epoch counts as better: what is compared are trained weights
    assert distance(with_) < 0.5 * distance(without)
    assert not hooked(with_, work().model)


def test_training_goes_on_after_a_kill_with_the_same_numbers(tmp_path: Path) -> None:
    whole = train(1.0, evaluate=scripted(10))

    def part(folder: str) -> Callable[[str], Path]:
        return lambda name: tmp_path / f"{folder}-{name}"

    with pytest.raises(Stopped):
        train(1.0, evaluate=scripted(2), checkpoint=part("a"))
    assert list(tmp_path.iterdir())
    assert nets.same_state(train(1.0, evaluate=scripted(10), checkpoint=part("a")).state_dict(), whole.state_dict())


def scripted(most: int) -> Callable[[nn.Module], float]:
    """Return an evaluation that finds every epoch better, and is killed after `most` calls."""
    calls: list[int] = []

    def evaluate(_: nn.Module) -> float:
        if len(calls) == most:
            raise Stopped
        calls.append(len(calls))
        return float(len(calls))

    return evaluate
