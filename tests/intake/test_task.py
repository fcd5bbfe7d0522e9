"""Model and data are checked against each other before any work is done."""

from __future__ import annotations

import math
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from easycompress.core.errors import BadInput
from easycompress.core.request import Request
from easycompress.core.task import Split, Task
from easycompress.intake.data import Raw
from easycompress.intake.task import check_forward, find_loss, find_metric, make_task
from easycompress.metrics import LOSSES, METRICS

CLASSES = 3

OWN = """
import torch

def closeness(outputs, targets): return -(outputs.argmax(1) - targets).abs()
def error(outputs, targets): return (outputs - targets.float()).abs().mean(1)
error.higher_is_better = False
def whole(outputs, targets): return 0.5
whole.corpus = True
def one_number(outputs, targets): return (outputs.argmax(1) == targets).float().mean()
def nan(outputs, targets): return torch.full((len(outputs),), float("nan"))
def fails(outputs, targets): raise ZeroDivisionError("by zero")
def weighted(outputs, targets): return torch.nn.functional.cross_entropy(outputs, targets, label_smoothing=0.1)
def per_sample(outputs, targets): return torch.nn.functional.cross_entropy(outputs, targets, reduction="none")
def plain(outputs, targets): return 0.5
def detached(outputs, targets): return torch.nn.functional.cross_entropy(outputs.detach(), targets)
"""


@pytest.fixture
def base(tmp_path: Path) -> Path:
    (tmp_path / "own.py").write_text(OWN)
    return tmp_path


class Lambda(nn.Module):
    """A linear net whose output goes through `after`."""

    def __init__(self, after: Any, outputs: int = CLASSES) -> None:
        super().__init__()
        self.linear = nn.Linear(4, outputs)
        self.after = after

    def forward(self, x: Tensor) -> Any:
        return self.after(self.linear(x))


def samples(number: int = 12, shape: tuple[int, ...] = (4,), targets: Tensor | None = None) -> Split:
    return Split(torch.randn(number, *shape), torch.arange(number) % CLASSES if targets is None else targets)


def raw(**options: Any) -> Raw:
    return Raw(samples(**options), samples(**options), samples(**options))


def make(model: nn.Module | None = None, data: Raw | None = None, base: Path | None = None, **settings: Any) -> Task:
    model = nn.Linear(4, CLASSES) if model is None else model
    return make_task(model, data or raw(), Request(model="m", **settings), base or Path())


def refused(*arguments: Any, **options: Any) -> str:
    with pytest.raises(BadInput) as caught:
        make(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---------------------------------------------------------------- what a task is


def test_the_callers_model_is_copied() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, CLASSES)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    task = make(model)
    assert task.model is not model
    assert model.training
    assert not task.model.training
    with torch.no_grad():
        next(task.model.parameters()).zero_()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_half_precision_becomes_float32_in_the_copy_only() -> None:
    model = nn.Linear(4, CLASSES).half()
    assert {p.dtype for p in make(model).model.parameters()} == {torch.float32}
    assert {p.dtype for p in model.parameters()} == {torch.float16}


def test_example_checkpoint_and_notes() -> None:
    data = raw()
    task = make_task(nn.Linear(4, CLASSES), data, Request(model="m"), Path(), 123, ("read from a file",))
    assert data.validation is not None
    assert torch.equal(task.example, data.validation.inputs[:2])
    assert (task.checkpoint_bytes, task.notes) == (123, ("read from a file",))
    assert task.augment is None
    assert task.metric.name == "accuracy"


def test_samples_that_splits_share_are_noted_and_kept() -> None:
    train, validation = samples(), samples()
    validation.inputs[3] = train.inputs[5]
    data = Raw(train, validation, samples())
    task = make_task(nn.Linear(4, CLASSES), data, Request(model="m"), Path(), None, ("read from a file",))
    assert task.notes[0] == "read from a file"
    assert task.notes[1].startswith("1 of the 12 select samples is also in train (the same inputs, byte for byte); ")
    assert len(task.notes) == 2
    assert [len(split) for split in (task.data.train, task.data.select, task.data.report)] == [12, 12, 12]


def test_one_sample_to_select_on_still_makes_an_example_of_two() -> None:
    data = Raw(samples(), samples(1), samples())
    assert data.validation is not None
    assert torch.equal(make(data=data).example, data.validation.inputs.repeat(2, 1))


# ---------------------------------------------------------------- weights


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_weights_that_are_not_finite(bad: float) -> None:
    head = nn.Linear(4, CLASSES)
    with torch.no_grad():
        head.weight[0, :2] = bad
    assert (
        refused(nn.Sequential(nn.Linear(4, 4), head))
        == "model: 1.weight holds 2 values that are NaN or infinite; repair the checkpoint"
    )


def test_buffers_are_weights_too() -> None:
    norm = nn.BatchNorm1d(4)
    model = nn.Sequential(nn.Linear(4, 4), norm, nn.Linear(4, CLASSES))
    assert norm.running_var is not None
    norm.running_var[3] = math.inf
    assert refused(model) == "model: 1.running_var holds 1 values that are NaN or infinite; repair the checkpoint"


def test_a_model_that_cannot_be_copied() -> None:
    model = nn.Linear(4, CLASSES)
    model.lock = threading.Lock()  # type: ignore[assignment] # as users do
    text = refused(model)
    assert text.startswith("the model can't be copied (cannot pickle '_thread.lock' object)")
    assert text.endswith("; build it anew and load its state dict before this")


# ---------------------------------------------------------------- shapes


def test_samples_of_another_shape() -> None:
    text = refused(data=raw(shape=(5,)))
    assert text.startswith("the model doesn't take samples of shape (5,): ")
    assert text.endswith("; check --data against the model")


@pytest.mark.parametrize("error", [AssertionError("image size"), KeyError("x"), AttributeError("no y"), ValueError()])
def test_whatever_the_users_forward_raises(error: Exception) -> None:
    def after(_: Tensor) -> Tensor:
        raise error

    assert refused(Lambda(after)).startswith("the model doesn't take samples of shape (4,): ")


@pytest.mark.parametrize(
    ("after", "text"),
    [
        (lambda x: x.sum(), "the model returns shape () for 2 samples; it must return one answer a sample, (N, ...)"),
        (
            lambda _: {"loss": None},
            (
                "the model returns a dict; it must return a tensor (N, C), or a tuple or dict of them "
                "whose first is its answer"
            ),
        ),
        (lambda x: x.T, "the model returns shape (3, 2) for 2 samples; it must return one answer a sample, (N, ...)"),
        (
            lambda x: x.argmax(1, keepdim=True),
            "the model returns int64 numbers; it must return floating point scores, before any argmax",
        ),
        (
            lambda x: x / 0,
            "the model's outputs for the first samples are NaN or infinite; check the weights and --mean, --std",
        ),
    ],
)
def test_outputs_that_are_no_scores(after: Any, text: str) -> None:
    assert refused(Lambda(after)) == text


def test_accuracy_needs_class_scores() -> None:
    assert refused(Lambda(lambda x: x[:, :, None, None].expand(-1, -1, 2, 5))) == (
        "--metric accuracy: takes class scores, (N, C), but the model returns (N, 3, 2, 5); "
        "use --metric file.py:function"
    )
    assert refused(Lambda(lambda x: x.sum(1)), metric="accuracy").startswith(
        "--metric accuracy: takes class scores, (N, C), but the model returns (N,); use --metric mse for values"
    )


def test_check_forward_returns_the_outputs_without_a_graph() -> None:
    outputs = check_forward(nn.Linear(4, CLASSES), torch.zeros(2, 4))
    assert outputs.shape == (2, CLASSES)
    assert not outputs.requires_grad


# ---------------------------------------------------------------- labels


def test_labels_outside_the_classes() -> None:
    text = refused(data=raw(targets=torch.arange(12)))
    assert text.startswith("train: label 3, but the model has 3 outputs, so labels are 0..2; ")


def test_labels_count_for_a_users_metric_too_where_the_loss_takes_classes(base: Path) -> None:
    assert "so labels are 0..2" in refused(data=raw(targets=torch.arange(12)), base=base, metric="own.py:closeness")


def test_several_labels_a_sample() -> None:
    assert refused(data=raw(targets=torch.zeros(12, 2, dtype=torch.long))) == (
        "--metric accuracy: takes one label a sample, (N,), but the targets are (12, 2); use --metric file.py:function"
    )


def test_no_labels() -> None:
    data = Raw(samples(), Split(torch.randn(6, 4), None), samples())
    assert refused(data=data).startswith("validation: no labels; add them, or use --metric agreement")


# ---------------------------------------------------------------- agreement


def test_agreement_needs_no_labels_and_asks_the_model() -> None:
    data = Raw(*(Split(torch.randn(number, 4), None) for number in (20, 10, 10)))
    task = make(data=data, metric="agreement")
    for split in (task.data.train, task.data.calibration, task.data.select, task.data.report):
        assert split.targets is not None
        assert torch.equal(split.targets, task.model(split.inputs).argmax(1))
        assert split.targets.dtype == torch.int64
    assert task.metric.quality(task.metric.scores(task.model(task.data.report.inputs), task.data.report.targets)) == 100  # type: ignore[arg-type] # checked above


def test_agreement_ignores_labels_that_fit_no_class() -> None:
    task = make(data=raw(targets=torch.arange(12) + 50), metric="agreement")
    assert task.data.select.targets is not None
    assert int(task.data.select.targets.max()) < CLASSES


def test_agreement_without_training_data() -> None:
    data = Raw(None, Split(torch.randn(10, 4), None), Split(torch.randn(10, 4), None))
    task = make(data=data, metric="agreement")
    assert len(task.data.train) == 0
    assert task.data.train.targets is not None
    assert task.data.train.targets.dtype == torch.int64


# ---------------------------------------------------------------- metrics and losses


def test_unknown_metric_and_loss_list_the_known() -> None:
    assert refused(metric="f2") == f"--metric f2: unknown; use one of {', '.join(METRICS)}, or file.py:function"
    assert refused(loss="hinge") == (
        "--loss hinge: unknown; use one of cross-entropy, mse, mae, cosine, or file.py:function"
    )


def test_a_metric_of_the_users(base: Path) -> None:
    task = make(base=base, metric="own.py:closeness")
    outputs, targets = torch.eye(3), torch.tensor([0, 2, 0])
    assert task.metric.scores(outputs, targets).tolist() == [0, -1, -2]
    assert task.metric.quality(task.metric.scores(outputs, targets)) == -1
    assert (task.metric.name, task.metric.higher_is_better, task.metric.binary) == ("own.py:closeness", True, False)


def test_an_error_of_the_users_is_better_when_lower(base: Path) -> None:
    task = make(data=raw(targets=torch.randn(12, 3)), base=base, metric="own.py:error", loss="mse")
    assert not task.metric.higher_is_better


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("one_number", "it must return one score a sample, shape (2,), not ()"),
        ("nan", "it returned a score that is not a finite number"),
        ("fails", "it raised ZeroDivisionError: by zero"),
        ("missing", "own.py has no function missing; functions there: closeness"),
    ],
)
def test_metrics_that_fail_are_found_before_any_work(base: Path, name: str, text: str) -> None:
    assert refused(base=base, metric=f"own.py:{name}").startswith(f"--metric own.py:{name}: {text}")


def test_a_loss_of_the_users(base: Path) -> None:
    loss = make(base=base, loss="own.py:weighted").loss
    outputs, targets = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    assert torch.equal(loss(outputs, targets), functional.cross_entropy(outputs, targets, label_smoothing=0.1))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("per_sample", "it must return one number, a tensor with a gradient, as torch's losses do"),
        ("plain", "it must return one number, a tensor with a gradient, as torch's losses do"),
        ("detached", "it must return one number, a tensor with a gradient, as torch's losses do"),
        ("fails", "it raised ZeroDivisionError: by zero"),
        ("missing", "own.py has no function missing; functions there: closeness"),
    ],
)
def test_losses_that_fail_are_found_before_any_work(base: Path, name: str, text: str) -> None:
    assert refused(base=base, loss=f"own.py:{name}").startswith(f"--loss own.py:{name}: {text}")


def test_a_loss_isnt_tried_where_nothing_is_trained(base: Path) -> None:
    data = Raw(None, samples(), samples())
    assert len(make(data=data, base=base, loss="own.py:plain").data.train) == 0


def test_the_default_loss_goes_with_the_metric() -> None:
    outputs, targets = torch.randn(5, 3), torch.tensor([0, 1, 2, 0, 1])
    assert torch.equal(make().loss(outputs, targets), functional.cross_entropy(outputs, targets))
    wanted = torch.randn(12, 3)
    task = make(data=raw(targets=wanted), metric="mse")
    assert torch.equal(task.loss(wanted + 2, wanted), torch.tensor(4.0))
    assert np.allclose(task.metric.scores(wanted + 2, wanted), 4)


def test_a_metric_that_does_not_go_with_the_targets() -> None:
    text = refused(metric="mse")
    assert text.startswith("--metric mse: doesn't fit outputs (2, 3), targets (2,) of the first samples: ")
    assert text.endswith("; give another --metric, or targets that go with it")


def test_a_loss_that_does_not_go_with_the_targets(base: Path) -> None:
    values = Lambda(lambda x: x, 1)
    text = refused(values, raw(targets=torch.randn(12)), base, metric="own.py:error", loss="cross-entropy")
    assert text.startswith("--loss cross-entropy: doesn't fit outputs (2, 1), targets (2,) of the first samples: ")
    assert text.endswith("; give --loss file.py:function")
    regression = make(Lambda(lambda x: x, 1), raw(targets=torch.randn(12)), metric="mse")
    assert regression.loss(torch.zeros(3, 1), torch.ones(3)) == 1


def test_names_are_found_directly(base: Path) -> None:
    assert find_metric("top5", base).name == "top5"
    assert find_loss("cross-entropy", base) is LOSSES["cross-entropy"]
    with pytest.raises(BadInput, match=r"--loss own\.py:fails: it raised ZeroDivisionError: by zero"):
        find_loss("own.py:fails", base)(torch.zeros(1, 1), torch.zeros(1))
