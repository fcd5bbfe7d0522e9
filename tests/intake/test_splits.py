"""The splits that a run may look at: disjoint, stratified, deterministic, and checked before anything is done."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from easycompress.core.errors import BadInput
from easycompress.core.task import Split
from easycompress.intake.data import Raw
from easycompress.intake.splits import check_labels, make_splits


def numbered(labels: list[int] | int, start: int = 0) -> Split:
    """A split whose inputs (N, 1) are the samples' own numbers."""
    labels = [0] * labels if isinstance(labels, int) else labels
    return Split(torch.arange(start, start + len(labels)).float()[:, None], torch.tensor(labels))


def numbers(split: Split) -> list[int]:
    return split.inputs[:, 0].int().tolist()


def refused(raw: Raw, **options: Any) -> str:
    with pytest.raises(BadInput) as caught:
        make_splits(raw, seed=0, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_validation_is_select_and_test_is_report() -> None:
    raw = Raw(numbered(50), numbered(20, 100), numbered(30, 200))
    splits = make_splits(raw, seed=0, calibration=16)
    assert splits.train is raw.train
    assert splits.select is raw.validation
    assert splits.report is raw.test
    chosen = numbers(splits.calibration)
    assert len(set(chosen)) == 16
    assert set(chosen) < set(range(50))
    assert splits.note == "select is the validation split (20 samples), report is the test split (30)"


def test_calibration_follows_the_seed_and_never_exceeds_train() -> None:
    raw = Raw(numbered(50), numbered(2), numbered(2))
    first, same, other = (numbers(make_splits(raw, seed=s, calibration=10).calibration) for s in (0, 0, 1))
    assert first == same
    assert first != other
    everything = numbers(make_splits(raw, seed=0, calibration=1000).calibration)
    assert sorted(everything) == list(range(50))
    assert everything != list(range(50))  # a part of it must not be the first classes of sorted data


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 4), min_size=2, max_size=60), st.integers(0, 5), st.booleans())
def test_one_judging_split_is_divided_in_stratified_halves(labels: list[int], seed: int, is_test: bool) -> None:  # noqa: FBT001 - hypothesis fills it
    whole = numbered(labels)
    raw = Raw(None, None, whole) if is_test else Raw(None, whole, None)
    splits = make_splits(raw, seed=seed)
    select, report = numbers(splits.select), numbers(splits.report)
    assert sorted(select + report) == list(range(len(labels)))  # disjoint, and nothing is lost
    assert abs(len(select) - len(report)) <= 1
    for label in set(labels):
        counts = [sum(labels[number] == label for number in part) for part in (select, report)]
        assert abs(counts[0] - counts[1]) <= 1
    again = make_splits(raw, seed=seed)
    assert (numbers(again.select), numbers(again.report)) == (select, report)
    name, missing = ("test", "validation") if is_test else ("validation", "test")
    assert splits.note.startswith(
        f"no {missing} split is given, so the {name} split is divided in two, stratified by label: "
        f"select {len(select)} samples, report {len(report)}"
    )


def test_halves_differ_with_the_seed_and_keep_labels_with_inputs() -> None:
    whole = numbered([i % 3 for i in range(60)])
    first, second = (make_splits(Raw(None, None, whole), seed=seed) for seed in (0, 1))
    assert numbers(first.select) != numbers(second.select)
    assert first.select.targets is not None
    assert first.select.targets.tolist() == [number % 3 for number in numbers(first.select)]


def test_regression_and_unlabelled_data_are_divided_at_random() -> None:
    inputs = torch.arange(9.0)[:, None]
    for targets in (torch.rand(9), None):
        splits = make_splits(Raw(None, None, Split(inputs, targets)), seed=0, labelled=False)
        assert sorted(numbers(splits.select) + numbers(splits.report)) == list(range(9))
        assert "stratified" not in splits.note


def test_without_training_data_calibration_comes_from_select() -> None:
    splits = make_splits(Raw(None, numbered(20), numbered(20, 100)), seed=0, calibration=5)
    assert splits.train.inputs.shape == (0, 1)
    assert len(splits.calibration) == 5
    assert set(numbers(splits.calibration)) < set(numbers(splits.select))
    assert "no training data is given: calibration samples come from select, and recovery is impossible" in splits.note


def test_only_training_data_is_refused_with_the_reason() -> None:
    text = refused(Raw(numbered(5), None, None))
    assert "only training data is given: the model may have seen it" in text
    assert "give a validation and a test split" in text
    assert BadInput.exit_code == 2
    assert "no data" in refused(Raw(None, None, None))


def test_one_sample_cannot_be_divided() -> None:
    assert "test: one sample can't be divided into select and report" in refused(Raw(None, None, numbered(1)))


def bad(inputs: list[Any], targets: list[Any] | None) -> Split:
    return Split(torch.tensor(inputs), None if targets is None else torch.tensor(targets))


INF, NAN = float("inf"), float("nan")


@pytest.mark.parametrize(
    ("split", "text"),
    [
        (Split(torch.ones(0, 1), torch.ones(0)), "validation: the split is empty; give samples"),
        (bad([[1.0], [NAN], [INF]], [0, 0, 0]), "NaN or infinity in the inputs of 2 of 3 samples, first at index 1"),
        (bad([[1.0], [2.0]], [0.5, -INF]), "NaN or infinity in the targets of 1 of 2 samples, first at index 1"),
        (bad([[1.0], [2.0]], [0]), "validation: 2 inputs but 1 targets; give one target a sample"),
        (bad([[1.0], [2.0]], None), "validation: no labels; add them, or use --metric agreement"),
        (bad([[1.0, 2.0]], [0]), "validation: samples of shape 2, but train has 1; prepare all splits"),
        (bad([[1], [2]], [0, 0]), "validation: samples of type int64, but train has float32"),
    ],
)
def test_checks_name_the_split(split: Split, text: str) -> None:
    assert text in refused(Raw(numbered(4), split, numbered(4)))


def test_non_finite_samples_are_found_past_the_first_chunk() -> None:
    inputs = torch.zeros(10_000, 1)
    inputs[9_999] = NAN
    text = refused(Raw(None, None, Split(inputs, torch.zeros(10_000))))
    assert "test: NaN or infinity in the inputs of 1 of 10000 samples, first at index 9999" in text


@pytest.mark.parametrize(
    ("train", "test", "text"),
    [
        ([1, 2, 3], [3, 1, 2], "train: label 3, but the model has 3 outputs, so labels are 0..2; the labels seem"),
        ([0, 1, 2], [0, 7, 1], "7, but the model has 3 outputs, so labels are 0..2; give the data that the model was"),
        ([0, 1, 2], [0, 7, 1], "or a model with 8 outputs"),
        ([0, -1], [0, 1], "train: label -1, but the model has 3 outputs, so labels are 0..2; a negative label usually"),
        ([0.0, 1.0], [0.0, 1.0], "train: labels are float32; class labels are integers 0..2"),
        ([[0, 1, 0]], [[0, 1, 0]] * 2, "train: labels of shape (1, 3) look one-hot; give their argmax(1)"),
    ],
)
def test_labels_outside_the_classes(train: list[Any], test: list[Any], text: str) -> None:
    judges = bad([[1.0]] * len(test), test)
    splits = make_splits(Raw(bad([[1.0]] * len(train), train), judges, judges), seed=0)
    with pytest.raises(BadInput) as caught:
        check_labels(splits, 3)
    assert text in str(caught.value)


def test_labels_name_the_split_and_good_ones_pass() -> None:
    good, wrong = numbered([0, 1, 2]), numbered([0, 1, 5])
    check_labels(make_splits(Raw(good, good, good), seed=0), 3)
    check_labels(make_splits(Raw(None, Split(torch.ones(4, 1), None), None), seed=0, labelled=False), 3)
    with pytest.raises(BadInput, match=r"^report: label 5"):
        check_labels(make_splits(Raw(good, good, wrong), seed=0), 3)
