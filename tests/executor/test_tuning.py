"""`--search`: which settings are tried, when a trial is ended, what is used, and that a kill changes nothing."""

from __future__ import annotations

import importlib.util
import json
import math
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from nets import BatchNormed, make
from tiny import tiny

import easycompress as ec
from easycompress.core.errors import BadInput, CannotCompress
from easycompress.core.goal import parse_search
from easycompress.core.knobs import Choice, Range, emphasis
from easycompress.core.outcome import Trial, Tuning
from easycompress.core.progress import Silent
from easycompress.distillation.settings import RATE, Distillation
from easycompress.executor.dial import Dial
from easycompress.executor.study import DRAWN, Asked
from easycompress.executor.told import tuning_words
from easycompress.executor.trials import Course, as_good
from easycompress.executor.tuning import _judged
from easycompress.lc.schemes import tasks_for
from easycompress.lc.settings import FIRST_MU, LAST_MU, LearningCompression
from easycompress.lc.technique import recipe_for
from easycompress.measure import latency
from easycompress.measure.runtime import Runtime
from easycompress.pruning.settings import StructuredPruning
from easycompress.techniques import TECHNIQUES, parse_action

if TYPE_CHECKING:
    from pathlib import Path

    from easycompress.core.knobs import Knob

KNOBS: dict[str, Knob] = {"x": Range(0.1, 10.0, 1.0, log=True), "y": Choice(("a", "b"), "b")}

RECIPE = "steps: [{kind: structured-pruning, strength: 0.5, steps: 1}, {kind: distillation, technique: soft}]\n"
TRIALS = 3


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [("20", "trials", 20), ("10min", "time", 600), ("90s", "time", 90), (" 1h ", "time", 3600)],
)
def test_a_search_is_counted_in_trials_or_in_time(text: str, kind: str, value: float) -> None:
    found = parse_search(text)
    assert (found.kind, found.value, found.text) == (kind, value, text.strip())


@pytest.mark.parametrize("text", ["0", "-3", "banana", "2.5", "0min", "10ep", "", "1e999"])
def test_what_is_no_search_is_refused_with_what_to_write(text: str) -> None:
    with pytest.raises(BadInput, match=r"^--search .*: (not a search|too large)"):
        parse_search(text)
    with pytest.raises(BadInput, match="at most 1000, or their time"):
        parse_search("1001")


def test_a_search_without_training_or_without_optuna_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    goal = {"target": "3x", "max_drop": "2%", "search": "3", **tiny().splits}
    with pytest.raises(BadInput, match="--search 3 with --budget none: trials train; give a budget"):
        ec.compress(tiny().model(), budget="none", **goal)
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "optuna" else found(name))
    with pytest.raises(BadInput, match=r'^--search needs Optuna: pip install "easycompress\[search\]"$'):
        ec.compress(tiny().model(), **goal)


def asked(done: list[Trial], *, higher: bool = True) -> Asked:
    return Asked(KNOBS, done, 3, 6, higher_is_better=higher)


def trial(x: float, quality: float | None, state: Any = "finished", curve: tuple[float, ...] = ()) -> Trial:
    gain = None if quality is None else quality - 50.0
    return Trial(values={"x": x, "y": "a"}, state=state, quality=quality, gain=gain, error=0.5, curve=curve)


def test_the_first_trial_has_the_usual_settings_and_the_same_knowledge_gets_the_same_answer() -> None:
    assert asked([]).values == {"x": 1.0, "y": "b"}
    assert Asked({"x": Range(0.1, 10.0, 99.0)}, [], 0, 6, higher_is_better=True).values == {"x": 10.0}
    done = [trial(1.0, 50.0), trial(3.0, None, "failed"), trial(0.2, None, "ended", (10.0, 11.0))]
    first = asked(done).values
    assert asked(done).values == first != asked(done[:2]).values
    assert 0.1 <= float(first["x"]) <= 10
    assert first["y"] in ("a", "b")


def test_settings_are_drawn_where_it_went_well() -> None:
    def best(*, higher: bool) -> float:
        done = [trial(10 ** (i / 8 - 1), 50.0 + i) for i in range(2 * DRAWN + 8)]
        values = []
        for _ in range(12):
            values.append(math.log10(float(asked(done, higher=higher).values["x"])))
            done.append(trial(10 ** values[-1], 50.0 + 8 * (values[-1] + 1)))
        return sum(values) / len(values)

    assert best(higher=True) > 0.3
    assert best(higher=False) < -0.3


def test_a_trial_is_ended_for_being_worse_than_the_median_and_not_before_there_is_one() -> None:
    done = [trial(float(i), 50.0 + i, curve=(50.0 + i,) * 6) for i in range(1, 5)]
    assert [asked(done[:2]).hopeless(step, 0.0) for step in range(1, 7)] == [False] * 6
    bad, good = asked(done), asked(done)
    assert [bad.hopeless(step, 10.0) for step in range(1, 7)] == [False] + [True] * 5, "a third first"
    assert [good.hopeless(step, 60.0) for step in range(1, 7)] == [False] * 6
    lower = asked(done, higher=False)
    assert [lower.hopeless(step, 60.0) for step in range(1, 7)][-1]


def test_the_best_trial_is_used_only_where_it_gained_more_than_chance() -> None:
    course = Course(trials=3, epochs=4, samples=0, seconds=0.0, until=None)
    usual = trial(1.0, 50.0)
    better, barely = trial(2.0, 51.0), trial(3.0, 50.4)
    found = _judged("3", course, [usual, barely, better, trial(4.0, None, "ended")], 9.0)
    assert (found.best, found.used) == (2, True)
    assert "the best gained 1 +- 0.5 points over the plan's own settings: x 2" in tuning_words(found, percent=True)
    assert "4 trials of 4 epochs, judged on select, 1 ended early" in tuning_words(found, percent=True)
    found = _judged("3", course, [usual, barely], 9.0)
    assert (found.best, found.used) == (1, False)
    assert "no more than chance" in tuning_words(found, percent=False)
    assert "none did better" in tuning_words(_judged("1", course, [usual], 9.0), percent=True)
    assert "none came to an end" in tuning_words(_judged("1", course, [trial(1.0, None, "failed")], 9.0), percent=True)


def test_settings_are_turned_by_kind_and_name() -> None:
    dial = Dial((StructuredPruning(), Distillation(technique="hard")))
    assert {"structured-pruning.tilt", "distillation.rate"} <= dial.knobs().keys()
    assert "distillation.temperature" not in dial.knobs()
    turned = dial.turned({"distillation.rate": 0.2, "structured-pruning.tilt": 1.0})
    assert turned.actions == (StructuredPruning(tilt=1.0), Distillation(technique="hard", rate=0.2))
    assert turned.without_training(0.5)[0].model_dump()["tilt"] == 1.0
    assert dial.actions == (StructuredPruning(), Distillation(technique="hard"))


@pytest.mark.parametrize("settings", [t.settings for t in TECHNIQUES], ids=lambda s: s.__name__)
def test_every_knob_is_a_setting_that_takes_what_is_drawn(settings: Any) -> None:
    action = settings()
    for name, knob in action.knobs().items():
        values = (knob.low, knob.high, knob.usual) if isinstance(knob, Range) else (*knob.values, knob.usual)
        for value in values:
            told = settings.model_validate({name: value})
            assert parse_action(json.loads(told.model_dump_json())) == told
    unturned = {name for name in action.knobs() if getattr(action, name) is None}
    assert not unturned & action.model_dump().keys()


def test_turned_settings_reach_training_and_codes() -> None:
    usual, turned = LearningCompression(), LearningCompression(rate=0.2, mu=1e-3, tuning_rate=0.03)
    plain, other = recipe_for(30, 50_000, 0, usual), recipe_for(30, 50_000, 0, turned)
    assert plain == recipe_for(30, 50_000, 0)
    assert (plain.lr, plain.lr_last, plain.penalty(0)) == (0.05, 0.005, FIRST_MU)
    assert (other.lr, other.tune_lr, other.penalty(0)) == (0.2, 0.03, 1e-3)
    assert other.lr_last == pytest.approx(0.02)
    assert other.penalty(other.penalty.steps - 1) == pytest.approx(LAST_MU)
    assert turned.untrained() == usual
    assert LearningCompression(tilt=1.0).untrained() != usual
    (names, projection), *_ = tasks_for("entropy", make(BatchNormed), 1.0, slant=(1.0, None)).items()
    assert projection.weights == emphasis(len(names), 1.0, None)
    assert next(iter(tasks_for("entropy", make(BatchNormed), 1.0).values())).weights is None


def test_emphasis_tilts_and_bows() -> None:
    assert emphasis(3, None, None) == emphasis(3, 0.0, 0.0) == (1.0, 1.0, 1.0)
    assert emphasis(1, 1.0, 0.0) == (1.0,)
    assert emphasis(0, 1.0, 1.0) == ()
    assert emphasis(3, 1.0, 0.0) == pytest.approx((math.exp(-1), 1.0, math.e))
    assert emphasis(3, 0.0, 1.0) == pytest.approx((math.e, math.exp(-1), math.e))


def test_trials_compare_at_one_size() -> None:
    def probe(actions: Any) -> Any:
        (action,) = actions
        return SimpleNamespace(ratio=1 + (10 - 4 * (action.tilt or 0.0)) * action.strength)

    shop: Any = SimpleNamespace(probe=probe)
    usual = Dial((StructuredPruning(),))
    assert as_good(shop, usual, usual.turned({"structured-pruning.importance": "lamp"}), 0.5) == 0.5
    turned = usual.turned({"structured-pruning.tilt": 1.0})
    strength = as_good(shop, usual, turned, 0.3)
    assert 4 <= probe(turned.without_training(strength)).ratio <= 4 * 1.05
    with pytest.raises(CannotCompress, match=r"no strength of these settings reaches 10\.00x"):
        as_good(shop, usual, turned, 0.9)


class Stopping(Silent):
    """Ctrl-C at the first text that begins so."""

    def __init__(self, at: str) -> None:
        self.at = at

    def now(self, text: str) -> None:
        if text.startswith(self.at):
            raise KeyboardInterrupt


def run(folder: Path, name: str, **keywords: Any) -> ec.Result:
    (folder / "recipe.yaml").write_text(RECIPE)
    goal = {
        "target": "max",
        "max_drop": "9%",
        "budget": "12ep",
        "search": str(TRIALS),
        "recipe": folder / "recipe.yaml",
    }
    return ec.compress(
        tiny().model(), **tiny().splits, **{k: str(v) for k, v in goal.items()}, seed=2, out=folder / name, **keywords
    )


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ec.Result, list[int]]:
    """Return a folder, what a run with a search gave, and how many samples each judgement saw."""
    folder = tmp_path_factory.mktemp("search")
    looks: list[int] = []
    judged = Runtime.judged

    def noted(self: Runtime, split: Any, metric: Any) -> Any:
        looks.append(len(split))
        return judged(self, split, metric)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latency, "PATIENCE", 0.0)
        patch.setattr(latency, "ROUNDS", 1)
        patch.setattr(Runtime, "judged", noted)
        result = run(folder, "whole")
    return folder, result, looks


def trials_of(result: ec.Result) -> tuple[Tuning, list[dict[str, Any]]]:
    tuning = result.report.tuning
    assert tuning is not None
    return tuning, [each.model_dump(exclude={"seconds"}) for each in tuning.trials]


def test_a_run_tells_what_was_tried_and_judges_the_winner_once(found: tuple[Path, ec.Result, list[int]]) -> None:
    folder, result, looks = found
    tuning, trials = trials_of(result)
    assert (len(trials), tuning.asked, tuning.epochs) == (TRIALS, str(TRIALS), 2)
    assert tuning.spent == sum(each["epochs"] for each in trials) <= 6
    first = tuning.trials[0]
    assert (first.values["distillation.rate"], first.gain, first.state) == (RATE, 0.0, "finished")
    assert len({each.values["distillation.rate"] for each in tuning.trials}) == TRIALS
    for each in tuning.trials:
        if each.state == "finished":
            assert each.quality is not None
            assert first.quality is not None
            assert each.gain == pytest.approx(each.quality - first.quality, abs=1e-6)
            assert len(each.curve) == 2
    epochs = sum(step.epochs for step in result.report.steps)
    assert 0 < epochs <= 12 - tuning.spent
    assert looks.count(2000) == 2
    told = json.loads((folder / "whole" / "report.json").read_text())
    assert told["tuning"] == tuning.model_dump(mode="json")
    assert told["request"]["search"] == str(TRIALS)
    page = (folder / "whole" / "report.html").read_text()
    assert "<h2>Search</h2>" in page
    assert page.count("the plan's own: ") == 1


def test_what_is_used_is_in_the_attempts_and_in_the_recipe(found: tuple[Path, ec.Result, list[int]]) -> None:
    folder, result, _ = found
    tuning, _ = trials_of(result)
    values = tuning.trials[tuning.best or 0].values if tuning.used else {}
    rates = [step.settings.get("rate") for step in result.report.steps if step.action == "distillation"]
    assert rates
    assert set(rates) == {values.get("distillation.rate")}
    assert ("rate:" in (folder / "whole" / "recipe.yaml").read_text()) is tuning.used


def test_a_run_that_is_stopped_in_a_trial_goes_on_and_comes_to_the_same(
    found: tuple[Path, ec.Result, list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, whole, _ = found
    monkeypatch.setattr(latency, "PATIENCE", 0.0)
    monkeypatch.setattr(latency, "ROUNDS", 1)
    at = "search: trial 1: distillation (soft): epoch 2/"
    with pytest.raises(KeyboardInterrupt):
        run(folder, "stopped", progress=Stopping(at))
    entries = json.loads((folder / "stopped" / "journal" / "journal.json").read_text())["entries"]
    assert "trial 0: result" in entries
    assert "trial 1: result" not in entries
    result = run(folder, "stopped", resume=True)
    assert trials_of(result)[1] == trials_of(whole)[1]
    assert result.report.ratio == whole.report.ratio
    assert torch.equal(*(next(iter(each.model.parameters())) for each in (result, whole)))
