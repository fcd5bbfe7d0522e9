"""What a plan rests on: the lines of its first table, and the same for machines."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from easycompress.core.goal import parse_budget, parse_floor, parse_target
from easycompress.metrics import METRICS

if TYPE_CHECKING:
    from easycompress.report.brief import Brief


def rows(brief: Brief) -> dict[str, tuple[str, str]]:
    return {label: (asked, given) for label, asked, given in brief.rows()}


def asked_for(brief: Brief, target: str, objective: Any, value: float) -> Brief:
    parsed = parse_target(target, objective)
    goal = brief.goal.model_copy(update={"objective": objective, "target": parsed})
    return replace(brief, goal=goal, value=value, needed=parsed.ratio(value))


@pytest.mark.parametrize(
    ("target", "objective", "value", "expected"),
    [
        ("10x", "size", 1000.0, ("10x smaller", "1 000 -> 100 bytes")),
        ("90%", "size", 1000.0, ("90% smaller", "1 000 -> 100 bytes")),
        ("120KB", "size", 240_000.0, ("at most 120KB", "240 000 -> 120 000 bytes")),
        ("120KB", "size", 90_000.0, ("at most 120KB", "90 000 bytes, which meets it already")),
        ("max", "size", 1000.0, ("as much smaller as the floor permits", "1 000 bytes")),
        ("2x", "latency", 0.5, ("2x less time", "0.500 ms -> 0.250 ms")),
        ("40MMACs", "compute", 8e7, ("at most 40MMACs", "80.0 MMACs -> 40.0 MMACs")),
        ("max", "energy", 1.5, ("as much less energy as the floor permits", "1.50 mJ")),
    ],
)
def test_the_objective(brief: Brief, target: str, objective: str, value: float, expected: tuple[str, str]) -> None:
    assert rows(asked_for(brief, target, objective, value))[objective] == expected


def test_a_packed_file_is_asked_for_in_words(brief: Brief) -> None:
    packed = replace(brief, goal=brief.goal.model_copy(update={"format": "packed"}))
    assert rows(packed)["size"] == ("10x smaller, packed", "1 725 832 -> 172 583 bytes")
    assert packed.to_json()["goal"]["format"] == "packed"


def test_the_floor(brief: Brief) -> None:
    assert rows(brief)["accuracy"] == ("at most 1 point lower", "99.14 % on select, floor 98.14 %")
    certified = replace(brief, request=brief.request.model_copy(update={"certify": True}))
    assert rows(certified)["accuracy"][0] == "at most 1 point lower, at 95 % confidence"
    floor = parse_floor("0.02", None, percent_metric=False, metric="mse")
    lower = replace(
        brief, metric=METRICS["mse"], quality=0.1, allowed=0.02, goal=brief.goal.model_copy(update={"floor": floor})
    )
    assert rows(lower)["mse"] == ("at most 0.02 higher", "0.1000 on select, floor 0.1200")


@pytest.mark.parametrize(
    ("budget", "epochs", "train", "expected"),
    [
        ("20min", 31.4, 10, "about 31 epochs of the original model"),
        ("20min", 1.23, 10, "about 1.2 epochs of the original model"),
        ("30ep", 30.0, 10, "30 epochs over all attempts"),
        ("none", 0.0, 10, "no training"),
        ("20min", 0.0, 0, "no training: there is no data for it"),
    ],
)
def test_the_means(brief: Brief, budget: str, epochs: float, train: int, expected: str) -> None:
    samples = {"train": train, "calibration": 5, "select": 20, "report": 20}
    changed = rows(replace(brief, budget=parse_budget(budget), epochs=epochs, samples=samples))
    assert changed["budget"] == (budget, expected)
    assert changed["calibration"] == ("", f"5 samples of {'train' if train else 'select'}")


def test_the_backend_and_what_latency_is_judged_at(brief: Brief) -> None:
    request = brief.request.model_copy(update={"backend": "gpu", "batch": 64})
    assert rows(replace(brief, request=request, threads=1))["backend"] == ("gpu", "latency at batch 64, 1 thread")


def test_the_json_holds_no_infinity_and_repeats_nothing_but_numbers(brief: Brief) -> None:
    content = replace(brief, needed=math.inf).to_json()
    assert json.loads(json.dumps(content, allow_nan=False)) == content
    assert content["goal"]["ratio_needed"] is None
    content = brief.to_json()
    assert (content["goal"]["ratio_needed"], content["goal"]["allowed_drop"]) == (10.0, 1.0)
    assert content["metric"] == {"name": "accuracy", "percent": True, "higher_is_better": True}
    assert content["baseline"] == {"quality": 99.14, "objective": 1_725_832.0}
    assert content["resources"] == {
        "budget": "20min", "epochs_affordable": 31.4, "backend": "cpu", "batch": 1, "threads": 2
    }  # fmt: skip
    assert content["data"] == {"train": 50_000, "calibration": 1024, "select": 5000, "report": 10_000}
    assert content["request"]["model"] == "m.pt"
