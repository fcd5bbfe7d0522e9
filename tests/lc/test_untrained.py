from __future__ import annotations

import copy
import dataclasses
import functools
from typing import TYPE_CHECKING

import nets
import pytest
import torch
from torch import nn
from torch.nn import functional

from easycompress.codes.codebook import Codebook
from easycompress.lc.projections.entropy import code_length
from easycompress.lc.settings import EntropyQuantization, bits_at
from easycompress.lc.tasks import weights_of
from easycompress.lc.untrained import NEAR, EntropyQuantizer
from easycompress.training.fit import Hooks, Schedule, fit
from easycompress.training.terms import Labels

if TYPE_CHECKING:
    from easycompress.technique import Applied, Context

METHODS = ("nearest", "feedback")


@functools.cache
def _trained(net: type[nn.Module]) -> nn.Module:
    model = nets.make(net)
    term, schedule = Labels(functional.cross_entropy), Schedule(epochs=15, lr=0.1, batch=32)
    fit(model, nets.digits().train, term, schedule, nets.SPEED, Hooks(nets.accuracy), None)
    return model


def trained(net: type[nn.Module]) -> nn.Module:
    return copy.deepcopy(_trained(net))


@functools.cache
def _context() -> Context:
    return nets.context(nets.task(nets.make(nets.Mlp)))


def apply(model: nn.Module, **settings: object) -> Applied:
    action = EntropyQuantization.model_validate({"samples": 200, **settings})
    return EntropyQuantizer().apply(model, action, dataclasses.replace(_context(), task=nets.task(model)))


def length(applied: Applied, model: nn.Module) -> float:
    codes = [applied.codes[name] for name in weights_of(model)]
    return sum(code_length(code) for code in codes if isinstance(code, Codebook))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("strength", [0.2, 0.45])
def test_the_weights_take_the_bits_of_the_strength(method: str, strength: float) -> None:
    model = trained(nets.LeNet)
    applied = apply(model, method=method, strength=strength)
    count = sum(model.get_parameter(name).numel() for name in weights_of(model))
    budget = bits_at(strength) * count
    assert applied.record["bits"] == bits_at(strength)
    assert applied.record["papers"]["rho_storage_formula"] > 1
    assert (1 - 2 * NEAR) * budget - 32 <= length(applied, model) <= (1 + 2 * NEAR) * budget
    for name, code in applied.codes.items():
        assert torch.equal(model.get_parameter(name).detach(), code.dense())


@pytest.mark.parametrize(("net", "strength", "lost"), [(nets.LeNet, 0.25, 5), (nets.Mlp, 0.3, 4)])
def test_feedback_keeps_more_of_the_accuracy_at_the_same_bits(
    net: type[nn.Module], strength: float, lost: float
) -> None:
    found = {}
    for method in METHODS:
        model = trained(net)
        apply(model, method=method, strength=strength)
        found[method] = nets.accuracy(model)
    assert found["feedback"] > found["nearest"] + 2
    assert found["feedback"] >= nets.accuracy(_trained(net)) - lost


@pytest.mark.parametrize("method", METHODS)
def test_at_little_strength_hardly_anything_is_lost(method: str) -> None:
    model = trained(nets.Residual)
    apply(model, method=method, strength=0.1, biases="8-bit")
    assert nets.accuracy(model) >= nets.accuracy(_trained(nets.Residual)) - 1


@pytest.mark.parametrize("net", [nets.BatchNormed, nets.DepthwiseSeparable, nets.Grouped, nets.ConvOutput])
@pytest.mark.parametrize("method", METHODS)
def test_every_net_can_be_quantized(net: type[nn.Module], method: str) -> None:
    model = nets.make(net)
    applied = apply(model, method=method, samples=64, strength=0.3, biases="8-bit")
    assert set(weights_of(model)) < set(applied.codes)
    assert all(name.endswith("bias") for name in set(applied.codes) - set(weights_of(model)))
    assert torch.isfinite(model(nets.images(4))).all()
    for name, code in applied.codes.items():
        assert torch.equal(model.get_parameter(name).detach(), code.dense())


@pytest.mark.parametrize("method", METHODS)
def test_one_sample_and_weights_of_zero_do_not_fail(method: str) -> None:
    model = trained(nets.LeNet)
    assert apply(model, method=method, samples=1, strength=0.3).codes
    with torch.no_grad():
        for name in weights_of(model):
            model.get_parameter(name).zero_()
    assert apply(model, method=method, strength=0.3).codes
    assert all(int(model.get_parameter(name).count_nonzero()) == 0 for name in weights_of(model))


def test_a_model_without_weights_to_code_is_refused() -> None:
    facts = _context().profile
    action = EntropyQuantization()
    assert EntropyQuantizer().refuses(facts, action) is None
    bare = facts.model_copy(update={"layers": ()})
    assert (
        EntropyQuantizer().refuses(bare, action)
        == "entropy quantization: the model has no convolution and no linear or recurrent layer"
    )
