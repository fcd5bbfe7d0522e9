"""Ill models and ill data, one of each kind: what comes out agrees with what is written, or there is a refusal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

import easycompress as ec
from benchmarks import numerics
from benchmarks.numerics_nets import AFFLICTIONS, DATA_AFFLICTIONS, random_net, samples
from easycompress.measure import latency

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

REFUSED = {
    "one sample only": "refused: test: one sample can't be divided into select and report; give more, or a validation "
    "split",
    "a weight that is no number": "refused: model: first.weight holds 1 values that are NaN or infinite; repair the "
    "checkpoint",
}


@pytest.fixture(autouse=True, scope="module")
def _briefly() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latency, "PATIENCE", 0.0)
        patch.setattr(latency, "ROUNDS", 1)
        yield


@pytest.mark.parametrize(("number", "affliction"), [*enumerate([*AFFLICTIONS, *DATA_AFFLICTIONS])])
def test_what_comes_out_agrees_with_what_is_written(number: int, affliction: str, tmp_path: Path) -> None:
    done, outcome = numerics.one(number, tmp_path, affliction)
    assert outcome.partition(":")[0] in ("agrees", "refused"), f"{done}: {outcome}"
    assert REFUSED.get(affliction, outcome) == outcome


def test_a_target_of_one_is_the_identity(tmp_path: Path) -> None:
    torch.manual_seed(1)
    choice = numerics.random.Random(1)
    model = random_net(choice)
    pair = samples(model, choice)
    result = ec.compress(model, test=pair, target="1x", max_drop="0%", out=tmp_path / "out", threads=1, force=True)
    assert result.exit_code == 0
    assert result.report.drop.estimate == 0
    assert result.report.drop.worse == result.report.drop.better == 0
    assert numerics.changed(model, result.model) == ""


def test_differences_are_found() -> None:
    nets: list[Any] = [random_net(numerics.random.Random(3)) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    assert numerics.changed(*nets) == ""
    with torch.no_grad():
        nets[1].last.weight[0, 0] += 1
    assert numerics.changed(*nets) == "last.weight"
    assert numerics.changed(nets[0], nets[0].train()) == ""
