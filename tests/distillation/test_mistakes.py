"""What went wrong in a code base before this one, each as a test."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import nets
import numpy as np
import pytest
import torch

from easycompress.core import inputs
from easycompress.distillation.settings import Distillation
from easycompress.distillation.technique import Distiller
from easycompress.executor import trainer
from easycompress.pruning.settings import StructuredPruning
from easycompress.pruning.technique import StructuredPruner
from easycompress.training.terms import soft_loss

if TYPE_CHECKING:
    from torch import Tensor, nn


def settled(loss_of: float, logits: Tensor) -> Tensor:
    """Return the distribution that a student of free logits arrives at, taught by `logits` at a temperature."""
    free = torch.zeros_like(logits, requires_grad=True)
    optimizer = torch.optim.SGD([free], lr=1.0)
    for _ in range(300):
        optimizer.zero_grad()
        soft_loss(free, logits, loss_of).backward()
        optimizer.step()
    return free.detach().softmax(1)


def test_the_divergence_takes_log_probabilities() -> None:
    """Fed with probabilities, a student's best answer is all on one class, whatever the teacher says."""
    taught = torch.tensor([[0.46, 0.28, 0.17, 0.09]])
    assert torch.allclose(settled(1.0, taught.log()), taught, atol=1e-3)
    assert torch.allclose(settled(2.0, taught.log()), taught, atol=1e-3)


def test_what_is_trained_is_what_pruning_left() -> None:
    """An optimizer made before pruning holds the removed parameters: the pruned layers then stand still."""
    model = nets.make(nets.BatchNormed)
    work = nets.task(model)
    pruning = StructuredPruning(strength=0.4, steps=1)
    student = StructuredPruner().apply(copy.deepcopy(model), pruning, nets.context(work)).model
    before = {name: value.detach().clone() for name, value in student.named_parameters()}
    narrower = [name for name, value in before.items() if value.shape != model.get_parameter(name).shape]
    assert len(narrower) > 4
    scores = iter([0.0, 1.0])
    context = nets.training_context(work, 1, evaluate=lambda _: next(scores))
    trained = Distiller().apply(student, Distillation(mode="budget"), context).model
    still = [name for name, value in trained.named_parameters() if torch.equal(value, before[name])]
    # What a batch norm behind it subtracts again gets no gradient, or one of rounding errors: those biases don't count.
    assert set(still) <= {"features.4.bias", "hidden.bias"}


@pytest.mark.parametrize("mode", ["target", "budget"])
def test_the_epoch_that_reaches_the_target_is_kept(mode: str) -> None:
    seen: list[dict[str, Tensor]] = []
    scores = [10.0, 40.0, 90.0, 60.0]

    def evaluate(model: nn.Module) -> float:
        seen.append(nets.state(model))
        return scores[len(seen) - 1]

    work = nets.task(nets.make(nets.Mlp))
    context = nets.training_context(work, 3, evaluate=evaluate, enough=lambda score: score >= 90.0)
    action = Distillation.model_validate({"mode": mode})
    result = Distiller().apply(nets.make(nets.Mlp, seed=1), action, context)
    assert result.history is not None
    assert (result.history.best, result.history.best_epoch) == (90.0, 1)
    assert len(seen) == (3 if mode == "target" else 4)  # the start counts as one
    assert nets.same_state(result.model.state_dict(), seen[2])


def test_accuracy_is_a_mean_over_samples_not_over_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """400 samples in batches of 399: the last one's answer must weigh a 400th, not half."""
    monkeypatch.setattr(inputs, "CHUNK_SAMPLES", 399)
    model = nets.make(nets.LeNet)
    work = nets.task(model)
    judge = object.__new__(trainer.Trainer)
    judge.task = work
    quality = judge.evaluate(model)
    select = work.data.select
    assert len(select) == 400
    with torch.no_grad():
        right = (model(select.inputs).argmax(1) == select.targets).double().numpy()
    assert quality == pytest.approx(100 * right.mean())
    assert abs(quality - 50 * (right[:399].mean() + right[399])) > 1
    assert np.array_equal(judge._scores, right)
