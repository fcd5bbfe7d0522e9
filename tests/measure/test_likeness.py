from __future__ import annotations

import numpy as np
import pytest

from easycompress.measure.likeness import Likeness

RNG = np.random.default_rng(3)
WEIGHTS = {
    "first.weight": RNG.normal(size=(12, 20)).astype(np.float32),
    "second.weight": RNG.normal(size=(12, 20)).astype(np.float32),
    "tall.weight": RNG.normal(size=(60, 8)).astype(np.float32),
    "kernel.weight": RNG.normal(size=(6, 4, 3, 3)).astype(np.float32),
    "first.bias": RNG.normal(size=12).astype(np.float32),
    "second.bias": RNG.normal(size=12).astype(np.float32),
}
KNOWN = Likeness(WEIGHTS)


@pytest.mark.parametrize("name", WEIGHTS)
def test_a_tensor_is_its_own_parameter(name: str) -> None:
    assert KNOWN.find(WEIGHTS[name]) == name


@pytest.mark.parametrize("name", ["first.weight", "tall.weight", "kernel.weight"])
def test_rows_may_be_scaled_and_rounded(name: str) -> None:
    weight = WEIGHTS[name]
    scales = RNG.uniform(0.1, 3.0, (len(weight), *[1] * (weight.ndim - 1)))
    levels = np.abs(weight).max() / 7  # 4 bits
    assert KNOWN.find(weight * scales) == name
    assert KNOWN.find(np.round(weight / levels).astype(np.int8)) == name


def test_a_matrix_may_be_transposed_or_some_rows() -> None:
    assert KNOWN.find(WEIGHTS["second.weight"].T) == "second.weight"
    for start in (0, 20, 40):
        assert KNOWN.find(WEIGHTS["tall.weight"][start : start + 20]) == "tall.weight"
    assert KNOWN.find(WEIGHTS["tall.weight"][:13]) == "tall.weight"
    assert KNOWN.find(WEIGHTS["tall.weight"][None, :13]) == "tall.weight"


def test_a_transposed_convolution_is_scaled_by_its_second_dimension() -> None:
    scaled = WEIGHTS["kernel.weight"] * RNG.uniform(0.1, 9.0, (1, 4, 1, 1))
    assert KNOWN.find(scaled) == "kernel.weight"


def test_what_is_no_parameter_is_not_guessed() -> None:
    assert KNOWN.find(RNG.normal(size=(12, 20))) is None
    assert KNOWN.find(WEIGHTS["first.weight"] + WEIGHTS["second.weight"]) is None
    assert KNOWN.find(WEIGHTS["first.bias"] * 1.1) is None  # vectors aren't scaled
    assert KNOWN.find(np.array([12, 20], np.int64)) is None
    assert KNOWN.find(np.zeros((0, 20), np.float32)) is None


def test_two_that_are_alike_are_neither() -> None:
    same = WEIGHTS["first.weight"]
    twins = Likeness({"one.weight": same, "other.weight": same * 2, "third.weight": WEIGHTS["second.weight"]})
    assert twins.find(same) is None
    assert twins.find(WEIGHTS["second.weight"]) == "third.weight"
    nothing = Likeness({"a.weight": np.zeros((4, 4), np.float32), "b.weight": np.zeros((4, 4), np.float32)})
    assert nothing.find(np.zeros((4, 4), np.float32)) is None


def test_pruned_rows_count() -> None:
    pruned = WEIGHTS["first.weight"].copy()
    pruned[3:] = 0
    assert (
        Likeness({"pruned.weight": pruned, "second.weight": WEIGHTS["second.weight"]}).find(pruned) == "pruned.weight"
    )
    assert Likeness({"full.weight": WEIGHTS["first.weight"]}).find(pruned) is None
