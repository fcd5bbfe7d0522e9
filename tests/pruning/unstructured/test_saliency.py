from __future__ import annotations

import nets
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from easycompress.core.errors import CannotCompress
from easycompress.core.task import Split
from easycompress.pruning.unstructured import saliency
from easycompress.pruning.unstructured.saliency import curvature_diagonal, obd
from easycompress.pruning.unstructured.technique import prunable

STEP = 1e-4


def few(count: int = 5) -> Split:
    data = nets.digits().train.take(slice(0, count))
    assert isinstance(data.inputs, Tensor)
    return Split(data.inputs.double(), data.targets)


def second_difference(model: nn.Module, weight: Tensor, place: int, split: Split) -> float:
    """(L(w + e) - 2 L(w) + L(w - e)) / e^2 of the mean loss by one weight."""
    losses = []
    with torch.no_grad():
        flat = weight.view(-1)
        own = flat[place].item()
        for shift in (STEP, 0.0, -STEP):
            flat[place] = own + shift
            losses.append(float(functional.cross_entropy(model(split.inputs), split.targets)))
        flat[place] = own
    return (losses[0] - 2 * losses[1] + losses[2]) / STEP**2


@pytest.mark.parametrize("net", [nets.LeNet, nets.BatchNormed], ids=lambda n: n.__name__)
def test_it_is_the_hessians_diagonal_where_outputs_are_piecewise_linear(net: type[nn.Module]) -> None:
    model, split = nets.make(net).double(), few()
    weights = prunable(model)
    diagonal = curvature_diagonal(model, weights, split, functional.cross_entropy)
    seen = 0.0
    for name, weight in weights.items():
        places = range(0, weight.numel(), max(weight.numel() // 6, 1))
        expected = [second_difference(model, weight, place, split) for place in places]
        assert [float(diagonal[name].view(-1)[place]) for place in places] == pytest.approx(
            expected, rel=2e-3, abs=1e-6
        )
        seen += sum(expected)
    assert seen > 0.01  # not all of them dead units


def test_before_a_tanh_it_leaves_out_the_outputs_own_curvature() -> None:
    model, split = nets.make(nets.Mlp).double(), few()
    weights = prunable(model)
    diagonal = curvature_diagonal(model, weights, split, functional.cross_entropy)
    assert float(diagonal["output.weight"].view(-1)[3]) == pytest.approx(
        second_difference(model, weights["output.weight"], 3, split), rel=1e-3, abs=1e-6
    )
    place = int(diagonal["hidden1.weight"].argmax())
    exact = second_difference(model, weights["hidden1.weight"], place, split)
    assert abs(float(diagonal["hidden1.weight"].view(-1)[place]) - exact) > 1e-3 * abs(exact)
    assert all(bool((value >= 0).all()) for value in diagonal.values())


def test_the_saliency_is_half_the_curvature_times_the_square() -> None:
    model, split = nets.make(nets.LeNet).double(), few()
    weights = prunable(model)
    diagonal = curvature_diagonal(model, weights, split, functional.cross_entropy)
    cost = obd(model, weights, split, functional.cross_entropy)
    assert torch.equal(cost["fc2.weight"], diagonal["fc2.weight"] * weights["fc2.weight"].detach() ** 2 / 2)


def test_with_many_outputs_it_is_the_mean_square_of_the_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saliency, "MOST_OUTPUTS", 9)
    model, split = nets.make(nets.Mlp).double(), few()
    weights = prunable(model)
    diagonal = curvature_diagonal(model, weights, split, functional.cross_entropy)
    squares = torch.zeros_like(weights["hidden2.weight"])
    for inputs, targets in split.batches(1):
        (slope,) = torch.autograd.grad(functional.cross_entropy(model(inputs), targets), weights["hidden2.weight"])
        squares += slope**2 / len(split)
    assert torch.allclose(diagonal["hidden2.weight"], squares)


class Branching(nn.Module):
    """Control flow on values, which no batching over samples can follow."""

    def __init__(self) -> None:
        super().__init__()
        self.output = nn.Linear(64, nets.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.output(x.flatten(1))
        return logits if float(x.sum()) > -1e9 else -logits


def test_samples_that_cant_be_taken_together_are_taken_one_by_one() -> None:
    torch.manual_seed(0)
    model, split = Branching().double(), few(3)
    plain = nn.Sequential(nn.Flatten(1), model.output)
    one_by_one = curvature_diagonal(model, prunable(model), split, functional.cross_entropy)
    together = curvature_diagonal(plain, prunable(plain), split, functional.cross_entropy)
    assert torch.allclose(one_by_one["output.weight"], together["1.weight"])


def test_no_finite_curvature_is_said() -> None:
    model, split = nets.make(nets.Mlp).double(), few(2)
    with pytest.raises(CannotCompress, match="obd: the loss has no finite curvature here; use criterion magnitude"):
        obd(model, prunable(model), split, lambda z, _: z.sum() ** 2 / (z - z).sum())
