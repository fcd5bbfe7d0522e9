"""Verdicts, exit codes, and a report that is JSON."""

from __future__ import annotations

import itertools
import json
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from easycompress.core.outcome import (
    SCHEMA,
    Artifact,
    Drop,
    Energy,
    Latency,
    Measurement,
    Report,
    StepRecord,
    Verdict,
    decide,
    exit_code,
)


@pytest.mark.parametrize(
    ("target_met", "drop_met", "certify", "certified", "verdict"),
    [
        (True, True, False, False, "met"),
        (True, True, False, True, "met"),
        (True, True, True, True, "met"),
        (True, True, True, False, "undecided"),
        (False, True, False, False, "target-missed"),
        (False, True, True, True, "target-missed"),
        (False, True, True, False, "undecided"),
        (True, False, False, False, "floor-missed"),
        (True, False, True, True, "floor-missed"),
        (False, False, True, False, "floor-missed"),
    ],
)
def test_verdicts(target_met: bool, drop_met: bool, certify: bool, certified: bool, verdict: Verdict) -> None:  # noqa: FBT001 - a case
    assert decide(target_met=target_met, drop_met=drop_met, certify=certify, certified=certified) == verdict


def test_no_verdict_is_better_than_the_facts() -> None:
    for target_met, drop_met, certify, certified in itertools.product((True, False), repeat=4):
        verdict = decide(target_met=target_met, drop_met=drop_met, certify=certify, certified=certified)
        assert (exit_code(verdict) == 0) == (target_met and drop_met and (certified or not certify))


def test_exit_codes() -> None:
    assert {verdict: exit_code(verdict) for verdict in get_args(Verdict)} == {
        "met": 0,
        "target-missed": 1,
        "floor-missed": 1,
        "undecided": 4,
    }


def measurement(size: int) -> Measurement:
    return Measurement(
        quality=98.5,
        size_bytes=size,
        params=1000,
        macs=20_000,
        latency_ms=(Latency(batch=1, median=0.5, iqr=0.01, threads=2, runs=100),),
        energy_mj=Energy(value=0.1, source="estimated"),
    )


def report(**changes: Any) -> Report:
    values: dict[str, Any] = {
        "request": {"model": "m.pt", "target": "10x"},
        "environment": {"threads": 2},
        "profile": {},
        "decisions": ({"rule": "S1", "question": "?", "answer": "yes", "evidence": ""},),
        "plan": {"steps": [], "notes": []},
        "steps": (
            StepRecord(
                action="a",
                settings={"strength": 0.5},
                before={"ratio": 1.0},
                after={"ratio": None},
                verdict="kept",
                seconds=1.0,
                epochs=2,
                reason="r",
            ),
        ),
        "baseline": measurement(4000),
        "final": measurement(400),
        "ratio": 10.0,
        "drop": Drop(estimate=0.5, upper_95=None, n=1000, worse=7, better=2, certified=False),
        "target_met": True,
        "drop_met": True,
        "verdict": "met",
        "summary": "MET: …",
        "artifacts": (Artifact(path="model.onnx", bytes=400, sha256="00"),),
    }
    return Report(**{**values, **changes})


def test_report_json_has_the_contract_fields_schema_first() -> None:
    data = report().to_json()
    wanted = (
        "schema, request, environment, profile, decisions, plan, steps, baseline, final, ratio, drop, target_met, "
        "drop_met, verdict, artifacts"
    )
    assert set(wanted.split(", ")) <= data.keys()
    assert next(iter(data)) == "schema"
    assert data["schema"] == SCHEMA
    assert "schema_" not in data
    assert data["baseline"]["latency_ms"] == [{"batch": 1, "median": 0.5, "iqr": 0.01, "threads": 2, "runs": 100}]
    assert data["final"]["energy_mj"] == {"value": 0.1, "source": "estimated"}
    assert set(data["drop"]) == {"estimate", "upper_95", "n", "worse", "better", "certified", "needed"}
    assert set(data["steps"][0]) == {
        "action", "settings", "before", "after", "verdict", "seconds", "epochs", "reason",
    }  # fmt: skip


def test_report_goes_through_json_unchanged() -> None:
    original = report()
    data = json.loads(json.dumps(original.to_json(), allow_nan=False))
    data["schema_"] = data.pop("schema")
    assert Report.model_validate(data) == original


def test_to_json_leaves_the_report_as_it_is() -> None:
    original = report()
    original.to_json().clear()
    assert original == report()


def test_a_verdict_outside_the_contract_is_no_report() -> None:
    with pytest.raises(ValidationError):
        report(verdict="fine")
