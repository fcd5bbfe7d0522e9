"""The decision on a latency ratio: what it concludes from simulated rounds of known truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import binom

from easycompress.regression import latency
from easycompress.regression.latency import ERROR, bounds, time_ratio

RUNS = 120


def decided(monkeypatch: pytest.MonkeyPatch, truth: float, noise: float, limit: float = 1.15) -> float:
    """The share of RUNS checks that call it a regression."""
    generator = np.random.default_rng(0)
    monkeypatch.setattr(latency, "one_round", lambda *_, **__: truth * float(np.exp(noise * generator.normal())))
    nothing = Path("x")
    found = [time_ratio(nothing, nothing, torch.zeros(1, 1), 1, 1, limit).low > limit for _ in range(RUNS)]
    return float(np.mean(found))


@pytest.mark.parametrize("noise", [0.003, 0.03, 0.15])
def test_no_change_is_never_a_regression(noise: float, monkeypatch: pytest.MonkeyPatch) -> None:
    assert decided(monkeypatch, 1.0, noise) == 0


@pytest.mark.parametrize("noise", [0.003, 0.03])
def test_twenty_percent_are_found(noise: float, monkeypatch: pytest.MonkeyPatch) -> None:
    assert decided(monkeypatch, 1.2, noise) > 0.98


def test_at_the_limit_itself_few_are_called_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    assert decided(monkeypatch, 1.15, 0.02) <= 0.05


def test_sessions_that_are_placed_badly_now_and_then_do_not_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(1)
    monkeypatch.setattr(latency, "one_round", lambda *_, **__: float(generator.choice([0.5, 1.0, 1.0, 2.0])))
    nothing = Path("x")
    ratios = [time_ratio(nothing, nothing, torch.zeros(1, 1), 1, 1, 1.15) for _ in range(RUNS)]
    assert np.mean([ratio.low > 1.15 for ratio in ratios]) < 0.01


@pytest.mark.parametrize("count", [8, 12, 20, 44])
def test_the_bounds_leave_out_no_more_than_the_error(count: int) -> None:
    found = bounds([float(value) for value in range(count)])
    below = int(found.low)  # as many ratios lie below the lower bound
    assert binom.cdf(below, count, 0.5) <= ERROR < binom.cdf(below + 1, count, 0.5)
    assert found.high == count - 1 - found.low


def test_too_few_rounds_bound_nothing() -> None:
    assert (bounds([1.0] * 7).low, bounds([1.0] * 7).high) == (0.0, float("inf"))


def test_noise_that_hides_the_limit_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "b").write_bytes(b"b")
    values = iter([1.0, 1.3] * 40)
    monkeypatch.setattr(latency, "one_round", lambda *_, **__: next(values))
    found = latency.check_latency(tmp_path / "a", tmp_path / "b", torch.zeros(1, 1), 1, 1, 1.15)
    assert found.passed
    assert "too noisy to tell from 1.15x, which doesn't count as a regression" in found.reason
    assert f"{latency.MOST_ROUNDS} rounds" in found.reason
