from __future__ import annotations

import math

import nets
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from easycompress.core.task import Split
from easycompress.training import terms
from easycompress.training.terms import Distil, Labels, Teacher, make_teacher, soft_loss

TEMPERATURES = [0.5, 1.0, 2.0, 8.0]


def logits(seed: int, count: int = 6) -> Tensor:
    return 3 * torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_soft_loss_is_the_divergence_by_hand(temperature: float) -> None:
    student, teacher = logits(1), logits(2)
    expected = 0.0
    for row_student, row_teacher in zip(student.tolist(), teacher.tolist(), strict=True):
        q = [math.exp(v / temperature) for v in row_student]
        p = [math.exp(v / temperature) for v in row_teacher]
        q, p = [v / sum(q) for v in q], [v / sum(p) for v in p]
        expected += sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True))
    expected *= temperature**2 / len(student)
    assert float(soft_loss(student, teacher, temperature)) == pytest.approx(expected, rel=1e-4)


def test_soft_loss_is_torchs_with_log_probabilities() -> None:
    student, teacher = logits(1), logits(2)
    expected = functional.kl_div(student.log_softmax(1), teacher.softmax(1), reduction="batchmean")
    assert torch.allclose(soft_loss(student, teacher, 1.0), expected)


def test_soft_loss_is_zero_at_the_teacher_only() -> None:
    teacher = logits(2)
    assert float(soft_loss(teacher + 5.0, teacher, 2.0)) == pytest.approx(0.0, abs=1e-5)  # logits up to a constant
    assert float(soft_loss(logits(3), teacher, 2.0)) > 0.01


def test_the_gradient_keeps_its_scale_at_high_temperatures() -> None:
    """Hinton et al., section 2.1: at high T the gradient is (z - v) / N for centred logits, whatever T is."""
    student, teacher = logits(1, count=1), logits(2, count=1)
    student, teacher = student - student.mean(), teacher - teacher.mean()
    for temperature in (50.0, 200.0):
        free = student.clone().requires_grad_()
        soft_loss(free, teacher, temperature).backward()
        assert free.grad is not None
        assert torch.allclose(free.grad, (student - teacher) / 4, atol=0.05)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_the_optimum_is_the_teachers_distribution(temperature: float) -> None:
    target = torch.tensor([0.46, 0.28, 0.17, 0.09])
    teacher = target.log()[None]
    free = torch.zeros(1, 4, requires_grad=True)
    optimizer = torch.optim.LBFGS([free], max_iter=200, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = soft_loss(free, teacher, temperature)
        loss.backward()
        return loss

    optimizer.step(closure)
    assert torch.allclose(free.softmax(1)[0], target, atol=2e-3)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_combined_is_the_weighted_sum_of_its_parts(alpha: float) -> None:
    student, teacher, targets = logits(1), logits(2), torch.tensor([0, 1, 2, 3, 0, 1])
    hard = Labels(functional.cross_entropy)
    places = torch.arange(6)
    term = Distil("combined", Teacher(torch.nn.Identity(), teacher), hard, 2.0, alpha)
    expected = alpha * functional.cross_entropy(student, targets) + (1 - alpha) * soft_loss(student, teacher, 2.0)
    assert torch.allclose(term(student, targets, student, places), expected)


def test_soft_ignores_labels_and_hard_ignores_the_teacher() -> None:
    student, teacher, targets = logits(1), logits(2), torch.tensor([0, 1, 2, 3, 0, 1])
    hard, places = Labels(functional.cross_entropy), torch.arange(6)
    soft = Distil("soft", Teacher(torch.nn.Identity(), teacher), hard, 2.0, 0.5)
    assert torch.equal(soft(student, None, student, places), soft_loss(student, teacher, 2.0))
    assert torch.equal(hard(student, targets, teacher, places), functional.cross_entropy(student, targets))


def test_the_teacher_remembers_what_it_would_answer() -> None:
    model = nets.make(nets.BatchNormed)
    split = nets.digits().train
    cached, live = make_teacher(model, split, cache=True), make_teacher(model, split, cache=False)
    assert cached.logits is not None
    assert live.logits is None
    places = torch.tensor([3, 800, 17])
    expected = live(split.inputs[places], places)
    assert torch.allclose(cached(split.inputs[places], places), expected, atol=1e-5)
    assert not expected.requires_grad
    assert not cached.logits.requires_grad


def test_answers_that_do_not_fit_in_memory_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    split = nets.digits().train
    model = nets.make(nets.Mlp)
    monkeypatch.setattr(terms, "CACHE_BYTES", len(split) * nets.CLASSES * 4)
    assert make_teacher(model, split, cache=True).logits is not None
    monkeypatch.setattr(terms, "CACHE_BYTES", len(split) * nets.CLASSES * 4 - 1)
    assert make_teacher(model, split, cache=True).logits is None


def test_no_data_needs_no_teacher() -> None:
    assert make_teacher(nets.make(nets.Mlp), Split(torch.empty(0, *nets.SHAPE), None), cache=True).logits is None
