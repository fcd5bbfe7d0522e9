"""Quantization whose free values are trained: the levels' places stay, their values learn."""

from __future__ import annotations

import copy
import dataclasses
import functools
from typing import TYPE_CHECKING

import nets
import pytest
import torch
from torch.nn import functional

from easycompress.codes.affine import Affine
from easycompress.codes.codebook import Codebook
from easycompress.core.inputs import answer
from easycompress.lc import run
from easycompress.lc.settings import TUNING_RATE, EntropyQuantization, TunedQuantization
from easycompress.lc.tasks import weights_of
from easycompress.lc.tuned import TRANSFORMER_RATE, TunedQuantizer
from easycompress.lc.untrained import EntropyQuantizer
from easycompress.training.fit import Hooks, Schedule, fit
from easycompress.training.terms import Labels

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from easycompress.technique import Applied, Context

STRENGTH, SAMPLES, EPOCHS = 0.45, 200, 6


@functools.cache
def trained() -> nn.Module:
    model = nets.make(nets.LeNet)
    term, schedule = Labels(functional.cross_entropy), Schedule(epochs=15, lr=0.1, batch=32)
    fit(model, nets.digits().train, term, schedule, nets.SPEED, Hooks(nets.accuracy), None)
    return model


def apply(context: Context, **settings: object) -> tuple[nn.Module, Applied]:
    model = copy.deepcopy(trained())
    action = TunedQuantization.model_validate({"strength": STRENGTH, "samples": SAMPLES, **settings})
    return model, TunedQuantizer().apply(model, action, context)


def training_context() -> Context:
    return nets.training_context(nets.task(trained()), EPOCHS)


def loss_of(model: nn.Module) -> float:
    split = nets.digits().train
    with torch.no_grad():
        return float(functional.cross_entropy(answer(model, split.inputs), split.targets))  # type: ignore[arg-type]


def quantized(**settings: object) -> tuple[nn.Module, Applied]:
    """The same quantization, with nothing trained."""
    model = copy.deepcopy(trained())
    given = {"strength": STRENGTH, "samples": SAMPLES, "method": "feedback", **settings}
    action = EntropyQuantization.model_validate(given)
    return model, EntropyQuantizer().apply(model, action, nets.context(nets.task(trained())))


def test_without_epochs_it_is_the_quantization_alone() -> None:
    (plain, one), (tuned, other) = quantized(), apply(nets.context(nets.task(trained())))
    assert nets.same_state(plain.state_dict(), tuned.state_dict())
    assert one.record == other.record
    assert (other.epochs, other.history) == (0, None)


def test_every_weight_stays_on_its_level_and_the_levels_learn() -> None:
    (plain, before), (tuned, after) = quantized(), apply(training_context())
    assert after.epochs == EPOCHS
    assert loss_of(tuned) < 0.9 * loss_of(plain)
    assert nets.accuracy(tuned) >= nets.accuracy(plain)
    moved = 0
    for name in weights_of(tuned):
        old, new = before.codes[name], after.codes[name]
        assert isinstance(old, Codebook)
        assert isinstance(new, Codebook)
        assert torch.equal(old.indices, new.indices)
        assert torch.equal(old.entries == 0, new.entries == 0)
        assert torch.equal(tuned.get_parameter(name).detach(), new.dense())
        moved += not torch.equal(old.entries, new.entries)
    assert moved == len(weights_of(tuned))


def test_biases_are_coded_after_they_have_learned() -> None:
    model, applied = apply(training_context(), biases="8-bit")
    biases = {name: code for name, code in applied.codes.items() if isinstance(code, Affine)}
    assert biases
    for name, code in biases.items():
        assert torch.equal(model.get_parameter(name).detach(), code.dense())


def test_a_run_that_time_ended_comes_to_the_same_again(tmp_path: Path) -> None:
    context = dataclasses.replace(training_context(), checkpoint=lambda part: tmp_path / part)
    stops = iter([False, True])
    stopped, first = apply(dataclasses.replace(context, out_of_time=lambda _: next(stops)))
    resumed, again = apply(context)
    assert (first.epochs, again.epochs) == (2, 2)  # an end for lack of time is an end
    assert nets.same_state(stopped.state_dict(), resumed.state_dict())


def test_transformers_learn_by_adamw_at_a_rate_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Schedule] = []

    def watched(model: nn.Module, *arguments: object) -> object:
        schedule = next(each for each in arguments if isinstance(each, Schedule))
        seen.append(schedule)
        return fit(model, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(run, "fit", watched)
    context = training_context()
    apply(context)
    facts = context.profile.model_copy(update={"architecture": "transformer"})
    apply(dataclasses.replace(context, profile=facts))
    apply(dataclasses.replace(context, profile=facts), tuning_rate=TUNING_RATE / 2)
    assert [schedule.optimizer for schedule in seen] == ["sgd", "adamw", "adamw"]
    rates = [TUNING_RATE, TRANSFORMER_RATE, TRANSFORMER_RATE / 2]
    assert [schedule.lr for schedule in seen] == pytest.approx(rates)


def test_the_search_for_a_size_asks_the_quick_method() -> None:
    action = TunedQuantization(strength=0.3, epochs=3, alpha=0.5)
    assert action.trains
    assert not action.finishes
    assert action.untrained() == TunedQuantization(strength=0.3, method="nearest")
    assert action.variants() == (action,)
    assert set(action.knobs()) == {"tuning_rate", "temperature", "alpha"}
