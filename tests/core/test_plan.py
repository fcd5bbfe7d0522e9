"""Plans, actions, requests, profiles, errors: the vocabulary."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from easycompress.core.errors import BadInput, CannotCompress, EasyCompressError, one_line
from easycompress.core.plan import Action, Decision, Plan
from easycompress.core.profile import LayerProfile, ModelProfile
from easycompress.core.progress import Silent
from easycompress.core.request import Request


class Shrink(Action):
    kind: str = "shrink"
    strength: float | None = None
    rounds: int = 2


class Bare(Action):
    kind: str = "bare"


def test_an_action_in_one_line() -> None:
    assert Shrink().describe() == "shrink (rounds 2)"
    assert Shrink(strength=0.25).describe() == "shrink (strength 0.25, rounds 2)"


def test_an_action_without_settings_is_its_name() -> None:
    assert Bare().describe() == "bare"


def test_a_brief_action_says_what_is_unusual() -> None:
    assert Shrink().brief() == "shrink"
    assert Shrink(strength=0.25).brief() == "shrink (strength 0.25)"
    assert Shrink(rounds=3).brief() == "shrink (rounds 3)"


def test_actions_and_plans_are_frozen_and_closed() -> None:
    with pytest.raises(ValidationError):
        Shrink(strenth=0.5)  # type: ignore[call-arg] # a misspelt setting must not pass unnoticed
    action = Shrink()
    with pytest.raises(ValidationError):
        action.rounds = 3  # type: ignore[misc] # frozen: that is the test
    plan = Plan(steps=(action,), decisions=(Decision(rule="S1", question="?", answer="yes", evidence="e"),))
    assert plan.notes == ()
    with pytest.raises(ValidationError):
        plan.steps = ()  # type: ignore[misc] # frozen: that is the test


def layer(name: str, family: Any, params: int, macs: int) -> LayerProfile:
    return LayerProfile(name=name, type=name.rstrip("12"), family=family, params=params, macs=macs)


def profile(*layers: LayerProfile) -> ModelProfile:
    return ModelProfile(
        architecture="cnn",
        layers=layers,
        params=sum(entry.params for entry in layers),
        macs=sum(entry.macs for entry in layers),
        has_batch_norm=False,
        input_shape=(1, 8, 8),
        outputs=10,
    )


def test_shares_are_largest_first_and_sum_to_one() -> None:
    facts = profile(
        layer("Conv1", "convolutional", 10, 900), layer("Linear1", "linear", 70, 50), layer("Linear2", "linear", 20, 50)
    )
    assert facts.counts() == {"Conv": 1, "Linear": 2}
    assert facts.param_share() == pytest.approx({"linear": 0.9, "convolutional": 0.1})
    assert list(facts.param_share()) == ["linear", "convolutional"]
    assert list(facts.mac_share()) == ["convolutional", "linear"]
    assert sum(facts.mac_share().values()) == pytest.approx(1)


def test_shares_of_nothing() -> None:
    assert profile().param_share() == {}
    assert profile(layer("A", "other", 0, 0)).mac_share() == {"other": 0.0}


@pytest.mark.parametrize(
    "wrong", [{"batch": 0}, {"threads": -1}, {"seed": -1}, {"seed": 2**32}, {"backend": "tpu"}, {"mean": "a"}, {"x": 1}]
)
def test_a_request_refuses_what_no_run_can_do(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Request.model_validate({"model": "m.pt", **wrong})


def test_a_request_has_the_documented_defaults_and_is_json() -> None:
    request = Request(model="m.pt")
    assert (request.objective, request.metric, request.format, request.budget) == ("size", None, "onnx", "20min")
    assert (request.batch, request.threads, request.seed, request.backend) == (1, 0, 0, "cpu")
    assert Request.model_validate_json(request.model_dump_json()) == request


def test_every_refusal_has_its_exit_code() -> None:
    assert issubclass(BadInput, EasyCompressError)
    assert BadInput("x").exit_code == 2
    assert issubclass(CannotCompress, EasyCompressError)
    assert CannotCompress("x").exit_code == 3


def test_any_error_fits_one_line() -> None:
    assert one_line(ValueError("a\n  b\tc")) == "a b c"
    assert one_line(KeyError()) == "KeyError"
    long = one_line(ValueError("x" * 400), 100)
    assert len(long) == 100
    assert long.endswith("…")


def test_silence_listens_to_everything() -> None:
    listener = Silent()
    assert (listener.say("a"), listener.now("b")) == (None, None)  # type: ignore[func-returns-value] # that is the test
