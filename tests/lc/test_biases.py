from __future__ import annotations

import math

import nets
import pytest
import torch
from torch import nn

from easycompress.codes.affine import Affine
from easycompress.core.errors import BadInput
from easycompress.lc.biases import coded_biases


def test_the_biases_of_layers_are_stored_in_8_bits_with_a_scale_each() -> None:
    model = nets.make(nets.BatchNormed)
    before = nets.state(model)
    codes = coded_biases(model)
    assert set(codes) == {"features.4.bias", "hidden.bias", "output.bias"}  # neither norms' nor those that aren't there
    for name, code in codes.items():
        assert isinstance(code, Affine)
        bias = model.get_parameter(name).detach()
        assert torch.equal(bias, code.dense())
        assert code.bits() == 8 * len(bias) + 32
        step = float(before[name].abs().max()) / 127
        assert float((bias - before[name]).abs().max()) <= 0.5 * step * (1 + 1e-5)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == set(codes)


def test_what_is_coded_is_coded_to_itself() -> None:
    model = nets.make(nets.LeNet)
    coded_biases(model)
    once = nets.state(model)
    coded_biases(model)
    assert all(torch.allclose(value, once[name], rtol=1e-6) for name, value in model.state_dict().items())


def test_zero_biases_and_layers_that_are_the_model_itself() -> None:
    model = nn.Linear(3, 2)
    nn.init.zeros_(model.bias)
    assert coded_biases(model)["bias"].dense().tolist() == [0.0, 0.0]
    assert coded_biases(nn.Linear(3, 2, bias=False)) == {}
    assert coded_biases(nn.ReLU()) == {}


def test_nan_is_refused_with_the_name() -> None:
    model = nets.make(nets.Mlp)
    with torch.no_grad():
        model.get_parameter("hidden2.bias")[1] = math.nan
    with pytest.raises(BadInput, match=r"hidden2\.bias holds NaN or infinity"):
        coded_biases(model)
