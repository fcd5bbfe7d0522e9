"""The user's own words become a goal once, or a line that says what to write instead."""

from __future__ import annotations

import math
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from easycompress.core.errors import BadInput
from easycompress.core.goal import (
    OBJECTIVE_UNIT,
    OBJECTIVES,
    UNITS,
    Floor,
    Goal,
    Objective,
    Target,
    parse_budget,
    parse_floor,
    parse_objective,
    parse_target,
)


def refusal(parse: Any, *arguments: Any, **options: Any) -> str:
    with pytest.raises(BadInput) as caught:
        parse(*arguments, **options)
    text = str(caught.value)
    assert "\n" not in text
    assert caught.value.exit_code == 2
    return text


def floor(max_drop: str | None = None, min_quality: str | None = None, *, percent: bool = True) -> Floor:
    return parse_floor(max_drop, min_quality, percent_metric=percent, metric="accuracy" if percent else "mse")


# ---------------------------------------------------------------- objectives


@pytest.mark.parametrize("text", OBJECTIVES)
def test_every_objective_is_known_and_has_units(text: Objective) -> None:
    assert parse_objective(text) == text
    assert 1.0 in UNITS[text].values()  # its own unit
    assert OBJECTIVE_UNIT[text]


def test_objectives_are_the_four_of_the_contract() -> None:
    assert get_args(Objective) == ("size", "latency", "compute", "energy")


@pytest.mark.parametrize("text", ["speed", "", "Size", "size "])
def test_unknown_objective_lists_the_known(text: str) -> None:
    assert refusal(parse_objective, text) == (f"--objective {text}: unknown; use one of size, latency, compute, energy")


# ---------------------------------------------------------------- targets


@pytest.mark.parametrize(
    ("text", "objective", "kind", "value"),
    [
        ("10x", "size", "ratio", 10.0),
        ("10X", "latency", "ratio", 10.0),
        ("1x", "size", "ratio", 1.0),
        ("2.5x", "compute", "ratio", 2.5),
        ("2.x", "size", "ratio", 2.0),
        ("+3x", "size", "ratio", 3.0),
        ("1e3x", "size", "ratio", 1000.0),
        ("  10 x ", "size", "ratio", 10.0),
        ("0%", "size", "ratio", 1.0),
        ("50%", "size", "ratio", 2.0),
        ("90%", "energy", "ratio", 10.0),
        ("99.9 %", "size", "ratio", 1000.0),
        ("120KB", "size", "absolute", 120_000.0),
        ("120kb", "size", "absolute", 120_000.0),
        ("1.5 MB", "size", "absolute", 1_500_000.0),
        (".5MB", "size", "absolute", 500_000.0),
        ("2GB", "size", "absolute", 2e9),
        ("512B", "size", "absolute", 512.0),
        ("3ms", "latency", "absolute", 3.0),
        ("250us", "latency", "absolute", 0.25),
        ("2s", "latency", "absolute", 2000.0),
        ("40MMACs", "compute", "absolute", 40e6),
        ("40mmacs", "compute", "absolute", 40e6),
        ("7KMACs", "compute", "absolute", 7000.0),
        ("1GMACs", "compute", "absolute", 1e9),
        ("5MACs", "compute", "absolute", 5.0),
        ("2mJ", "energy", "absolute", 2.0),
        ("2uJ", "energy", "absolute", 0.002),
        ("1J", "energy", "absolute", 1000.0),
        ("max", "size", "max", math.inf),
    ],
)
def test_targets(text: str, objective: Objective, kind: str, value: float) -> None:
    target = parse_target(text, objective)
    assert target.kind == kind
    assert target.value == pytest.approx(value)
    assert target.text == text.strip()


@pytest.mark.parametrize(
    ("text", "objective", "message"),
    [
        ("0x", "size", "--target 0x: a ratio must be positive; 10x means ten times smaller"),
        ("-3x", "size", "--target -3x: a ratio must be positive; 10x means ten times smaller"),
        ("0.5x", "size", "--target 0.5x: below 1x the result would be larger than the original; write 2x?"),
        (
            "abc",
            "size",
            "--target abc: not a target; write a ratio (10x), a reduction (90%), an amount (120KB) or max",
        ),
        ("100%", "size", "--target 100%: a reduction lies between 0% and 100% (90% means ten times smaller)"),
        ("-1%", "size", "--target -1%: a reduction lies between 0% and 100% (90% means ten times smaller)"),
        ("3ms", "size", "--target 3ms: unknown unit for --objective size; use x, % or one of B, KB, MB, GB"),
        ("3KiB", "size", "--target 3KiB: unknown unit for --objective size; use x, % or one of B, KB, MB, GB"),
        ("3KB", "latency", "--target 3KB: unknown unit for --objective latency; use x, % or one of us, ms, s"),
        ("0KB", "size", "--target 0KB: an amount must be positive"),
        ("-4KB", "size", "--target -4KB: an amount must be positive"),
        ("1e999x", "size", "--target 1e999x: too large a number; write a smaller one"),
        ("1e308KB", "size", "--target 1e308KB: too large a number; write a smaller one"),
        ("1e999KB", "size", "--target 1e999KB: too large a number; write a smaller one"),
    ],
)
def test_targets_that_make_no_sense(text: str, objective: Objective, message: str) -> None:
    assert refusal(parse_target, text, objective) == message


@pytest.mark.parametrize("text", ["10", "", "x", "10xx", "10x max", "nanx", "infx", "10×", "ten x", "1,5x", "10x\n5x"])  # noqa: RUF001 - a user's sign
def test_what_is_no_target_says_what_is(text: str) -> None:
    message = refusal(parse_target, text.strip(), "size")
    assert "write a ratio (10x), a reduction (90%), an amount (120KB) or max" in message or "unknown unit" in message


def test_needed_ratio() -> None:
    assert parse_target("10x", "size").ratio(5000) == 10
    assert parse_target("120KB", "size").ratio(1_200_000) == 10
    assert parse_target("120KB", "size").ratio(60_000) == 0.5  # met already
    assert parse_target("max", "size").ratio(5000) == math.inf


@given(st.floats(1, 1e6), st.sampled_from(OBJECTIVES))
def test_a_ratio_is_what_was_written(number: float, objective: Objective) -> None:
    target = parse_target(f"{number!r}x", objective)
    assert target.kind == "ratio"
    assert target.value == number
    assert target.ratio(123.0) == number


@given(st.floats(0, 99.999))
def test_a_reduction_leaves_what_it_says(percent: float) -> None:
    ratio = parse_target(f"{percent:.6f}%", "size").value
    assert 100 * (1 - 1 / ratio) == pytest.approx(float(f"{percent:.6f}"), abs=1e-9)


@given(st.data(), st.sampled_from(OBJECTIVES), st.floats(1e-3, 1e6))
def test_every_unit_scales_by_its_factor(data: st.DataObject, objective: Objective, number: float) -> None:
    unit = data.draw(st.sampled_from(sorted(UNITS[objective])))
    target = parse_target(f"{number!r}{unit}", objective)
    assert target.value == number * UNITS[objective][unit]
    assert target.ratio(target.value * 7) == pytest.approx(7)


@given(st.text(max_size=12), st.sampled_from(OBJECTIVES))
def test_any_text_is_a_target_or_one_line(text: str, objective: Objective) -> None:
    try:
        target = parse_target(text, objective)
    except BadInput as error:
        assert "--target" in str(error)  # noqa: PT017 - either outcome is right
    else:
        assert target.kind == "max" or 0 < target.value < math.inf


# ---------------------------------------------------------------- floors


@pytest.mark.parametrize(
    ("text", "percent", "kind", "value"),
    [
        ("1%", True, "points", 1.0),
        ("0%", True, "points", 0.0),
        (" 0.5 % ", True, "points", 0.5),
        ("0.5", True, "points", 0.5),
        (".5", True, "points", 0.5),
        ("99.9%", True, "points", 99.9),
        ("1%rel", True, "relative", 0.01),
        ("1%rel", False, "relative", 0.01),
        ("2.5 %rel", False, "relative", 0.025),
        ("0.5", False, "points", 0.5),
        ("250", False, "points", 250.0),
    ],
)
def test_drops(text: str, percent: bool, kind: str, value: float) -> None:  # noqa: FBT001 - a case
    found = floor(text, percent=percent)
    assert found.kind == kind
    assert found.value == pytest.approx(value)
    assert found.text == text.strip()


@pytest.mark.parametrize(
    ("text", "percent", "message"),
    [
        ("200%", True, "--max-drop 200%: a drop of 200% leaves nothing; the floor must lie below 100%"),
        ("100%", True, "--max-drop 100%: a drop of 100% leaves nothing; the floor must lie below 100%"),
        ("100%rel", False, "--max-drop 100%rel: a drop of 100% leaves nothing; the floor must lie below 100%"),
        ("150", True, "--max-drop 150: accuracy is at most 100; the floor must lie below that"),
        ("-1%", True, "--max-drop -1%: a drop can't be negative; 0% keeps the baseline's quality"),
        (
            "1%",
            False,
            "--max-drop 1%: mse is not a percentage; write 1%rel, or an absolute drop such as 0.5",
        ),
        (
            "abc",
            True,
            "--max-drop abc: not a drop; write 1% (percentage points), 1%rel (of the baseline) or 0.5",
        ),
        ("1% rel", True, "--max-drop 1% rel: not a drop; write 1% (percentage points), 1%rel (of the baseline) or 0.5"),
        ("nan", True, "--max-drop nan: not a drop; write 1% (percentage points), 1%rel (of the baseline) or 0.5"),
        ("1e999", False, "--max-drop 1e999: too large a number; write a smaller one"),
    ],
)
def test_drops_that_make_no_sense(text: str, percent: bool, message: str) -> None:  # noqa: FBT001 - a case
    assert refusal(floor, text, percent=percent) == message


@pytest.mark.parametrize(
    ("text", "percent", "value"), [("98%", True, 98.0), ("98", True, 98.0), ("0.9", False, 0.9), ("-2", False, -2.0)]
)
def test_levels(text: str, percent: bool, value: float) -> None:  # noqa: FBT001 - a case
    found = floor(min_quality=text, percent=percent)
    assert (found.kind, found.value, found.text) == ("level", value, text)


@pytest.mark.parametrize(
    ("text", "percent", "message"),
    [
        ("101%", True, "--min-quality 101%: accuracy lies between 0% and 100%"),
        ("-1", True, "--min-quality -1: accuracy lies between 0% and 100%"),
        ("98%", False, "--min-quality 98%: mse is not a percentage; write the level without %"),
        ("good", True, "--min-quality good: not a level; write 98% or a number in the unit of accuracy"),
        ("98%rel", True, "--min-quality 98%rel: not a level; write 98% or a number in the unit of accuracy"),
        ("1e999", False, "--min-quality 1e999: too large a number; write a smaller one"),
    ],
)
def test_levels_that_make_no_sense(text: str, percent: bool, message: str) -> None:  # noqa: FBT001 - a case
    assert refusal(floor, min_quality=text, percent=percent) == message


def test_one_floor_is_needed_and_only_one() -> None:
    assert refusal(floor) == "no floor given: add --max-drop 1% (percentage points) or --min-quality 98%"
    both = refusal(floor, "1%", "98%")
    assert both == "--max-drop and --min-quality both state the floor; give one of them"


@pytest.mark.parametrize(
    ("text", "level", "percent", "baseline", "higher", "allowed"),
    [
        ("1%", None, True, 98.0, True, 1.0),
        ("1%rel", None, True, 98.0, True, 0.98),
        ("1%rel", None, False, -4.0, True, 0.04),  # a score that is negative still may not rise in size
        ("1%rel", None, False, 0.5, False, 0.005),
        (None, "98%", True, 98.5, True, 0.5),
        (None, "98%", True, 97.5, True, -0.5),  # out of reach before anything is changed
        (None, "0.6", False, 0.5, False, 0.1),  # an error: the level lies above
        (None, "0.4", False, 0.5, False, -0.1),
    ],
)
def test_allowed_drop(
    text: str | None,
    level: str | None,
    percent: bool,  # noqa: FBT001 - a case
    baseline: float,
    higher: bool,  # noqa: FBT001 - a case
    allowed: float,
) -> None:
    found = floor(text, level, percent=percent).allowed_drop(baseline, higher_is_better=higher)
    assert found == pytest.approx(allowed)


@given(st.text(max_size=10), st.booleans(), st.booleans())
def test_any_text_is_a_floor_or_one_line(text: str, level: bool, percent: bool) -> None:  # noqa: FBT001 - hypothesis
    try:
        found = floor(None if level else text, text if level else None, percent=percent)
    except BadInput as error:
        assert str(error).startswith("--min-quality" if level else "--max-drop")  # noqa: PT017 - either is right
    else:
        assert math.isfinite(found.value)


# ---------------------------------------------------------------- budgets


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("20min", "time", 1200.0),
        ("90s", "time", 90.0),
        ("2h", "time", 7200.0),
        ("1.5 min", "time", 90.0),
        (" .5h ", "time", 1800.0),
        ("30ep", "epochs", 30.0),
        ("1ep", "epochs", 1.0),
        ("none", "none", 0.0),
        ("0", "none", 0.0),
    ],
)
def test_budgets(text: str, kind: str, value: float) -> None:
    budget = parse_budget(text)
    assert (budget.kind, budget.value, budget.text) == (kind, value, text.strip())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        *(
            (text, f"--budget {text}: not a budget; write 20min, 90s, 2h, 30ep or none")
            for text in ("20", "", "-5min", "0min", "0ep", "abc", "5days", "20 minutes", "nanmin")
        ),
        ("2.5ep", "--budget 2.5ep: epochs are whole; write 2ep"),
        ("0.5ep", "--budget 0.5ep: epochs are whole; write 1ep"),
        ("1e999ep", "--budget 1e999ep: too large a number; write a smaller one"),
        ("1e308h", "--budget 1e308h: too large a number; write a smaller one"),
        ("1e999h", "--budget 1e999h: too large a number; write a smaller one"),
    ],
)
def test_budgets_that_make_no_sense(text: str, message: str) -> None:
    assert refusal(parse_budget, text) == message


# ---------------------------------------------------------------- values


def test_values_are_frozen_closed_and_go_through_json() -> None:
    goal = Goal(objective="size", target=parse_target("10x", "size"), floor=floor("1%"))
    assert Goal.model_validate_json(goal.model_dump_json()) == goal
    assert goal.format == "onnx"
    with pytest.raises(ValidationError):
        goal.objective = "latency"  # type: ignore[misc] # frozen: that is the test
    with pytest.raises(ValidationError):
        Target.model_validate({"kind": "ratio", "value": 2.0, "text": "2x", "more": 1})
