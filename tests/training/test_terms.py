from __future__ import annotations

import math

import nets
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from easycompress.core.errors import BadInput
from easycompress.core.task import Split
from easycompress.training import terms
from easycompress.training.terms import (
    IGNORED,
    Distil,
    Labels,
    Teacher,
    class_dimension,
    make_teacher,
    soft_loss,
    spread_of,
    value_loss,
)

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


@pytest.mark.parametrize(
    ("outputs", "targets", "expected"),
    [
        ((6, 10), (6,), 1),
        ((6, 10), None, 1),
        ((6, 7, 10), (6, 7), 2),  # tokens
        ((6, 10, 7), (6, 7), 1),  # torch's own order
        ((6, 7, 10), None, 2),
        ((6, 7, 2), (6, 2), 1),  # question answering: the tokens are the classes of start and end
        ((6, 2, 7), (6, 2), 2),
        ((6, 5, 8, 9), (6, 8, 9), 1),  # dense
        ((6, 8, 9, 5), (6, 8, 9), 3),
        ((6, 5, 8, 9), None, 1),
        ((6, 7, 7), (6, 7), 2),  # both fit
        ((6, 5, 8, 8), (6, 5, 8), 3),  # two fit, the usual one doesn't
        ((6, 10), (6, 10), 1),  # none fits: several labels a sample
        ((6, 7), (6, 2), 1),
    ],
)
def test_the_classes_are_the_dimension_that_targets_lack(
    outputs: tuple[int, ...], targets: tuple[int, ...] | None, expected: int
) -> None:
    assert class_dimension(outputs, targets) == expected


def test_one_number_a_sample_has_no_classes() -> None:
    with pytest.raises(
        BadInput, match=r"^distillation: the model gives one number a sample, .*use technique hard, or "
    ):
        soft_loss(torch.zeros(4), torch.zeros(4), 2.0)


SHAPES = [
    ((6, 4), (6,), 1),
    ((3, 5, 4), (3, 5), 2),
    ((3, 4, 5), (3, 5), 1),
    ((3, 5, 2), (3, 2), 1),
    ((3, 2, 5), (3, 2), 2),
    ((2, 4, 3, 5), (2, 3, 5), 1),
]


def drawn(shape: tuple[int, ...], classes: int, share: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """Return a student's and a teacher's logits and targets, `share` of them ignored."""
    generator = torch.Generator().manual_seed(7)
    student, teacher = (3 * torch.randn(*shape, generator=generator) for _ in range(2))
    rest = (*shape[:classes], *shape[classes + 1 :])
    targets = torch.randint(0, shape[classes], rest, generator=generator)
    return student, teacher, targets.masked_fill(torch.rand(rest, generator=generator) < share, IGNORED)


@pytest.mark.parametrize(("shape", "targets", "classes"), SHAPES)
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_every_position_is_a_sample_of_its_own(
    shape: tuple[int, ...], targets: tuple[int, ...], classes: int, temperature: float
) -> None:
    student, teacher, labels = drawn(shape, classes)
    assert labels.shape == targets
    rows = [t.movedim(classes, -1).reshape(-1, shape[classes]) / temperature for t in (student, teacher)]
    divergence = functional.kl_div(rows[0].log_softmax(1), rows[1].softmax(1), reduction="batchmean")
    loss = soft_loss(student, teacher, temperature, labels)
    assert torch.allclose(loss, temperature**2 * divergence, rtol=1e-4)


@pytest.mark.parametrize(("shape", "targets", "classes"), SHAPES)
def test_a_certain_teacher_is_the_label(shape: tuple[int, ...], targets: tuple[int, ...], classes: int) -> None:
    """A teacher who is sure of the targets teaches what cross-entropy does, and ignores what it ignores."""
    student, _, labels = drawn(shape, classes, share=0.4)
    assert labels.shape == targets
    assert 0 < int((labels == IGNORED).sum()) < labels.numel()
    certain = 1e4 * functional.one_hot(labels.clamp_min(0), shape[classes]).float().movedim(-1, classes)
    rows = student.movedim(classes, -1).reshape(-1, shape[classes])
    expected = functional.cross_entropy(rows, labels.reshape(-1))
    assert torch.allclose(soft_loss(student, certain, 1.0, labels), expected, rtol=1e-4)


def test_ignored_positions_teach_nothing() -> None:
    student, teacher, labels = drawn((3, 5, 4), 2, share=0.4)
    ignored = labels == IGNORED
    student.requires_grad_()
    loss = soft_loss(student, teacher, 2.0, labels)
    loss.backward()
    assert student.grad is not None
    assert (student.grad[ignored] == 0).all()
    assert (student.grad[~ignored].abs().sum(1) > 0).all()
    changed = teacher.masked_fill(ignored[..., None], 50.0)
    assert torch.equal(soft_loss(student, changed, 2.0, labels), loss)
    assert float(soft_loss(student.detach(), teacher, 2.0, torch.full_like(labels, IGNORED))) == 0.0


@pytest.mark.parametrize(("shape", "targets", "classes"), SHAPES)
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_nothing_pulls_where_the_student_is_the_teacher(
    shape: tuple[int, ...], targets: tuple[int, ...], classes: int, temperature: float
) -> None:
    _, teacher, labels = drawn(shape, classes)
    assert labels.shape == targets
    free = teacher.clone().requires_grad_()
    soft_loss(free, teacher, temperature, labels).backward()
    assert free.grad is not None
    assert float(free.grad.abs().max()) < 1e-6


def test_low_temperatures_teach_the_best_class_and_high_ones_all() -> None:
    """T -> 0: the teacher's argmax alone; T -> infinity: half the squared distance of centred logits, over C."""
    student, teacher = logits(1), logits(2)
    cold = 0.01
    expected = functional.cross_entropy(student / cold, teacher.argmax(1)) * cold**2
    assert torch.allclose(soft_loss(student, teacher, cold), expected, rtol=1e-3)
    difference = (student - student.mean(1, keepdim=True)) - (teacher - teacher.mean(1, keepdim=True))
    expected = difference.square().sum(1).mean() / (2 * 4)
    assert torch.allclose(soft_loss(student.double(), teacher.double(), 1e3), expected.double(), rtol=1e-2)


@pytest.mark.parametrize("shape", [(50,), (50, 1), (50, 3), (50, 3, 4)])
def test_values_are_compared_in_units_of_the_teachers_variance(shape: tuple[int, ...]) -> None:
    teacher = 7 + 5 * torch.randn(*shape, generator=torch.Generator().manual_seed(1))
    mean = teacher.mean(0, keepdim=True).expand_as(teacher)
    assert float(value_loss(mean, teacher, spread_of(teacher))) == pytest.approx(1.0, rel=1e-5)  # nothing is explained
    assert float(value_loss(teacher, teacher, spread_of(teacher))) == 0.0
    thousands = 1000 * teacher
    assert spread_of(thousands) == pytest.approx(1e6 * spread_of(teacher), rel=1e-4)
    assert spread_of(torch.full(shape, 3.0)) == 1.0  # a constant has no unit of its own


@pytest.mark.parametrize("remembered", [True, False])
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_combined_values_weigh_alike_whatever_their_unit(*, remembered: bool, scale: float) -> None:
    generator = torch.Generator().manual_seed(2)
    student, answers, targets = (torch.randn(8, 3, generator=generator) for _ in range(3))
    teacher = Teacher(torch.nn.Identity(), scale * answers if remembered else None)
    hard, places = Labels(functional.mse_loss), torch.arange(8)
    term = Distil("combined", teacher, hard, 2.0, 0.25, "values")
    loss = term(scale * student, scale * targets, scale * answers, places)
    errors = 0.25 * functional.mse_loss(student, targets) + 0.75 * functional.mse_loss(student, answers)
    assert torch.allclose(loss, errors / answers.var(0, correction=0).mean(), rtol=1e-4)
    soft = Distil("soft", teacher, hard, 2.0, 0.25, "values")
    expected = functional.mse_loss(student, answers) / answers.var(0, correction=0).mean()
    assert torch.allclose(soft(scale * student, None, scale * answers, places), expected, rtol=1e-4)


def test_the_unit_is_that_of_all_answers_where_they_are_remembered() -> None:
    answers = torch.tensor([[0.0], [0.1], [10.0], [10.1]])
    term = Distil("soft", Teacher(torch.nn.Identity(), answers), Labels(functional.mse_loss), 2.0, 0.5, "values")
    places = torch.tensor([0, 1])
    loss = term(answers[places] + 1, None, answers[places], places)
    assert float(loss) == pytest.approx(1 / spread_of(answers))


def test_labels_are_asked_for_in_one_line() -> None:
    with pytest.raises(BadInput, match=r"^training: the training data has no labels to learn from; use distill[^\n]*$"):
        Labels(functional.cross_entropy)(logits(1), None, logits(1), torch.arange(6))


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
