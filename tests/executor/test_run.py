"""The executor over a workshop that makes nothing: what is tried, in which order, and what is said about it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from easycompress.core.errors import CannotCompress
from easycompress.core.goal import parse_budget, parse_target
from easycompress.core.outcome import Drop, StepRecord
from easycompress.core.plan import Plan
from easycompress.distillation.settings import Distillation
from easycompress.executor.clock import Clock
from easycompress.executor.run import Executed, execute
from easycompress.executor.search import MOST_ATTEMPTS, RESOLUTION
from easycompress.executor.workshop import Attempt, Probe, Workshop
from easycompress.lc.ranks.settings import LowRankLayers
from easycompress.lc.settings import EntropyQuantization, LearningCompression
from easycompress.pruning.settings import StructuredPruning
from easycompress.quantization.settings import StaticInt8

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from easycompress.core.plan import Action
    from easycompress.executor.dial import Dial
    from easycompress.executor.journal import Journal

BASELINE = 1000.0
CODES = Plan(steps=(LearningCompression(),), decisions=(), quick=(EntropyQuantization(),))
FULL = Plan(steps=(StructuredPruning(), Distillation(), StaticInt8()), decisions=())


class FakeJournal:
    """Values by key, and a time that stands still unless it is moved."""

    def __init__(self) -> None:
        self.entries: dict[str, Any] = {}
        self.now = 0.0

    def once(self, key: str, compute: Callable[[], Any]) -> Any:
        if key not in self.entries:
            self.entries[key] = json.loads(json.dumps(compute()))
        return self.entries[key]

    def elapsed(self) -> float:
        return self.now


@dataclass
class FakeShop:
    """Pruning divides by up to 20, int8 by 4; the floor breaks beyond `limit`, with int8 beyond `int8_limit`.

    Rounding to integers adds `rounding` of the original's time.
    """

    budget: str = "100ep"
    objective: str = "size"
    target: str = "10x"
    limit: float = 1.0
    int8_limit: float = 1.0
    int8_ratio: float = 4.0
    rounding: float = 0.0
    quick_limit: float = 1.0
    further_limit: float | None = None
    ranks_limit: float = 1.0
    drop: float = 3.25
    curve: float = 1.0
    allowed: float = 1.5
    family_ratio: float = 20.0
    probe_seconds: float = 0.0
    quick_seconds: float = 0.0
    journal: FakeJournal = field(default_factory=FakeJournal)
    said: list[str] = field(default_factory=list)
    made: list[tuple[Action, ...]] = field(default_factory=list)
    onward: list[str] = field(default_factory=list)
    probed: int = 0
    meter: None = None

    def __post_init__(self) -> None:
        self.goal = SimpleNamespace(objective=self.objective, target=parse_target(self.target, "size"))
        self.baseline_value = BASELINE
        progress = SimpleNamespace(say=self.said.append, now=lambda _: None)
        clock = Clock(parse_budget(self.budget), cast("Journal", self.journal), 0.0)
        task = SimpleNamespace(metric=SimpleNamespace(percent=True, quality=lambda _: 99.5))
        self.trainer = SimpleNamespace(
            progress=progress,
            clock=clock,
            journal=self.journal,
            task=task,
            baseline=None,
            allowed=self.allowed,
            train=range(1000),
        )

    def _ratio(self, actions: Sequence[Action]) -> float:
        ratio = 1.0
        for action in actions:
            if isinstance(action, StructuredPruning):
                assert action.strength is not None
                ratio *= (20.0 if action.strategy == "global" else self.family_ratio) ** action.strength**self.curve
            ratio *= self.int8_ratio if isinstance(action, StaticInt8) else 1
            if isinstance(action, LowRankLayers):
                assert action.strength is not None
                ratio *= 7.0**action.strength
            if isinstance(action, (EntropyQuantization, LearningCompression)):
                assert action.strength is not None
                ratio *= 40.0**action.strength**self.curve
        return 1 / (1 / ratio + self.rounding * any(isinstance(action, StaticInt8) for action in actions))

    def probe(self, actions: Sequence[Action]) -> Probe:
        assert actions, "nothing to make"
        self.probed += 1
        self.journal.now += self.probe_seconds
        ratio = self._ratio(actions)
        return Probe(value=BASELINE / ratio, ratio=ratio, seconds=0.0, step_seconds=0.1)

    def attempt(
        self, number: int, actions: Sequence[Action], share: float, step_seconds: float, before: Attempt | None = None
    ) -> Attempt:
        assert number == len(self.made) + 1
        assert 0 < share <= 1
        assert step_seconds == 0.1
        self.made.append(tuple(actions))
        strength = self.strengths()[-1]
        int8, quick = (any(isinstance(a, kind) for a in actions) for kind in (StaticInt8, EntropyQuantization))
        self.journal.now += self.quick_seconds * quick
        ranks = any(isinstance(a, LowRankLayers) for a in actions)
        accepted = strength <= (
            self.quick_limit if quick else self.ranks_limit if ranks else self.int8_limit if int8 else self.limit
        )
        if before is not None:
            assert before.tag == f"attempt {number - 1}"
            self.onward.append(before.tag)
            accepted = strength <= (self.further_limit or 0.0)
        drop = Drop(estimate=0.5 if accepted else self.drop, upper_95=None, n=10, worse=1, better=0, certified=False)
        ratio = self._ratio(actions)
        step = StepRecord(
            action="x", settings={}, before={}, after={}, verdict="kept", seconds=0, epochs=0, reason=str(number)
        )
        return Attempt(
            tag=f"attempt {number}", actions=(), value=BASELINE / ratio, ratio=ratio, quality=99.0, drop=drop,
            accepted=accepted, reason="", epochs=int(self.further_limit is not None), seconds=0.0, finishing=0.0,
            records=(), codes={}, stages=(step,), planned_epochs=int(self.budget != "none"), heads=2,
            goes_on="" if before is None else before.tag,
        )  # fmt: skip

    def run(self, plan: Plan = FULL, needed: float | None = None) -> Executed:
        needed = self.goal.target.ratio(BASELINE) if needed is None else needed
        return execute(plan, cast("Workshop", self), needed)

    def strengths(self) -> list[float]:
        return [max(getattr(action, "strength", None) or 0.0 for action in actions) for actions in self.made]

    def kinds(self) -> list[str]:
        return [action.kind for actions in self.made for action in actions]


def test_the_least_pruning_that_reaches_the_target_and_no_more() -> None:
    shop = FakeShop()
    done = shop.run()
    assert done.best is not None
    assert 10 <= done.best.ratio <= 10 * 20**RESOLUTION
    assert done.why == ""
    assert [step.verdict for step in done.steps] == ["kept", "kept"]
    assert done.steps[0].action == "search"
    assert shop.said == [f"the least structured-pruning that reaches the target is 31.0% of the channels: {done.best.ratio:.2f}x untrained"]  # fmt: skip  # noqa: E501


def test_what_int8_reaches_alone_is_not_pruned_and_not_trained() -> None:
    shop = FakeShop(target="3.9x")
    done = shop.run()
    assert shop.made == [(StaticInt8(),)]
    assert done.steps[0].verdict == "skipped"
    assert shop.said == ["the target needs no structured-pruning: untrained, the file reaches 4.00x"]


def test_out_of_reach_is_announced_before_anything_is_trained() -> None:
    shop = FakeShop(target="1000x", int8_limit=0.5)
    begun = []
    shop.trainer.progress.say = lambda text: begun.append((text, len(shop.made)))
    done = shop.run()
    assert begun[0][1] == 0
    assert begun[0][0] == (
        "1000x is out of reach: the strongest setting of this plan gives a file of 80.00x; "
        "looking for the most within the floor"
    )
    assert done.why == "the strongest setting of this plan gives a file of 80.00x"
    assert done.best is not None
    assert max(s for s in shop.strengths() if s <= 0.5) >= 0.5 - 1 / 32
    assert done.best.ratio == 4 * 20 ** max(s for s in shop.strengths() if s <= 0.5)


def test_where_the_floor_gives_the_target_gives() -> None:
    shop = FakeShop(int8_limit=0.2)
    done = shop.run()
    assert done.best is not None
    assert done.best.accepted
    assert 4 < done.best.ratio < 10
    assert done.why.endswith("x lost 3.25 points on select")
    first, second = shop.made[:2]
    assert isinstance(first[1], Distillation)
    assert isinstance(second[1], Distillation)
    assert (first[1].mode, second[1].mode) == ("target", "budget")
    assert first[0] == second[0]
    assert len(done.steps[1:]) == done.tried == len(shop.made)
    for strength, step in zip(shop.strengths(), done.steps[1:], strict=True):
        best = step is max(done.steps[1:], key=lambda s: (shop.strengths()[int(s.reason) - 1] <= 0.2, int(s.reason)))
        assert step.verdict in ({"kept"} if best else {"surpassed"} if strength <= 0.2 else {"weakened", "reverted"})


def test_without_training_nothing_is_made_twice() -> None:
    for shop, plan in (
        (FakeShop(budget="none", int8_limit=0.2), FULL),
        (FakeShop(int8_limit=0.2), Plan(steps=(StructuredPruning(), StaticInt8()), decisions=())),
    ):
        shop.run(plan)
        assert len(set(shop.strengths())) == len(shop.strengths()) > 2


def test_where_int8_breaks_the_floor_pruning_alone_is_tried() -> None:
    shop = FakeShop(int8_limit=-1, limit=0.4)
    done = shop.run()
    assert done.best is not None
    assert 1 < done.best.ratio <= 20**0.4
    assert "nothing with int8 keeps the floor; looking for the most that floating point does" in shop.said
    assert len(shop.made) <= 2 * MOST_ATTEMPTS
    assert sum(step.verdict == "kept" for step in done.steps[1:]) == 1


def test_where_nothing_keeps_the_floor_the_original_stays() -> None:
    done = FakeShop(int8_limit=-1, limit=-1).run()
    assert done.best is None
    assert done.why.endswith("x lost 3.25 points on select")


def test_the_most_stops_at_no_target() -> None:
    shop = FakeShop(target="max", int8_limit=0.3)
    done = shop.run()
    assert done.best is not None
    assert done.best.ratio == 4 * 20 ** max(s for s in shop.strengths() if s <= 0.3)
    assert len(shop.made) == MOST_ATTEMPTS


def test_a_latency_target_leaves_room_for_noise() -> None:
    done = FakeShop(objective="latency").run()
    assert done.best is not None
    assert done.best.ratio >= 10.5


def test_without_int8_strength_zero_is_no_candidate() -> None:
    shop = FakeShop(target="5x", limit=0.3)
    done = shop.run(Plan(steps=(StructuredPruning(), Distillation()), decisions=()))
    assert done.best is not None
    assert 0 not in shop.strengths()


def test_settled_actions_are_attempted_once() -> None:
    recipe = Plan(steps=(StructuredPruning(strength=0.5), Distillation(epochs=3), StaticInt8()), decisions=())
    shop = FakeShop()
    done = shop.run(recipe)
    assert shop.made == [recipe.steps]
    assert done.best is not None
    assert done.why == ""


def test_a_recipe_that_falls_short_says_so() -> None:
    done = FakeShop(target="1000x").run(Plan(steps=(StaticInt8(),), decisions=()))
    assert done.best is not None
    assert done.why == "the plan holds nothing that goes further"


@pytest.mark.parametrize("budget", ["100ep", "100s"])
def test_a_resumed_run_goes_the_same_way_though_the_clock_says_otherwise(budget: str) -> None:
    first = FakeShop(budget=budget, int8_limit=0.2, probe_seconds=1.0 if budget == "100s" else 0.0)
    done = first.run()
    again = FakeShop(budget=budget, int8_limit=0.2, journal=first.journal)
    again.journal.now = 1e6
    again.trainer.clock.epochs_used = 10**6
    assert again.run() == done
    assert again.made == first.made


def test_probing_leaves_time_for_training() -> None:
    shop = FakeShop(budget="100s", probe_seconds=15.0, curve=9.0)
    done = shop.run()
    assert done.best is not None
    assert done.best.ratio >= 10
    patient = FakeShop(budget="10000s", probe_seconds=15.0, curve=9.0)
    patient.run()
    assert shop.probed < patient.probed


def test_scores_that_are_not_finite_are_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    shop = FakeShop(int8_limit=0.2)
    plain = shop.attempt

    def diverged(*arguments: Any) -> Attempt:
        attempt = plain(*arguments)
        drop = attempt.drop.model_copy(update={"estimate": math.inf})
        return attempt if attempt.accepted else attempt.model_copy(update={"drop": drop})

    monkeypatch.setattr(shop, "attempt", diverged)
    assert shop.run().why.endswith("x gave scores on select that are not finite numbers")


def test_int8_that_is_slower_is_left_out() -> None:
    shop = FakeShop(objective="latency", target="2x", int8_ratio=0.8)
    executed = shop.run(needed=2.0)
    assert executed.best is not None
    assert executed.best.ratio >= 2.0
    assert not any(isinstance(action, StaticInt8) for actions in shop.made for action in actions)
    assert shop.said[0] == "int8 alone is slower than float32 in this runtime: 0.80x; it is left out"
    assert executed.steps[0].verdict == "reverted"


def integers(made: Sequence[Action]) -> bool:
    return any(isinstance(action, StaticInt8) for action in made)


@pytest.mark.parametrize("target", [3.0, 10.0])
def test_int8_is_left_out_where_floats_reach_the_target_with_less_pruning(target: float) -> None:
    shop = FakeShop(objective="latency", target=f"{target}x", rounding=0.3)  # with int8 3.15x at a strength of 0.89
    done = shop.run(needed=target)
    assert done.best is not None
    assert done.best.ratio >= 1.05 * target
    assert [integers(made) for made in shop.made] == [False]
    assert shop.strengths()[0] == pytest.approx(math.log(1.05 * target) / math.log(20), abs=RESOLUTION)
    reason = (
        "the strongest setting gives 3.20x with int8 and 20.00x in floating point; int8 is left out where it is slower"
    )
    assert shop.said[0] == reason
    skipped, found, kept = done.steps
    assert (skipped.action, skipped.verdict, skipped.reason) == ("static-int8", "skipped", reason)
    assert (found.action, found.verdict, kept.verdict) == ("search", "kept", "kept")


def test_int8_stays_where_it_reaches_the_target_with_less_pruning() -> None:
    shop = FakeShop(objective="latency", target="2x", rounding=0.3)
    shop.run(needed=2.0)
    assert [integers(made) for made in shop.made] == [True]
    least = FakeShop(objective="latency", target="1.5x", rounding=0.3)
    least.run(needed=1.5)
    assert least.made == [(StaticInt8(),)]
    assert least.probed < shop.probed


def test_only_time_makes_a_case_against_int8() -> None:
    shop = FakeShop(target="3x", rounding=0.3)
    shop.run(needed=3.0)
    assert integers(shop.made[0])


def test_the_most_is_sought_by_whichever_is_faster() -> None:
    shop = FakeShop(objective="latency", target="max", rounding=0.3, limit=0.6, int8_limit=0.6)
    done = shop.run()
    assert done.best is not None
    assert shop.made[0] == (StaticInt8(),)
    for made, strength in zip(shop.made, shop.strengths(), strict=True):
        assert integers(made) is (strength < math.log(2.5) / math.log(20))  # from there on floats are faster
    assert done.best.ratio == 20 ** max(s for s in shop.strengths() if s <= 0.6)


def test_where_floats_break_the_floor_the_target_gives_and_int8_comes_back() -> None:
    shop = FakeShop(objective="latency", target="3x", rounding=0.3, limit=0.2, int8_limit=0.2)
    done = shop.run(needed=3.0)
    assert done.best is not None
    assert 1.8 < done.best.ratio < 3
    assert not integers(shop.made[0])
    kept = shop.made[[step.verdict for step in done.steps[2:]].index("kept")]
    assert integers(kept)


def test_where_neither_reaches_the_target_the_faster_one_tells_how_far_it_goes() -> None:
    shop = FakeShop(objective="latency", target="30x", rounding=0.3, int8_limit=-1, limit=0.5)
    done = shop.run(needed=30.0)
    assert done.why == "the strongest setting of this plan gives a file of 20.00x"
    assert done.best is not None
    assert not any(integers(made) for made in shop.made[1:])
    assert done.best.ratio == 20 ** max(s for s in shop.strengths() if s <= 0.5)


def test_a_resumed_run_with_both_ways_goes_the_same_way() -> None:
    settings: dict[str, Any] = {"objective": "latency", "target": "max", "rounding": 0.3, "limit": 0.6}
    first = FakeShop(**settings, budget="100s")
    done = first.run()
    again = FakeShop(**settings, budget="100s", journal=first.journal)
    again.journal.now = 1e6
    assert again.run() == done
    assert again.made == first.made


def test_a_family_that_cannot_carry_the_target_is_widened_to_all_layers() -> None:
    shop = FakeShop(target="10x", family_ratio=2.0)
    plan = Plan(steps=(StructuredPruning(strategy="linear"), Distillation(), StaticInt8()), decisions=())
    executed = shop.run(plan)
    assert executed.best is not None
    assert executed.best.ratio >= 10
    assert [a.strategy for a in shop.made[0] if isinstance(a, StructuredPruning)] == ["global"]


def test_a_hopeless_attempt_is_not_trained_again() -> None:
    shop = FakeShop(int8_limit=0.2, allowed=0.5)
    shop.run()
    pruned = [actions[0] for actions in shop.made if isinstance(actions[0], StructuredPruning)]
    assert len(pruned) == len(set(pruned)) > 1


def kept(done: Executed) -> list[str]:
    return [step.reason for step in done.steps if step.verdict == "kept" and step.action != "search"]


def test_what_the_quick_chain_meets_is_not_trained() -> None:
    shop = FakeShop()
    done = shop.run(CODES)
    assert done.best is not None
    assert 10 <= done.best.ratio <= 10 * 1.02 * 40**RESOLUTION
    assert set(shop.kinds()) == {"entropy-quantization"}
    assert (done.tried, done.why, kept(done)) == (1, "", ["1"])
    assert [step.verdict for step in done.steps] == ["kept", "kept"]


def test_where_the_quick_chain_falls_short_the_main_one_goes_on() -> None:
    shop = FakeShop(quick_limit=0.3)
    done = shop.run(CODES)
    assert done.best is not None
    assert done.best.ratio >= 10
    assert done.why == ""
    quick = shop.kinds().index("lc")
    assert set(shop.kinds()[:quick]) == {"entropy-quantization"}
    assert set(shop.kinds()[quick:]) == {"lc"}
    assert done.tried == len(shop.made) == int(done.best.tag.split()[1])
    assert kept(done) == [str(done.tried)]
    told = [step.reason for step in done.steps if step.action != "search"]
    assert told == [str(number) for number in range(1, done.tried + 1)]
    assert [step.verdict for step in done.steps if step.action == "search"] == ["surpassed", "kept"]


@pytest.mark.parametrize(("quick_limit", "asked"), [(1.0, 0), (0.3, 1)])
def test_how_the_plan_goes_on_is_asked_once_the_quick_chain_has_missed(quick_limit: float, asked: int) -> None:
    shop = FakeShop(quick_limit=quick_limit)
    made_before: list[int] = []
    pruned = LearningCompression(scheme="prune")

    def later() -> Plan:
        made_before.append(len(shop.made))
        return CODES.model_copy(update={"steps": (pruned,)})

    done = execute(CODES, cast("Workshop", shop), 10.0, later=later)
    assert done.best is not None
    assert done.best.ratio >= 10
    assert len(made_before) == asked
    trained = [actions[0] for actions in shop.made if actions[0].kind == "lc"]
    assert bool(trained) == bool(asked)
    assert {getattr(action, "scheme", "") for action in trained} <= {"prune"}
    assert all(count == shop.kinds().index("lc") for count in made_before)


@pytest.mark.parametrize("quick_limit", [0.3, -1.0])
def test_what_the_quick_chain_came_to_is_kept_where_the_rest_is_refused(quick_limit: float) -> None:
    shop = FakeShop(quick_limit=quick_limit)

    def later() -> Plan:
        raise CannotCompress("no layer has a code")

    if quick_limit < 0:
        with pytest.raises(CannotCompress, match="no layer has a code"):
            execute(CODES, cast("Workshop", shop), 10.0, later=later)
        return
    done = execute(CODES, cast("Workshop", shop), 10.0, later=later)
    assert done.best is not None
    assert 1 < done.best.ratio < 10
    assert done.why == "the rest of the plan can't be done: no layer has a code"


def test_the_quick_chain_leaves_time_for_training() -> None:
    slow, quick = (FakeShop(budget="100s", quick_limit=0.1, quick_seconds=seconds) for seconds in (15.0, 0.0))
    assert slow.run(CODES).best is not None
    assert quick.run(CODES).best is not None
    count = slow.kinds().count("entropy-quantization")
    assert count == 3  # 40 of 100 seconds
    assert quick.kinds().count("entropy-quantization") > count
    assert "lc" in slow.kinds()
    alone = FakeShop(budget="100s", quick_limit=0.1, quick_seconds=15.0)
    alone.run(CODES.model_copy(update={"steps": ()}))
    assert len(alone.made) > count


def test_the_better_of_both_chains_is_kept() -> None:
    shop = FakeShop(quick_limit=0.5, limit=0.2)
    done = shop.run(CODES)
    assert done.best is not None
    best = int(done.best.tag.split()[1])
    assert shop.made[best - 1][0].kind == "entropy-quantization"
    assert done.best.ratio == max(40**strength for strength in shop.strengths() if strength <= 0.5)
    assert kept(done) == [str(best)]
    assert "lc" in shop.kinds()
    assert done.tried == len(shop.made)
    assert float(done.why.split("x")[0]) > done.best.ratio  # what stood in the way lies beyond what is delivered
    assert done.why.endswith("x lost 3.25 points on select")


def test_the_main_chain_wins_where_both_fall_short_and_it_goes_further() -> None:
    shop = FakeShop(quick_limit=0.2, limit=0.5)
    done = shop.run(CODES)
    assert done.best is not None
    best = int(done.best.tag.split()[1])
    assert shop.made[best - 1][0].kind == "lc"
    assert kept(done) == [str(best)]
    assert 40**0.2 < done.best.ratio < 10


def test_where_neither_chain_keeps_the_floor_the_original_stays() -> None:
    shop = FakeShop(quick_limit=-1, limit=-1)
    done = shop.run(CODES)
    assert done.best is None
    assert kept(done) == []
    assert {"entropy-quantization", "lc"} == set(shop.kinds())
    assert done.why.endswith("x lost 3.25 points on select")


def test_the_most_is_sought_by_both_chains() -> None:
    shop = FakeShop(target="max", quick_limit=0.3, limit=0.6)
    done = shop.run(CODES)
    assert done.best is not None
    assert done.best.ratio == max(40**s for s, (a, *_) in zip(shop.strengths(), shop.made, strict=True)
                                  if s <= (0.6 if a.kind == "lc" else 0.3))  # fmt: skip
    assert {"entropy-quantization", "lc"} == set(shop.kinds())


def test_a_quick_chain_alone_is_all_there_is() -> None:
    done = FakeShop(quick_limit=0.3).run(CODES.model_copy(update={"steps": ()}))
    assert done.best is not None
    assert 1 < done.best.ratio < 10
    assert done.why.endswith("x lost 3.25 points on select")


@pytest.mark.parametrize("budget", ["100ep", "100s", "none"])
def test_a_resumed_run_of_two_chains_goes_the_same_way(budget: str) -> None:
    settings: dict[str, Any] = {"budget": budget, "quick_limit": 0.3, "limit": 0.5}
    first = FakeShop(**settings, probe_seconds=0.5)
    done = first.run(CODES)
    again = FakeShop(**settings, journal=first.journal)
    again.journal.now = 1e6
    again.trainer.clock.epochs_used = 10**6
    assert again.run(CODES) == done
    assert again.made == first.made


def test_what_the_quick_chain_s_probing_used_is_gone() -> None:
    shop = FakeShop(budget="100s", quick_limit=0.1, probe_seconds=6.0, curve=9.0)
    shop.run(CODES)
    asked = [(key, answer) for key, answer in shop.journal.entries.items() if "may it begin" in key]
    quick = [answer for key, answer in asked if key.startswith("after attempt 0: ")]
    main = [answer for key, answer in asked if not key.startswith("after attempt 0: ")]
    assert quick[0] is True
    assert main == [False]


def test_a_slow_quick_chain_leaves_the_next_one_time_to_look_for_its_strength() -> None:
    shop = FakeShop(budget="100s", quick_limit=0.1, quick_seconds=15.0, probe_seconds=1.0, curve=9.0)
    shop.run(CODES)
    asked = [(key, answer) for key, answer in shop.journal.entries.items() if "may it begin" in key]
    main = [answer for key, answer in asked if not key.startswith("after attempt 0: ")]
    assert main[:3] == [True] * 3
    least = next(strength for strength, kind in zip(shop.strengths(), shop.kinds(), strict=True) if kind == "lc")
    assert 10 <= 40 ** (least**9.0) <= 10.5


MISSING = Plan(steps=FULL.steps, decisions=(), last=(EntropyQuantization(),))


def test_where_the_steps_miss_the_target_the_last_chain_follows() -> None:
    shop = FakeShop(limit=0.2, int8_limit=0.2)
    done = shop.run(MISSING)
    assert done.best is not None
    assert done.best.ratio >= 10
    assert shop.kinds()[-1] == "entropy-quantization"
    assert (kept(done), done.why) == ([str(done.tried)], "")
    assert done.tried == len(shop.made)
    assert any("trying what needs no training" in line for line in shop.said)


def test_where_they_reach_it_nothing_follows() -> None:
    shop = FakeShop()
    assert shop.run(MISSING) == FakeShop().run(FULL)
    assert "entropy-quantization" not in shop.kinds()


def test_of_two_chains_that_miss_the_better_result_is_kept() -> None:
    shop = FakeShop(limit=0.2, int8_limit=0.2, quick_limit=0.1)
    done = shop.run(MISSING)
    assert done.best is not None
    assert done.best.ratio == pytest.approx(4 * 20**0.2, rel=0.1)  # pruning and integers
    assert shop.kinds()[-1] == "entropy-quantization"
    assert shop.made[int(done.best.tag.split()[1]) - 1][-1].kind == "static-int8"


@pytest.mark.parametrize("budget", ["1ep", "100s"])
def test_training_leaves_the_last_chain_what_it_takes(budget: str) -> None:
    """It has more than one attempt, though all epochs are used, or all of the time but its share."""
    shop = FakeShop(budget=budget, limit=-1, int8_limit=-1, quick_limit=0.1)
    plain, clock = shop.attempt, shop.trainer.clock

    def spending(
        number: int, actions: Sequence[Action], share: float, step_seconds: float, before: Attempt | None = None
    ) -> Attempt:
        attempt = plain(number, actions, share, step_seconds, before)
        if not isinstance(actions[-1], EntropyQuantization):
            clock.epochs_used = 1
            shop.journal.now += clock.left()
        return attempt

    shop.attempt = spending  # type: ignore[method-assign]
    shop.run(MISSING)
    assert shop.kinds().count("entropy-quantization") > 1
    assert clock.reserve == 0


def test_a_resumed_run_with_a_last_chain_goes_the_same_way() -> None:
    first = FakeShop(limit=0.2, int8_limit=0.2, quick_limit=0.1, budget="100s")
    done = first.run(MISSING)
    again = FakeShop(limit=0.2, int8_limit=0.2, quick_limit=0.1, budget="100s", journal=first.journal)
    again.journal.now = 1e6
    assert again.run(MISSING) == done


def test_what_just_missed_the_floor_is_trained_on() -> None:
    shop = FakeShop(int8_limit=0.2, further_limit=1.0, drop=2.0)
    done = shop.run()
    assert shop.onward == ["attempt 1"]
    assert done.best is not None
    assert done.best.tag == "attempt 2"
    assert done.reaches(10.0)
    assert [step.reason for step in done.steps[1:]] == ["2"]  # the first one's rows are among the second one's
    assert shop.strengths()[0] == shop.strengths()[1]


def test_what_just_missed_it_below_the_target_is_trained_on_too() -> None:
    shop = FakeShop(objective="compute", limit=0.1, further_limit=0.7, drop=2.0)
    done = shop.run(Plan(steps=(StructuredPruning(), Distillation()), decisions=()), math.inf)
    assert shop.onward[0] == "attempt 1"
    assert done.best is not None
    assert f"attempt {int(done.best.tag[-1]) - 1}" in shop.onward
    assert 20**0.45 < done.best.ratio <= 20**0.7


def test_where_further_training_does_not_help_the_target_gives() -> None:
    shop = FakeShop(int8_limit=0.2, further_limit=0.0, drop=2.0)
    done = shop.run()
    assert shop.onward[0] == "attempt 1"
    assert done.best is not None
    assert 4 < done.best.ratio < 10


@pytest.mark.parametrize("further", [{"drop": 3.25}, {"drop": 2.0, "budget": "none"}])
def test_what_is_far_off_or_was_not_trained_does_not_go_on(further: dict[str, Any]) -> None:
    shop = FakeShop(int8_limit=0.2, further_limit=1.0, **further)
    shop.run()
    assert shop.onward == []


OTHERWISE = Plan(steps=(StructuredPruning(), Distillation()), lesser=(LowRankLayers(), Distillation()), decisions=())


def test_below_a_missed_target_the_other_change_of_the_structure_goes_on() -> None:
    shop = FakeShop(objective="compute", limit=0.1, ranks_limit=0.5)
    done = shop.run(OTHERWISE, 10.0)
    kinds = [actions[0].kind for actions in shop.made]
    assert kinds[:2] == ["structured-pruning"] * 2  # the second one insists
    assert set(kinds[2:]) == {"low-rank-layers"}
    assert done.best is not None
    assert done.best.ratio == pytest.approx(7**0.5, rel=0.15)
    assert done.why.endswith("lost 3.25 points on select")
    assert [step.action for step in done.steps] == ["search", *["x"] * len(shop.made)]
    # where the drop of 3.25 of 1.50 points says: at 10 ** sqrt(0.9 / 2.17)
    assert 7 ** shop.strengths()[2] == pytest.approx(10 ** math.sqrt(0.9 * 1.5 / 3.25), rel=0.05)


def test_where_the_target_is_met_nothing_goes_on_below_it() -> None:
    shop = FakeShop(objective="compute", limit=1.0)
    assert shop.run(OTHERWISE, 10.0).reaches(10.0)
    assert len(shop.made) == 1


def test_where_the_target_is_out_of_reach_the_other_change_goes_on_at_once() -> None:
    shop = FakeShop(objective="compute", ranks_limit=0.5)
    done = shop.run(OTHERWISE, 100.0)
    assert {actions[0].kind for actions in shop.made} == {"low-rank-layers"}
    assert done.best is not None
    assert done.why.startswith("the strongest setting of this plan gives a file of 20.00x")


def test_a_resumed_run_goes_on_below_in_the_same_way() -> None:
    first = FakeShop(objective="compute", limit=0.1, ranks_limit=0.5, budget="100s")
    done = first.run(OTHERWISE, 10.0)
    again = FakeShop(objective="compute", limit=0.1, ranks_limit=0.5, budget="100s", journal=first.journal)
    again.journal.now = 1e6
    assert again.run(OTHERWISE, 10.0) == done


def test_further_training_leaves_enough_for_a_gentler_attempt() -> None:
    shop = FakeShop(int8_limit=0.2, further_limit=1.0, drop=2.0, budget="1ep")
    shop.run()
    assert shop.onward == []


def test_where_no_structure_needs_to_change_none_goes_on_below() -> None:
    plan = Plan(steps=(StructuredPruning(), StaticInt8()), lesser=(LowRankLayers(), StaticInt8()), decisions=())
    shop = FakeShop(objective="energy", int8_limit=-1.0, ranks_limit=-1.0, limit=0.3)
    shop.run(plan, 3.0)
    assert shop.kinds().count("low-rank-layers") == 0
    assert [actions for actions in shop.made if actions == (StaticInt8(),)] == [(StaticInt8(),)]


@pytest.mark.parametrize(("needed", "tuned"), [(10.0, "structured-pruning"), (100.0, "low-rank-layers")])
def test_what_is_tuned_is_what_is_carried_out(needed: float, tuned: str) -> None:
    asked: list[Dial] = []

    def tuner(dial: Dial, least: float | None) -> tuple[Dial, float | None, None]:
        asked.append(dial)
        return dial.turned({"distillation.temperature": 7.0}), least, None

    shop = FakeShop(objective="compute", limit=0.1, ranks_limit=0.5)
    execute(OTHERWISE, cast("Workshop", shop), needed, tuner)
    assert [dial.actions[0].kind for dial in asked] == [tuned]
    assert shop.made[-1][0].kind == "low-rank-layers"
    assert {actions[1].temperature for actions in shop.made} == {7.0}


@pytest.mark.parametrize(("needed", "first"), [(6.0, "low-rank-layers"), (60.0, "structured-pruning")])
@pytest.mark.parametrize(("family_ratio", "strategy"), [(3.0, "global"), (20.0, "convolutional")])
def test_what_goes_on_below_is_widened_where_its_family_saves_too_little(
    needed: float, first: str, family_ratio: float, strategy: str
) -> None:
    family = StructuredPruning(strategy="convolutional")
    plan = Plan(steps=(LowRankLayers(), Distillation()), lesser=(family, Distillation()), decisions=())
    shop = FakeShop(objective="compute", ranks_limit=0.1, limit=0.5, family_ratio=family_ratio)
    shop.run(plan, needed)
    assert shop.kinds()[0] == first
    pruned = [actions[0] for actions in shop.made if isinstance(actions[0], StructuredPruning)]
    assert {action.strategy for action in pruned} == {strategy}
