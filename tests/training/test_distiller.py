from __future__ import annotations

import copy
import dataclasses
from typing import TYPE_CHECKING, Any, Literal

import nets
import pytest
import torch
from torch import nn
from torch.nn import functional

from easycompress.core.errors import BadInput, CannotCompress
from easycompress.core.task import Split
from easycompress.distillation.settings import Distillation
from easycompress.distillation.technique import RATE, TRANSFORMER_RATE, Distiller, fitting, make_term
from easycompress.training.fit import Hooks, Schedule, fit
from easycompress.training.terms import Distil, Labels, Teacher, make_teacher

if TYPE_CHECKING:
    from easycompress.core.task import Task
    from easycompress.technique import Applied


@pytest.fixture(scope="module")
def work() -> Task:
    teacher = nets.make(nets.BatchNormed)
    settled = nets.task(teacher)
    schedule = Schedule(epochs=8, lr=0.1, batch=32)
    fit(teacher, settled.data.train, Labels(settled.loss), schedule, nets.SPEED, Hooks(nets.accuracy), None)
    return settled


def apply(work: Task, action: Distillation, **changes: Any) -> Applied:
    student = nets.make(nets.BatchNormed, seed=1)
    return Distiller().apply(student, action, nets.training_context(work, **changes))


@pytest.mark.parametrize("technique", ["soft", "hard", "combined"])
def test_the_student_learns(work: Task, technique: Literal["soft", "hard", "combined"]) -> None:
    result = apply(work, Distillation(technique=technique, mode="budget"), epochs=12)
    assert result.epochs == 12
    assert result.record == {"epochs": 12}
    assert result.history is not None
    assert nets.accuracy(result.model) == result.history.best > 75


def test_target_mode_stops_when_it_is_enough_and_budget_mode_does_not(work: Task) -> None:
    enough = {"enough": lambda _score: True}
    assert apply(work, Distillation(mode="target"), epochs=3, **enough).epochs == 1
    assert apply(work, Distillation(mode="budget"), epochs=3, **enough).epochs == 3


@pytest.mark.parametrize(("own", "allowed", "done"), [(None, 2, 2), (1, 2, 1), (5, 2, 2)])
def test_epochs_are_limited_by_the_action_and_by_the_budget(
    work: Task, own: int | None, allowed: int, done: int
) -> None:
    assert apply(work, Distillation(epochs=own, mode="budget"), epochs=allowed).epochs == done


@pytest.mark.parametrize("missing", [{"epochs": 0}, {"speed": None}, {"evaluate": None}])
def test_without_means_nothing_is_trained(work: Task, missing: dict[str, Any]) -> None:
    student = nets.make(nets.BatchNormed, seed=1)
    before = copy.deepcopy(student.state_dict())
    result = Distiller().apply(student, Distillation(epochs=3), nets.training_context(work, **missing))
    assert result.epochs == 0
    assert nets.same_state(result.model.state_dict(), before)


def test_training_that_does_not_beat_the_start_leaves_the_weights(work: Task) -> None:
    student = nets.make(nets.BatchNormed, seed=1)
    before = copy.deepcopy(student.state_dict())
    scores = iter([50.0, 40.0, 50.0, 45.0])
    context = nets.training_context(work, epochs=3, evaluate=lambda _: next(scores))
    result = Distiller().apply(student, Distillation(mode="budget"), context)
    assert result.epochs == 3
    assert result.history is not None
    assert (result.history.best_epoch, result.history.best) == (-1, 50.0)
    assert nets.same_state(result.model.state_dict(), before)


def test_transformers_learn_by_adamw_and_others_as_they_did(work: Task) -> None:
    facts, plan = nets.context(work).profile, Schedule(epochs=3, lr=RATE / 2)
    assert fitting(plan, facts) is plan
    chosen = fitting(plan, facts.model_copy(update={"architecture": "transformer"}))
    assert (chosen.optimizer, chosen.epochs) == ("adamw", 3)
    assert chosen.lr == pytest.approx(TRANSFORMER_RATE / 2)


def test_settings_reach_the_term(work: Task) -> None:
    action = Distillation(technique="combined", temperature=3.5, alpha=0.2)
    term = make_term(action, nets.training_context(work))
    assert isinstance(term, Distil)
    assert (term.kind, term.temperature, term.alpha) == ("combined", 3.5, 0.2)
    assert isinstance(make_term(Distillation(technique="hard"), nets.training_context(work)), Labels)


def unlabelled(work: Task) -> Task:
    train = Split(work.data.train.inputs, None)
    return dataclasses.replace(work, data=dataclasses.replace(work.data, train=train))


@pytest.mark.parametrize("technique", ["hard", "combined"])
def test_without_labels_there_is_only_the_teacher(work: Task, technique: Literal["hard", "combined"]) -> None:
    expected = f"^distillation: technique {technique} needs labels, and the training data has none; use soft$"
    with pytest.raises(BadInput, match=expected):
        apply(unlabelled(work), Distillation(technique=technique))
    assert apply(unlabelled(work), Distillation(technique=technique), epochs=0).epochs == 0  # nothing is trained


def test_soft_learns_without_labels_what_it_learns_with_them(work: Task) -> None:
    action = Distillation(technique="soft", mode="budget")
    without, with_ = apply(unlabelled(work), action, epochs=6), apply(work, action, epochs=6)
    assert nets.same_state(without.model.state_dict(), with_.model.state_dict())
    assert nets.accuracy(without.model) > 40


@pytest.mark.parametrize(
    ("action", "refused"),
    [
        (Distillation(), True),
        (Distillation(technique="soft"), True),
        (Distillation(technique="hard"), False),
        (Distillation(outputs="values"), False),
        (Distillation(technique="soft", outputs="values"), False),
    ],
)
def test_one_output_is_a_value(work: Task, action: Distillation, *, refused: bool) -> None:
    facts = nets.context(work).profile
    said = Distiller().refuses(facts.model_copy(update={"outputs": 1}), action)
    assert said == (
        f"distillation: technique {action.technique} needs at least two logits; use hard, or outputs values"
        if refused
        else None
    )
    assert Distiller().refuses(facts, action) is None


class Values(nn.Module):
    """Two values of an image, one a hundred times as large as the other."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(64, 16)
        self.norm = nn.BatchNorm1d(16)
        self.output = nn.Linear(16, 2)
        with torch.no_grad():
            self.output.weight[1] *= 100

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.output(torch.relu(self.norm(self.hidden(x.flatten(1)))))


@pytest.mark.parametrize("technique", ["soft", "combined"])
def test_values_are_learned_from_the_teacher(work: Task, technique: Literal["soft", "combined"]) -> None:
    teacher = nets.make(Values)
    with torch.no_grad():
        answers = teacher(work.data.train.inputs)
    train = Split(work.data.train.inputs, answers if technique == "combined" else None)
    data = dataclasses.replace(work.data, train=train)
    task = dataclasses.replace(work, model=teacher, data=data, loss=functional.mse_loss)

    def explained(model: nn.Module) -> float:
        with torch.no_grad():
            error = functional.mse_loss(model(data.train.inputs), answers)
        return 1 - float(error / answers.var(0).mean())

    context = nets.training_context(
        nets.task(nets.make(nets.Mlp)), 30, evaluate=explained, teacher=lambda: make_teacher(teacher, train, cache=True)
    )
    context = dataclasses.replace(context, task=task)
    action = Distillation(technique=technique, outputs="values", mode="budget")
    student = nets.make(Values, seed=1)
    assert explained(student) < 0
    assert explained(Distiller().apply(student, action, context).model) > 0.8


def test_features_that_do_not_exist_are_refused_in_one_line(work: Task) -> None:
    with pytest.raises(CannotCompress, match=r"^distillation: features: no layer of the same name "):
        Distiller().apply(
            nets.make(nets.Mlp), Distillation(features=1.0), nets.training_context(nets.task(nets.make(nets.Mlp)))
        )
    assert not any(module._forward_hooks for module in work.model.modules())


def test_the_hard_technique_asks_no_teacher(work: Task) -> None:
    def teacher() -> Teacher:
        raise AssertionError

    assert isinstance(make_term(Distillation(technique="hard"), nets.training_context(work, teacher=teacher)), Labels)


def test_augmented_inputs_are_answered_anew(work: Task) -> None:
    augmented = dataclasses.replace(work, augment=lambda inputs: inputs.flip(-1))
    live = {"teacher": lambda: make_teacher(work.model, work.data.train, cache=False)}
    first = apply(augmented, Distillation(technique="soft"), epochs=1, **live)
    second = apply(work, Distillation(technique="soft"), epochs=1)
    assert first.epochs == second.epochs == 1
    assert not nets.same_state(first.model.state_dict(), second.model.state_dict())
