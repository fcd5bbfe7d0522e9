"""An attempt that just missed the floor: its training goes on from the weights that it ended with."""

from __future__ import annotations

import math
import pickle
from dataclasses import replace
from typing import TYPE_CHECKING

import nets
import pytest
from safetensors.torch import load_file

from easycompress.carry import make_workshop
from easycompress.changes import _stage
from easycompress.core.outcome import Drop
from easycompress.core.plan import Plan
from easycompress.core.progress import Silent
from easycompress.core.request import Request
from easycompress.distillation.settings import FURTHER, RATE, Distillation
from easycompress.executor.attempt import Attempt
from easycompress.executor.dial import Dial
from easycompress.executor.journal import RESULT, open_journal
from easycompress.executor.onward import LEFT, NEAR, TRAINED, can_go_on, further, near, start_of, used, within_reach
from easycompress.executor.run import execute
from easycompress.executor.search import Outcome
from easycompress.executor.together import _start
from easycompress.executor.told import steps_of
from easycompress.prepare import prepare
from easycompress.pruning.settings import StructuredPruning
from easycompress.quantization.settings import StaticInt8
from easycompress.techniques import parse_action

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor

    from easycompress.core.plan import Action
    from easycompress.executor.workshop import Workshop

PRUNED = StructuredPruning(strategy="global", importance="l1", strength=0.5, steps=1)
TAUGHT = Distillation(technique="hard", rate=0.2)
CHAINS: dict[str, tuple[Action, ...]] = {"float": (PRUNED, TAUGHT), "int8": (PRUNED, TAUGHT, StaticInt8(samples=64))}


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    """Return a workshop whose floor nothing keeps."""
    request = Request(model="net", objective="size", target="2x", max_drop="0.1%", budget="20ep", force=True)
    prepared = replace(prepare(nets.task(nets.make(nets.Mlp)), request, tmp_path), allowed=-100.0)
    return make_workshop(prepared, request, open_journal(tmp_path / "out", {}, resume=False, began=0.0), Silent())


def weights(shop: Workshop, attempt: Attempt, end: str = ".safetensors") -> dict[str, Tensor]:
    return load_file(str(shop.trainer.journal.path(f"{attempt.tag}{end}")))


def twice(shop: Workshop, actions: Sequence[Action]) -> tuple[Attempt, Attempt]:
    """Return an attempt that was rejected, 10 of 20 epochs, and one that goes on from it, half of the rest."""
    first = shop.attempt(1, actions, 0.5, 0.0)
    return first, shop.attempt(2, actions, 0.5, 0.0, first)


@pytest.mark.parametrize("chain", CHAINS)
def test_training_goes_on(shop: Workshop, chain: str) -> None:
    first, second = twice(shop, CHAINS[chain])
    assert not first.accepted
    assert can_go_on(first)
    assert (first.epochs, second.epochs) == (10, 5)
    assert shop.trainer.clock.epochs_used == 15
    assert second.goes_on == first.tag
    assert [action["kind"] for action in second.actions] == [
        a.kind for a in (PRUNED, TAUGHT, TAUGHT, *CHAINS[chain][2:])
    ]
    assert [action.get("epochs") for action in second.actions][:3] == [None, 10, 5]
    assert second.quality >= first.quality
    assert second.ratio == pytest.approx(first.ratio, rel=0.01)
    before, after = (weights(shop, attempt, TRAINED) for attempt in (first, second))
    assert not nets.same_state(before, after)


@pytest.mark.parametrize("chain", CHAINS)
def test_the_recipe_of_what_went_on_makes_the_same_weights(shop: Workshop, chain: str) -> None:
    _, second = twice(shop, CHAINS[chain])
    shop.trainer.clock.epochs_used = 0
    again = shop.attempt(3, [parse_action(action) for action in second.actions], 1.0, 0.0)
    assert nets.same_state(weights(shop, again), weights(shop, second))
    assert [row.epochs for row in again.stages] == [row.epochs for row in second.stages]
    assert again.quality == second.quality


def test_a_killed_run_goes_on_from_the_same_weights(shop: Workshop) -> None:
    """The attempt that went on is made anew from what the first one left, as a resume would."""
    first, second = twice(shop, CHAINS["int8"])
    found = weights(shop, second)
    del shop.trainer.journal.entries[f"{second.tag}{RESULT}"]
    kept = Attempt.model_validate(shop.trainer.journal.entries[f"{first.tag}{RESULT}"])
    again = shop.attempt(2, CHAINS["int8"], 0.5, 0.0, kept)
    assert nets.same_state(weights(shop, again), found)


@pytest.mark.parametrize("chain", CHAINS)
def test_the_report_tells_of_it_once(shop: Workshop, chain: str) -> None:
    first, second = twice(shop, CHAINS[chain])
    outcome: Outcome[Attempt] = Outcome(best=second, tried=[(0.5, first), (0.5, second)])
    rows = steps_of(outcome)
    assert [row.action for row in rows] == [action["kind"] for action in second.actions]
    assert sum(row.epochs for row in rows) == first.epochs + second.epochs
    assert sum(row.seconds for row in rows) == pytest.approx(first.seconds + second.seconds)
    assert rows[1].reason == f"{first.stages[-1].reason}; its training went on in attempt 2"
    assert rows[2].before == rows[1].after
    assert {row.verdict for row in rows} == {"kept"}


def test_two_distillations_in_one_recipe_are_both_done(shop: Workshop) -> None:
    """The second one found the first one's training state, and took itself for finished."""
    actions = [PRUNED, *(TAUGHT.model_copy(update={"epochs": 3}),) * 2]
    attempt = shop.attempt(1, actions, 1.0, 0.0)
    assert [row.epochs for row in attempt.stages] == [0, 3, 3]


def test_trainings_that_are_named_may_take_longer_together_than_one_alone(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What two attempts trained, each up to the longest there is, a recipe repeats in one."""
    monkeypatch.setattr("easycompress.executor.clock.LONGEST_STEPS", 32)  # four epochs of eight batches
    first, second = twice(shop, CHAINS["float"])
    assert (first.epochs, second.epochs) == (4, 4)
    shop.trainer.clock.epochs_used = 0
    again = shop.attempt(3, [parse_action(action) for action in second.actions], 1.0, 0.0)
    assert [row.epochs for row in again.stages] == [0, 4, 4]
    assert nets.same_state(weights(shop, again), weights(shop, second))


def test_the_files_between_are_those_of_the_attempt_before(shop: Workshop) -> None:
    _, second = twice(shop, CHAINS["int8"])
    assert _stage(shop.trainer.journal, second, 1).name == "attempt 1.stage 1.onnx"
    assert _stage(shop.trainer.journal, second, 2).name == "attempt 1.stage 2.onnx"
    assert _stage(shop.trainer.journal, second, 3).name == "attempt 2.stage 3.onnx"
    assert all(_stage(shop.trainer.journal, second, place).exists() for place in (1, 2, 3))


def test_a_follower_begins_with_what_the_leader_has(shop: Workshop) -> None:
    first, _ = twice(shop, CHAINS["int8"])
    start = start_of(shop.trainer.task, first, shop.trainer.journal)
    told = pickle.loads(pickle.dumps({"records": start.records, "weights": start.model.state_dict()}))  # noqa: S301
    made = _start(shop.trainer.task, told)
    assert nets.same_state(nets.state(made.model), nets.state(start.model))
    assert made.records == start.records
    assert _start(shop.trainer.task, None).records == []


def test_what_is_accepted_leaves_no_second_weights(shop: Workshop) -> None:
    shop.trainer.allowed = 100.0
    attempt = shop.attempt(1, CHAINS["float"], 0.5, 0.0)
    assert attempt.accepted
    assert not shop.trainer.journal.path(f"{attempt.tag}{TRAINED}").exists()


def missed(drop: float, epochs: int, planned: int, heads: int = 2) -> Attempt:
    """Return a rejected attempt with that drop, its error a tenth of a point."""
    found = Drop(estimate=drop, upper_95=None, n=10, worse=1, better=0, certified=False)
    row = {"action": "x", "settings": {}, "before": {}, "after": {"error": 0.1}, "verdict": "kept"}
    return Attempt.model_validate(
        {
            "tag": "attempt 1", "actions": (), "value": 1.0, "ratio": 2.0, "quality": 90.0, "drop": found,
            "accepted": False, "reason": "", "epochs": epochs, "seconds": 1.0, "finishing": 0.0, "records": (),
            "codes": {}, "stages": [row | {"seconds": 1.0, "epochs": epochs, "reason": ""}],
            "planned_epochs": planned, "heads": heads,
        }
    )  # fmt: skip


def test_which_attempts_are_near(shop: Workshop) -> None:
    dial = Dial(CHAINS["float"])
    shop.trainer.allowed = 1.0
    assert used(missed(0.9, 5, 5), 1.0) == pytest.approx(1.0)
    assert within_reach(missed(0.91, 5, 5), 1.0)
    assert within_reach(missed(0.89 / LEFT, 5, 5), 1.0)
    assert not within_reach(missed(0.91 / LEFT, 5, 5), 1.0)
    assert not within_reach(missed(0.5, 5, 5), 1.0)  # rejected for want of samples that would certify it
    assert not within_reach(missed(0.0, 5, 5), 0.05)  # or for its error alone: there is nothing to regain
    assert not within_reach(missed(math.nan, 5, 5), 1.0)
    assert not within_reach(missed(1.0, 5, 5, heads=0), 1.0)
    assert not within_reach(missed(0.1, 5, 5), 0.0)
    assert near(dial, shop, missed(NEAR, 4, 5, heads=0))
    assert not near(dial, shop, missed(NEAR + 0.1, 4, 5))
    assert not near(Dial((PRUNED,)), shop, missed(1.0, 5, 5))
    shop.trainer.allowed = 0.0
    assert not near(dial, shop, missed(0.1, 5, 5))


def test_what_is_done_again(shop: Workshop) -> None:
    taught = TAUGHT.model_copy(update={"mode": "budget", "rate": FURTHER * 0.2})
    assert further(CHAINS["int8"]) == (taught, StaticInt8(samples=64))
    assert further([Distillation()]) == (Distillation(mode="budget", rate=FURTHER * RATE),)
    sparse = shop.attempt(1, [TAUGHT, PRUNED], 0.5, 0.0)  # what was trained last doesn't recover
    assert sparse.epochs == sparse.planned_epochs
    assert not can_go_on(sparse)


def test_a_plan_whose_first_attempt_just_misses_is_trained_on(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The floor lies between what the first attempt and what its further training come to."""
    trainer = shop.trainer
    plan = Plan(steps=(StructuredPruning(strategy="global", importance="l1", steps=1), TAUGHT), decisions=())
    monkeypatch.setattr("easycompress.executor.run.within_reach", lambda *_: True)
    done = execute(plan, shop, 2.0)
    assert done.tried >= 2
    second = Attempt.model_validate(trainer.journal.entries[f"attempt 2{RESULT}"])
    assert second.goes_on == "attempt 1"
    assert second.epochs == 5  # seven tenths of the eight epochs that the first one's twelve left
