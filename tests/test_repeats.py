"""Several seeds in one run: how they share the budget, which result is delivered, what the report says of the rest."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from tiny import tiny

import easycompress as ec
from easycompress.core.errors import BadInput
from easycompress.core.goal import parse_budget
from easycompress.core.outcome import Drop
from easycompress.executor.repeat import chosen_of, joined, part_of, repeats_of
from easycompress.executor.run import Executed
from easycompress.executor.workshop import Attempt
from easycompress.measure import latency
from easycompress.measure.runtime import Runtime

if TYPE_CHECKING:
    from pathlib import Path

RECIPE = """\
steps:
- {kind: structured-pruning, strength: 0.5, steps: 1}
- {kind: distillation, technique: soft}
"""
SEEDS = [5, 6]


@pytest.fixture(autouse=True, scope="module")
def _briefly() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latency, "PATIENCE", 0.0)
        patch.setattr(latency, "ROUNDS", 1)
        yield


def compressed(out: Path, recipe: Path, **flags: Any) -> ec.Result:
    keywords = {"target": "max", "max_drop": "30%", "budget": "4ep", "recipe": str(recipe), "threads": 1} | flags
    return ec.compress(tiny().model(), **tiny().splits, out=out, **keywords)


@pytest.fixture(scope="module")
def twice(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[int]]:
    """Return the folder of a run with two seeds, and the sizes of the splits that *deliver* judged on."""
    folder = tmp_path_factory.mktemp("repeats")
    (folder / "recipe.yaml").write_text(RECIPE)
    looks: list[int] = []
    judged = Runtime.judged

    def noted(self: Runtime, split: Any, metric: Any) -> Any:
        looks.append(id(split))
        return judged(self, split, metric)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Runtime, "judged", noted)
        compressed(folder / "out", folder / "recipe.yaml", seed=SEEDS[0], repeats=2)
    return folder, looks


def report(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "report.json").read_text())
    return found


def test_every_seed_has_a_row_and_a_part_of_the_budget(twice: tuple[Path, list[int]]) -> None:
    told = report(twice[0] / "out")
    assert [row["seed"] for row in told["repeats"]["rows"]] == SEEDS
    epochs = {
        seed: sum(s["epochs"] for s in told["steps"] if s["reason"].startswith(f"seed {seed}: ")) for seed in SEEDS
    }
    assert all(0 < count <= 2 for count in epochs.values())
    ratios = [row["ratio"] for row in told["repeats"]["rows"]]
    assert told["repeats"]["ratio"]["least"] == min(ratios)
    assert told["repeats"]["ratio"]["most"] == max(ratios)
    assert told["request"]["seed"] == SEEDS[0]
    assert told["request"]["repeats"] == 2


def test_the_least_drop_on_select_is_delivered(twice: tuple[Path, list[int]]) -> None:
    told = report(twice[0] / "out")
    rows = {row["seed"]: row for row in told["repeats"]["rows"]}
    kept = [step for step in told["steps"] if step["verdict"] == "kept"]
    best = max(rows.values(), key=lambda row: (row["ratio"], -row["drop"]))
    assert told["repeats"]["delivered"] == best["seed"]
    assert {step["reason"].partition(":")[0] for step in kept} == {f"seed {best['seed']}"}
    assert kept[-1]["after"]["quality"] == best["quality"]


def test_report_is_looked_at_once_for_each_model(twice: tuple[Path, list[int]]) -> None:
    last = twice[1][-2:]
    assert last[0] == last[1]  # the original and the delivered one
    assert last[0] not in twice[1][:-2]


def test_the_recipe_repeats_the_delivered_seed(twice: tuple[Path, list[int]]) -> None:
    folder, _ = twice
    out = folder / "out"
    again = compressed(folder / "again", out / "recipe.yaml")
    assert again.report.request["seed"] == report(out)["repeats"]["delivered"]
    assert again.report.repeats is None
    assert "repeats" not in report(folder / "again")
    assert (folder / "again" / "model.onnx").read_bytes() == (out / "model.onnx").read_bytes()


def test_the_page_lists_the_seeds(twice: tuple[Path, list[int]]) -> None:
    page = (twice[0] / "out" / "report.html").read_text()
    assert "<h2>Seeds</h2>" in page
    assert "standard deviation" in page


def test_a_recipe_with_an_odd_seed_is_refused(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"seed: many\n{RECIPE}")
    with pytest.raises(BadInput, match=r"seed 'many' is no number from 0 to 2\*\*32 - 1; give --seed$"):
        compressed(tmp_path / "out", recipe)


def test_the_original_where_nothing_is_accepted(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("steps: [{kind: structured-pruning, strength: 0.97, steps: 1}]")
    done = compressed(tmp_path / "out", recipe, repeats=2, budget="none", max_drop="0.1%")
    assert done.report.repeats is not None
    assert [row.ratio for row in done.report.repeats.rows] == [None, None]
    assert done.report.repeats.ratio is None
    assert done.exit_code == 1


def test_budgets_are_shared_and_what_is_left_goes_on() -> None:
    time, epochs, none = (parse_budget(text) for text in ("60s", "10ep", "none"))
    assert part_of(time, 0, 3, 0.0).value == 20
    assert part_of(time, 1, 3, 5.0).value == 35
    assert part_of(time, 2, 3, 100.0).value == 0
    assert [part_of(epochs, index, 3, spent).value for index, spent in ((0, 0), (1, 3), (2, 3))] == [3, 3, 7]
    assert part_of(none, 1, 2, 0) == none


def attempt(ratio: float, drop: float) -> Executed:
    lost = Drop(estimate=drop, upper_95=None, n=100, worse=0, better=0, certified=False)
    best = Attempt(
        tag="attempt 1", actions=(), value=1.0, ratio=ratio, quality=90 - drop, drop=lost, accepted=True, reason="",
        epochs=0, seconds=0.0, finishing=0.0, records=(), codes={}, stages=(),
    )  # fmt: skip
    return Executed(best=best, steps=(), why="", tried=1)


NOTHING = Executed(best=None, steps=(), why="it lost too much", tried=2)


@pytest.mark.parametrize(
    ("executed", "needed", "chosen"),
    [
        ([attempt(10.1, 0.5), attempt(12.0, 0.2), attempt(10.0, 0.3)], 10.0, 1),
        ([attempt(9.9, -0.5), attempt(10.0, 0.9)], 10.0, 1),
        ([attempt(3.0, 0.1), NOTHING, attempt(4.0, 0.9)], float("inf"), 2),
        ([NOTHING, NOTHING], 10.0, 0),
        ([attempt(10.0, 0.5), attempt(10.0, 0.5)], 10.0, 0),
    ],
)
def test_which_is_chosen(executed: list[Executed], needed: float, chosen: int) -> None:
    assert chosen_of(executed, needed) == chosen


def test_the_spread_leaves_out_what_gave_nothing() -> None:
    told = repeats_of([0, 1, 2], [attempt(10.0, 0.2), NOTHING, attempt(12.0, 0.4)], 0, 11.0)
    assert [row.target_met for row in told.rows] == [False, False, True]
    assert told.ratio is not None
    assert (told.ratio.mean, told.ratio.deviation) == (11.0, pytest.approx(2**0.5))
    assert joined([0, 1], [attempt(10.0, 0.2), NOTHING], 0).tried == 3
