"""How fast copies become before they have lost too much, untrained."""

from __future__ import annotations

import copy
import functools
import math
from typing import TYPE_CHECKING

import nets
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from easycompress.artifact.onnx_export import export
from easycompress.artifact.write import write_model
from easycompress.lc.ranks.settings import LowRankLayers
from easycompress.measure.profile import profile
from easycompress.pruning.settings import StructuredPruning
from easycompress.selection.heuristics import TOO_LOST
from easycompress.selection.probe import known, loss_of
from easycompress.selection.speeds import Stopwatch, structure_speeds
from easycompress.selection.trials import HALVINGS, MOST, operations
from easycompress.techniques import technique_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from easycompress.core.plan import Action
    from easycompress.core.task import Task

NARROWER = StructuredPruning(strategy="global", importance="l1", steps=1)
BOTH: dict[str, Action] = {"channels": NARROWER, "ranks": LowRankLayers()}


class Tied(nn.Module):
    """A model whose hidden width its own code spells out, so that no channel can go."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(64, 32)
        self.output = nn.Linear(32, nets.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(torch.tanh(self.hidden(x.flatten(1))) * torch.arange(32.0))


@functools.cache
def learned(net: type[nn.Module]) -> Task:
    """Return the task of a net after a few epochs on the digits: nobody may change it."""
    model, train = nets.make(net), nets.digits().train
    assert train.targets is not None
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(8):
        for places in torch.randperm(len(train)).split(64):
            optimizer.zero_grad()
            functional.cross_entropy(model(train.inputs[places]), train.targets[places]).backward()
            optimizer.step()
    return nets.task(model)


def clock(task: Task) -> Callable[[nn.Module], float]:
    """Return a clock on which time is operations."""
    before = operations(task.model, task.example)
    return lambda model: before / operations(model, task.example)


def speeds(
    task: Task, actions: dict[str, Action], ratio: float, faster: Callable[[nn.Module], float] | None = None
) -> dict[str, tuple[float, float]]:
    """Return speed and loss of each action."""
    facts = profile(task.model, export(task.model, task.example), nets.SHAPE, nets.CLASSES)
    found, lost = structure_speeds(task, facts, actions, ratio, faster or clock(task))
    assert list(found) == list(lost)
    return {name: (found[name], lost[name]) for name in found}


def narrowed(task: Task) -> list[tuple[float, float]]:
    """Return speed and loss of the copies at every strength that is told apart."""
    made = []
    for step in range(1, 2**HALVINGS + 1):
        action = NARROWER.model_copy(update={"strength": step / 2**HALVINGS})
        model = technique_for(action).apply(copy.deepcopy(task.model), action, nets.context(task)).model.eval()
        made.append((clock(task)(model), loss_of(model, task)))
    return made


def test_a_model_that_answers_alike_knows_no_more_than_the_classes() -> None:
    task = learned(nets.Mlp)
    train = task.data.train.take(slice(0, 1024))
    assert train.targets is not None
    with torch.no_grad():
        mean = task.model(train.inputs).mean(0, keepdim=True).expand(len(train), -1)
    knows = known(task)
    assert knows.own == loss_of(task.model, task)
    assert knows.blank == pytest.approx(float(functional.cross_entropy(mean, train.targets)), rel=1e-4)
    assert knows.blank > math.log(nets.CLASSES) > knows.own


def test_the_least_treated_copy_that_is_fast_enough() -> None:
    task = learned(nets.LeNet)
    speed, loss = speeds(task, {"channels": NARROWER}, 1.05)["channels"]
    assert speed == 1.05
    assert loss == next(loss for speed, loss in narrowed(task) if speed >= 1.05)


def test_no_copy_counts_that_has_lost_too_much() -> None:
    task = learned(nets.LeNet)
    own = loss_of(task.model, task)
    most = own + TOO_LOST * (known(task).blank - own)
    speed, loss = speeds(task, {"channels": NARROWER}, math.inf)["channels"]
    assert loss <= most
    assert 1 < speed < MOST
    place = narrowed(task).index((speed, loss))
    assert narrowed(task)[place + 1][1] > most


def test_what_loses_little_goes_to_its_end() -> None:
    task = learned(nets.Mlp)
    found = speeds(task, BOTH, math.inf)
    assert list(found) == list(BOTH)
    for speed, loss in found.values():
        assert 1 <= speed <= MOST
        assert math.isfinite(loss)


def test_what_the_model_does_not_permit_is_left_out() -> None:
    assert set(speeds(learned(Tied), BOTH, 1.5)) == {"ranks"}


def test_what_gains_nothing_is_as_fast_as_the_original() -> None:
    task = learned(nets.LeNet)
    assert speeds(task, {"ranks": LowRankLayers()}, 2.0, lambda _: 0.9) == {"ranks": (1.0, loss_of(task.model, task))}


def test_the_model_is_left_alone() -> None:
    task = learned(nets.Mlp)
    before = nets.state(task.model)
    first = speeds(task, BOTH, 1.5)
    assert speeds(task, BOTH, 1.5) == first
    assert nets.same_state(nets.state(task.model), before)
    assert not task.model.training


class Wide(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, nets.CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.layers(x)
        return made


def test_the_stopwatch_tells_a_small_model_from_a_large_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("easycompress.selection.speeds.SECONDS", 0.1)
    example = nets.images(2)
    write_model(Wide(20_000).eval(), example, tmp_path / "baseline.onnx")
    watch = Stopwatch(tmp_path / "baseline.onnx", example, batch=3, threads=1)
    assert watch.faster(Wide(100).eval()) > 2
