"""What the workshop measures, and what it doesn't measure twice."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import nets
import pytest

from easycompress.carry import make_workshop
from easycompress.core.progress import Silent
from easycompress.core.request import Request
from easycompress.distillation.settings import Distillation
from easycompress.executor.journal import open_journal
from easycompress.executor.trainer import Trainer
from easycompress.lc.settings import EntropyQuantization
from easycompress.prepare import prepare
from easycompress.pruning.settings import StructuredPruning

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from easycompress.executor.workshop import Workshop


@dataclass
class Calls:
    """How often PyTorch was asked for quality, and a training step timed."""

    evaluated: list[nn.Module] = field(default_factory=list)
    timed: int = 0


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    made = Calls()

    def evaluate(_: Trainer, model: nn.Module) -> float:
        made.evaluated.append(model)
        return 50.0

    def step_seconds(_: Trainer, __: nn.Module) -> float:
        made.timed += 1
        return 0.01

    monkeypatch.setattr(Trainer, "evaluate", evaluate)
    monkeypatch.setattr(Trainer, "step_seconds", step_seconds)
    return made


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    request = Request(model="net", objective="size", target="2x", max_drop="90%", budget="10min", force=True)
    prepared = prepare(nets.task(nets.make(nets.Mlp)), request, tmp_path)
    journal = open_journal(tmp_path / "out", {}, resume=False, began=0.0)
    return make_workshop(prepared, request, journal, Silent())


def test_what_is_judged_as_a_file_is_not_judged_in_pytorch_too(shop: Workshop, calls: Calls) -> None:
    attempt = shop.attempt(1, [EntropyQuantization(strength=0.3)], 1.0, 0.0)
    assert not calls.evaluated
    assert attempt.stages[-1].after["quality"] == attempt.quality
    shop.attempt(2, [StructuredPruning(strength=0.3), EntropyQuantization(strength=0.3)], 1.0, 0.0)
    assert len(calls.evaluated) == 1  # pruning, before what makes the file


def test_steps_are_timed_where_something_trains(shop: Workshop, calls: Calls) -> None:
    pruning = StructuredPruning(strength=0.3)
    assert shop.probe([pruning]).step_seconds == 0
    assert not calls.timed
    assert shop.probe([pruning, Distillation()]).step_seconds == 0.01
    assert calls.timed == 1


def test_the_original_is_judged_once_for_its_time(shop: Workshop, calls: Calls) -> None:
    actions = [StructuredPruning(strength=0.3), Distillation()]
    first = shop.allow(actions, 0.5, 0.01)
    assert shop.allow(actions, 0.25, 0.01).epochs <= first.epochs
    assert len(calls.evaluated) == 1
