"""What is tried on copies before a plan is made."""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
from typing import TYPE_CHECKING, Any

import nets
import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from easycompress.artifact.onnx_export import export
from easycompress.artifact.write import write_model
from easycompress.lc.ranks.settings import LowRankLayers
from easycompress.measure.compute import macs
from easycompress.measure.profile import profile
from easycompress.measure.runtime import Runtime
from easycompress.pruning.settings import StructuredPruning
from easycompress.quantization.settings import DynamicInt8, StaticInt8
from easycompress.selection import trials
from easycompress.selection.probe import Known, known, loss_of
from easycompress.selection.trials import (
    HALVINGS,
    INTEGER_SAMPLES,
    MOST,
    USUAL,
    count_blocks,
    integer_losses,
    lesser_losses,
    narrowing_lost,
    operations,
    parameters,
    structure_losses,
)
from easycompress.techniques import technique_for

if TYPE_CHECKING:
    from pathlib import Path

    from easycompress.core.plan import Action
    from easycompress.core.profile import ModelProfile
    from easycompress.core.task import Task
    from easycompress.measure.statistics import Scores

NARROWER = StructuredPruning(strategy="global", importance="l1", steps=1)
THINNER = LowRankLayers()
BOTH: dict[str, Action] = {"channels": NARROWER, "ranks": THINNER}


class Tied(nn.Module):
    """A model whose hidden width its own code spells out, so that no channel can go."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(64, 32)
        self.output = nn.Linear(32, nets.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(torch.tanh(self.hidden(x.flatten(1))) * torch.arange(32.0))


@functools.cache
def facts(net: type[nn.Module]) -> ModelProfile:
    return profile(nets.make(net), export(nets.make(net), nets.images(2)), nets.SHAPE, nets.CLASSES)


def work(net: type[nn.Module]) -> Task:
    return nets.task(nets.make(net))


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """Return the models whose losses were taken, in order."""
    models: list[nn.Module] = []
    real = trials.loss_of

    def noted(model: nn.Module, task: Task) -> float:
        models.append(model)
        return real(model, task)

    monkeypatch.setattr(trials, "loss_of", noted)
    return models


@pytest.mark.parametrize("net", [nets.Mlp, nets.LeNet, nets.BatchNormed, nets.Residual])
def test_operations_are_what_the_file_counts(net: type[nn.Module]) -> None:
    assert operations(nets.make(net), nets.images(1)) == pytest.approx(macs(nets.graph(net)), rel=0.02)


@pytest.mark.parametrize(("ratio", "wanted"), [(1.5, 1.5), (50.0, MOST)])
def test_candidates_are_as_small_as_is_needed(ratio: float, wanted: float, compared: list[nn.Module]) -> None:
    task = work(nets.LeNet)
    before = operations(task.model, task.example)
    found = structure_losses(task, facts(nets.LeNet), BOTH, ratio)
    assert list(found) == list(BOTH)[: len(found)]
    assert "channels" in found
    assert all(math.isfinite(loss) and loss > 0 for loss in found.values())
    assert len(compared) == len(found)
    for model in compared:
        assert operations(model, task.example) <= before / wanted


@pytest.mark.parametrize(("most", "wanted"), [(0.0, USUAL), (1e9, MOST)])
def test_where_the_most_is_wanted_and_little_is_lost_more_is_asked(
    most: float, wanted: float, compared: list[nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trials, "known", lambda _task: Known(own=most, blank=most))
    task = work(nets.LeNet)
    before = operations(task.model, task.example)
    structure_losses(task, facts(nets.LeNet), {"channels": NARROWER}, math.inf)
    saved = before / operations(compared[-1], task.example)
    assert wanted <= saved < 1.5 * wanted


def test_where_nothing_saves_so_much_the_usual_ratio_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "MOST", 1000.0)
    monkeypatch.setattr(trials, "known", lambda _task: Known(own=1e9, blank=1e9))
    task = work(nets.LeNet)
    assert structure_losses(task, facts(nets.LeNet), BOTH, math.inf) == structure_losses(
        task, facts(nets.LeNet), BOTH, USUAL
    )


def test_the_candidate_is_the_least_treated_one(compared: list[nn.Module]) -> None:
    task = work(nets.LeNet)
    structure_losses(task, facts(nets.LeNet), {"channels": NARROWER}, 1.5)
    wanted = operations(task.model, task.example) / 1.5
    context = nets.context(task)
    counts = []
    for step in range(2**HALVINGS + 1):
        action = NARROWER.model_copy(update={"strength": step / 2**HALVINGS})
        made = technique_for(action).apply(copy.deepcopy(task.model), action, context).model
        counts.append(operations(made, task.example))
    assert operations(compared[0], task.example) == next(count for count in counts if count <= wanted)


@pytest.mark.parametrize("ratio", [1.2, 1.5])
def test_what_narrower_copies_lose_is_a_share_of_what_is_known(ratio: float, compared: list[nn.Module]) -> None:
    task = work(nets.Mlp)
    knows = known(task)
    lost = narrowing_lost(task, facts(nets.Mlp), NARROWER, ratio)
    (made,) = compared
    assert parameters(made) <= parameters(task.model) / ratio
    assert lost == pytest.approx((loss_of(made, task) - knows.own) / max(knows.blank - knows.own, 1e-9))


def test_what_cannot_be_narrowed_so_far_loses_everything() -> None:
    assert narrowing_lost(work(Tied), facts(Tied), NARROWER, 1.5) == math.inf
    assert narrowing_lost(work(nets.Mlp), facts(nets.Mlp), NARROWER, 1e6) == math.inf


def test_parameters_count_each_tensor_once() -> None:
    layer = nn.Linear(3, 4)
    both = nn.Sequential(layer, nn.Linear(4, 3), layer)
    assert parameters(both) == 3 * 4 + 4 + 4 * 3 + 3


def test_trials_leave_the_model_alone_and_repeat() -> None:
    task = work(nets.Mlp)
    before = nets.state(task.model)
    first = structure_losses(task, facts(nets.Mlp), BOTH, 1.5)
    assert structure_losses(task, facts(nets.Mlp), BOTH, 1.5) == first
    assert nets.same_state(nets.state(task.model), before)
    assert not task.model.training


def test_what_cannot_be_done_is_left_out() -> None:
    task = work(Tied)
    found = structure_losses(task, facts(Tied), BOTH, 1.5)
    assert set(found) == {"ranks"}


def test_what_cannot_save_so_much_is_left_out(compared: list[nn.Module]) -> None:
    task = work(nets.Residual)
    gentle = StructuredPruning(strategy="linear", steps=1)  # its one linear layer is the output
    assert structure_losses(task, facts(nets.Residual), {"channels": gentle}, 2.0) == {}
    assert not compared


def test_beyond_what_is_compared_only_what_reaches_the_target_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Low rank of LeNet300 loses least at 4x and saves 6.8x at most: 10x takes channels."""
    task = work(nets.Mlp)
    most = {
        name: operations(task.model, task.example)
        / operations(trials._made(task, action, nets.context(task), 1.0), task.example)
        for name, action in BOTH.items()
    }
    least = min(most, key=lambda name: most[name])
    between, beyond = math.sqrt(math.prod(most.values())), 2 * max(most.values())
    monkeypatch.setattr(trials, "MOST", 1.2)
    assert set(structure_losses(task, facts(nets.Mlp), BOTH, 1.2)) == set(BOTH)
    assert set(structure_losses(task, facts(nets.Mlp), BOTH, between)) == set(BOTH) - {least}
    assert set(structure_losses(task, facts(nets.Mlp), BOTH, beyond)) == set(BOTH)


@pytest.mark.parametrize(("ratio", "lesser"), [(1.5, 0.0), (USUAL, 0.0), (3.0, USUAL), (9.0, 3.0), (math.inf, 0.0)])
def test_what_goes_on_below_a_target_is_compared_half_of_the_way(ratio: float, lesser: float) -> None:
    task = work(nets.LeNet)
    found = lesser_losses(task, facts(nets.LeNet), {"channels": NARROWER}, ratio)
    assert found == (structure_losses(task, facts(nets.LeNet), {"channels": NARROWER}, lesser) if lesser else {})


def test_without_labels_the_original_s_answers_count() -> None:
    task = work(nets.Mlp)
    data = task.data
    blind = dataclasses.replace(
        data, train=dataclasses.replace(data.train, targets=None), select=dataclasses.replace(data.select, targets=None)
    )
    losses = structure_losses(dataclasses.replace(task, data=blind), facts(nets.Mlp), BOTH, 1.2)
    labelled = structure_losses(task, facts(nets.Mlp), BOTH, 1.2)
    assert losses.keys() == labelled.keys()
    assert losses != labelled
    assert all(math.isfinite(loss) for loss in losses.values())


def accuracies(path: Path, task: Task) -> Scores:
    select = task.data.select
    assert select.targets is not None
    return (Runtime(path, 1).run(select.inputs).argmax(1) == select.targets.numpy()).astype(np.float64)


@pytest.mark.parametrize("action", [StaticInt8(samples=64), DynamicInt8()])
def test_the_loss_of_integers_is_the_drop(action: Action, tmp_path: Path) -> None:
    task, name = work(nets.Mlp), action.kind
    plain = write_model(copy.deepcopy(task.model), task.example, tmp_path / "plain.onnx")
    applied = technique_for(action).apply(copy.deepcopy(task.model), action, nets.context(task))
    assert applied.file_pass is not None
    file = write_model(applied.model, task.example, tmp_path / "int8.onnx", [applied.file_pass], applied.codes)
    assert any("Quantize" in node.op_type or "Integer" in node.op_type for node in onnx.load(file).graph.node)
    before = accuracies(plain, task)
    by_hand = 100 * float(before.mean() - accuracies(file, task).mean())
    state = nets.state(task.model)
    found = integer_losses(task, facts(nets.Mlp), {name: action}, before, 1)
    assert found == {name: pytest.approx(by_hand)}
    assert nets.same_state(nets.state(task.model), state)


def test_integers_that_give_no_numbers_lose_everything() -> None:
    task = work(nets.Mlp)
    metric = dataclasses.replace(task.metric, binary=False, scores=lambda _, targets: np.full(len(targets), np.nan))
    blown = dataclasses.replace(task, metric=metric)
    action = StaticInt8(samples=16)
    found = integer_losses(blown, facts(nets.Mlp), {"static-int8": action}, np.ones(len(task.data.select)), 1)
    assert found == {"static-int8": math.inf}


def test_integers_are_tried_on_the_first_samples_of_select() -> None:
    task = work(nets.Mlp)
    counted: list[int] = []

    def scores(_: Tensor, targets: Tensor) -> np.ndarray[Any, Any]:
        counted.append(len(targets))
        return np.zeros(len(targets))

    metric = dataclasses.replace(task.metric, scores=scores)
    select = task.data.select.take(torch.arange(INTEGER_SAMPLES + 50) % len(task.data.select))
    long = dataclasses.replace(task, metric=metric, data=dataclasses.replace(task.data, select=select))
    action = StaticInt8(samples=16)
    found = integer_losses(long, facts(nets.Mlp), {"static-int8": action}, np.ones(len(select)), 1)
    assert found == {"static-int8": 100.0}
    assert sum(counted) == INTEGER_SAMPLES


@pytest.mark.parametrize(
    ("net", "blocks"), [(nets.Tower, 3), (nets.Residual, 1), (nets.Attentive, 2), (nets.Mlp, 0), (nets.LeNet, 0)]
)
def test_blocks(net: type[nn.Module], blocks: int) -> None:
    task = work(net)
    state = nets.state(task.model)
    assert count_blocks(task) == blocks
    assert nets.same_state(nets.state(task.model), state)
