from __future__ import annotations

import math
from typing import TYPE_CHECKING

import nets
import numpy as np
import pytest
import torch
from torch import nn

from easycompress.artifact.write import write_model
from easycompress.core.inputs import Bundle
from easycompress.measure import latency
from easycompress.measure.files import latency_ratio
from easycompress.measure.latency import time_files
from easycompress.measure.runtime import Runtime, physical_cores

if TYPE_CHECKING:
    from pathlib import Path

    from easycompress.core.outcome import Latency
    from easycompress.measure.runtime import Feeds


class Wide(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 2000), nn.ReLU(), nn.Linear(2000, 1000))

    def forward(self, x: object) -> object:
        return self.layers(x)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("files")
    for name, net in (("wide", Wide), ("narrow", nets.Mlp)):
        write_model(net().eval(), nets.images(2), folder / f"{name}.onnx")
    return [folder / "wide.onnx", folder / "narrow.onnx"]


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "PATIENCE", 0.0)
    monkeypatch.setattr(latency, "LAP_SECONDS", math.inf)


def summary_of(*rounds: list[float], batch: int = 1, threads: int = 1) -> Latency:
    """Return the summary of rounds of one lap each, all of them calm."""
    return latency._summary([[times] for times in rounds], [[True]] * len(rounds), batch, threads, None)


def rounds_of(files: list[list[list[list[float]]]], *taken: float) -> list[latency.Round]:
    """Return the rounds of files' blocks [file][round][lap][run]."""
    return [latency.Round(list(blocks), *taken) for blocks in zip(*files, strict=True)]


def test_the_slowest_tenth_is_dropped() -> None:
    times = [*[1.0] * 40, *[2.0] * 50, *[1000.0] * 10]
    summary = summary_of(times, batch=3, threads=2)
    assert (summary.median, summary.iqr, summary.runs) == (2.0, 1.0, 100)
    assert (summary.batch, summary.threads) == (3, 2)
    assert summary_of(times[::-1], batch=3, threads=2) == summary


def test_the_median_is_of_what_is_left() -> None:
    summary = summary_of([float(n) for n in range(1, 101)])
    assert summary.median == 45.5  # of 1 to 90
    assert summary.iqr == pytest.approx(44.5)


def test_quantiles_are_of_all_runs_slow_ones_too() -> None:
    summary = summary_of([float(n) for n in range(60)], [float(n) for n in range(60, 101)])
    assert summary.quantiles == tuple(float(n) for n in range(0, 101, 5))
    slow = summary_of([1.0] * 99, [1000.0 / 3]).quantiles
    assert slow[:-1] == (1.0,) * 20
    assert slow[-1] == 333.333  # six digits


def test_one_badly_placed_round_does_not_move_the_median() -> None:
    good, bad = [1.0] * 10, [2.0] * 1000
    assert summary_of(good, good, bad).median == 1.0


def test_seconds_in_which_the_machine_was_slow_count_for_no_file() -> None:
    """The machine halves its speed in three of eight laps, of one file's block only in two of them."""
    speeds = [(1, 1), (2, 2), (1, 2), (1, 1), (1, 2), (1, 1), (1, 1), (1, 1)]
    files = [
        [[[speed[file] * ms] * 20 for speed in speeds[start : start + 4]] for start in (0, 4)]
        for file, ms in enumerate((8.0, 4.0))
    ]
    assert latency._calm(files) == [[True, False, False, True], [False, True, True, True]]
    before, after = latency._summaries(rounds_of(files), 1, 2)
    assert (before.median, after.median) == (8.0, 4.0)
    assert (before.runs, after.quantiles[-1]) == (160, 8.0)  # what was slow is still told


def test_where_most_laps_are_slow_both_files_are_judged_in_slow_ones() -> None:
    speeds = [1, *[2] * 9]
    files = [[[[speed * ms] * 20 for speed in speeds]] for ms in (8.0, 4.0)]
    before, after = latency._summaries(rounds_of(files), 1, 2)
    assert (before.median, after.median) == (16.0, 8.0)


def test_one_run_is_enough_to_summarise() -> None:
    assert summary_of([4.0]).median == 4.0


def test_both_files_are_timed_often_enough(files: list[Path]) -> None:
    results = time_files(files, nets.images(2), batch=1, threads=1)
    assert len(results) == 2
    for result in results:
        assert result.runs >= latency.LEAST_RUNS == 100
        assert (result.batch, result.threads) == (1, 1)
        assert 0 < result.median < 1000
        assert result.iqr >= 0
    assert results[0].median > 3 * results[1].median  # a thousand times the work


def test_the_ratio_is_baseline_over_candidate(files: list[Path]) -> None:
    milliseconds, ratio = latency_ratio(files[0], files[1], nets.images(2), 1, 1)
    assert ratio > 3
    assert 0 < milliseconds < 100


def test_a_quick_look_takes_fewer_rounds(files: list[Path]) -> None:
    runs = {rounds: time_files(files[1:], nets.images(2), 1, 1, rounds)[0].runs for rounds in (1, 2)}
    assert runs == {1: latency.BLOCKS * latency.BLOCK, 2: 2 * latency.BLOCKS * latency.BLOCK}


def test_slow_models_stop_at_the_least_number_of_runs(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "LONGEST_SECONDS", 0.0)
    results = time_files(files, nets.images(2), batch=1, threads=1)
    assert [result.runs for result in results] == [100, 100]


def test_files_take_turns_and_warm_up_does_not_count(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, tuple[int, ...], int]] = []

    class Watched(Runtime):
        def __init__(self, path: Path, threads: int) -> None:
            super().__init__(path, threads)
            self.name, self.threads = path.stem, threads

        def answer(self, feeds: Feeds) -> np.ndarray:
            (inputs,) = feeds.values()
            calls.append((self.name, inputs.shape, self.threads))
            return inputs

    monkeypatch.setattr(latency, "Runtime", Watched)
    results = time_files(files, nets.images(2), batch=5, threads=1)
    assert {shape for _, shape, _ in calls} == {(5, *nets.SHAPE)}
    assert {threads for _, _, threads in calls} == {1}
    names = [name for name, _, _ in calls]
    block = latency.WARM_UP + latency.BLOCK
    turns = [set(names[start : start + block]) for start in range(0, len(names), block)]
    assert turns == [{"wide"}, {"narrow"}] * (len(turns) // 2)
    blocks = len(turns) // 2 - latency.ROUNDS  # the first block of each round is thrown away
    assert [result.runs for result in results] == [blocks * latency.BLOCK] * 2


def test_laps_that_take_long_are_divided(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    blocks: list[tuple[int, int]] = []
    real = latency.block

    def noted(
        runtime: Runtime, feeds: Feeds, warm_up: int = latency.WARM_UP, counted: int = latency.BLOCK
    ) -> list[float]:
        blocks.append((warm_up, counted))
        return real(runtime, feeds, warm_up, counted)

    monkeypatch.setattr(latency, "block", noted)
    monkeypatch.setattr(latency, "LAP_SECONDS", 1e-9)
    whole, part = (latency.WARM_UP, latency.BLOCK), (latency.LEAST_WARM_UP, latency.BLOCK // latency.MOST_PARTS)
    results = time_files(files, nets.images(2), 1, 1, rounds=1)
    assert blocks == [whole] * 2 + [part] * (2 * latency.BLOCKS * latency.MOST_PARTS)
    assert [result.runs for result in results] == [latency.BLOCKS * latency.BLOCK] * 2


def test_inputs_are_real_samples_repeated(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Feeds] = []
    monkeypatch.setattr(Runtime, "answer", lambda _self, feeds: seen.append(feeds))
    example = nets.images(2)
    time_files(files[1:], example, batch=3, threads=1)
    (inputs,) = seen[0].values()
    assert np.array_equal(inputs, example[[0, 1, 0]].numpy())
    assert inputs.flags["C_CONTIGUOUS"]


def test_every_input_is_fed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Feeds] = []
    monkeypatch.setattr(Runtime, "answer", lambda _self, feeds: seen.append(feeds))
    example = Bundle((torch.tensor([[1, 2], [3, 4]]), torch.rand(2, 6)))
    file = write_model(nets.make(nets.Pair), example, tmp_path / "pair.onnx")
    time_files([file], example, batch=3, threads=1)
    assert seen[0]["words"].tolist() == [[1, 2], [3, 4], [1, 2]]
    assert seen[0]["words"].dtype == np.int64
    assert seen[0]["numbers"].shape == (3, 6)


class Noise:
    """Stands for Others: tells how many cores were taken in each round."""

    def __init__(self, *taken: float | None) -> None:
        self.told, self.left = [], list(taken)

    def __call__(self) -> Noise:
        return self

    def taken(self, threads: int) -> float | None:
        self.told.append(threads)
        return self.left.pop(0)


def timed(files: list[Path], noise: Noise, monkeypatch: pytest.MonkeyPatch, rounds: int) -> Latency:
    monkeypatch.setattr(latency, "Others", noise)
    return time_files(files[1:], nets.images(2), 1, 2, rounds)[0]


@pytest.mark.parametrize(
    ("taken", "rounds", "left", "mean"),
    [
        ((0.1, 0.0), 2, 0, 0.05),
        ((0.1, 1.0, 0.1), 2, 0, 0.1),  # one more, and the loud one doesn't count
        ((1.0, 0.9, 0.8, 0.7), 2, 1, 0.85),  # half as many more at most
        ((1.0, 0.5, 0.5, 0.5, 0.0, 0.3, 0.2), 4, 1, 0.33),
        ((None, None), 2, 0, None),
    ],
)
def test_rounds_that_others_disturb_are_made_up_for(
    files: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    taken: tuple[float | None, ...],
    rounds: int,
    left: int,
    mean: float | None,
) -> None:
    noise = Noise(*taken)
    found = timed(files, noise, monkeypatch, rounds)
    assert found.taken == mean
    assert found.runs == rounds * latency.BLOCKS * latency.BLOCK
    assert len(noise.left) == left
    assert set(noise.told) == {2}
    assert ("taken" in found.model_dump()) is (mean is not None)


def test_there_is_at_least_one_core() -> None:
    assert physical_cores() >= 1
