"""The splits that a run may look at: disjoint, stratified, deterministic, and checked before anything is done."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from easycompress.core.errors import BadInput
from easycompress.core.task import Split, Splits
from easycompress.intake.data import Raw, load_data
from easycompress.intake.splits import check_labels, halves, imbalance, leaks, make_splits

SECONDS = 1.0
"""For 20 000 small images; 60 000 are to take no longer."""


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


# ---------------------------------------------------------------- samples that splits share


def leaking(train: Split | None, validation: Split, test: Split) -> str | None:
    return leaks(make_splits(Raw(train, validation, test), seed=0, labelled=False))


def test_shared_samples_are_counted_and_left_in() -> None:
    train, validation, test = numbered(50), numbered(20, 45), numbered(30, 60)  # 45..49 in two, 60..64 in two
    text = leaking(train, validation, test)
    assert text == (
        "5 of the 20 select samples are also in train, 5 of the 30 report samples are also in select "
        "(the same inputs, byte for byte); nothing was left out, so quality on select and report may look better than "
        "on new data"
    )
    splits = make_splits(Raw(train, validation, test), seed=0)
    assert [len(split) for split in (splits.train, splits.select, splits.report)] == [50, 20, 30]


def test_each_pair_of_splits_is_compared() -> None:
    one = leaking(numbered(50), numbered(20, 100), numbered(30, 49))
    assert one is not None
    assert one.startswith("1 of the 30 report samples is also in train (")
    assert "quality on report may" in one
    everything = leaking(numbered(9), numbered(9), numbered(9))
    assert everything is not None
    for name, other in (("select", "train"), ("report", "train"), ("report", "select")):
        assert f"9 of the 9 {name} samples are also in {other}" in everything


def test_splits_that_share_nothing_have_no_leak() -> None:
    assert leaking(numbered(50), numbered(20, 100), numbered(30, 200)) is None
    assert leaking(None, numbered(20), numbered(30, 200)) is None
    doubles = Split(torch.ones(6, 1) / 2, torch.zeros(6, dtype=torch.long))  # within a split they are natural
    assert leaking(doubles, numbered(2), numbered(2, 9)) is None


@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 3)])
def test_every_type_and_shape_of_sample_is_compared(kind: torch.dtype, shape: tuple[int, ...]) -> None:
    ones, zeros = (torch.full((4, *shape), value).to(kind) for value in (1, 0))
    assert leaking(Split(ones, None), Split(zeros, None), Split(zeros[:2], None)) == (
        "2 of the 2 report samples are also in select (the same inputs, byte for byte); "
        "nothing was left out, so quality on report may look better than on new data"
    )


def test_samples_in_another_memory_order_are_the_same_samples() -> None:
    images = torch.rand(5, 3, 4, 4)
    turned = images.to(memory_format=torch.channels_last)
    text = leaking(Split(images, None), Split(turned, None), Split(torch.rand(5, 3, 4, 4), None))
    assert text is not None
    assert text.startswith("5 of the 5 select samples are also in train")


def test_a_leak_past_the_first_chunk_is_found() -> None:
    train = numbered(10_000)
    text = leaking(train, numbered(3, 9_999), numbered(3, 20_000))
    assert text is not None
    assert text.startswith("1 of the 3 select samples is also in train")


def test_samples_without_a_byte_are_no_leak() -> None:
    empty = Split(torch.ones(4, 0), None)
    assert leaking(empty, empty, empty) is None


def test_leaks_are_found_quickly() -> None:
    images = torch.rand(10_000, 1, 28, 28)
    splits = make_splits(
        Raw(Split(images, None), Split(images[:10], None), Split(images, None)), seed=0, labelled=False
    )
    begin = time.perf_counter()
    assert leaks(splits) is not None
    assert time.perf_counter() - begin < SECONDS


def test_the_digits_of_scikit_learn_have_splits_of_their_own() -> None:
    assert leaks(make_splits(load_data("digits", mean=None, std=None, base=None, seed=0), seed=0)) is None


# ---------------------------------------------------------------- classes that are rare or common


def test_a_class_of_one_sample_is_divided_without_a_crash() -> None:
    whole = Split(torch.randn(5, 2), torch.tensor([0, 0, 0, 0, 7]))
    first, second = halves(whole, torch.Generator().manual_seed(0))
    assert sorted([*first.tolist(), *second.tolist()]) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        ([3] * 9 + [1], "90% of the report samples are of class 3: accuracy says little about the others"),
        ([3] * 8 + [1] * 2, None),
        ([1] * 10, None),
    ],
)
def test_a_class_that_makes_up_almost_everything_is_told(labels: list[int], text: str | None) -> None:
    split = Split(torch.randn(len(labels), 2), torch.tensor(labels))
    found = imbalance(Splits(split, split, split, split))
    assert (found is None) if text is None else (found or "").startswith(text)
