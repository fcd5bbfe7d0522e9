from __future__ import annotations

import copy
import dataclasses
from typing import TYPE_CHECKING, Any, Literal

import nets
import pytest

from easycompress.distillation.settings import Distillation
from easycompress.distillation.technique import Distiller, make_term
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


def test_settings_reach_the_term(work: Task) -> None:
    action = Distillation(technique="combined", temperature=3.5, alpha=0.2)
    term = make_term(action, nets.training_context(work))
    assert isinstance(term, Distil)
    assert (term.kind, term.temperature, term.alpha) == ("combined", 3.5, 0.2)
    assert isinstance(make_term(Distillation(technique="hard"), nets.training_context(work)), Labels)


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
