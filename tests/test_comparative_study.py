"""The comparative study: batched nets are single nets, variants are what they say, the tables are the study's."""

from __future__ import annotations

import json
from statistics import fmean
from typing import TYPE_CHECKING

import pytest
import torch
from torch.nn import functional

from benchmarks import comparative_study_reasons
from benchmarks.comparative_study_data import Images, changed, rotated
from benchmarks.comparative_study_methods import Bench, Pruned, convolutional, hashed
from benchmarks.comparative_study_nets import Convolutional, Dense, Shape, Side, orders, summed_loss
from benchmarks.comparative_study_page import behind, compared, lines, pruned
from benchmarks.comparative_study_paper import LEVELS, STUDY
from benchmarks.comparative_study_plot import draw
from benchmarks.comparative_study_reasons import lower_cells, reason
from benchmarks.comparative_study_rows import Cell, cells
from benchmarks.markdown import NOT_RUN

if TYPE_CHECKING:
    from pathlib import Path


def few(count: int, seed: int = 0) -> Images:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 10
    return Images(torch.randn(count, 784, generator=generator) + labels[:, None], labels)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    for module in ("methods", "nets"):
        monkeypatch.setattr(f"benchmarks.comparative_study_{module}.RUNS", 2)
    for name in ("FIRST", "AFTER", "BETWEEN", "BEFORE", "HASHED_EPOCHS", "CONVOLUTIONAL_EPOCHS"):
        monkeypatch.setattr(f"benchmarks.comparative_study_methods.{name}", 1)
    return Bench({"train": few(256), "val": few(64, 1), "test": few(64, 2)}, 6, tmp_path)


@pytest.mark.parametrize("make", [lambda: Dense(5), lambda: Convolutional(Shape(5, 3, 2, 3))])
def test_batched_nets_answer_and_learn_as_each_alone(make: type[Dense]) -> None:
    nets = [make(), make()]
    images = few(12)
    split = orders(images, 2)
    assert split.targets is not None
    outputs = Side(nets, images.pixels)(split.inputs[:8])
    summed_loss(outputs, split.targets[:8]).backward()
    for run, net in enumerate(nets):
        learned = net.hidden.weight.grad.clone()
        net.zero_grad()
        alone = net(images.pixels[split.inputs[:8, run]])
        torch.testing.assert_close(outputs[:, run], alone)
        functional.cross_entropy(alone, split.targets[:8, run]).backward()
        torch.testing.assert_close(net.hidden.weight.grad, learned, atol=1e-5, rtol=1e-4)


def test_each_run_sees_every_sample_in_an_order_of_its_own() -> None:
    split = orders(few(50), 3)
    assert all(sorted(split.inputs[:, run].tolist()) == list(range(50)) for run in range(3))
    assert not torch.equal(split.inputs[:, 0], split.inputs[:, 1])


def test_a_rotation_keeps_the_centre_and_what_is_drawn(tmp_path: Path) -> None:
    grey = torch.zeros(40, 28, 28)
    grey[:, 12:16, 12:16] = 1
    turned = rotated(grey, torch.Generator().manual_seed(0))
    torch.testing.assert_close(turned.sum((1, 2)), grey.sum((1, 2)), rtol=0.08, atol=0)
    assert not torch.allclose(turned[0], turned[1])
    again = changed(grey, "rotation", torch.Generator().manual_seed(0), tmp_path, "train")
    assert torch.equal(again, turned)


def test_a_random_background_leaves_the_digit(tmp_path: Path) -> None:
    grey = torch.zeros(200, 28, 28)
    grey[:, 10:18, 10:18] = 1
    noisy = changed(grey, "random background", torch.Generator().manual_seed(0), tmp_path, "train")
    assert bool((noisy[:, 10:18, 10:18] == 1).all())
    assert float(noisy[:, :10].mean()) == pytest.approx(0.5, abs=0.01)


def test_levels_remove_what_they_say_and_go_on_from_files(bench: Bench) -> None:
    course = Pruned(bench, "MagL2")
    whole = course.start()
    assert whole["weights"] == [784 * 6 + 60] * 2
    found = course.level(90, 0)
    assert found["weights"] == [round(0.1 * (784 * 6 + 60))] * 2
    later = Pruned(bench, "MagL2")
    assert later.load(90)
    again = later.level(99, 90)
    assert again == course.level(99, 90)
    assert again["weights"] == [round(0.01 * (784 * 6 + 60))] * 2
    assert max(again["ecz_bytes"]) < min(found["ecz_bytes"])


def test_runs_are_pruned_each_by_its_own_saliency(bench: Bench) -> None:
    course = Pruned(bench, "OBD")
    course.remove(0.2)
    first, second = (course.masks[names[0]] for names in course.names)
    assert not torch.equal(first, second)
    assert abs(int(first.sum()) - int(second.sum())) < 60, "the share is of each run, not of all together"


def test_a_hashed_net_has_as_many_values_as_the_level_leaves(bench: Bench) -> None:
    assert hashed(bench, 90)["weights"] == [round(0.1 * 784 * 6) + round(0.1 * 60)] * 2


def test_a_convolutional_net_has_the_weights_of_its_shape(bench: Bench) -> None:
    assert convolutional(bench, Shape(5, 4, 3, 3))["weights"] == [4 * 25 + 4 * 2 * 2 * 10] * 2


def test_the_tables_are_complete() -> None:
    assert len(STUDY) == 3 * 4 * (len(LEVELS[100]) + len(LEVELS[30]))
    assert STUDY[100, "MagL1", "mnist", 99] == (94.31, 0.20, 3)
    assert STUDY[30, "OBD", "random background", 98.8] == (70.08, 0.15, 6)
    falling = [STUDY[100, "OBD", "rotation", level][0] for level in LEVELS[100][2:]]
    assert falling == sorted(falling, reverse=True)


@pytest.mark.parametrize(
    ("again", "said"),
    [
        (94.25, "too few epochs; 99 % again from the nets of the level before with 3 times the epochs: 94.25, reached"),
        (
            94.0,
            "not epochs alone; 99 % again from the nets of the level before with 3 times the epochs: 94.00, 0.31 lower",
        ),
    ],
)
def test_the_farthest_cell_says_what_more_epochs_did(
    again: float, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    name = Cell("mnist", 100, "MagL1", "99").name
    (tmp_path / "found.json").write_text(json.dumps({name: {"test": [again]}}))
    monkeypatch.setattr(comparative_study_reasons, "RESULTS", tmp_path / "found.json")
    assert reason(100, "MagL1", "mnist", {98: 0.2, 99: 0.81}) == said
    assert reason(100, "MagL1", "mnist", {98: 0.2}) == "not looked into"


def test_more_epochs_begin_with_the_same_nets_and_leave_what_is_kept(bench: Bench) -> None:
    course = Pruned(bench, "MagL1")
    course.start()
    course.level(90, 0)
    kept = course.file(90).read_bytes()
    again = Pruned(bench, "MagL1")
    assert again.load(0)
    again.level(90, 0, times=2, keep=False)
    assert again.file(90).read_bytes() == kept
    assert any((a != b).any() for a, b in zip(again.side.parameters(), course.side.parameters(), strict=True))


def test_where_kept_nets_are_gone_the_course_is_run_again(bench: Bench) -> None:
    course = Pruned(bench, "MagL2")
    course.start()
    course.level(50, 0)
    course.level(90, 50)
    kept = course.file(90).read_bytes()
    for gone in ((90,), (50, 90), (0, 50, 90)):
        for level in gone:
            course.file(level).unlink()
        again = Pruned(bench, "MagL2")
        comparative_study_reasons._reach(again, (0, 50, 90))
        assert again.file(90).read_bytes() == kept
        assert torch.equal(again.side.nets[0].hidden.weight, course.side.nets[0].hidden.weight)


def test_the_page_says_what_was_not_run_and_how_far_the_rest_is() -> None:
    assert sum(line.count(NOT_RUN) for line in lines({})) == len(cells()) - 3 * 4  # 30 units have no row of 0 %
    held = {
        Cell("mnist", 100, "MagL1", "99").name: {"test": [93.0, 94.0], "ecz_bytes": [900, 900], "weights": [800, 800]},
        Cell("mnist", 100, "MagL1", "98").name: {"test": [95.8, 95.8], "ecz_bytes": [1900, 1900], "weights": [9, 9]},
        Cell("mnist", 100, "LC", "0.08").name: {"test": [95.0, 96.0], "ecz_bytes": [800, 820], "weights": [9, 9]},
    }
    table = pruned(held, 100, "MagL1")
    assert "93.50 ± 0.71 (94.31 ± 0.20, -0.81)" in table
    assert "95.80 ± 0.00 (95.70 ± 0.26)" in table
    assert "99 % (0.81)" in behind(held)
    assert "98 %" not in behind(held)
    assert "| not looked into |" in behind(held)
    assert list(lower_cells(held)) == [(100, "MagL1", "mnist")]
    beside = next(line for line in compared(held).splitlines() if "95.50" in line)
    assert "93.50 ± 0.71 (MagL1, 99 %)" in beside
    assert fmean([800, 820]) == 810
    assert "810" in beside
    picture = draw(held)
    assert picture.count("bytes of model.ecz") == 1, "one variant has two levels of a method"
    assert "MagL1, the study" in picture
