"""Metrics score each sample; what they return is what people call by those names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, mean_squared_error, top_k_accuracy_score

from easycompress.core.errors import BadInput
from easycompress.metrics import LOSSES, METRICS, default_loss, user_metric

if TYPE_CHECKING:
    from torch import Tensor


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 40), st.integers(2, 9), st.integers(0, 10_000))
def test_accuracy_and_top5_are_those_of_scikit_learn(number: int, classes: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    outputs = torch.randn(number, classes, generator=generator)
    targets = torch.randint(classes, (number,), generator=generator)
    accuracy, top5 = METRICS["accuracy"], METRICS["top5"]
    scores = accuracy.scores(outputs, targets)
    assert scores.shape == (number,)
    assert set(scores.tolist()) <= {0.0, 1.0}
    assert accuracy.quality(scores) == pytest.approx(100 * accuracy_score(targets, outputs.argmax(1)))
    share = (
        1.0 if classes <= 5 else float(top_k_accuracy_score(targets, outputs.numpy(), k=5, labels=np.arange(classes)))
    )
    assert top5.quality(top5.scores(outputs, targets)) == pytest.approx(100 * share)
    assert (METRICS["agreement"].scores(outputs, targets) == scores).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 20), st.integers(1, 4), st.integers(0, 10_000))
def test_mse_is_that_of_scikit_learn(number: int, width: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    outputs, targets = (torch.randn(number, width, generator=generator) for _ in range(2))
    mse = METRICS["mse"]
    scores = mse.scores(outputs, targets)
    assert scores.shape == (number,)
    assert mse.quality(scores) == pytest.approx(float(mean_squared_error(targets, outputs)), rel=1e-6)
    assert float(LOSSES["mse"](outputs, targets)) == pytest.approx(mse.quality(scores), rel=1e-5)


def test_targets_of_a_column_may_be_flat() -> None:
    outputs, targets = torch.tensor([[1.0], [2.0]]), torch.tensor([1, 4])
    assert METRICS["mse"].scores(outputs, targets).tolist() == [0.0, 4.0]
    assert float(LOSSES["mse"](outputs, targets)) == 2.0


def test_what_each_metric_is() -> None:
    assert set(METRICS) == {"accuracy", "agreement", "top5", "mse"}
    for name, metric in METRICS.items():
        assert metric.name == name
        assert metric.percent == metric.binary == (name != "mse")
        assert metric.higher_is_better == (name != "mse")
        assert default_loss(metric) in LOSSES
    assert default_loss(METRICS["mse"]) == "mse"
    assert default_loss(METRICS["top5"]) == "cross-entropy"


@pytest.mark.parametrize(
    "result", [torch.ones, lambda n: [1] * n, lambda n: np.ones(n, "f4"), lambda n: torch.ones(n, dtype=torch.bool)]
)
def test_a_users_scores_may_be_any_row_of_numbers(result: Any) -> None:
    metric = user_metric(lambda outputs, _: result(len(outputs)), "own.py:f")
    scores = metric.scores(torch.zeros(4, 2), torch.zeros(4))
    assert scores.dtype == np.float64
    assert metric.quality(scores) == 1.0
    assert not metric.percent
    assert not metric.binary


def test_a_users_gradient_is_left_behind() -> None:
    metric = user_metric(lambda outputs, _: outputs.sum(1), "own.py:f")
    assert metric.scores(torch.ones(2, 3, requires_grad=True), torch.zeros(2)).tolist() == [3, 3]


def test_lower_may_be_better() -> None:
    def error(outputs: Tensor, _: Tensor) -> Tensor:
        return outputs.sum(1)

    error.higher_is_better = False  # type: ignore[attr-defined] # how a user says it
    assert not user_metric(error, "own.py:error").higher_is_better


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (lambda o, _: o, "it must return one score a sample, shape (2,), not (2, 3)"),
        (lambda _, __: 0.5, "it must return one score a sample, shape (2,), not ()"),
        (lambda _, __: [1.0, float("inf")], "it returned a score that is not a finite number"),
        (lambda _, __: "good", "it raised TypeError: "),
        (lambda outputs, _: outputs[2], "it raised IndexError: index 2 is out of bounds"),
    ],
)
def test_a_users_metric_that_returns_something_else(function: Any, text: str) -> None:
    metric = user_metric(function, "own.py:f")
    with pytest.raises(BadInput) as caught:
        metric.scores(torch.zeros(2, 3), torch.zeros(2))
    assert str(caught.value).startswith(f"--metric own.py:f: {text}")
    assert "\n" not in str(caught.value)


def test_metrics_of_a_whole_split_are_refused() -> None:
    def whole(_: Tensor, __: Tensor) -> float:
        return 1.0

    whole.corpus = True  # type: ignore[attr-defined] # how a user says it
    with pytest.raises(BadInput) as caught:
        user_metric(whole, "own.py:whole")
    assert str(caught.value) == (
        "--metric own.py:whole: metrics of a whole split (corpus = True) aren't supported yet; score each sample"
    )
