from __future__ import annotations

import dataclasses

import nets
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from easycompress.core.task import Split, Splits, Task
from easycompress.lc import sensitivity
from easycompress.lc.sensitivity import (
    EXPONENT,
    LEAST,
    MOST,
    TABLE_EXPONENT,
    UNSEEN,
    Sensitivity,
    sensitivities,
    slopes,
)

WIDTH = 6


class Words(nn.Module):
    """The mean of the embeddings of a row of words, 0 being padding; a linear answer."""

    def __init__(self, *, tied: bool = False) -> None:
        super().__init__()
        self.table = nn.Embedding(20, WIDTH)
        self.out = nn.Linear(WIDTH, 20 if tied else 3)
        if tied:
            self.out.weight = self.table.weight

    def forward(self, x: Tensor) -> Tensor:
        there = (x > 0).float()[..., None]
        return self.out((self.table(x) * there).sum(1) / there.sum(1).clamp_min(1))


def words_task(model: nn.Module, train: Tensor) -> Task:
    split = Split(train, torch.zeros(len(train), dtype=torch.long))
    splits = Splits(split, split.take(slice(0, 8)), split, split)
    return dataclasses.replace(nets.task(model), data=splits)


def test_of_a_linear_layer_it_is_the_mean_square_of_its_inputs() -> None:
    torch.manual_seed(0)
    model = nn.Linear(5, 4).eval()
    inputs = torch.randn(600, 5)
    task = dataclasses.replace(
        words_task(model, inputs), loss=functional.mse_loss, data=Splits(*[Split(inputs, None)] * 4)
    )
    found = sensitivities(model, task, ["weight"])["weight"].values
    assert float(found) == pytest.approx(float(inputs[:512].square().mean()), rel=0.15)


def test_what_all_scores_have_in_common_does_not_count() -> None:
    torch.manual_seed(0)
    model = nets.make(nets.Mlp)
    name = list(dict(model.named_parameters()))[-2]
    found = sensitivities(model, nets.task(model), [name])[name].values

    class Shifted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = model

        def forward(self, x: Tensor) -> Tensor:
            answers = self.net(x)
            return answers + 100 * answers.detach().mean(1, keepdim=True)

    shifted = Shifted().eval()
    other = sensitivities(shifted, nets.task(shifted), [f"net.{name}"])[f"net.{name}"].values
    assert torch.allclose(found, other, rtol=1e-4)


def test_rows_of_a_table_count_as_often_as_the_training_data_ask_for_them() -> None:
    torch.manual_seed(0)
    model = Words().eval()
    train = torch.zeros(64, 4, dtype=torch.long)
    train[:, 0], train[::4, 1], train[40, 2] = 1, 2, 3  # the last one is in no calibration sample
    found = sensitivities(model, words_task(model, train), ["table.weight", "out.weight"])
    rows = found["table.weight"]
    assert rows.by_row
    assert not found["out.weight"].by_row
    unseen = rows.values[10]
    assert unseen > 0
    expected = torch.tensor([0, 64, 16, 1]) + UNSEEN  # padding is asked for often, without effect
    assert torch.allclose(rows.values[:4] / unseen, expected.double() / UNSEEN)


def test_a_tied_table_keeps_what_was_measured() -> None:
    torch.manual_seed(0)
    model = Words(tied=True).eval()
    train = torch.ones(64, 4, dtype=torch.long)
    rows = sensitivities(model, words_task(model, train), ["table.weight"])["table.weight"].values
    assert bool((rows[2:] > 0).all())
    assert float(rows[1]) > 2 * float(rows[2:].mean())


def test_without_training_data_the_calibration_samples_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(sensitivity, "SAMPLES", 8)
    model = Words().eval()
    inputs = torch.ones(8, 4, dtype=torch.long)
    task = words_task(model, inputs)
    empty = Split(inputs[:0], None)
    task = dataclasses.replace(task, data=dataclasses.replace(task.data, train=empty))
    rows = sensitivities(model, task, ["table.weight"])["table.weight"].values
    assert float(rows[1]) > float(rows[2]) > 0


def test_the_model_stays_as_it_was() -> None:
    model = nets.make(nets.LeNet).eval()
    name = next(name for name, _ in model.named_parameters())
    for parameter in model.parameters():
        parameter.requires_grad_(requires_grad=False)
    before = model.get_parameter(name).clone()
    sensitivities(model, nets.task(model), [name])
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(before, model.get_parameter(name))


def test_answers_without_derivative_tell_nothing() -> None:
    class Rounded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nets.make(nets.Mlp)

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x).detach()

    model = Rounded().eval()
    assert sensitivities(model, nets.task(model), [f"net.{n}" for n, _ in model.net.named_parameters()][:1]) == {}


def test_slopes_have_the_geometric_mean_one_and_fall_with_the_sensitivity() -> None:
    found = {"a": Sensitivity(torch.tensor(4.0)), "b": Sensitivity(torch.tensor(1.0))}
    made = slopes(found, {"a": 30, "b": 10, "c": 7})
    assert float(made["c"]) == 1
    assert float(made["b"] / made["a"]) == pytest.approx(4**EXPONENT)
    assert float(30 * made["a"].log() + 10 * made["b"].log()) == pytest.approx(0, abs=1e-5)


def test_rows_of_a_table_follow_their_sensitivity_further() -> None:
    found = {"a": Sensitivity(torch.tensor(4.0)), "b": Sensitivity(torch.tensor([1.0, 8.0]))}
    made = slopes(found, {"a": 30, "b": 10})
    assert float(made["b"][1]) < float(made["a"]) < float(made["b"][0])
    assert float(made["b"][0] / made["b"][1]) == pytest.approx(8**TABLE_EXPONENT)


def test_a_layer_that_nothing_depends_on_keeps_a_finite_slope() -> None:
    made = slopes({"a": Sensitivity(torch.tensor(0.0)), "b": Sensitivity(torch.tensor(1.0))}, {"a": 1, "b": 1})
    assert float(made["a"]) == MOST
    assert float(made["b"]) == LEAST
